//! What tasks return, what of them panics, and what belongs to each of them alone.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{SimWaitQueue, TaskLocal, park_timeout};
use doorbell_explore::sync::atomic::AtomicU32;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Panicked, Report, Sim, may_panic, spawn};
use doorbell_platform::{Platform, WaitQueue};

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("tasks").run(program)
}

#[test]
fn a_join_gives_what_the_task_has_returned() {
    explore(|m| {
        let text = m.task("text", || String::from("text"));
        m.task("joins", move || {
            let number = spawn("number", || 7);
            assert_eq!((text.join(), number.join()), ("text".to_owned(), 7));
        });
    })
    .assert_exhausted();
}

#[test]
fn a_value_is_given_once_and_an_end_without_one_to_all() {
    let joined_by_two = |value: bool| {
        move |m: &Machine| {
            let (unit, number) = (m.task("unit", || ()), m.task("number", || 1));
            for name in ["one", "two"] {
                m.task(name, move || if value { _ = number.join() } else { unit.join() });
            }
        }
    };
    explore(joined_by_two(false)).assert_exhausted();
    let report = explore(joined_by_two(true));
    let failure = report.assert_found(FailureKind::Panic);
    assert!(failure.trace.why.contains("has joined number before"), "{}", failure.trace.why);
}

