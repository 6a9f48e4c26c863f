//! Every access of the protocols is there for a reason: without it, a program fails.

use std::sync::Arc;

use doorbell_explore::removal::{self, Printed, Program, Taken};
use doorbell_explore::{Machine, Sim};
use doorbell_host::RemapTable;
use doorbell_platform::{Atomic, Platform};

use crate::{bypass, consumer, desc, entries, handling, intx, msi, msix, posted};

/// What only counts, for a decision once in 100,000 interrupts. The unit tests of `flow.rs` have so
/// many; an exploration has not.
const KEPT: &[(&str, Taken, &str)] = &[
    ("self.unhandled.load(Relaxed)", Taken::Knowledge, COUNTS),
    ("self.handled.load(Relaxed)", Taken::Knowledge, COUNTS),
];
const COUNTS: &str = "it counts, and tests beside the code count so far";

fn programs() -> Vec<Program> {
    let programs: [fn() -> Vec<Program>; 9] = [
        entries::programs,
        posted::programs,
        desc::programs,
        bypass::programs,
        msi::programs,
        msix::programs,
        consumer::programs,
        intx::programs,
        handling::programs,
    ];
    programs.into_iter().flat_map(|programs| programs()).collect()
}

/// Leaves that no program here takes. Vectors have theirs in the tests of the catalogue.
const NOT_TAKEN: &[&str] = &["host.vectors"];

#[test]
fn every_leaf_is_taken_by_a_program() {
    let programs: Vec<_> = programs().into_iter().chain([come_and_go()]).collect();
    assert_eq!(removal::leaves_not_taken(&programs, doorbell_host::LOCKS), NOT_TAKEN);
}

#[test]
fn nothing_is_lost_and_no_access_can_be_taken_out() {
    let rows = removal::table(&programs(), "crates/host/src/");
    // The lock of a table is all that orders those who take entries.
    let rows =
        removal::merged(rows, removal::locks(&[come_and_go()], "crates/host/src/remap/table.rs"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/host.md",
        name: "doorbell-host explored",
        kept: KEPT,
    };
    let wrong = printed.check(&rows);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Entries are taken, given back and counted at once.
fn taken_and_given_back(m: &Machine) {
    let memory: Box<[<Sim as Platform>::AtomicU128]> = (0..2).map(|_| Atomic::new(0)).collect();
    let table = RemapTable::<Sim, _>::new(memory).expect("its words are lock-free");
    for name in ["one", "other"] {
        let table = Arc::clone(&table);
        m.task(name, move || drop(table.allocate().expect("there are two").retire().by(|_| ())));
    }
    let counted = Arc::clone(&table);
    m.task("counts", move || assert!(counted.free() <= 2));
    m.at_quiescence("all are free", move || {
        if table.free() == 2 { Ok(()) } else { Err("one is not".into()) }
    });
}

fn come_and_go() -> Program {
    Program::new("entries come and go", taken_and_given_back)
}
