//! Every access of the protocol is there for a reason: without it, a program fails. Or the code says why it is there.

use doorbell_explore::removal::{self, Program, Taken};

use crate::{copies, gates, moves};

/// Lines that no program needs, and what is said about them beside the code: a part of the line, what is taken out.
const KEPT: &[(&str, Taken)] =
    &[("fetch_or(SN", Taken::Indivisibility), ("self.control.fetch_or(ON, SeqCst);", Taken::Indivisibility)];

#[test]
fn nothing_that_is_posted_is_lost_and_no_access_can_be_taken_out() {
    let programs: Vec<Program> =
        gates::programs().into_iter().chain(moves::programs()).chain(copies::programs()).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let missed = removal::unexplained(&programs, "crates/post/src/", root, KEPT);
    assert!(missed.is_empty(), "found by no program, or kept though one finds it: {missed:#?}");
}
