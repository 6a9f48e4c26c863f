//! What the machine calls an error.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::Ghost;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Lock, Mutex, Platform};

use crate::searching::careless;
use crate::{MUTEX, SPIN, TIMER, explore, word};

#[test]
fn a_mutex_taken_in_a_handler_sleeps_in_atomic_context() {
    let report = explore(|m| {
        let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
        let handler = m.handler(CpuId(0), TIMER, "tick", move || drop(mutex.lock()));
        m.hardware("timer", move || handler.raise());
    });
    report.assert_found(FailureKind::SleepInAtomic);
}

#[test]
fn a_mutex_taken_under_a_spin_lock_or_with_interrupts_or_preemption_off_sleeps_in_atomic_context() {
    let take: [fn(&Mutex<Sim, ()>); 3] = [
        |mutex| {
            let spin = Lock::<Sim, ()>::new(&SPIN, ());
            let _spin = spin.lock();
            drop(mutex.lock());
        },
        |mutex| {
            let irqs = Sim::irq_save();
            drop(mutex.lock());
            Sim::irq_restore(irqs);
        },
        |mutex| {
            Sim::preempt_disable();
            drop(mutex.lock());
            Sim::preempt_enable();
        },
    ];
    for take in take {
        let report = explore(move |m| {
            let mutex = Mutex::new(&MUTEX, ());
            m.task("task", move || take(&mutex));
        });
        report.assert_found(FailureKind::SleepInAtomic);
    }
}

#[test]
fn interrupts_restored_out_of_order_break_a_lock_rule() {
    let report = explore(|m| {
        m.task("task", || {
            let outer = Sim::irq_save();
            let _inner = Sim::irq_save();
            Sim::irq_restore(outer);
        });
    });
    let failure = report.assert_found(FailureKind::LockRule);
    assert!(failure.trace.why.contains("out of order"), "{}", failure.trace.why);
}

#[test]
fn a_task_that_ends_holding_a_lock_breaks_a_lock_rule() {
    let report = explore(|m| {
        let spin = Lock::<Sim, ()>::new(&SPIN, ());
        m.task("task", move || {
            std::mem::forget(spin.lock());
        });
    });
    report.assert_found(FailureKind::LockRule);
}

#[test]
fn a_lock_that_must_be_held_and_is_not_breaks_a_lock_rule() {
    let report = explore(|m| {
        let spin = Lock::<Sim, ()>::new(&SPIN, ());
        m.task("task", move || {
            let guard = spin.lock();
            spin.assert_held();
            drop(guard);
            spin.assert_held();
        });
    });
    report.assert_found(FailureKind::LockRule);
}

#[test]
fn a_freed_object_that_is_touched_is_an_error() {
    let report = explore(|m| {
        let ghost = Arc::new(Ghost::new("object"));
        let other = Arc::clone(&ghost);
        m.task("user", move || ghost.access());
        m.task("owner", move || other.free());
    });
    report.assert_found(FailureKind::UseAfterFree);
}

#[test]
fn one_reference_dropped_twice_is_an_error() {
    let report = explore(|m| {
        let ghost = Arc::new(Ghost::new("object"));
        for name in ["one", "two"] {
            let ghost = Arc::clone(&ghost);
            m.task(name, move || {
                ghost.put();
            });
        }
    });
    report.assert_found(FailureKind::RefUnderflow);
}

#[test]
fn a_panic_is_found_with_its_text_and_the_locks_it_unwinds_through_do_not_suspend() {
    let report = explore(|m| {
        let spin = Arc::new(Lock::<Sim, u32>::new(&SPIN, 0));
        for name in ["one", "two"] {
            let spin = Arc::clone(&spin);
            m.task(name, move || {
                let mut count = spin.lock_irqsave();
                *count += 1;
                assert!(*count < 2, "the count is {count}", count = *count);
            });
        }
    });
    let failure = report.assert_found(FailureKind::Panic);
    assert!(failure.trace.why.contains("the count is 2"), "{}", failure.trace.why);
}

#[test]
fn a_condition_that_does_not_hold_in_the_end_is_found() {
    let report = explore(careless);
    let failure = report.assert_found(FailureKind::Quiescence);
    assert!(failure.trace.minimal);
    assert_eq!(failure.trace.preemptions, 1);
}

#[test]
fn a_program_that_depends_on_something_else_is_told_so() {
    use std::sync::atomic::AtomicU64;
    let runs = AtomicU64::new(0);
    let report = explore(|m| {
        let run = runs.fetch_add(1, SeqCst);
        let word = word(0);
        let other = Arc::clone(&word);
        m.task("one", move || {
            if run.is_multiple_of(2) {
                word.load(SeqCst);
            } else {
                word.store(1, SeqCst);
            }
            word.fetch_add(1, SeqCst);
        });
        m.task("two", move || {
            other.fetch_add(1, SeqCst);
        });
    });
    assert!(
        matches!(report.failure, Some(failure) if failure.kind == FailureKind::Nondeterministic)
    );
}

#[test]
fn a_run_without_end_is_cut_at_the_limit() {
    let report = Explore::new("endless").max_steps(100).run(|m: &Machine| {
        let word = word(0);
        m.task("task", move || {
            loop {
                word.fetch_add(1, SeqCst);
            }
        });
    });
    report.assert_found(FailureKind::TooLong);
}
