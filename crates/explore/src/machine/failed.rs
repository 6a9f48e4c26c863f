//! How a run failed, as far as the machine knows: what a report is made of.

use crate::ids::{CtxId, CtxSet};
use crate::trace::FailureKind;
use crate::validate::{CtxKind, Held, Stuck, Waiting};

/// What ended a run early.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub kind: FailureKind,
    pub message: String,
    /// The members of the stuck set, or the context that failed.
    pub members: CtxSet,
    /// What the members of the stuck set hold and wait for.
    pub locks: Vec<StuckLocks>,
}

/// A failing run, as the search found it.
#[derive(Clone)]
pub(crate) struct FailedRun {
    pub kind: FailureKind,
    pub message: String,
    pub members: CtxSet,
    pub schedule: Vec<CtxId>,
    pub locks: Vec<StuckLocks>,
}

/// A member of a stuck set, as the validator is told of it once the run has a token.
#[derive(Clone, Debug)]
pub(crate) struct StuckLocks {
    pub ctx: CtxId,
    pub kind: CtxKind,
    pub held: Vec<Held>,
    pub waits: Option<Waiting>,
    pub interrupted: Option<CtxId>,
}

impl StuckLocks {
    pub(crate) fn view(&self) -> Stuck<'_> {
        Stuck {
            ctx: self.ctx,
            kind: self.kind,
            held: &self.held,
            waits: self.waits,
            interrupted: self.interrupted,
        }
    }
}
