//! What a context does alone: several steps, none of another context between them.

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::spin::{LOOKS, Probe, Spin};
use crate::machine::step::NO_OBJ;
use crate::machine::world::World;
use crate::op::{Op, OpKind};
use crate::search::Fault;
use crate::trace::FailureKind;

/// Why the current context goes on alone.
pub(crate) enum Alone {
    /// The context is probed, to find out whether its loop gives up.
    Probe(Box<Probe>),
    /// The context's loop gives up: all its looks until then are one step. It reads these objects,
    /// of which none is written meanwhile.
    Lapse { reads: Vec<(ObjId, u32)>, looks: Looks },
    /// The context panicked, and destructors run. Nothing can be suspended before the panic is
    /// caught, so they belong to the step in which it panicked.
    Unwinds { looks: u32 },
}

/// How often a context looks again that has not seen yet what its loop read when it was probed.
const SOME_LOOKS: u32 = 64;

/// The looks of a context that goes on alone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Looks {
    /// Those that ended with a `cpu_relax`.
    whole: u32,
    /// Whether another one has begun.
    begun: bool,
}

/// The contexts that could go on though they rest in a loop.
#[derive(Clone, Copy, Default)]
pub(crate) struct Resting {
    /// They have not seen yet all that their loop reads.
    pub look: CtxSet,
    /// They may lapse.
    pub lapse: CtxSet,
    /// They might lapse, but have done so as often as they may.
    pub limited: CtxSet,
    /// The context of which it is to be found out what its loop does.
    pub unknown: Option<CtxId>,
}

impl World {
    /// Sorts those who rest: `relaxing` have come to a `cpu_relax` and were not let go on.
    #[cold]
    pub(crate) fn resting(&mut self, relaxing: CtxSet, enabled: CtxSet) -> Resting {
        let mut resting = Resting::default();
        for id in relaxing.iter().filter(|&id| !enabled.contains(id)) {
            if !self.on_cpu(id) || self.ctx(id).spent {
                continue;
            }
            let (lapses, limit) = (self.ctx(id).lapses, self.search.settings.lapses);
            let free = self.ctx(id).looks_on == Some(self.ctx(id).pending.site);
            match self.spin(id).cloned() {
                None if self.search.is_searching() => {
                    resting.unknown = resting.unknown.or(Some(id))
                }
                // The run is only brought to its end.
                None => resting.limited.insert(id),
                Some(Spin::Await(all)) => {
                    let seen = |obj: &ObjId| self.ctx(id).reads.iter().any(|(read, _)| read == obj);
                    if self.ctx(id).in_vain < SOME_LOOKS && !all.iter().all(seen) {
                        resting.look.insert(id);
                    }
                }
                Some(_) if self.search.settings.fault == Some(Fault::NeverLapses) => {}
                Some(Spin::Counts) if free => resting.lapse.insert(id),
                Some(_) if lapses < limit => resting.lapse.insert(id),
                Some(_) => resting.limited.insert(id),
            }
        }
        if enabled.is_empty() && resting.look.is_empty() && resting.lapse.is_empty() {
            // Who alone is left has all the time there is.
            resting.lapse = std::mem::replace(&mut resting.limited, CtxSet::EMPTY);
        }
        resting
    }

    /// The looks of `id` until it gives up begin: it has lapsed.
    pub(crate) fn begin_lapse(&mut self, id: CtxId) {
        let rounds = matches!(self.ctx(id).spin, Some(Spin::Rounds));
        let ctx = self.ctx_mut(id);
        ctx.lapses += (rounds || ctx.looks_on != Some(ctx.pending.site)) as u32;
        let reads = ctx.reads.clone();
        self.repeats = false;
        self.alone = Some(Alone::Lapse { reads, looks: Looks::default() });
    }

    /// A context goes on, as recorded when this schedule ran before, where it relaxed.
    #[cold]
    pub(crate) fn relax_again(&mut self, id: CtxId, recorded: OpKind) {
        // What it had done before this step.
        let depth = self.search.depth() - 1;
        if !self.has_news(id) {
            let changed = self.changes_at(id, depth);
            self.ctx(id).own_change.set(Some(changed));
        }
        if recorded == OpKind::Lapse {
            self.spin_at(id, depth);
        }
        self.effect(id);
    }

    /// The current context does not go on alone any longer.
    #[inline]
    pub(crate) fn leave_alone(&mut self) {
        if self.alone.is_some() {
            self.end_alone();
        }
    }

    #[cold]
    fn end_alone(&mut self) {
        match self.alone.take() {
            Some(Alone::Probe(probe)) => self.probed = Some(probe),
            Some(Alone::Lapse { looks, .. }) => self.tell_lapse(looks.whole + looks.begun as u32),
            Some(Alone::Unwinds { .. }) | None => {}
        }
    }

