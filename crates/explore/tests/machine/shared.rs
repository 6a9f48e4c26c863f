//! What explorations must not share: whatever is simulated belongs to one execution at a time, and
//! is new in each.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use doorbell_explore::sim::{Model, SimAtomicPtr, SimCompletion, SimSrcu, SimWaitQueue};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_platform::{
    Atomic, AtomicInt, AtomicPtr, Completion, Lock, Mutex, ReadDomain, WaitQueue,
};

use crate::*;

/// One of each, as a static would be.
struct Everything {
    spin: Lock<Sim, ()>,
    mutex: Mutex<Sim, ()>,
    word: Word,
    pointer: SimAtomicPtr<u8>,
    model: Model<u32>,
    completion: SimCompletion,
    queue: SimWaitQueue,
    domain: SimSrcu,
}

impl Everything {
    fn new() -> Arc<Self> {
        Arc::new(Everything {
            spin: Lock::new(&SPIN, ()),
            mutex: Mutex::new(&MUTEX, ()),
            word: Word::new(0),
            pointer: SimAtomicPtr::new(std::ptr::null_mut()),
            model: Model::new("model", 0),
            completion: SimCompletion::new("completion"),
            queue: SimWaitQueue::new("queue"),
            domain: SimSrcu::new("domain"),
        })
    }
}

type Use = (&'static str, fn(&Everything));

/// Each uses one of them.
const USES: [Use; 8] = [
    ("spin", |all| drop(all.spin.lock())),
    ("mutex", |all| drop(all.mutex.try_lock())),
    ("word", |all| assert_eq!(all.word.load(SeqCst), 0)),
    ("pointer", |all| assert!(all.pointer.load(SeqCst).is_null())),
    ("model", |all| all.model.observe(|_| ())),
    ("completion", |all| assert!(!all.completion.is_done())),
    ("queue", |all| all.queue.wake_all()),
    ("domain", |all| all.domain.synchronize()),
];

fn text(panic: Box<dyn Any + Send>) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

/// The text with which the caller of an exploration is told that it cannot be.
fn refusal(explore: Explore, program: impl Fn(&Machine) + Send + Sync) -> String {
    match catch_unwind(AssertUnwindSafe(|| explore.run(program))) {
        Err(panic) => text(panic),
        Ok(report) => panic!("it was explored: {:?}", report.verdict),
    }
}

#[test]
fn what_a_running_execution_uses_is_refused_to_another_by_name_and_the_first_goes_on() {
    for in_the_set_up in [false, true] {
        let report = explore(move |m| {
            let all = Everything::new();
            let ours = Arc::clone(&all);
            let word = word(0);
            let other = Arc::clone(&word);
            m.task("uses all", move || {
                USES.iter().for_each(|(_, uses)| uses(&ours));
                for (name, uses) in USES {
                    let theirs = Arc::clone(&ours);
                    let explores = move || {
                        refusal(Explore::new("other"), move |m: &Machine| {
                            let theirs = Arc::clone(&theirs);
                            if in_the_set_up {
                                uses(&theirs);
                            }
                            m.task("uses one", move || uses(&theirs));
                        })
                    };
                    let said = std::thread::spawn(explores).join().expect("it was refused");
                    assert!(
                        said.starts_with(name) && said.contains("another exploration"),
                        "{name}: {said}"
                    );
                }
                word.fetch_add(1, SeqCst);
            });
            m.task("another", move || {
                other.fetch_add(1, SeqCst);
            });
        });
        report.assert_exhausted();
        assert_eq!(report.executions, 2);
    }
}

#[test]
fn an_exploration_inside_a_context_is_refused_the_lock_that_the_context_holds() {
    let report = explore(|m| {
        let lock = Arc::new(Lock::<Sim, u32>::new(&SPIN, 0));
        m.task("explores", move || {
            let _held = lock.lock();
            let inner = Arc::clone(&lock);
            explore(move |m| {
                let inner = Arc::clone(&inner);
                m.task("inner", move || *inner.lock() += 1);
            });
        });
    });
    let failure = report.assert_found(FailureKind::Panic);
    assert!(failure.trace.why.contains("another exploration"), "{}", failure.trace.why);
}

#[test]
fn explorations_inside_a_context_that_share_nothing_do_not_disturb_it() {
    let report = explore(|m| {
        let word = word(0);
        for task in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(task, move || {
                word.fetch_add(1, SeqCst);
                explore(crate::searching::careless).assert_found(FailureKind::Quiescence);
                word.fetch_add(1, SeqCst);
            });
        }
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 6);
}

static LOCK: Lock<Sim, ()> = Lock::constant(&SPIN, ());

/// Two tasks that a static lock keeps apart.
fn apart(m: &Machine) {
    let inside = Arc::new(AtomicBool::new(false));
    let word = word(0);
    for task in ["one", "two"] {
        let (inside, word) = (Arc::clone(&inside), Arc::clone(&word));
        m.task(task, move || {
            for _ in 0..2 {
                let _held = LOCK.lock();
                assert!(!inside.swap(true, SeqCst));
                word.fetch_add(1, SeqCst);
                inside.store(false, SeqCst);
            }
        });
    }
}

/// Exhausted as if there were nobody else, or refused.
fn exhausts_or_is_refused(explore: Explore, executions: u64) {
    match catch_unwind(AssertUnwindSafe(|| explore.run(apart))) {
        Ok(report) => {
            report.assert_exhausted();
            assert_eq!(report.executions, executions);
        }
        Err(panic) => {
            let said = text(panic);
            assert!(said.contains("another exploration"), "{said}");
        }
    }
}

#[test]
fn a_static_lock_is_refused_or_does_not_matter_to_explorations_at_once() {
    let alone =
        std::thread::spawn(|| explore(apart).executions).join().expect("nobody else has the lock");
    assert_eq!(alone, 6);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                (0..30).for_each(|_| exhausts_or_is_refused(Explore::new("apart"), alone))
            });
        }
    });
    (0..30).for_each(|_| exhausts_or_is_refused(Explore::new("apart").jobs(2), alone));
}

