//! Preemption: a task of a scheduler lets others run where it has announced a step, and announces
//! the step again when it is back.

use crate::ids::CtxId;
use crate::machine::cell::with;
use crate::machine::cpu::Cpu;
use crate::machine::object::ObjKind;
use crate::machine::world::World;
use crate::op::{NO_OBJ, Op, OpKind};

/// The current task was preempted where it announced a step: others run, and then it announces the
/// step again.
#[cold]
pub(super) fn preempt() -> Op {
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

impl World {
    /// Whether `id` has to let other tasks of its CPU run before it does anything else.
    #[inline(always)]
    pub(super) fn must_reschedule(&self, id: CtxId) -> bool {
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

    /// The task is preempted where it is: what it announced it will announce again.
    #[cold]
    pub(super) fn reschedule(&mut self, id: CtxId) {
        let ctx = self.ctx_mut(id);
        ctx.preempted = Some(Box::new(ctx.pending));
        ctx.pending =
            Op { kind: OpKind::Observe, obj: NO_OBJ, obj2: None, condition: None, ..ctx.pending };
        self.cpu_of(id).need_resched = false;
    }
}