/// A value whose drop is a step.
struct Counts(Arc<AtomicU32>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_value_that_nobody_asks_for_is_dropped_once_when_all_is_over() {
    let dropped = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let all = Arc::clone(&dropped);
    struct Told {
        drops: Arc<std::sync::atomic::AtomicU32>,
        _takes_a_step: Counts,
    }
    impl Drop for Told {
        fn drop(&mut self) {
            self.drops.fetch_add(1, SeqCst);
        }
    }
    let report = explore(move |m| {
        let word = Arc::new(AtomicU32::new(0));
        for name in ["one", "two"] {
            let (word, all) = (Arc::clone(&word), Arc::clone(&all));
            m.task(name, move || {
                word.fetch_add(1, SeqCst);
                Told { drops: all, _takes_a_step: Counts(word) }
            });
        }
    });
    report.assert_exhausted();
    assert_eq!(u64::from(dropped.load(SeqCst)), 2 * report.executions);
}

#[test]
fn a_task_that_may_panic_gives_its_panic_to_who_joins_it() {
    let program = |m: &Machine| {
        let word = Arc::new(AtomicU32::new(0));
        let other = Arc::clone(&word);
        let worker = m.task(
            "worker",
            may_panic(move || {
                let _counts = Counts(Arc::clone(&other));
                match other.fetch_add(10, SeqCst) {
                    0 => 1,
                    found => panic!("found {found}"),
                }
            }),
        );
        m.task("another", {
            let word = Arc::clone(&word);
            move || word.store(5, SeqCst)
        });
        m.task("joins", move || match worker.join() {
            Ok(value) => assert_eq!(value, 1),
            Err(panicked) => assert_eq!(panicked.message(), "found 5"),
        });
    };
    explore(program).assert_exhausted();
    // The same without `may_panic` is a failure of the run.
    let report = explore(|m| {
        m.task("worker", || -> u32 { panic!("found 5") }).may_not_run();
    });
    report.assert_found(FailureKind::Panic);
}

#[test]
fn both_ends_of_a_task_that_may_panic_happen() {
    let report = Explore::new("ends").collect_outcomes().run(|m| {
        let (word, end) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (other, told) = (Arc::clone(&word), Arc::clone(&end));
        let worker = m.task("worker", may_panic(move || assert_eq!(word.load(SeqCst), 0)));
        m.task("sets", move || other.store(1, SeqCst));
        m.task("joins", move || {
            let ended: Result<(), Panicked> = worker.join();
            told.store(1 + u32::from(ended.is_err()), SeqCst);
        });
        m.outcome(move || end.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes, ["1", "2"].map(str::to_owned).into());
}

static LOCAL: TaskLocal<Cell<u32>> = TaskLocal::new(|| Cell::new(7));
static OTHER: TaskLocal<Cell<u32>> = TaskLocal::new(|| Cell::new(1));

#[test]
fn each_task_has_data_of_its_own_and_each_execution_makes_them_anew() {
    let report = explore(|m| {
        let word = Arc::new(AtomicU32::new(0));
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(name, move || {
                for expected in 7..9 {
                    assert_eq!(LOCAL.with(|local| local.replace(expected + 1)), expected);
                    assert_eq!(OTHER.with(Cell::get), 1);
                    word.fetch_add(1, SeqCst);
                }
            });
        }
    });
    report.assert_exhausted();
    assert!(report.executions > 1);
}

thread_local! {
    static WORD: Cell<Option<Rc<AtomicU32>>> = const { Cell::new(None) };
}

struct AtEnd(Rc<AtomicU32>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

static ENDS: TaskLocal<AtEnd> = TaskLocal::new(|| {
    let word = WORD.take().expect("the set-up has put it there");
    WORD.set(Some(Rc::clone(&word)));
    AtEnd(word)
});

#[test]
fn data_of_a_task_is_dropped_at_its_end_by_steps_of_its_own_before_it_is_joined() {
    let report = explore(|m| {
        let word = Rc::new(AtomicU32::new(0));
        WORD.set(Some(Rc::clone(&word)));
        let task = m.task("uses", || ENDS.with(|_| ()));
        m.task("joins", move || {
            task.join();
            assert_eq!(word.load(SeqCst), 1);
        });
    });
    report.assert_exhausted();
}

#[test]
fn what_is_no_task_has_no_data() {
    let explored = std::panic::catch_unwind(|| {
        explore(|_| _ = LOCAL.with(Cell::get));
    });
    assert!(explored.is_err());
}

/// One task sleeps until it is woken, or a timeout strikes, `timeouts` times in all.
fn parks_with_timeouts(timeouts: u32) -> Report {
    Explore::new("park_timeout").collect_outcomes().run(move |m| {
        m.timeouts(timeouts);
        let woken = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&woken);
        m.task("sleeps", move || {
            let me = Sim::current_task();
            spawn("wakes", move || Sim::wake(&me));
            woken.store(1 + u32::from(park_timeout()), SeqCst);
        });
        m.outcome(move || told.load(SeqCst).to_string())
    })
}

#[test]
fn a_timeout_ends_a_sleep_if_one_may_strike() {
    assert_eq!(parks_with_timeouts(0).outcomes, ["2"].map(str::to_owned).into());
    assert_eq!(parks_with_timeouts(1).outcomes, ["1", "2"].map(str::to_owned).into());
}

/// Two tasks wait for an item each, and one is put there, with one wake-up; whether both go on is
/// the outcome.
fn waits_for_an_item(wake: fn(&SimWaitQueue)) -> Report {
    Explore::new("wake_one").collect_outcomes().run(move |m| {
        let shared = Arc::new((SimWaitQueue::new("queue"), AtomicU32::new(0), AtomicU32::new(0)));
        for task in 0..2 {
            let shared = Arc::clone(&shared);
            m.task(format!("{task}"), move || {
                let takes = || {
                    let taken = shared.1.fetch_update(SeqCst, SeqCst, |items| items.checked_sub(1));
                    taken.is_ok()
                };
                shared.0.wait_exclusive_until(takes);
                shared.2.fetch_or(1 << task, SeqCst);
            });
        }
        let puts = Arc::clone(&shared);
        m.task("puts", move || {
            puts.1.store(2, SeqCst);
            wake(&puts.0);
        });
        m.outcome(move || format!("went on: {:b}", shared.2.load(SeqCst)))
    })
}

#[test]
fn one_wake_up_for_two_leaves_either_asleep_and_one_for_all_leaves_none() {
    let ends = |report: Report| {
        let begins = |what: &str| report.outcomes.iter().any(|end| end.starts_with(what));
        ["went on: 11", "went on: 10", "went on: 1 "].map(begins)
    };
    assert_eq!(ends(waits_for_an_item(SimWaitQueue::wake_one)), [true; 3]);
    let all = waits_for_an_item(WaitQueue::wake_all);
    assert_eq!(ends(all), [true, false, false]);
}

#[test]
fn a_timeout_that_has_struck_does_not_strike_again() {
    let sleeps_twice = |timeouts: u32| {
        explore(move |m| {
            m.timeouts(timeouts);
            m.task("sleeps", || assert!(!park_timeout() && !park_timeout(), "nobody wakes it"));
        })
    };
    sleeps_twice(2).assert_exhausted();
    sleeps_twice(1).assert_found(FailureKind::Deadlock);
}