/// Two tasks add to what `add` is given, whatever has been added before.
fn twice(add: impl Fn() + Send + Sync + Clone + 'static) -> impl Fn(&Machine) + Send + Sync {
    move |m| {
        for task in ["one", "two"] {
            let add = add.clone();
            m.task(task, add);
        }
    }
}

#[test]
fn what_keeps_its_data_is_refused_by_name_in_the_second_execution_if_the_first_has_changed_it() {
    static DATA: Lock<Sim, u32> = Lock::constant(&SPIN, 0);
    static SLEEPS: Mutex<Sim, u32> = Mutex::constant(&MUTEX, 0);
    let in_spin = refusal(Explore::new("static"), twice(|| *DATA.lock() += 1));
    let in_mutex = refusal(Explore::new("static"), twice(|| *SLEEPS.lock() += 1));
    let lock = Arc::new(Lock::<Sim, u32>::new(&SPIN, 0));
    let captured = refusal(Explore::new("captured"), twice(move || *lock.lock() += 1));
    let model = Arc::new(Model::new("model", 0));
    let in_model =
        refusal(Explore::new("captured"), twice(move || model.change(|count| *count += 1)));
    let pointer = Arc::new(SimAtomicPtr::<u8>::new(std::ptr::null_mut()));
    let in_pointer = refusal(
        Explore::new("captured"),
        twice(move || pointer.store(std::ptr::null_mut(), SeqCst)),
    );
    let said = [
        (in_spin, "spin"),
        (in_mutex, "mutex"),
        (captured, "spin"),
        (in_model, "model"),
        (in_pointer, "pointer"),
    ];
    for (said, name) in said {
        assert!(said.starts_with(name) && said.contains("an earlier execution"), "{said}");
    }
}

#[test]
fn what_nobody_changes_may_be_static() {
    static LIMIT: Lock<Sim, u32> = Lock::constant(&SPIN, 2);
    static COUNT: Word = Word::ZERO;
    let program = || {
        twice(|| {
            let limit = *LIMIT.lock();
            assert!(COUNT.fetch_add(1, SeqCst) < u64::from(limit));
        })
    };
    for _ in 0..2 {
        let report: Report = explore(program());
        report.assert_exhausted();
        assert!(report.executions > 1);
    }
}
