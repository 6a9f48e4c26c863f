//! Loops that wait by `cpu_relax`: which of them wait for ever, and which give up.
//!
//! A context *rests* at a `cpu_relax` while nobody has written to what its loop has read. Whether
//! its loop counts its looks is found out by a *probe*: where it first rests, the run goes on with
//! that context alone, up to [`LOOKS`] looks. If it comes back to the same `cpu_relax` each time
//! and has done nothing meanwhile that another context could notice, it is an await. The run is
//! thrown away, and the schedule is run again.
//!
//! A loop is known by its context, the place of its `cpu_relax`, and the way that the context has
//! come there: one function may wait for ever for one caller and count for another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::Location;
use std::sync::{Arc, Mutex};

use crate::ids::{CtxId, CtxSet, ObjId};

/// How often a context looks alone before its loop is taken for one that never gives up.
pub const LOOKS: u32 = 20_000;

/// How many steps a probe takes at the most.
pub(super) const MOST_STEPS: u32 = 16 * LOOKS;

/// What a loop does while nobody writes to what it reads.
#[derive(Clone, Debug)]
pub(crate) enum Spin {
    /// Looks, for ever: it reads these objects, and changes nothing that another context uses.
    Await(Arc<[ObjId]>),
    /// Gives up.
    Counts,
    /// Comes back for ever, but does something each time that others may notice.
    Rounds,
}

/// A loop with `cpu_relax`, as far as the search knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct SpinLoop {
    /// The context that loops.
    pub context: String,
    /// The `file:line` of its `cpu_relax`.
    pub site: String,
    /// Whether it gave up when it was left alone. If not, it was still looking after [`LOOKS`]
    /// looks, and is taken for one that waits for ever.
    pub gives_up: bool,
}

/// The loop that a context is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(super) ctx: CtxId,
    /// The address of the place of its `cpu_relax`.
    pub(super) site: usize,
    /// A hash of the steps by which the context has come there.
    pub(super) path: u64,
}

pub(super) struct Known {
    pub(super) spin: Spin,
    pub(super) told: SpinLoop,
    /// What it changes, taken for its own affair because no other context was seen to use it.
    pub(super) private: Vec<ObjId>,
}

/// The loops that all OS threads of one search know.
#[derive(Clone, Default)]
pub(crate) struct Spins(Arc<Mutex<HashMap<Key, Known>>>);

impl Spins {
    pub(super) fn get(&self, key: Key) -> Option<Spin> {
        self.0.lock().expect("no panic while it is held").get(&key).map(|known| known.spin.clone())
    }

    /// Makes known what was found out about a loop, unless another thread was faster.
    pub(super) fn learn(&self, key: Key, known: Known) {
        self.0.lock().expect("no panic while it is held").entry(key).or_insert(known);
    }

    /// Those that were met.
    pub(crate) fn told(&self) -> Vec<SpinLoop> {
        let known = self.0.lock().expect("no panic while it is held");
        known
            .values()
            .map(|known| known.told.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// A loop that is taken for an await though others use what it changes; `users` says who has
    /// used which object.
    pub(crate) fn mistaken(&self, users: &[CtxSet]) -> Option<SpinLoop> {
        let known = self.0.lock().expect("no panic while it is held");
        let shared = |key: &Key, obj: &ObjId| {
            users.get(obj.index()).is_some_and(|by| by.0 & !key.ctx.bit() != 0)
        };
        known
            .iter()
            .find(|(key, known)| known.private.iter().any(|obj| shared(key, obj)))
            .map(|(_, known)| known.told.clone())
    }
}

/// A context that looks alone, to see whether it gives up.
pub(crate) struct Probe {
    pub ctx: CtxId,
    pub(super) key: Key,
    pub(super) site: &'static Location<'static>,
    pub(super) looks: u32,
    /// How often it has relaxed since it was last at the place.
    pub(super) elsewhere: u32,
    pub(super) steps: u32,
    pub(super) reads: BTreeSet<ObjId>,
    /// What it has changed, and at which look last.
    pub(super) changes: BTreeMap<ObjId, u32>,
    /// The last of them, and when it had been changed before.
    pub(super) last_change: (ObjId, Option<u32>),
    pub(super) found: Option<Found>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Left,
    StaysForEver,
    /// A lock that the loop takes is held.
    Unclear,
}

impl Probe {
    /// The last step turned out to have left `obj` as it was.
    pub(crate) fn unchanged(&mut self, obj: ObjId) {
        if self.last_change.0 == obj {
            match self.last_change.1 {
                Some(before) => self.changes.insert(obj, before),
                None => self.changes.remove(&obj),
            };
        }
    }
}
