//! What the simulated machine tells the lock validator.

use std::panic::Location;

use doorbell_platform::{CpuId, LockClass, Subclass};

use crate::ids::{CtxId, CtxSet, ObjId};

/// What kind of context runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CtxKind {
    /// A task.
    Task,
    /// A hard-interrupt handler.
    Handler,
    /// A piece of hardware; takes no locks.
    Hardware,
}

impl CtxKind {
    /// What a context of that kind is called.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            CtxKind::Task => "task",
            CtxKind::Handler => "handler",
            CtxKind::Hardware => "hardware",
        }
    }
}

/// A lock that a context holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The lock; `None` for an annotation without a lock.
    pub lock: Option<ObjId>,
    /// The lock's class.
    pub class: &'static LockClass,
    /// The subclass it was taken with.
    pub subclass: Subclass,
    /// Whether it was taken by a try-lock, which cannot wait.
    pub tried: bool,
    /// Whether interrupts were enabled on the CPU when it was taken.
    pub irqs_on: bool,
    /// Where it was taken.
    pub site: &'static Location<'static>,
}

/// A lock is taken (successfully, or with certainty to wait): told once for each step that the
/// search explores anew.
#[derive(Clone, Copy, Debug)]
pub struct AcquireEvent<'a> {
    /// The context that takes the lock.
    pub ctx: CtxId,
    /// What kind of context that is.
    pub kind: CtxKind,
    /// The CPU it runs on; `None` for hardware.
    pub cpu: Option<CpuId>,
    /// What is taken.
    pub taken: Held,
    /// The class of a held lock that serialises nesting of locks of this class, if the code
    /// declares one.
    pub under: Option<&'static LockClass>,
    /// Whether preemption is off, interrupts are off or this is a handler: nothing may sleep.
    pub atomic: bool,
    /// What the context holds already, oldest first. What an interrupted context holds is not in
    /// it.
    pub held: &'a [Held],
    /// The contexts that had ended before this one (or this point of it) began: by spawn and join,
    /// in every schedule that reaches this point.
    pub after: CtxSet,
}
