//! Every access of the protocols is there for a reason: without it, a program fails.

use doorbell_explore::removal::{self, Program};

use crate::{bypass, consumer, desc, entries, handling, intx, msix, posted};

#[test]
fn nothing_is_lost_and_no_access_can_be_taken_out() {
    let programs: [fn() -> Vec<Program>; 8] = [
        entries::programs,
        posted::programs,
        desc::programs,
        bypass::programs,
        msix::programs,
        consumer::programs,
        intx::programs,
        handling::programs,
    ];
    let programs: Vec<Program> = programs.into_iter().flat_map(|programs| programs()).collect();
    let mut missed = Vec::new();
    for row in removal::table(&programs, "crates/host/src/") {
        let line = row.line(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        println!("{} | `{line}` | {}", row.site, row.found_by.as_deref().unwrap_or("-"));
        if row.found_by.is_none() {
            missed.push(row);
        }
    }
    assert!(missed.is_empty(), "found by no program: {missed:#?}");
}
