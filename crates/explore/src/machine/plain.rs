//! The plain accesses of an execution, which are no steps.

use std::panic::Location;

use crate::ids::{CtxId, ObjId};

/// An access.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub obj: ObjId,
    pub ctx: CtxId,
    pub writes: bool,
    /// The number of the step that begins its segment, plus 1; 0 before the first.
    pub segment: u32,
    pub site: &'static Location<'static>,
}

/// Somebody has waited for the end of a context, which is no step of that context.
#[derive(Clone, Copy)]
pub(crate) struct Joined {
    pub target: CtxId,
    pub by: CtxId,
    /// The number of the step that has waited.
    pub step: u32,
}

/// The plain accesses of an execution.
#[derive(Default)]
pub(crate) struct Plain {
    /// The last of each context to each object, of each kind.
    accesses: Vec<Access>,
    /// Those of the step that is being done, whose place in the order is not known yet.
    pub open: Vec<Access>,
    pub joined: Vec<Joined>,
}

impl Plain {
    /// Returns whether accesses wait for their step to be closed.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes the access for the last one of its context.
    pub(crate) fn note(&mut self, access: Access) {
        let same = |other: &&mut Access| {
            (other.obj, other.ctx, other.writes) == (access.obj, access.ctx, access.writes)
        };
        match self.accesses.iter_mut().find(same) {
            Some(last) => *last = access,
            None => self.accesses.push(access),
        }
    }

    /// Returns an access that races with this one, whose segment knows what `clock` says.
    pub(crate) fn race(&self, access: &Access, clock: &[u32]) -> Option<Access> {
        let knows = |ctx: CtxId| clock.get(ctx.index()).copied().unwrap_or(0);
        let ordered = |earlier: &Access| {
            let ended =
                |joined: &Joined| joined.target == earlier.ctx && knows(joined.by) > joined.step;
            knows(earlier.ctx) > earlier.segment || self.joined.iter().any(ended)
        };
        let conflicts = |earlier: &&Access| {
            earlier.obj == access.obj
                && earlier.ctx != access.ctx
                && (earlier.writes || access.writes)
        };
        self.accesses.iter().filter(conflicts).find(|earlier| !ordered(earlier)).copied()
    }
}
