//! How a step is announced and chosen.
//!
//! A context announces what it will do next and suspends; when it is chosen, the machine performs
//! its share (who holds which lock, which interrupts are on) and the context does the rest inline:
//! nobody else runs until it announces again.

use std::panic::Location;

use doorbell_platform::WaitType;

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::cell::{Here, WorldCell, here, with};
use crate::machine::coroutine::Runners;
use crate::machine::cpu::Cpu;
use crate::machine::object::{NOBODY, ObjKind};
use crate::machine::rest::Resting;
use crate::machine::stamp::Stamp;
use crate::machine::world::{Ended, Mode, World};
use crate::op::{NO_OBJ, Op, OpKind, signature_of};
use crate::trace::FailureKind;
use crate::validate::CtxKind;

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

/// The current task was preempted where it announced a step: others run, and then it announces the
/// step again.
#[cold]
fn preempt() -> Op {
    let (scheduled, op, leaves) = with(|w| {
        let me = w.current;
        let leaves = w.set_leaves_aside(me);
        let ctx = w.ctx_mut(me);
        (ctx.scheduled.clone(), ctx.preempted.take(), leaves)
    });
    scheduled.expect("only tasks of a scheduler are preempted").preempt();
    with(|w| w.ctx_mut(w.current).leaves += leaves);
    *op.expect("it was preempted somewhere")
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
            self.alone()
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

    /// Whether `id` has to let other tasks of its CPU run before it does anything else.
    #[inline(always)]
    fn must_reschedule(&self, id: CtxId) -> bool {
        if !self.schedules {
            return false;
        }
        let Some(cpu) = self.ctx(id).cpu.map(|cpu| &self.cpus[cpu.0 as usize]) else {
            return false;
        };
        cpu.need_resched && self.may_reschedule(id, cpu)
    }

    #[cold]
    fn may_reschedule(&self, id: CtxId, cpu: &Cpu) -> bool {
        let ctx = self.ctx(id);
        // Who spins for a lock has preemption off.
        ctx.scheduled.is_some()
            && cpu.running() == Some(id)
            && !(ctx.pending.kind == OpKind::Lock
                && self.obj(ctx.pending.obj).kind == ObjKind::Spin)
            && !self.atomic(id)
    }

    /// Steps outside of the search: while the program sets up, while a panic unwinds, when the run
    /// is over.
    #[inline(never)]
    fn alone(&mut self) -> Next {
        let op = self.pending_alone;
        self.watched.alone_at(op.site);
        match self.mode {
            Mode::Ending if op.kind.can_wait() => return Next::Over,
            Mode::Outside | Mode::Alone => {
                let waits = match op.kind {
                    OpKind::Lock => self.obj(op.obj).holder != NOBODY,
                    OpKind::Await | OpKind::Take => !self.holds(&op),
                    OpKind::Relax => true,
                    _ => false,
                };
                assert!(
                    !waits,
                    "{} would wait for ever: no context runs yet",
                    self.describe_wait(&op)
                );
            }
            _ => {}
        }
        match op.kind {
            OpKind::Lock => self.obj_mut(op.obj).holder = 0,
            OpKind::TryLock => {
                let free = self.obj(op.obj).holder == NOBODY;
                self.obj_mut(op.obj).holder = 0;
                if self.ctxs.is_empty() || self.mode == Mode::Alone {
                    self.alone_got = free;
                } else {
                    let me = self.current;
                    self.ctx_mut(me).got = free;
                }
            }
            OpKind::Unlock => self.obj_mut(op.obj).holder = NOBODY,
            _ => {}
        }
        Next::Go
    }

    /// Complains about something that sleeps where nothing may.
    fn may_sleep(&mut self, me: CtxId) -> bool {
        let op = &self.ctx(me).pending;
        let sleeps = match op.kind {
            OpKind::Lock => self.obj(op.obj).kind == ObjKind::Mutex,
            OpKind::Await | OpKind::Take | OpKind::Join => true,
            _ => false,
        };
        if !sleeps || !self.atomic(me) {
            return true;
        }
        let why = match self.ctx(me) {
            ctx if ctx.kind == CtxKind::Handler => "in an interrupt handler".to_owned(),
            ctx if ctx.held.iter().any(|held| held.class.wait_type() == WaitType::Spin) => {
                let names: Vec<_> = ctx.held.iter().map(|held| held.class.name()).collect();
                format!("holding {}", names.join(", "))
            }
            ctx if ctx.preempt_off > 0 => "with preemption off".to_owned(),
            _ => "with interrupts off".to_owned(),
        };
        let message = format!(
            "{} {} may sleep, but is called {why}",
            self.ctx(me).name,
            self.describe_wait(op)
        );
        self.fail(FailureKind::SleepInAtomic, CtxSet(me.bit()), message);
        false
    }

    /// Whether `ctx` must not sleep.
    pub(crate) fn atomic(&self, ctx: CtxId) -> bool {
        let this = self.ctx(ctx);
        this.kind == CtxKind::Handler
            || this.preempt_off > 0
            || this.cpu.is_some_and(|cpu| !self.cpus[cpu.0 as usize].irqs_on)
            || this
                .held
                .iter()
                .any(|held| held.class.wait_type() == WaitType::Spin && held.lock.is_some())
    }

    /// Returns whether the condition of a step holds, which is not one that a program may have
    /// written.
    #[inline]
    pub(crate) fn holds(&self, op: &Op) -> bool {
        // SAFETY: the condition lives on the stack of the context that announced the step and that
        // is suspended in it, or is the caller. From a context that unwinds out of the step it is
        // taken back (`World::panics`).
        op.condition.is_none_or(|condition| unsafe { (*condition)() })
    }

    /// Whether `id` may take steps on its CPU now.
    #[inline]
    pub(crate) fn on_cpu(&self, id: CtxId) -> bool {
        self.ctx(id).cpu.is_none_or(|cpu| self.cpus[cpu.0 as usize].running() == Some(id))
    }

    /// Whether `id` could do its pending step now.
    #[inline(always)]
    pub(crate) fn enabled(&self, id: CtxId) -> bool {
        let ctx = self.ctx(id);
        if ctx.finished {
            return false;
        }
        let op = &ctx.pending;
        if op.kind == OpKind::Enter {
            let cpu = &self.cpus[ctx.cpu.expect("a handler has a CPU").0 as usize];
            return ctx.raised && cpu.irqs_on;
        }
        self.on_cpu(id)
            && (!op.kind.can_wait() || self.op_enabled(id, op) || self.must_reschedule(id))
    }

    /// Whether what a step waits for is there, its CPU aside.
    pub(crate) fn op_enabled(&self, id: CtxId, op: &Op) -> bool {
        match op.kind {
            OpKind::Lock => self.obj(op.obj).holder == NOBODY,
            OpKind::Await | OpKind::Take => {
                op.condition.is_none() || self.evaluate(id, || self.holds(op))
            }
            OpKind::Join => self.ctx(op.target).finished,
            OpKind::Relax => self.looks_again(id),
            _ => true,
        }
    }

    /// All contexts that could do their pending step now, and those who have to wait.
    #[inline]
    fn all_enabled(&self) -> (CtxSet, CtxSet) {
        let (mut enabled, mut waiting) = (CtxSet::EMPTY, CtxSet::EMPTY);
        for index in 0..self.ctxs.len() {
            let id = CtxId(index as u8);
            if self.enabled(id) {
                enabled.insert(id);
            } else if !self.ctxs[index].finished {
                waiting.insert(id);
            }
        }
        (enabled, waiting)
    }

    /// Those of `waiting` who have come to a `cpu_relax`.
    #[cold]
    fn relaxing(&self, waiting: CtxSet) -> CtxSet {
        let relaxing = waiting.iter().filter(|&id| self.ctx(id).pending.kind == OpKind::Relax);
        CtxSet(relaxing.fold(0, |set, id| set | id.bit()))
    }

    /// Returns the context that takes the next step; `None` ends the run.
    #[inline]
    pub(crate) fn decide(&mut self) -> Option<CtxId> {
        if let Some(planned) = self.search.planned() {
            return Some(planned);
        }
        if self.failed.is_some() || self.search.halted {
            return None;
        }
        let (mut enabled, waiting) = self.all_enabled();
        if self.a_condition_panicked() {
            return None;
        }
        let mut resting = Resting::default();
        let relaxing = if self.relaxes { self.relaxing(waiting) } else { CtxSet::EMPTY };
        if !relaxing.is_empty() {
            resting = self.resting(relaxing, enabled);
            if let Some(id) = resting.unknown {
                return Some(self.begin_probe(id));
            }
            enabled.0 |= resting.look.0 | resting.lapse.0;
            self.search.limited |= self.search.is_searching() && !resting.limited.is_empty();
        }
        if !waiting.is_empty()
            && self.search.settings.stop_at_stuck
            && !self.probing
            && self.someone_new_waits(enabled)
        {
            let stuck = self.stuck(CtxSet(enabled.0 | resting.limited.0));
            if self.a_condition_panicked() {
                return None;
            }
            if !stuck.is_empty() {
                self.fail_stuck(stuck);
                return None;
            }
        }
        if enabled.is_empty() {
            return None;
        }
        if self.search.depth() >= self.search.settings.max_steps {
            let message =
                format!("the run has not ended after {} steps", self.search.settings.max_steps);
            self.fail(FailureKind::TooLong, CtxSet::EMPTY, message);
            return None;
        }
        if let Some(halts) = self.search.looks() {
            self.watched.beat();
            if halts {
                return None;
            }
        }
        let analysed = self.search.analyses();
        let chosen = self.search.choose(enabled, resting.lapse);
        if analysed && self.search.was_cut() {
            // What can go on from here is run elsewhere. What cannot may have its turn nowhere but
            // before.
            self.analyse_waiting(enabled);
        }
        if !enabled.contains(chosen) {
            let message =
                format!("the schedule cannot be followed at step {}", self.search.depth());
            self.fail(FailureKind::Nondeterministic, CtxSet::EMPTY, message);
            return None;
        }
        Some(chosen)
    }

    /// Whether the context that just ran has come to wait or has ended: only then can a stuck set
    /// be new.
    #[inline]
    fn someone_new_waits(&self, enabled: CtxSet) -> bool {
        !enabled.contains(self.current) && self.ctxs.len() > 1
    }

    #[cold]
    fn differs(&mut self, id: CtxId) {
        let message = format!(
            "{} does something else at step {} when the same schedule is run again: the program depends on something \
             that the machine does not control",
            self.ctx(id).name,
            self.search.depth(),
        );
        self.fail(FailureKind::Nondeterministic, CtxSet(id.bit()), message);
    }

    /// The task is preempted where it is: what it announced it will announce again.
    #[cold]
    fn reschedule(&mut self, id: CtxId) {
        let ctx = self.ctx_mut(id);
        ctx.preempted = Some(Box::new(ctx.pending));
        ctx.pending =
            Op { kind: OpKind::Observe, obj: NO_OBJ, obj2: None, condition: None, ..ctx.pending };
        self.cpu_of(id).need_resched = false;
    }

    /// Does the machine's share of the pending step of `id`.
    #[inline]
    fn perform(&mut self, id: CtxId) {
        if self.must_reschedule(id) {
            self.reschedule(id);
        }
        let new = self.search.is_new();
        if new {
            self.open(id);
        } else if self.probing {
            let op = self.ctx(id).pending;
            self.note_use(id, &op);
        } else if self.search.recorded().is_some() {
            return self.differs(id);
        }
        let record = self.search.settings.record;
        let preempts = record && self.preempts(id);
        self.search.advance(new);
        self.effect(id);
        if record {
            let op = self.ctx(id).pending;
            self.record(id, &op, preempts);
        }
    }
}
