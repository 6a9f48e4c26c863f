//! How a simulated object finds itself in the current execution.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::ids::{ObjId, site};
use crate::machine::cell::with;
use crate::machine::live::{self, refuse};
use crate::machine::object::ObjKind;
use crate::machine::world::World;

/// Bits of the object's number. Above them is [`CHANGED`], and above that the execution's number.
const OBJ_BITS: u32 = 20;

/// The object has its number, and has not been used.
const RESERVED: u64 = 1 << 63;

/// What the object holds has been changed in that execution, and will not be what it was in the
/// next one.
const CHANGED: u64 = 1 << OBJ_BITS;

fn stamp(epoch: u64, id: ObjId) -> u64 {
    assert!(id.0 < 1 << OBJ_BITS, "an execution has at most {} objects", 1 << OBJ_BITS);
    epoch << (OBJ_BITS + 1) | u64::from(id.0)
}

/// The number of the object, and the execution in which that was found out.
///
/// Of two executions that run at once, at most one has the stamp: whoever finds that of an
/// execution that runs is refused, and of two that find one of an execution that is over only one
/// exchanges it. So whatever is behind a stamp is used by one OS thread at a time, and by the next
/// one after all that the former has done (see [`live`]).
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
        (stamp >> (OBJ_BITS + 1) == w.epoch).then_some(ObjId((stamp & (CHANGED - 1)) as u32))
    }

    /// Gives what has just been created its number in this execution: the set-up creates the same
    /// each time, and uses of it come in any order.
    #[inline]
    pub(crate) fn reserve(&self) {
        let (id, epoch) = with(|w| (w.reserve(), w.epoch));
        self.0.store(RESERVED | stamp(epoch, id), Relaxed);
    }

    /// Makes it an object of this execution. Ends the exploration if it is one of another execution
    /// that runs, or holds what a former one has left.
    pub(crate) fn register(
        &self,
        kind: ObjKind,
        name: impl Into<Cow<'static, str>>,
        created: &'static Location<'static>,
    ) -> ObjId {
        let name = name.into();
        let before = self.0.load(Acquire);
        let execution = (before & !RESERVED) >> (OBJ_BITS + 1);
        let ours = with(|w| {
            (w.epoch == execution).then(|| {
                // Nobody else exchanges the stamp of an execution that runs.
                let id = ObjId((before & (CHANGED - 1)) as u32);
                self.0.store(before & !RESERVED, Relaxed);
                w.make(id, kind, name.clone(), created);
                id
            })
        });
        if let Some(id) = ours {
            return id;
        }
        self.register_former(before, execution, kind, name, created)
    }

    /// [`register`](Stamp::register) of what was created in no execution, or in another one.
    #[cold]
    fn register_former(
        &self,
        before: u64,
        execution: u64,
        kind: ObjKind,
        name: Cow<'static, str>,
        created: &'static Location<'static>,
    ) -> ObjId {
        let runs = before != 0 && live::runs(execution);
        if before & CHANGED != 0 && !runs {
            refuse(format!(
                "{name} ({}) holds what an earlier execution has left there: what is captured or static, and changes, \
                 must be created in the set-up, which runs once for each execution",
                site(created)
            ));
        }
        let id = (!runs).then(|| {
            with(|w| {
                let id = w.reserve();
                w.make(id, kind, name.clone(), created);
                // If it fails, another execution has been faster, and runs.
                self.0
                    .compare_exchange(before, stamp(w.epoch, id), AcqRel, Relaxed)
                    .is_ok()
                    .then_some(id)
            })
        });
        id.flatten().unwrap_or_else(|| {
            refuse(format!(
                "{name} ({}) is used by another exploration that runs at the same time: tests that run in parallel, an \
                 exploration and one inside of its contexts, or the threads of one with several `jobs`, cannot share \
                 what is simulated; create it in the set-up of each",
                site(created)
            ))
        })
    }

    /// Says that what the object holds changes.
    #[inline]
    pub(crate) fn change(&self) {
        let stamp = self.0.load(Relaxed);
        if stamp & CHANGED == 0 {
            // Nobody else writes it while this execution runs.
            self.0.store(stamp | CHANGED, Relaxed);
        }
    }
}
