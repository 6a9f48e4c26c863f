//! Every access of vectors is there for a reason: without it, a shipped variant of the cases about
//! vectors fails, or a program of `vectors`.
//!
//! Descriptors, MSI-X and what is posted have programs of their own, in the tests of
//! `doorbell-host`.

mod vectors;

use doorbell_catalogue::{Expected, cases};
use doorbell_explore::removal::{self, Printed, Program, Taken};

/// Lines that nothing needs, and why. They count interrupts that nobody handles.
const KEPT: &[(&str, Taken, &str)] = &[
    ("counter.load(Relaxed)", Taken::Knowledge, COUNTS),
    ("self.retriggered.load(Relaxed)", Taken::Knowledge, COUNTS),
    ("self.spurious.load(Relaxed)", Taken::Knowledge, COUNTS),
];
const COUNTS: &str = "nothing is decided by it";

/// The small ones.
const VARIANTS: [&str; 9] = [
    "vector-teardown/shipped-driver-same-vector",
    "vector-teardown/shipped-driver-neighbour",
    "vector-teardown/shipped-move",
    "vector-teardown/shipped-move-word-by-word",
    "vector-teardown/shipped-offline",
    "vector-teardown/shipped-vfio-reopened",
    "msi-torn-update/shipped",
    "free-in-flight/shipped",
    "free-in-flight/shipped-looks",
];

#[test]
fn nothing_is_lost_and_no_access_of_vectors_can_be_taken_out() {
    let variants = cases().into_iter().flat_map(|case| case.variants);
    let programs: Vec<Program> = variants
        .filter(|variant| {
            VARIANTS.contains(&&*variant.path()) && variant.expected == Expected::Exhausted
        })
        .map(|variant| Program::new(variant.path(), move |m| variant.set_up(m)))
        .chain(vectors::programs())
        .collect();
    assert_eq!(programs.len(), VARIANTS.len() + vectors::programs().len());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/vectors.md",
        name: "doorbell-catalogue removal",
        kept: KEPT,
    };
    let wrong = printed.check(&removal::table(&programs, "crates/host/src/vector/"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
