//! The simulated CPUs.

use crate::ids::{CtxId, ObjId};

/// A simulated CPU.
pub(crate) struct Cpu {
    pub irqs_on: bool,
    pub task: Option<CtxId>,
    /// The handlers that run on it, innermost last.
    pub handlers: Vec<CtxId>,
    /// What "interrupts are off" is, as an object: entries race for it.
    pub token: ObjId,
    pub has_handlers: bool,
    /// For CPUs with a scheduler: which task runs, as an object.
    pub switch: Option<ObjId>,
    /// The task is to be preempted as soon as it may be.
    pub need_resched: bool,
    /// A task was given to it, though that may have ended.
    pub used: bool,
}

impl Cpu {
    /// Makes it a new one, but for its memory.
    pub(crate) fn reset(&mut self, token: ObjId) {
        self.irqs_on = true;
        self.task = None;
        self.handlers.clear();
        self.token = token;
        self.has_handlers = false;
        self.switch = None;
        self.need_resched = false;
        self.used = false;
    }

    /// The context that may take steps on it.
    #[inline]
    pub(crate) fn running(&self) -> Option<CtxId> {
        self.handlers.last().copied().or(self.task)
    }
}

/// Whether the number of CPUs may still grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CpuCount {
    /// Nobody has asked for it.
    Open,
    /// The number was stated in the set-up, or asked for there.
    Fixed,
    /// The number was asked for while contexts run. They have been told what it was when the set-up
    /// ended, and no CPU has been added since.
    Told,
}
