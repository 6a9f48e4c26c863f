//! Programs of the kind that loom's and shuttle's own tests are, each with its verdict: what a user
//! of those expects to be found, and what must pass.

use doorbell_explore::Report;
use doorbell_explore::sync::thread;
use doorbell_explore::trace::FailureKind;

mod futures;
mod locks;
mod memory;
mod waiting;
mod words;

/// Insists that `f` is right in every interleaving.
#[track_caller]
fn passes(f: impl Fn() + Send + Sync + 'static) {
    thread::model(f);
}

/// Insists that `f` fails so.
#[track_caller]
fn fails(kind: FailureKind, f: impl Fn() + Send + Sync + 'static) -> Report {
    let report = thread::explore(f);
    report.assert_found(kind);
    report
}
