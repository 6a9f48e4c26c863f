//! Plain memory, and references.

use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::RaceCell;
use doorbell_explore::sync::atomic::AtomicBool;
use doorbell_explore::sync::{Arc, Mutex, thread};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine};

use crate::{fails, passes};

#[test]
fn two_that_write_a_cell_race_and_under_a_mutex_they_do_not() {
    fails(FailureKind::DataRace, || {
        let cell = Arc::new(RaceCell::new(0));
        let other = cell.clone();
        thread::spawn(move || other.set(1));
        cell.set(2);
    });
    passes(|| {
        let cell = Arc::new((Mutex::new(()), RaceCell::new(0)));
        let other = cell.clone();
        thread::spawn(move || {
            let _guard = other.0.lock().unwrap();
            other.1.set(1);
        });
        let _guard = cell.0.lock().unwrap();
        cell.1.set(2);
    });
}

#[test]
fn a_cell_is_published_by_a_flag_if_the_flag_is_set_behind_it() {
    let program = |behind: bool| {
        move || {
            let shared = Arc::new((RaceCell::new(0), AtomicBool::new(false)));
            let other = shared.clone();
            thread::spawn(move || {
                if behind {
                    other.0.set(1);
                }
                other.1.store(true, SeqCst);
                if !behind {
                    other.0.set(1);
                }
            });
            if shared.1.load(SeqCst) {
                assert_eq!(shared.0.get(), 1);
            }
        }
    };
    passes(program(true));
    let report = thread::explore(program(false));
    // The value tells, or the race does: whichever order comes first.
    assert!(report.failure.is_some());
}

/// A task whose references are dropped or not.
fn references(m: &Machine, keeps: bool) {
    m.assert_no_leaks();
    let value = Arc::new(7);
    let other = value.clone();
    m.task("drops", move || assert_eq!(*value, 7));
    m.task("keeps", move || {
        if keeps && Arc::strong_count(&other) == 1 {
            std::mem::forget(other);
        }
    });
}

#[test]
fn a_reference_that_nobody_drops_is_told_by_its_line() {
    let report = Explore::new("kept").run(|m| references(m, true));
    let failure = report.assert_found(FailureKind::Leak);
    assert!(failure.trace.why.contains("memory.rs"), "{}", failure.trace.why);
    Explore::new("dropped").run(|m| references(m, false)).assert_exhausted();
}
