//! What is told of a VM that is stalled: where each vCPU is, its interrupts, and the last exits.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_gic::{IntId, VcpuId};
use doorbell_post::Mode;

use crate::cpu::Cpu;
use crate::say;
use crate::vm::Vm;
use crate::watchdog::Stall;

impl Vm {
    /// Tells that the VM is stalled, and of what there is to tell: lines that begin with its name,
    /// and one for each CPU. By a task.
    #[cold]
    pub(crate) fn tells(&self, stall: Stall) {
        let name = self.name;
        say!("{name} is stalled: {stall}");
        for (shared, vcpu) in self.vcpus.iter().zip(self.vcpus()) {
            let number = vcpu.number();
            if self.power(vcpu).is_some_and(|power| power.info() == OFF) {
                say!("{name}: vCPU {number} is off");
                continue;
            }
            let [pc, pstate] = shared.shown.each_ref().map(|word| word.load(Relaxed));
            let mode = self.gic.redistributor(vcpu).map(|this| this.news().run_state().mode());
            let (mode, interrupts) = (mode.map_or("lost", word), Interrupts { vm: self, vcpu });
            let (task, cpu) =
                shared.task.get().map_or(("is missing", 0), |t| (t.does(), t.cpu().0));
            say!(
                "{name}: vCPU {number} is {mode}, its task {task}, on CPU {cpu}; \
                 PC {pc:#x}, PSTATE {pstate:#x}; {interrupts}"
            );
        }
        for cpu in Cpu::all() {
            say!("CPU {}: {}", cpu.id().0, cpu.trace);
        }
    }
}

/// The answer to AFFINITY_INFO for a vCPU that is off.
const OFF: u64 = 1;

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Host => "in the hypervisor",
        Mode::Guest(_) => "in the guest",
        Mode::Kicked => "kicked out of the guest",
        Mode::Preempted => "preempted",
        Mode::Blocked => "blocked",
    }
}

/// The interrupts of a vCPU that are pending or active; for the first one, SPIs, too.
struct Interrupts<'a> {
    vm: &'a Vm,
    vcpu: VcpuId,
}

impl fmt::Display for Interrupts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gic, end) =
            (&self.vm.gic, if self.vcpu.number() == 0 { 32 + self.vm.gic.spis() } else { 32 });
        let states = || {
            (0..end).filter_map(IntId::new).filter_map(|id| {
                let line = if id.number() < 32 { gic.private(self.vcpu, id) } else { gic.spi(id) };
                Some((id.number(), line.ok()?.state()))
            })
        };
        f.write_str("pending:")?;
        for (id, state) in states().filter(|(_, state)| state.reads_as_pending()) {
            write!(f, " {id}{}", if state.is_enabled() { "" } else { " (disabled)" })?;
        }
        f.write_str(", active:")?;
        states().filter(|(_, state)| state.is_active()).try_for_each(|(id, _)| write!(f, " {id}"))
    }
}
