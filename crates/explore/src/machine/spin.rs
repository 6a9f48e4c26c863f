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
use crate::machine::alone::Alone;
use crate::machine::object::NOBODY;
use crate::machine::step::NO_OBJ;
use crate::machine::wait_for::site;
use crate::machine::world::World;
use crate::op::{Access, Op, OpKind};

/// How often a context looks alone before its loop is taken for one that never gives up.
pub const LOOKS: u32 = 20_000;

/// How many steps a probe takes at the most.
const MOST_STEPS: u32 = 16 * LOOKS;

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
    ctx: CtxId,
    /// The address of the place of its `cpu_relax`.
    site: usize,
    /// A hash of the steps by which the context has come there.
    path: u64,
}

struct Known {
    spin: Spin,
    told: SpinLoop,
    /// What it changes, taken for its own affair because no other context was seen to use it.
    private: Vec<ObjId>,
}

/// The loops that all OS threads of one search know.
#[derive(Clone, Default)]
pub(crate) struct Spins(Arc<Mutex<HashMap<Key, Known>>>);

impl Spins {
    fn get(&self, key: Key) -> Option<Spin> {
        self.0.lock().expect("no panic while it is held").get(&key).map(|known| known.spin.clone())
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
    key: Key,
    site: &'static Location<'static>,
    looks: u32,
    /// How often it has relaxed since it was last at the place.
    elsewhere: u32,
    steps: u32,
    reads: BTreeSet<ObjId>,
    /// What it has changed, and at which look last.
    changes: BTreeMap<ObjId, u32>,
    /// The last of them, and when it had been changed before.
    last_change: (ObjId, Option<u32>),
    found: Option<Found>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
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

impl World {
    /// Returns whether `id` has come to a `cpu_relax`, and nothing has changed since it looked.
    #[inline]
    pub(crate) fn rests(&self, id: CtxId) -> bool {
        self.ctx(id).pending.kind == OpKind::Relax && !self.looks_again(id)
    }

    /// Returns whether there is a reason for `id`, which has come to a `cpu_relax`, to look again.
    pub(crate) fn looks_again(&self, id: CtxId) -> bool {
        self.has_news(id) || self.own_change(id)
    }

    /// Returns whether something was written that `id` has read since the last `cpu_relax`, or it
    /// has read nothing.
    pub(crate) fn has_news(&self, id: CtxId) -> bool {
        let reads = &self.ctx(id).reads;
        reads.is_empty()
            || reads.iter().any(|&(obj, version)| self.versions[obj.index()] != version)
    }

    /// Returns whether `id` has changed something itself since the last `cpu_relax`: the next look
    /// may go another way because of that. To change the same as in the round before is no
    /// progress: that is how looks are counted.
    pub(crate) fn own_change(&self, id: CtxId) -> bool {
        let known = &self.ctx(id).own_change;
        known.get().unwrap_or_else(|| {
            // A run that is only brought to its end is not recorded any more.
            let changed = self.search.is_searching() && self.changes_at(id, self.search.depth());
            known.set(Some(changed));
            changed
        })
    }

    /// [`own_change`](World::own_change), after so many steps.
    pub(crate) fn changes_at(&self, id: CtxId, depth: usize) -> bool {
        let steps = self.search.events.steps_of(id, depth);
        let changes = |step: &&u64| {
            [OpKind::Store, OpKind::Rmw, OpKind::Change, OpKind::Take]
                .iter()
                .any(|&kind| is(**step, kind))
        };
        let mut rounds = steps.rsplit(relaxes).map(|round| round.iter().filter(changes));
        let Some(last) = rounds.next().filter(|last| last.clone().next().is_some()) else {
            return false;
        };
        !rounds.next().is_some_and(|before| before.eq(last))
    }

    /// What the loop does in which `id` rests, if that is known.
    pub(crate) fn spin(&mut self, id: CtxId) -> Option<&Spin> {
        self.spin_at(id, self.search.depth())
    }

    /// [`spin`](World::spin), after so many steps.
    pub(crate) fn spin_at(&mut self, id: CtxId, depth: usize) -> Option<&Spin> {
        if self.ctx(id).spin.is_none() {
            let key = self.key(id, depth);
            let found = match self.spins_known.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let known = self.spins.get(key)?;
                    self.spins_known.insert(key, known.clone());
                    known
                }
            };
            self.ctx_mut(id).spin = Some(found);
        }
        self.ctx(id).spin.as_ref()
    }

    fn key(&self, id: CtxId, depth: usize) -> Key {
        let ctx = self.ctx(id);
        let steps = self.search.events.steps_of(id, depth);
        // Looks without an effect on what it does are the same way, however many they were.
        let mut path = 0u64;
        let mut before: &[u64] = &[];
        for round in steps.split_inclusive(relaxes) {
            if round != before {
                path = round.iter().fold(path, |path, &step| {
                    (path ^ step).wrapping_mul(0x100_0000_01b3).rotate_left(23)
                });
            }
            before = round;
        }
        let held =
            |&&(obj, _): &&(ObjId, u32)| self.obj(obj).is_lock() && self.obj(obj).holder != NOBODY;
        path = path.rotate_left(1) ^ ctx.reads.iter().filter(held).count() as u64;
        Key { ctx: id, site: std::ptr::from_ref(ctx.pending.site) as usize, path }
    }

