//! Every access is there for a reason: without it, a program fails.

use doorbell_explore::removal::{self, Program, Taken};

use crate::{hooks, map};

/// Lines that no program needs, and why: a part of the line, what is taken out.
///
/// The map's mutex guards no data, so there is none to race for: who holds it is the only one who looks and publishes.
const KEPT: &[(&str, Taken)] = &[("self.scan.lock()", Taken::Exclusion)];

#[test]
fn nothing_that_is_posted_is_lost_and_no_access_can_be_taken_out() {
    let programs: Vec<Program> = hooks::programs().into_iter().chain(map::programs()).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let missed = removal::unexplained(&programs, "crates/apic/src/", root, KEPT);
    assert!(missed.is_empty(), "found by no program, or kept though one finds it: {missed:#?}");
}
