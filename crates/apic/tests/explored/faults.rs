//! Every access is there for a reason: without it, a program fails.

use doorbell_explore::removal::{self, Printed, Program, Taken};

use crate::{hooks, map};

/// Lines that no program needs, and why.
const KEPT: &[(&str, Taken, &str)] =
    &[("self.scan.lock()", Taken::Exclusion, "it guards no data, but who looks and publishes")];

#[test]
fn nothing_that_is_posted_is_lost_and_no_access_can_be_taken_out() {
    let programs: Vec<Program> = hooks::programs().into_iter().chain(map::programs()).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/vmx.md",
        name: "doorbell-apic explored",
        kept: KEPT,
    };
    let wrong = printed.check(&removal::table(&programs, "crates/apic/src/"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
