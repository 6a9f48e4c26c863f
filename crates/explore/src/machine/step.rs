//! How a step is announced, and how the context whose turn it is comes to run.
//!
//! A context announces what it will do next and suspends; when it is chosen, the machine performs
//! its share (who holds which lock, which interrupts are on) and the context does the rest inline:
//! nobody else runs until it announces again.

use std::panic::Location;

use crate::ids::{CtxId, ObjId};
use crate::machine::cell::{Here, WorldCell, here};
use crate::machine::coroutine::Runners;
use crate::machine::preempt::preempt;
use crate::machine::stamp::Stamp;
use crate::machine::world::{Ended, Mode, World};
use crate::op::{Op, OpKind, signature_of};

enum Next {
    Go,
    /// Others have their turn before the context, or the run is over: it gives way to whoever
    /// resumed it.
    Leave,
    /// The context lets another one have its turn.
    Resume {
        me: CtxId,
        next: CtxId,
    },
    /// Nobody has his turn yet.
    Wait(CtxId),
    Over,
    /// The step was not performed: the task has to let others run first.
    Preempted,
}

/// What the current context has come to, at an object that a stamp stands for.
enum Come {
    /// A step that it has done as when this schedule ran before.
    Repeated,
    /// A step on this object, which is to be announced.
    To(ObjId),
    /// There is no such object yet in this execution.
    ToNothing,
}

/// Announces `op` and returns when it has been performed; `Err` if the run ended first and `op` is
/// where a service waits.
///
/// Inlined as far as the place where the step is kept, so that it is written there field by field
/// and not copied. The switches are inlined, too: each function that one happens in is one return
/// address that the processor mispredicts.
#[inline(always)]
pub(crate) fn try_step(op: Op) -> Result<(), Ended> {
    let cell = here();
    let next = cell.with(|w| w.come_to(op, &cell.runners));
    carry_on(cell, next)
}

/// Announces `op`, but of the object behind `stamp`, and returns when it has been performed.
/// `false`, with nothing announced, if there is none yet in this execution.
#[inline(always)]
pub(crate) fn step_of(stamp: &Stamp, op: Op) -> bool {
    let cell = here();
    let mut inside = cell.inside();
    let come = inside.world().repeats(stamp, op.kind, op.site);
    inside.leave();
    match come {
        Come::Repeated => {}
        Come::To(obj) => step(Op { obj, ..op }),
        Come::ToNothing => return false,
    }
    true
}

#[inline(always)]
fn carry_on(cell: Here, mut next: Next) -> Result<(), Ended> {
    loop {
        next = match next {
            Next::Go => return Ok(()),
            Next::Leave => {
                cell.runners.suspend();
                cell.with(|w| w.resumed())
            }
            Next::Resume { me, next } => {
                let ended = cell.runners.resume(next);
                cell.with(|w| w.come_back(me, next, ended, &cell.runners))
            }
            next => return later(&cell, next),
        };
    }
}

/// [`try_step`], where it does not often get.
#[inline(never)]
fn later(cell: &WorldCell, mut next: Next) -> Result<(), Ended> {
    loop {
        next = match next {
            Next::Go => return Ok(()),
            Next::Over => return Err(Ended),
            Next::Wait(me) => {
                cell.run(Some(me));
                cell.with(|w| w.resumed())
            }
            Next::Leave => {
                cell.runners.suspend();
                cell.with(|w| w.resumed())
            }
            Next::Resume { me, next } => {
                let ended = cell.runners.resume(next);
                cell.with(|w| w.come_back(me, next, ended, &cell.runners))
            }
            Next::Preempted => {
                let op = preempt();
                cell.with(|w| w.come_to(op, &cell.runners))
            }
        };
    }
}

/// [`try_step`] for code that has nothing to do when the run is over: it stays where it is.
#[inline(always)]
pub(crate) fn step(op: Op) {
    if try_step(op).is_err() {
        stay();
    }
}

/// A context that waited when the run ended, in code that does not expect it, never goes on.
#[cold]
pub(crate) fn stay() -> ! {
    loop {
        here().runners.suspend();
    }
}

impl World {
    /// The current context, or whoever acts while none runs, has come to a step.
    #[inline(always)]
    fn come_to(&mut self, op: Op, runners: &Runners) -> Next {
        if self.mode == Mode::Running {
            self.relaxes |= op.kind == OpKind::Relax;
            self.ctxs[self.current.index()].pending = op;
            self.announce(runners)
        } else {
            self.pending_alone = op;
            match self.step_outside() {
                Ok(()) => Next::Go,
                Err(Ended) => Next::Over,
            }
        }
    }

