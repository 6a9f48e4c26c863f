//! Panics that do not come from the code of a context: those of conditions, of the set-up and of
//! the machine itself. Each is told as what it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Managed, ManagedPool, Model, Pool, both};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim, spawn};
use doorbell_platform::{AtomicInt, CpuId, Lock, LockClass, Mutex, Platform, WaitType, WorkQueue};

use crate::{MUTEX, SPIN, explore, word};

/// Why the exploration fails, as a failure of that kind.
#[track_caller]
fn why(kind: FailureKind, program: impl Fn(&Machine) + Send + Sync) -> String {
    explore(program).assert_found(kind).trace.why.clone()
}

/// The text with which setting up the program panics.
fn refused(program: impl Fn(&Machine) + Send + Sync) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| explore(program))).expect_err("it is refused");
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).expect("it has a text")
}

/// Uses the machine when it is dropped.
struct Counts(Arc<<Sim as Platform>::AtomicU64>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_condition_that_panics_is_the_failure_of_the_context_that_waits_for_it() {
    let waits = |m: &Machine| {
        let level = Arc::new(Model::new("level", 0u32));
        let (waits, word) = (Arc::clone(&level), word(0));
        m.task("waiter", move || {
            let _counts = Counts(word);
            waits.wait(|level| 10 / (1 - *level) > 10, |_| ());
        });
        m.task("setter", move || level.change(|level| *level = 1));
    };
    let why = why(FailureKind::Panic, waits);
    assert!(why.starts_with("the condition that waiter waits for panicked at "), "{why}");
    assert!(why.contains("panics.rs:") && why.ends_with(": attempt to divide by zero"), "{why}");
    explore(|m| {
        m.task("task", || ());
    })
    .assert_exhausted();
}

#[test]
fn a_condition_that_uses_the_machine_is_told_so_as_its_own_fault() {
    let why = why(FailureKind::Panic, |m| {
        let (level, other) = (Model::new("level", 0u32), Model::new("other", 0u32));
        m.task("waiter", move || level.wait(|_| other.observe(|other| *other == 0), |_| ()));
    });
    assert!(why.starts_with("the condition that waiter waits for panicked at "), "{why}");
    assert!(why.contains("entered again by a condition"), "{why}");
}

#[test]
fn a_change_of_two_words_that_panics_is_the_failure_of_who_does_it() {
    let why = why(FailureKind::Panic, |m| {
        let (one, two) = (word(0), word(0));
        for name in ["first", "second"] {
            let (one, two) = (Arc::clone(&one), Arc::clone(&two));
            m.task(name, move || _ = both(&one, &two, |one, two| (one + 1, 10 / (1 - one) + two)));
        }
    });
    assert!(why.contains(" panicked at ") && why.ends_with(": attempt to divide by zero"), "{why}");
    assert!(why.starts_with("first ") || why.starts_with("second "), "{why}");
}

#[test]
fn a_condition_of_quiescence_that_panics_keeps_its_text() {
    let why = why(FailureKind::Quiescence, |m| {
        m.task("task", || ());
        m.at_quiescence("the sum is right", || panic!("seven is missing"));
    });
    assert!(
        why.starts_with(
            "When nothing more can happen, \"the sum is right\" does not hold: it panicked at "
        ),
        "{why}"
    );
    assert!(why.contains("panics.rs:") && why.ends_with(": seven is missing."), "{why}");
}

#[test]
fn an_outcome_that_panics_keeps_its_text() {
    let report = Explore::new("machine").collect_outcomes().run(|m| {
        m.task("task", || ());
        m.outcome(|| panic!("seven is missing"));
    });
    let why = &report.assert_found(FailureKind::Panic).trace.why;
    assert!(
        why.starts_with("What tells the executions apart cannot be told: it panicked at "),
        "{why}"
    );
    assert!(why.ends_with(": seven is missing."), "{why}");
}

#[test]
fn a_context_too_many_ends_the_run_by_name_also_if_those_before_it_have_ended() {
    let spawns = |m: &Machine| {
        m.task("spawner", || {
            for number in 0..70 {
                spawn(format!("task {number}"), || ()).join();
            }
        });
    };
    let report = explore(spawns);
    let failure = report.assert_found(FailureKind::TooManyContexts);
    let said = "spawner: \"task 63\" would be context 65, and a program has at most 64: tasks, handlers and hardware, \
                those that have ended included";
    assert_eq!(failure.trace.why, said);
    assert_eq!(
        Explore::new("machine").replay(&failure.token, spawns).expect("it fails again").trace.why,
        said
    );
}

#[test]
fn a_context_too_many_in_the_set_up_or_in_a_destructor_is_told_as_itself() {
    let text = refused(|m| {
        for number in 0..70 {
            m.task(format!("task {number}"), || ());
        }
    });
    assert!(
        text.starts_with("\"task 64\" would be context 65, and a program has at most 64"),
        "{text}"
    );

    struct Spawns;
    impl Drop for Spawns {
        fn drop(&mut self) {
            for _ in 0..70 {
                spawn("late", || ()).join();
            }
        }
    }
    let report = explore(|m| {
        m.task("task", || {
            let _spawns = Spawns;
            panic!("this comes first");
        });
    });
    let failure = report.failure.expect("it fails");
    assert!(
        matches!(failure.kind, FailureKind::TooManyContexts | FailureKind::Panic),
        "{failure:?}"
    );
    explore(|m| {
        m.task("task", || ());
    })
    .assert_exhausted();
}

#[test]
fn a_task_without_a_cpu_of_its_own_makes_way_for_one_that_is_pinned() {
    let report = explore(|m| {
        let pool = Pool::new(m, "pool", 2);
        let word = word(0);
        let queued = Arc::clone(&word);
        for cpu in 0..2 {
            let word = Arc::clone(&queued);
            let pool = pool.clone();
            m.task_on(CpuId(cpu), format!("pinned {cpu}"), move || {
                assert_eq!(Sim::current_cpu(), CpuId(cpu));
                pool.spawn("work", Box::new(move || _ = word.fetch_add(1, SeqCst)));
            });
        }
        crate::ends_with(m, &word, 2);
    });
    report.assert_exhausted();
}

#[test]
fn what_cannot_make_way_is_one_clear_error() {
    let text = refused(|m| {
        m.task_on(CpuId(0), "one", || ());
        m.task_on(CpuId(0), "two", || ());
    });
    assert_eq!(text, "CPU0 has a task already");
    let text = refused(|m| {
        let _pool = ManagedPool::new(m, "pool", Managed { interrupts: 1, ..Managed::new(1) });
        m.task_on(CpuId(0), "two", || ());
    });
    assert_eq!(text, "CPU0 has a task already");
}

#[test]
fn a_lock_whose_class_waits_in_another_way_breaks_a_lock_rule() {
    static SLEEPS: LockClass = LockClass::new("sleeps", WaitType::Sleep);
    let set_up = why(FailureKind::LockRule, |m| {
        let spin = Lock::<Sim, ()>::new(&SLEEPS, ());
        m.task("task", move || drop(spin.lock()));
    });
    let said = "the class sleeps of a spin lock says that it is one of WaitType::Sleep: create the class as one of \
                WaitType::Spin";
    assert_eq!(set_up, said);
    let running = why(FailureKind::LockRule, |m| {
        m.task("task", || drop(Lock::<Sim, ()>::new(&SLEEPS, ()).lock()));
    });
    assert_eq!(running, said);
    let mutex = why(FailureKind::LockRule, |m| {
        let mutex = Mutex::<Sim, ()>::new(&SPIN, ());
        m.task("task", move || drop(mutex.lock()));
    });
    let said = "the class spin of a mutex says that it is one of WaitType::Spin: create the class as one of WaitType::Sleep";
    assert_eq!(mutex, said);
    explore(|m| {
        let mutex = Mutex::<Sim, ()>::new(&MUTEX, ());
        m.task("task", move || drop(mutex.lock()));
    })
    .assert_exhausted();
}
