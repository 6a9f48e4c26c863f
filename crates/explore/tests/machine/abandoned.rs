//! What failing runs leave behind: contexts in the middle of their code, and what they own.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim, sim};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Mutex, Platform};

use crate::{IPI, MUTEX, Word, explore, word};

/// Uses the machine when it is dropped.
struct Counted(Arc<Word>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A program that fails as `fails` says, whose contexts, conditions and outcome own what uses the
/// machine when it is dropped.
fn owning(m: &Machine, fails: impl Fn() + Copy + 'static) {
    let word = word(0);
    let counted = || Counted(Arc::clone(&word));
    let (early, late, outcome) = (counted(), counted(), counted());
    m.at_quiescence("nobody was dropped early", move || match early.0.load(SeqCst) {
        // Both tasks have ended, and so has the handler.
        0..=3 => Ok(()),
        other => Err(format!("{other} were dropped")),
    });
    m.at_quiescence("there are words", move || {
        late.0.load(SeqCst).checked_add(1).map(|_| ()).ok_or_else(String::new)
    });
    m.outcome(move || outcome.0.load(SeqCst).to_string());
    let handled = counted();
    let handler = m.handler(CpuId(0), IPI, "handler", move || {
        handled.0.load(SeqCst);
    });
    for cpu in 0..2 {
        let owned = counted();
        m.task_on(CpuId(cpu), format!("task {cpu}"), move || {
            owned.0.load(SeqCst);
            if cpu == 0 {
                fails();
            }
            handler.raise();
        });
    }
}

#[test]
fn what_conditions_outcomes_and_contexts_own_survives_a_failing_run() {
    let waits_for_ever = || {
        let flag = sim::Model::new("flag", false);
        flag.wait(|flag| *flag, |_| ());
    };
    let fails = || sim::fail("this is not to be");
    let panics = || panic!("this is not to be");
    let spins = || {
        loop {
            Sim::irq_restore(Sim::irq_save());
        }
    };
    explore(move |m| owning(m, || ())).assert_exhausted();
    explore(move |m| owning(m, waits_for_ever)).assert_found(FailureKind::Deadlock);
    explore(move |m| owning(m, fails)).assert_found(FailureKind::Invariant);
    explore(move |m| owning(m, panics)).assert_found(FailureKind::Panic);
    Explore::new("machine")
        .max_steps(20)
        .run(move |m| owning(m, spins))
        .assert_found(FailureKind::TooLong);
    let outcomes = Explore::new("machine").collect_outcomes().run(move |m| owning(m, fails));
    outcomes.assert_found(FailureKind::Invariant);
}

#[test]
fn what_conditions_own_survives_a_set_up_and_a_condition_that_fail() {
    let set_up = explore(|m| {
        owning(m, || ());
        sim::fail("this is not to be");
    });
    set_up.assert_found(FailureKind::Invariant);
    let condition = explore(|m| {
        owning(m, || ());
        m.at_quiescence("all is well", || Err("it is not".to_owned()));
    });
    condition.assert_found(FailureKind::Quiescence);
}

/// One task waits for nothing in particular with a mutex held, and four more for the mutex.
fn five_wait(m: &Machine) {
    let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
    let flag = Arc::new(sim::Model::new("flag", false));
    for task in ["one", "two", "three", "four", "five"] {
        let (mutex, flag) = (Arc::clone(&mutex), Arc::clone(&flag));
        m.task(task, move || {
            let _held = mutex.lock();
            flag.wait(|flag| *flag, |_| ());
        });
    }
}

#[test]
fn a_stuck_run_can_be_replayed_five_thousand_times_in_one_process() {
    let explore = Explore::new("five wait");
    let report = explore.run(five_wait);
    let failure = report.assert_found(FailureKind::Deadlock);
    for _ in 0..5_000 {
        let again = explore.replay(&failure.token, five_wait).expect("the same program");
        assert_eq!(again.kind, FailureKind::Deadlock);
    }
}
