//! Interrupt and preemption state of the CPU that the current context runs on.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;

use doorbell_platform::{CpuId, Vector};

use crate::ids::{CtxId, ObjId};
use crate::machine::cell::with;
use crate::machine::cpu::CpuCount;
use crate::machine::leaf::acts;
use crate::machine::record::note;
use crate::machine::removal::taken;
use crate::machine::step::step;
use crate::machine::world::{Ended, Mode, World};
use crate::machine::{HandlerHandle, Machine};
use crate::op::{Op, OpKind};
use crate::search::removal::Taken;
use crate::sim::model::Model;
use crate::trace::FailureKind;
use crate::validate::CtxKind;

/// The vector on which a CPU is asked to switch tasks.
pub const RESCHEDULE: Vector = Vector(0xfd);

/// How deep interrupts were saved: restores must come in the opposite order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqDepth(usize);

pub(crate) fn current() -> CpuId {
    with(|w| w.current_cpu().unwrap_or(CpuId(0)))
}

pub(crate) fn count() -> u32 {
    let late = with(|w| {
        if w.mode == Mode::Alone && w.cpu_count == CpuCount::Open {
            w.need_cpus(1)?;
            w.cpu_count = CpuCount::Fixed;
        } else if w.cpu_count == CpuCount::Open {
            w.cpu_count = CpuCount::Told;
        }
        // Whether the task was there first, or the question, must make no difference: the question
        // is no step.
        let told = w.cpus.len().max(1) as u32;
        if w.late_cpus == 0 {
            Ok(told)
        } else {
            Err(format!(
                "a task that was spawned got CPU{}, and now it is asked how many CPUs there are, which must not change: say at \
             the beginning of the set-up how many, with `Machine::cpus`",
                told - 1
            ))
        }
    });
    late.unwrap_or_else(|why| panic!("{why}"))
}

/// The token of the CPU of the current context, and whether interrupts are on there.
fn state(w: &World) -> Option<(ObjId, bool)> {
    if w.mode != Mode::Running {
        return None;
    }
    let cpu = &w.cpus[w.current_cpu()?.0 as usize];
    Some((cpu.token, cpu.irqs_on))
}

#[track_caller]
pub(crate) fn irq_save() -> IrqDepth {
    let site = Location::caller();
    let stay_on = taken(site, Taken::IrqsOff);
    let (depth, turn_off) = with(|w| match state(w) {
        Some((token, on)) => {
            let me = w.current;
            let saves = &mut w.ctx_mut(me).irq_saves;
            let turn_off = on && !stay_on;
            saves.push(turn_off.then_some(site));
            (saves.len(), turn_off.then_some(token))
        }
        None => (0, None),
    });
    if let Some(token) = turn_off {
        step(Op::new(OpKind::IrqOff, token));
    }
    IrqDepth(depth)
}

#[track_caller]
pub(crate) fn irq_restore(depth: IrqDepth) {
    let turn_on = with(|w| {
        let (token, on) = state(w)?;
        let me = w.current;
        let saves = w.ctx(me).irq_saves.len();
        if saves != depth.0 {
            let message = format!(
                "{} restores interrupts out of order: it saved them {saves} times, and restores save {}",
                w.ctx(me).name,
                depth.0
            );
            w.fail_here(FailureKind::LockRule, message);
            return None;
        }
        // A guard's drop has no caller: the line that has turned them off says more.
        let site = w.ctx_mut(me).irq_saves.pop()??;
        (!on).then_some((token, site))
    });
    if let Some((token, site)) = turn_on {
        step(Op { site, ..Op::new(OpKind::IrqOn, token) });
    }
}

/// Turns interrupts on at this CPU, whatever they were: for handlers that let others interrupt
/// them.
#[track_caller]
pub fn local_irq_enable() {
    if let Some((token, false)) = with(|w| state(w)) {
        step(Op::new(OpKind::IrqOn, token));
    }
}

/// Turns interrupts off at this CPU, whatever they were.
#[track_caller]
pub fn local_irq_disable() {
    if let Some((token, true)) = with(|w| state(w)) {
        step(Op::new(OpKind::IrqOff, token));
    }
}