    /// Does a step of the current context on the object behind `stamp`, if that goes on as when
    /// this schedule ran before and no more is to be done than to count. Most steps of most
    /// executions are such.
    #[inline(always)]
    fn repeats(&mut self, stamp: &Stamp, kind: OpKind, site: &'static Location<'static>) -> Come {
        let Some(obj) = stamp.get(self) else { return Come::ToNothing };
        let Some(event) = self.search.recorded() else { return Come::To(obj) };
        if event.ctx != self.current
            || event.signature != signature_of(obj, kind)
            || !self.repeats
            || !self.access(self.current, kind, obj)
        {
            return Come::To(obj);
        }
        self.search.advance(false);
        self.watched.at(self.current, self.search.depth(), site);
        Come::Repeated
    }

    /// The current context has come to its next step, which is pending.
    #[inline(never)]
    fn announce(&mut self, runners: &Runners) -> Next {
        let me = self.current;
        if !self.repeats && self.is_unusual() || !self.repeat() {
            return self.announce_new(me, runners);
        }
        self.give_way(me, runners)
    }

    /// Returns whether more is to be looked at than what was recorded of the next step.
    fn is_unusual(&mut self) -> bool {
        let unusual = self.starting
            || !self.unstarted.is_empty()
            || self.failed.is_some()
            || self.alone.is_some();
        self.repeats = !unusual && !self.schedules;
        unusual
    }

    #[inline(always)]
    fn announce_new(&mut self, me: CtxId, runners: &Runners) -> Next {
        if self.alone.is_some() && self.goes_on_alone(me) {
            return Next::Go;
        }
        self.close();
        self.turn = None;
        let fails = self.ctx(me).pending.kind.can_wait() && !self.may_sleep(me);
        if self.starting {
            return Next::Leave;
        }
        if !fails && self.unstarted.is_empty() && self.failed.is_none() {
            self.hand_on();
        }
        self.give_way(me, runners)
    }

    /// How `me`, which runs, sees to it that who is next runs.
    #[inline(always)]
    fn give_way(&mut self, me: CtxId, runners: &Runners) -> Next {
        match self.turn {
            Some(next) if next == me => self.resumed(),
            Some(next) if runners.is_entered(next) => Next::Leave,
            Some(next) => Next::Resume { me, next },
            None => Next::Wait(me),
        }
    }

    /// The context `next`, which `me` resumed, has left, or ended.
    #[inline(never)]
    fn come_back(&mut self, me: CtxId, next: CtxId, ended: bool, runners: &Runners) -> Next {
        if ended {
            self.finished(next);
        }
        self.give_way(me, runners)
    }

    /// Decides whose turn is next, and does the machine's share of the step.
    pub(crate) fn hand_on(&mut self) {
        if self.repeat() {
            return;
        }
        let Some(next) = self.decide() else { return };
        self.perform(next);
        if self.failed.is_none() {
            self.watched.at(next, self.search.depth(), self.ctx(next).pending.site);
            self.turn = Some(next);
            self.current = next;
        }
    }

    /// Does the machine's share of the next step, if it was recorded when this schedule ran before:
    /// then all about it is known, but for what it does. `false` if it was not, or is another one
    /// now.
    #[inline(always)]
    fn repeat(&mut self) -> bool {
        let Some(event) = self.search.recorded() else { return false };
        let (next, signature, kind) = (event.ctx, event.signature, event.kind);
        if self.must_reschedule(next) {
            self.reschedule(next);
        }
        let ctx = &self.ctxs[next.index()];
        if ctx.pending.signature() != signature {
            return false;
        }
        self.search.advance(false);
        match ctx.pending.kind {
            OpKind::Relax => self.relax_again(next, kind),
            _ => self.effect(next),
        }
        self.watched.at(next, self.search.depth(), self.ctxs[next.index()].pending.site);
        self.turn = Some(next);
        self.current = next;
        true
    }

    /// What a context finds when its turn has come.
    #[inline(always)]
    fn resumed(&mut self) -> Next {
        if self.mode == Mode::Ending {
            return Next::Over;
        }
        let me = self.current;
        if self.ctx(me).preempted.is_some() { Next::Preempted } else { Next::Go }
    }
}
