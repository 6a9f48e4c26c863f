//! Every access of the protocol is there for a reason: without it, a program fails. Or the code
//! says why it is there.

use doorbell_explore::removal::{self, Printed, Program, Taken};

use crate::{copies, gates, moves, recall, two_level};

/// Lines that no program needs: see the comments beside them.
const KEPT: &[(&str, Taken, &str)] = &[
    (
        "fetch_or(SN",
        Taken::Indivisibility,
        "`outstanding` would lie for a while, and `run_on` finds the bits",
    ),
    (
        "self.control.fetch_or(ON, SeqCst);",
        Taken::Indivisibility,
        "nobody else changes more than ON, and nobody clears it",
    ),
    (
        "let empty = word.load(SeqCst) == 0;",
        Taken::Knowledge,
        "it saves two writes of the summary: the next look tells",
    ),
    (
        "if self.summary.load(SeqCst) >> index & 1 == 0 {",
        Taken::Knowledge,
        "it saves a write of the summary",
    ),
];

fn programs() -> Vec<Program> {
    let all = [
        gates::programs(),
        moves::programs(),
        copies::programs(),
        two_level::programs(),
        recall::programs(),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn every_leaf_is_taken_by_a_program() {
    assert!(removal::leaves_not_taken(&programs(), doorbell_post::LOCKS).is_empty());
}

#[test]
fn nothing_that_is_posted_is_lost_and_no_access_can_be_taken_out() {
    let rows = removal::table(&programs(), "crates/post/src/");
    let rows =
        removal::merged(rows, removal::locks(&[copies::looks()], "crates/post/src/copies.rs"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/post.md",
        name: "doorbell-post explored",
        kept: KEPT,
    };
    let wrong = printed.check(&rows);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