pub(crate) fn irqs_enabled() -> bool {
    with(|w| state(w)).is_none_or(|(_, on)| on)
}

pub(crate) fn in_hardirq() -> bool {
    with(|w| w.mode == Mode::Running && w.ctx(w.current).kind == CtxKind::Handler)
}

pub(crate) fn preempt_disable() {
    with(|w| {
        if w.mode == Mode::Running {
            let me = w.current;
            w.ctx_mut(me).preempt_off += 1;
        }
    });
}

#[track_caller]
pub(crate) fn preempt_enable() {
    with(|w| {
        if w.mode != Mode::Running {
            return;
        }
        let me = w.current;
        match w.ctx(me).preempt_off.checked_sub(1) {
            Some(depth) => w.ctx_mut(me).preempt_off = depth,
            None => {
                let message =
                    format!("{} turns preemption on, which it had not turned off", w.ctx(me).name);
                w.fail_here(FailureKind::LockRule, message);
            }
        }
    });
}

#[track_caller]
pub(crate) fn send_ipi(cpu: CpuId, vector: Vector) {
    acts(|| format!("sends an IPI to {cpu}"));
    let handler = with(|w| {
        let handler =
            w.ctxs.iter().position(|ctx| ctx.cpu == Some(cpu) && ctx.vector == Some(vector));
        if handler.is_none() {
            w.fail_here(FailureKind::LostInterrupt, format!("{cpu} has no handler of {vector}"));
        }
        let ctx = crate::ids::CtxId(handler? as u8);
        let pending = w.ctx(ctx).pending_obj?;
        Some((ctx, pending, w.ctx(ctx).kept.get::<Wire>().cloned()))
    });
    match handler {
        Some((_, _, Some(wire))) => wire.send(),
        Some((target, pending, None)) => step(Op { target, ..Op::new(OpKind::Raise, pending) }),
        None => {}
    }
}

/// What inter-processor interrupts of one CPU and vector travel on. They arrive later, one by one.
#[derive(Clone)]
struct Wire {
    flying: Arc<Model<u32>>,
    cpu: CpuId,
    vector: Vector,
    /// Where the handler was installed.
    site: &'static Location<'static>,
}

impl Wire {
    #[track_caller]
    fn new(cpu: CpuId, vector: Vector) -> Self {
        let flying = Arc::new(Model::new("IPI in flight", 0));
        Wire { flying, cpu, vector, site: Location::caller() }
    }

    #[track_caller]
    fn send(&self) {
        self.flying.change(|flying| *flying += 1);
        note(|| format!("sends {:#04x} to {}", self.vector.0, self.cpu));
    }

    /// Carries one interrupt to its handler.
    fn deliver(&self, target: CtxId, pending: ObjId) -> Result<(), Ended> {
        let one = |flying: &u32| *flying > 0;
        self.flying.serve_with(self.site, pending, one, |flying| *flying -= 1)?;
        note(|| format!("{:#04x} arrives at {}", self.vector.0, self.cpu));
        with(|w| w.ctx_mut(target).raised = true);
        Ok(())
    }
}

impl Machine {
    /// Installs a [`handler`](Machine::handler) whose interrupt is sent by [`Platform::send_ipi`]:
    /// each of them is in flight for some time before it is pending.
    ///
    /// [`Platform::send_ipi`]: doorbell_platform::Platform::send_ipi
    #[track_caller]
    pub fn ipi_handler(
        &self,
        cpu: CpuId,
        vector: Vector,
        name: impl Into<Cow<'static, str>>,
        f: impl Fn() + 'static,
    ) -> HandlerHandle {
        let handler = self.handler(cpu, vector, name, f);
        let wire = Wire::new(cpu, vector);
        with(|w| w.ctx_mut(handler.id()).kept.put(wire.clone()));
        self.hardware(format!("IPI to {cpu}"), move || {
            while wire.deliver(handler.id(), handler.pending()).is_ok() {}
        })
        .may_not_run();
        handler
    }
}
