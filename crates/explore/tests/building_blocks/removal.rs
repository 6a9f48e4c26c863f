//! What each access of a domain, and of a cell that is set once, is for: without it, a program
//! fails. And which locks the programs take.

use doorbell_explore::removal::{self, Printed, Taken};
use doorbell_platform::LOCKS;

use crate::{grace, jobs, once};

/// Lines that nothing needs, and why.
const KEPT: &[(&str, Taken, &str)] = &[
    (
        "signals.awaited.load(Ordering::Relaxed) != 0",
        Taken::Knowledge,
        "what is not awaited any more is taken for awaited, and a reader looks in vain",
    ),
    (
        "let mut guard = self.state.lock_irqsave();",
        Taken::IrqsOff,
        "no handler uses a domain that is dropped, but handlers take other locks of the class",
    ),
    (
        "self.0.ran.fetch_add(1, Ordering::Release);",
        Taken::Indivisibility,
        "callbacks run one after the other, so there is one who counts",
    ),
    ("if let Some(value) = cell.get() {", Taken::Knowledge, "the program looks on its own account"),
    // For other queues, see `waiting.rs`.
    ("self.0.callbacks_ran.wake_all();", Taken::IrqsOff, "whoever wakes that queue is a task"),
];

#[test]
fn no_access_of_a_domain_or_of_a_cell_that_is_set_once_can_be_taken_out() {
    let mut rows = removal::table(&grace::programs(), "platform/src/epoch");
    rows.extend(removal::table(&once::programs(), "/once.rs"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let name = "doorbell-explore building_blocks";
    let wrong =
        Printed { root, document: "docs/removal/platform.md", name, kept: KEPT }.check(&rows);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Locks that no program takes, and why.
const NOT_TAKEN: &[&str] = &[
    // Of real threads.
    "platform.std.ipi",
];

#[test]
fn every_leaf_of_the_platform_is_taken_by_a_program() {
    let programs: Vec<_> = grace::programs().into_iter().chain(jobs::programs()).collect();
    assert_eq!(removal::leaves_not_taken(&programs, LOCKS), NOT_TAKEN);
}
