//! Contexts that must not sleep: handlers, and who has interrupts or preemption off or holds a spin
//! lock.

use doorbell_platform::WaitType;

use crate::ids::{CtxId, CtxSet};
use crate::machine::object::ObjKind;
use crate::machine::world::World;
use crate::op::OpKind;
use crate::trace::FailureKind;
use crate::validate::CtxKind;

impl World {
    /// Complains about something that sleeps where nothing may.
    pub(super) fn may_sleep(&mut self, me: CtxId) -> bool {
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
            ctx if ctx.kind == CtxKind::Handler => "it is an interrupt handler".to_owned(),
            ctx if ctx.held.iter().any(|held| held.class.wait_type() == WaitType::Spin) => {
                format!("it holds {}", self.holds_by_name(me).join(" and "))
            }
            ctx if ctx.preempt_off > 0 => "preemption is off".to_owned(),
            _ => "interrupts are off".to_owned(),
        };
        let what = self.describe_wait(op);
        let message = format!("{} may sleep until it gets {what}, and {why}", self.ctx(me).name);
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
}
