//! How a simulated object finds itself in the current execution.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ids::ObjId;
use crate::world::{ObjKind, World};

/// Bits of the object's number; the rest is the execution's.
const OBJ_BITS: u32 = 20;

/// Which object this is, and in which execution that was found out. Atomic only so that objects can be shared by
/// threads without harm; each execution runs on one.
pub(crate) struct Stamp(AtomicU64);

impl Stamp {
    /// One that has not been used.
    pub(crate) const fn new() -> Stamp {
        Stamp(AtomicU64::new(0))
    }

    /// The object in this execution; `None` if it has not been used in it.
    #[inline]
    pub(crate) fn get(&self, w: &World) -> Option<ObjId> {
        let stamp = self.0.load(Relaxed);
        (stamp >> OBJ_BITS == w.epoch).then_some(ObjId((stamp & ((1 << OBJ_BITS) - 1)) as u32))
    }

    /// Makes it an object of this execution.
    #[cold]
    pub(crate) fn register(
        &self,
        w: &mut World,
        kind: ObjKind,
        name: impl Into<std::borrow::Cow<'static, str>>,
        created: &'static Location<'static>,
    ) -> ObjId {
        let id = w.add_obj(kind, name, created);
        assert!(id.0 < 1 << OBJ_BITS, "an execution has at most {} objects", 1 << OBJ_BITS);
        self.0.store(w.epoch << OBJ_BITS | u64::from(id.0), Relaxed);
        id
    }
}
