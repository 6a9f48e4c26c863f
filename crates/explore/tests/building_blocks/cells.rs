//! `RcuCell` and `Retired`: no reader sees a value that was dropped, and what is retired is dropped
//! once.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::Ghost;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{Atomic, EpochRcu, EpochSrcu, RcuCell, ReadDomain};

use crate::host::{Host, Word, system_queue};

/// A value that says when it is dropped.
struct Value(Arc<Ghost>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.free();
    }
}

/// What a writer does with a value that it has taken out of a cell.
#[derive(Clone, Copy)]
enum Then {
    Synchronize,
    SynchronizeExpedited,
    ReclaimLater,
}

/// `readers` tasks look at the value twice in one section; `writers` tasks replace it.
fn replaced<D: ReadDomain>(readers: usize, writers: usize, then: Then) -> Report {
    Explore::new("cell").run(move |m: &Machine| {
        system_queue(m);
        let ghosts: Vec<_> = (0..=writers).map(|_| Arc::new(Ghost::new("value"))).collect();
        let domain = Arc::new(D::new("domain"));
        let cell =
            Arc::new(RcuCell::<Host, D, _>::new(&domain, Box::new(Value(ghosts[0].clone()))));
        for _ in 0..readers {
            let cell = cell.clone();
            m.task("reads", move || {
                let value = cell.read();
                value.0.access();
                value.0.access();
                cell.get(value.section()).0.access();
            });
        }
        for ghost in &ghosts[1..] {
            let (cell, ghost) = (cell.clone(), ghost.clone());
            m.task("writes", move || {
                let former = cell.replace(Box::new(Value(ghost)));
                match then {
                    Then::Synchronize => drop(former.synchronize()),
                    Then::SynchronizeExpedited => drop(former.synchronize_expedited()),
                    Then::ReclaimLater => former.reclaim_later(),
                }
            });
        }
        m.at_quiescence(
            "all values but the last were dropped, and it is when the cell is",
            move || {
                let live = || ghosts.iter().filter(|ghost| !ghost.is_freed()).count();
                let before = live();
                drop(cell);
                match (before, live()) {
                    (1, 0) => Ok(()),
                    (before, after) => Err(format!("{before} are left, and then {after}")),
                }
            },
        );
    })
}

#[test]
fn no_reader_sees_a_value_that_was_dropped_and_every_value_is_dropped_once() {
    for then in [Then::Synchronize, Then::SynchronizeExpedited, Then::ReclaimLater] {
        replaced::<EpochSrcu<Host>>(1, 1, then).assert_exhausted();
        replaced::<EpochRcu<Host>>(1, 1, then).assert_exhausted();
        replaced::<EpochSrcu<Host>>(2, 1, then).assert_exhausted();
    }
}

#[test]
fn writers_that_race_each_retire_another_value() {
    replaced::<EpochSrcu<Host>>(0, 2, Then::Synchronize).assert_exhausted();
    replaced::<EpochSrcu<Host>>(0, 2, Then::ReclaimLater).assert_exhausted();
}

#[test]
fn what_a_domain_that_goes_has_left_to_reclaim_is_reclaimed() {
    let report = Explore::new("domain goes").run(|m: &Machine| {
        system_queue(m);
        let ghost = Arc::new(Ghost::new("value"));
        let value = Value(ghost.clone());
        m.task("all of it", move || {
            let domain = Arc::new(EpochSrcu::<Host>::new("domain"));
            let cell = RcuCell::<Host, _, _>::new(&domain, Box::new(value));
            let last = Arc::new(Ghost::new("last value"));
            cell.replace(Box::new(Value(last))).reclaim_later();
        });
        m.at_quiescence("it is reclaimed", move || {
            ghost.is_freed().then_some(()).ok_or("it leaks".to_owned())
        });
    });
    report.assert_exhausted();
}

/// As `RcuCell`, with the values in a table, so that it can be seen to go wrong.
struct Table<const FAULT: u8> {
    domain: EpochSrcu<Host>,
    current: Word,
    values: [Ghost; 2],
}

const NO_FAULT: u8 = 0;
/// Looks where the value is before the read section begins.
const LOOKS_TOO_EARLY: u8 = 1;
/// Waits for readers, and then takes the value out.
const WAITS_TOO_EARLY: u8 = 2;
/// Does not wait.
const WAITS_FOR_NOBODY: u8 = 3;

fn table<const FAULT: u8>() -> Report {
    Explore::new("table").run(|m: &Machine| {
        system_queue(m);
        let table = Arc::new(Table::<FAULT> {
            domain: EpochSrcu::new("domain"),
            current: Word::new(0),
            values: [Ghost::new("former value"), Ghost::new("new value")],
        });
        let other = table.clone();
        m.task("reads", move || {
            let early = (FAULT == LOOKS_TOO_EARLY).then(|| table.current.load(SeqCst));
            let _section = table.domain.read();
            let current = early.unwrap_or_else(|| table.current.load(SeqCst));
            table.values[current as usize].access();
        });
        m.task("writes", move || {
            if FAULT == WAITS_TOO_EARLY {
                other.domain.synchronize();
            }
            other.current.store(1, SeqCst);
            if FAULT != WAITS_TOO_EARLY && FAULT != WAITS_FOR_NOBODY {
                other.domain.synchronize();
            }
            other.values[0].free();
        });
    })
}

#[test]
fn a_value_that_is_looked_up_or_waited_for_too_early_is_read_after_it_was_dropped() {
    table::<LOOKS_TOO_EARLY>().assert_found(FailureKind::UseAfterFree);
    table::<WAITS_TOO_EARLY>().assert_found(FailureKind::UseAfterFree);
    table::<WAITS_FOR_NOBODY>().assert_found(FailureKind::UseAfterFree);
    table::<NO_FAULT>().assert_exhausted();
}