    /// The current context panicked, and unwinds.
    pub(crate) fn unwinds(&mut self) {
        self.leave_alone();
        self.repeats = false;
        self.alone = Some(Alone::Unwinds { looks: 0 });
    }

    /// The current context, `me`, has come to a step while it goes on alone. Whether it goes on
    /// with that, which is done then.
    #[cold]
    pub(crate) fn goes_on_alone(&mut self, me: CtxId) -> bool {
        let Some(mut alone) = self.alone.take() else { return false };
        let op = self.ctx(me).pending;
        let goes_on = self.failed.is_none()
            && match &mut alone {
                Alone::Probe(probe) => self.probe_goes_on(probe, &op),
                Alone::Lapse { reads, looks } => self.lapse_goes_on(me, &op, reads, looks),
                Alone::Unwinds { looks } => self.unwinding_goes_on(me, &op, looks),
            };
        let probes = matches!(alone, Alone::Probe(_));
        self.alone = Some(alone);
        if !goes_on {
            self.leave_alone();
            return false;
        }
        if probes {
            self.note_use(me, &op);
        }
        self.watched.alone_at(op.site);
        self.effect(me);
        true
    }

    fn lapse_goes_on(
        &mut self,
        me: CtxId,
        op: &Op,
        reads: &[(ObjId, u32)],
        looks: &mut Looks,
    ) -> bool {
        let known = |obj: ObjId| reads.iter().any(|&(read, _)| read == obj);
        let goes_on = match op.kind {
            OpKind::Relax => {
                looks.whole += 1;
                looks.begun = false;
                looks.whole < LOOKS
            }
            OpKind::Lock | OpKind::TryLock | OpKind::Unlock => {
                known(op.obj) && self.op_enabled(me, op)
            }
            _ => {
                let looks = matches!(self.becomes(me, op), OpKind::Load | OpKind::Observe);
                looks
                    && op.obj != NO_OBJ
                    && op.obj2.is_none()
                    && self.ctx(me).more.is_none()
                    && known(op.obj)
            }
        } && self.on_cpu(me);
        if !goes_on {
            let ctx = self.ctx_mut(me);
            ctx.spent = op.kind == OpKind::Relax;
            if ctx.spent {
                ctx.reads.extend_from_slice(reads);
            }
            // A body that does more than look is left at once, and yet the loop goes on.
            ctx.looks_on = (looks.whole == 0).then_some(ctx.relaxed);
        }
        looks.begun |= goes_on && op.kind != OpKind::Relax;
        goes_on
    }

    fn unwinding_goes_on(&mut self, me: CtxId, op: &Op, looks: &mut u32) -> bool {
        if !std::thread::panicking() && self.search.settings.fault != Some(Fault::PanicStays) {
            return false;
        }
        self.unwound = true;
        *looks += (op.kind == OpKind::Relax) as u32;
        let can = match op.kind {
            OpKind::Relax => *looks < LOOKS,
            OpKind::Enter | OpKind::Return | OpKind::Switch => false,
            _ => self.on_cpu(me) && self.op_enabled(me, op),
        };
        if !can || self.starting {
            let ctx = &self.ctx(me).name;
            let at = crate::machine::wait_for::site(op.site);
            let message = match self.starting {
                true => format!(
                    "{ctx} panicked before its first step, and its destructors take one, at {at}, while it unwinds: they \
                     belong to the step before, so let it take one"
                ),
                false => format!(
                    "{ctx} panicked and would wait for {} at {at} while it unwinds: nothing that destructors do then can \
                     wait for others",
                    self.describe_wait(op)
                ),
            };
            self.fail(FailureKind::Panic, CtxSet(me.bit()), message);
            return false;
        }
        self.search.unwinds(me);
        self.also(|w, open| {
            w.op_uses(me, op, w.becomes(me, op), &mut |obj, access| open.add(obj, access));
        });
        true
    }

    /// Returns whether `id` lapses if it goes on now.
    pub(crate) fn lapses(&self, id: CtxId) -> bool {
        let ctx = self.ctx(id);
        let gives_up = match ctx.spin {
            Some(Spin::Counts | Spin::Rounds) => true,
            Some(Spin::Await(_)) => false,
            None => !self.search.is_searching(),
        };
        gives_up && !ctx.spent && self.alone.is_none() && self.rests(id)
    }

    /// Marks that `id` uses what the step `op` uses, for [`end_probe`](World::end_probe).
    pub(crate) fn note_use(&mut self, id: CtxId, op: &Op) {
        for obj in [Some(op.obj).filter(|&obj| obj != NO_OBJ), op.obj2].into_iter().flatten() {
            self.obj_mut(obj).users.insert(id);
        }
    }
}
