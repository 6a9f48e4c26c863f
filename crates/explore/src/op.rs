//! Visible steps: what a context announces before it does it.

use std::panic::Location;

use doorbell_platform::Acquire;

use crate::ids::{CtxId, ObjId};

/// The object of steps that share nothing.
pub(crate) const NO_OBJ: ObjId = ObjId(u32::MAX);

/// How a step uses an object, which decides what it races with.
///
/// A `Write` is an `Acquire` and its `Release` in one. Between the two, whoever acquires must wait:
/// so an acquisition races with the acquisition before it, not with the release that let it in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    Acquire,
    Release,
}

/// What is about to happen to [`Op::obj`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum OpKind {
    /// Atomic read.
    Load,
    /// Atomic write.
    Store,
    /// Atomic read-modify-write. One that leaves the word as it was is recorded as a `Load`.
    Rmw,
    /// Takes a lock; waits for it.
    Lock,
    /// Takes a lock if it is free. One that fails reads the lock.
    TryLock,
    Unlock,
    IrqOff,
    IrqOn,
    /// An interrupt handler begins.
    Enter,
    /// An interrupt handler ends.
    Return,
    /// Makes the interrupt of a handler pending.
    Raise,
    /// A step of a modelled object that others may observe but that changes nothing.
    Observe,
    /// A step of a modelled object that changes it.
    Change,
    /// Waits for a condition, and changes nothing.
    Await,
    /// Waits for a condition, and uses it up.
    Take,
    /// A retry loop that waits for a write to what it has read.
    Relax,
    /// What a `Relax` becomes if the loop does not wait any longer: all looks until it gives up, in
    /// one.
    Lapse,
    /// Creates a context.
    Spawn,
    /// Waits for a context to end.
    Join,
    /// Switches a CPU to another task.
    Switch,
    /// Gets a value that the search chooses.
    Choose,
}

impl OpKind {
    /// How the step uses its object, if it does what its name says: see
    /// [`World::becomes`](crate::machine::world::World::becomes). A `TryLock` does not wait, so it
    /// may come between an acquisition and its release, and races with the release.
    #[inline]
    pub(crate) fn access(self) -> Access {
        match self {
            OpKind::Load
            | OpKind::Observe
            | OpKind::Await
            | OpKind::Join
            | OpKind::Relax
            | OpKind::Lapse => Access::Read,
            OpKind::Lock => Access::Acquire,
            OpKind::Unlock => Access::Release,
            _ => Access::Write,
        }
    }

    /// Whether the step can find that it has to wait.
    #[inline]
    pub(crate) fn can_wait(self) -> bool {
        matches!(
            self,
            OpKind::Lock
                | OpKind::Enter
                | OpKind::Await
                | OpKind::Take
                | OpKind::Relax
                | OpKind::Join
        )
    }
}

/// A question that a step has about the state: see [`Op::condition`]. It lives on the stack of the
/// context that announces the step.
pub(crate) type Condition = *const dyn Fn() -> bool;

/// Tells of the objects that a step uses beside those that its [`Op`] names, if it is done in the
/// state in which this is called. It lives on the stack of the context that announces the step.
pub(crate) type MoreUses = *const dyn Fn(&mut Uses<'_>);

/// Is told of the objects that a step uses, one by one.
pub(crate) type Uses<'a> = dyn FnMut(ObjId, Access) + 'a;

/// A step, as announced.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub kind: OpKind,
    /// The object it is about.
    pub obj: ObjId,
    /// A second object that it changes in the same step.
    pub obj2: Option<ObjId>,
    /// For locks: how.
    pub how: Option<Acquire>,
    /// For waiting steps: what they wait for. For read-modify-writes and changes: whether the step
    /// changes `obj`, if it is done as things are when this is asked; without one it does.
    pub condition: Option<Condition>,
    /// For joins: for whom.
    pub target: CtxId,
    /// Whether the context is a service that may wait here for ever: it is told when the run is
    /// over.
    pub idle: bool,
    /// For tries: whether the context waits for the lock if it does not get it.
    pub or_waits: bool,
    pub site: &'static Location<'static>,
}

impl Op {
    #[inline]
    #[track_caller]
    pub(crate) fn new(kind: OpKind, obj: ObjId) -> Self {
        Op {
            kind,
            obj,
            obj2: None,
            how: None,
            condition: None,
            target: CtxId(0),
            idle: false,
            or_waits: false,
            site: Location::caller(),
        }
    }

    /// What a replay compares to find out that a program is not deterministic.
    #[inline]
    pub(crate) fn signature(&self) -> u64 {
        signature_of(self.obj, self.kind)
    }
}

/// See [`Op::signature`].
#[inline]
pub(crate) fn signature_of(obj: ObjId, kind: OpKind) -> u64 {
    u64::from(obj.0) << 8 | kind as u64
}
