//! How a context goes on alone: which of its steps belong to the one before.

use crate::ids::{CtxId, CtxSet, ObjId, site};
use crate::machine::alone::{Alone, Looks};
use crate::machine::spin::LOOKS;
use crate::machine::world::World;
use crate::op::{NO_OBJ, Op, OpKind};
use crate::search::Fault;
use crate::trace::FailureKind;

impl World {
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
            let at = site(op.site);
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

    /// Marks that `id` uses what the step `op` uses, for [`end_probe`](World::end_probe).
    pub(crate) fn note_use(&mut self, id: CtxId, op: &Op) {
        for obj in [Some(op.obj).filter(|&obj| obj != NO_OBJ), op.obj2].into_iter().flatten() {
            self.obj_mut(obj).users.insert(id);
        }
    }
}
