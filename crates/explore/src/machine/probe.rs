//! Finding out what a loop does in which a context rests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{CtxId, CtxSet, ObjId, site};
use crate::machine::alone::Alone;
use crate::machine::object::NOBODY;
use crate::machine::rest::relaxes;
use crate::machine::spin::{Found, Key, Known, LOOKS, MOST_STEPS, Probe, Spin, SpinLoop};
use crate::machine::world::World;
use crate::op::{Access, NO_OBJ, Op, OpKind};

impl World {
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
        self.spins.learn(probe.key, Known { spin, told, private });
    }
}
