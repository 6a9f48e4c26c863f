//! Whose step is next: who could do theirs, and which of them the search takes.

use crate::ids::{CtxId, CtxSet};
use crate::machine::object::NOBODY;
use crate::machine::rest::Resting;
use crate::machine::world::World;
use crate::op::{Op, OpKind};
use crate::trace::FailureKind;

impl World {
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
            if planned.index() >= self.ctxs.len() {
                // A value was chosen here when this schedule ran before.
                self.differs(self.current);
                return None;
            }
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
    pub(super) fn differs(&mut self, id: CtxId) {
        let message = format!(
            "{} does something else at step {} when the same schedule is run again: the program depends on something \
             that the machine does not control",
            self.ctx(id).name,
            self.search.depth(),
        );
        self.fail(FailureKind::Nondeterministic, CtxSet(id.bit()), message);
    }

    /// Does the machine's share of the pending step of `id`.
    #[inline]
    pub(super) fn perform(&mut self, id: CtxId) {
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