    /// Begins to find out what the loop does in which `id` rests. The run is no execution from here
    /// on.
    #[cold]
    pub(crate) fn begin_probe(&mut self, id: CtxId) -> CtxId {
        let probe = Probe {
            ctx: id,
            key: self.key(id, self.search.depth()),
            site: self.ctx(id).pending.site,
            looks: 0,
            elsewhere: 0,
            steps: 0,
            reads: BTreeSet::new(),
            changes: BTreeMap::new(),
            last_change: (NO_OBJ, None),
            found: None,
        };
        self.probing = true;
        self.search.begin_probe();
        self.repeats = false;
        self.alone = Some(Alone::Probe(Box::new(probe)));
        id
    }

    /// Returns whether the context that is probed does the step `op` alone, or else the probe is
    /// over.
    pub(crate) fn probe_goes_on(&self, probe: &mut Probe, op: &Op) -> bool {
        let id = probe.ctx;
        let alone = !matches!(op.kind, OpKind::Return | OpKind::Enter | OpKind::Switch)
            && self.on_cpu(id)
            && (op.kind == OpKind::Relax || self.op_enabled(id, op));
        probe.steps += 1;
        probe.found = if op.kind == OpKind::Relax && op.site == probe.site {
            probe.looks += 1;
            probe.elsewhere = 0;
            (probe.looks >= LOOKS).then_some(Found::StaysForEver)
        } else if !alone {
            let lock =
                op.kind == OpKind::Lock && self.ctx(id).reads.iter().any(|&(obj, _)| obj == op.obj);
            Some(if lock { Found::Unclear } else { Found::Left })
        } else {
            probe.elsewhere += (op.kind == OpKind::Relax) as u32;
            (probe.elsewhere >= LOOKS || probe.steps >= MOST_STEPS).then_some(Found::Left)
        };
        if probe.found.is_some() {
            return false;
        }
        let mut uses = |obj: ObjId, access: Access| {
            let lock = obj != NO_OBJ && self.obj(obj).is_lock();
            // To hold a lock while one looks is nothing that others notice.
            if access == Access::Read || lock {
                probe.reads.insert(obj);
            } else {
                probe.last_change = (obj, probe.changes.insert(obj, probe.looks));
            }
        };
        match op.kind {
            OpKind::Relax | OpKind::IrqOff | OpKind::IrqOn => {}
            OpKind::Observe if op.obj == NO_OBJ => {}
            _ => uses(op.obj, self.becomes(id, op).access()),
        }
        op.obj2.into_iter().for_each(|obj| uses(obj, Access::Write));
        self.more_uses(id, &mut uses);
        true
    }

    /// The run in which something was probed is over: what was found is known from now on.
    pub(crate) fn end_probe(&mut self) {
        self.search.end_probe();
        let Some(probe) = self.probed.take() else { return };
        let others = |obj: ObjId| {
            let anybody =
                self.search.events.users().get(obj.index()).copied().unwrap_or(CtxSet::EMPTY);
            (anybody.0 | self.obj(obj).users.0) & !probe.ctx.bit() != 0
        };
        let visible = probe.changes.keys().any(|&obj| obj == NO_OBJ || others(obj));
        // What it has done once, and not again since, it did between two loops.
        let once = probe.changes.values().any(|&last| last < LOOKS / 2);
        let stable = |obj: &ObjId| obj.index() < self.set_up;
        let spin = match probe.found {
            Some(Found::StaysForEver) if once => Spin::Counts,
            Some(Found::StaysForEver) if visible => Spin::Rounds,
            Some(Found::StaysForEver) => {
                Spin::Await(probe.reads.iter().copied().filter(stable).collect())
            }
            Some(Found::Unclear) => Spin::Await(Arc::default()),
            Some(Found::Left) | None => Spin::Counts,
        };
        let private = match &spin {
            Spin::Await(_) => probe.changes.keys().copied().filter(stable).collect(),
            _ => Vec::new(),
        };
        let told = SpinLoop {
            context: self.ctx(probe.ctx).name.to_string(),
            site: site(probe.site),
            gives_up: matches!(spin, Spin::Counts),
        };
        let mut known = self.spins.0.lock().expect("no panic while it is held");
        known.entry(probe.key).or_insert(Known { spin, told, private });
    }
}

/// Returns whether a step, as [`Events::steps_of`](crate::search::events::Events::steps_of) tells it, is of
/// that kind.
fn is(step: u64, kind: OpKind) -> bool {
    step as u8 == kind as u8
}

/// Returns whether a step ends a round of a loop.
fn relaxes(step: &u64) -> bool {
    is(*step, OpKind::Relax) || is(*step, OpKind::Lapse)
}
