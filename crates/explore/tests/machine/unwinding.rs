//! Panics that the program itself catches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, CpuId, IrqGuard, Lock, Platform};

use crate::{SPIN, TIMER, Word, ends_with, explore, word};

/// Adds to a word when it is dropped.
struct Adds(Arc<Word>);

impl Drop for Adds {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn catches(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
}

/// Adds in two steps: two at once lose one of the additions.
fn careless(word: &Word) {
    let before = word.load(SeqCst);
    word.store(before + 1, SeqCst);
}

/// Two tasks that catch a panic each, and then add carelessly.
fn catch_and_add(m: &Machine) {
    let sum = word(0);
    for name in ["one", "two"] {
        let sum = Arc::clone(&sum);
        m.task(name, move || {
            catches(|| panic!("to be caught"));
            careless(&sum);
        });
    }
    ends_with(m, &sum, 2);
}

#[test]
fn after_a_caught_panic_the_search_goes_on() {
    let report = explore(catch_and_add);
    report.assert_found(FailureKind::Quiescence);
    assert_eq!(report.unwound, 0, "no destructor takes a step");
}

#[test]
fn what_destructors_do_while_a_panic_unwinds_is_one_with_the_step_before() {
    for jobs in [1, 3] {
        unwinds(jobs);
    }
}

fn unwinds(jobs: usize) {
    let report = Explore::new("unwinds").jobs(jobs).collect_outcomes().run(|m: &Machine| {
        let (first, sum) = (word(0), word(0));
        for name in ["one", "two"] {
            let (first, sum) = (Arc::clone(&first), Arc::clone(&sum));
            m.task(name, move || {
                catches(|| {
                    let _adds = [Adds(Arc::clone(&sum)), Adds(Arc::clone(&sum))];
                    first.fetch_add(1, SeqCst);
                    panic!("to be caught");
                });
                sum.fetch_add(10, SeqCst);
            });
        }
        let others = Arc::clone(&sum);
        let seen = word(99);
        let told = Arc::clone(&seen);
        m.task("looks", move || seen.store(others.load(SeqCst), SeqCst));
        m.outcome(move || format!("{} of {}", told.load(SeqCst), sum.load(SeqCst)));
    });
    report.assert_exhausted();
    assert!(report.unwound > 0);
    let outcomes: Vec<_> = report.outcomes.iter().map(String::as_str).collect();
    // Both of one task, or none of it.
    assert_eq!(outcomes, ["0 of 24", "12 of 24", "14 of 24", "2 of 24", "24 of 24", "4 of 24"]);
}

#[test]
fn locks_and_interrupts_are_what_the_destructors_of_their_guards_leave() {
    let report = Explore::new("guards").collect_outcomes().run(|m: &Machine| {
        let (lock, taken) = (Arc::new(Lock::<Sim, u64>::new(&SPIN, 0)), word(0));
        let other = Arc::clone(&lock);
        let (reads, ticks) = (Arc::clone(&taken), Arc::clone(&taken));
        let handler = m.handler(CpuId(0), TIMER, "tick", move || {
            ticks.fetch_add(1, SeqCst);
        });
        m.task_on(CpuId(0), "task", move || {
            catches(|| {
                let _off = IrqGuard::<Sim>::new();
                let mut held = lock.lock();
                *held += 1;
                panic!("to be caught");
            });
            assert!(Sim::irqs_enabled());
            reads.store(reads.load(SeqCst) + 10, SeqCst);
        });
        m.task("other", move || *other.lock() += 1);
        m.hardware("device", move || handler.raise());
        m.outcome(move || taken.load(SeqCst).to_string());
    });
    report.assert_exhausted();
    let outcomes: Vec<_> = report.outcomes.iter().map(String::as_str).collect();
    // The tick comes before, after, or between the two steps, where it is lost.
    assert_eq!(outcomes, ["10", "11"]);
}

/// Takes a lock when it is dropped.
struct Locks(Arc<Lock<Sim, u64>>, Arc<Word>);

impl Drop for Locks {
    fn drop(&mut self) {
        let _held = self.0.lock();
        assert_eq!(self.1.fetch_add(1, SeqCst), 0, "two are inside");
        self.1.fetch_sub(1, SeqCst);
    }
}

fn enters(m: &Machine) {
    let (lock, inside) = (Arc::new(Lock::<Sim, u64>::new(&SPIN, 0)), word(0));
    let (locks, others) = (Locks(Arc::clone(&lock), Arc::clone(&inside)), inside);
    let before = word(0);
    m.task("panics", move || {
        catches(move || {
            let _locks = locks;
            before.load(SeqCst);
            panic!("to be caught");
        });
    });
    m.task("holds", move || {
        let _held = lock.lock();
        assert_eq!(others.fetch_add(1, SeqCst), 0, "two are inside");
        others.fetch_sub(1, SeqCst);
    });
}

#[test]
fn a_destructor_that_would_wait_while_a_panic_unwinds_is_a_failure_and_enters_no_lock() {
    // On a thread of its own, which counts as one that panics for good.
    std::thread::scope(|scope| {
        let run = || {
            let explore = Explore::new("enters");
            let report = explore.run(enters);
            let failure = report.assert_found(FailureKind::Panic);
            let why = &failure.trace.why;
            assert!(why.contains("would wait for lock spin") && why.contains("unwinds"), "{why}");
            assert!(!failure.token.is_empty());
            let again = explore.replay(&failure.token, enters).expect("the same program");
            assert_eq!(again.trace.lines, failure.trace.lines);
            // What is explored next on this thread is explored as ever.
            let report = explore.run(catch_and_add);
            report.assert_found(FailureKind::Quiescence);
        };
        scope.spawn(run).join().expect("it passes");
    });
}
