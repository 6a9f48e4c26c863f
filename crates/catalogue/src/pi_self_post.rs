//! X04: "the target is the vCPU that runs here, so there is nothing to do" drops a wake-up.
//!
//! Software that posts an interrupt notifies a vCPU in its guest, and wakes one that sleeps. If the
//! vCPU to be told is the one that runs on this very CPU, the poster must be an interrupt handler
//! that stopped it, outside of its guest: it will look at the requests before it enters the guest,
//! so KVM did neither. But the handler may also have stopped it on its way to sleep, between its
//! last look and the moment when it no longer runs. Then nobody wakes it; and since ON stays set,
//! whoever posts later believes that somebody else has.
//!
//! One CPU is enough. The wake-up here is the ordinary one of the scheduler; the lists of
//! `pi-wakeup` are for vCPUs that hardware posts to.

use std::cell::OnceCell;
use std::rc::Rc;

use doorbell_explore::sim::{
    Hooks, Model, Placement, SchedTask, Scheduler, local_irq_disable, local_irq_enable, note,
};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::{GuestCpu, NOTIFY};
use doorbell_hardware::vtd::Descriptor;
use doorbell_platform::{CpuId, Platform, Vector};

use crate::case::{self, variant};
use crate::count::count;
use crate::{Case, Expected};

/// The interrupt of the device, which the host handles by posting one.
const DEVICE: Vector = Vector(0x31);

/// The case.
pub(crate) fn case() -> Case {
    let asleep = Expected::Found(FailureKind::Deadlock);
    let exhausted = Expected::Exhausted;
    Case::new(
        "pi-self-post",
        "who posts for the vCPU that runs on its own CPU neither notifies nor wakes it",
        "known-races X04: Linux fdba608f15e2 (2021)",
        vec![
            variant(
                "as-reported",
                asleep,
                "the handler comes after the vCPU's last look and before it sleeps, and leaves the wake-up to nobody",
                Scope { skips_own: true, ..HALTS },
            ),
            variant(
                "as-reported-two-interrupts",
                asleep,
                "nor does the second interrupt wake it: ON is set, so somebody else must have",
                Scope { skips_own: true, interrupts: 2, ..HALTS },
            ),
            variant(
                "as-reported-entering",
                exhausted,
                "a vCPU on its way into the guest does look once more, with interrupts off: this is what made it look right",
                Scope { skips_own: true, vcpu: Does::Enters, ..HALTS },
            ),
            variant(
                "as-reported-other-cpu",
                exhausted,
                "on another CPU, the handler finds another vCPU running, or none, and wakes",
                Scope { skips_own: true, device_on: CpuId(1), ..HALTS },
            ),
            variant(
                "fixed",
                exhausted,
                "a wake-up of a task that still runs makes its next sleep return at once",
                Scope { skips_own: false, ..HALTS },
            ),
            variant(
                "fixed-two-interrupts",
                exhausted,
                "whoever sets ON wakes, so whoever finds it set may leave it at that",
                Scope { skips_own: false, interrupts: 2, ..HALTS },
            ),
            variant(
                "fixed-entering",
                exhausted,
                "a notification for nothing does no harm",
                Scope { skips_own: false, vcpu: Does::Enters, ..HALTS },
            ),
        ],
    )
}

/// What the vCPU does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    /// Sleeps until something is posted.
    Halts,
    /// Goes into its guest.
    Enters,
}

#[derive(Clone, Copy)]
struct Scope {
    /// Whether the vCPU that runs on the poster's CPU is left alone.
    skips_own: bool,
    vcpu: Does,
    /// The device's interrupts come there.
    device_on: CpuId,
    interrupts: u8,
}

const HALTS: Scope =
    Scope { skips_own: false, vcpu: Does::Halts, device_on: CpuId(0), interrupts: 1 };

impl case::Scope for Scope {
    fn text(self) -> String {
        let does = if self.vcpu == Does::Halts { "halts" } else { "enters its guest" };
        format!(
            "1 vCPU on CPU0 that {does}, {} of a device on {}",
            count(self.interrupts, "interrupt"),
            self.device_on
        )
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

struct Kvm {
    scope: Scope,
    descriptor: Rc<Descriptor>,
    cpu: Rc<GuestCpu>,
    in_guest: Model<bool>,
    /// Whether the vCPU runs, for each CPU. The vCPU runs on CPU0 only.
    running: [Model<bool>; 2],
    task: OnceCell<(Scheduler, SchedTask)>,
}

impl Kvm {
    /// Software posts an interrupt.
    fn deliver(&self, vector: u8) {
        self.descriptor.change(|posted| posted.pir |= 1 << vector);
        if self.descriptor.change(|posted| std::mem::replace(&mut posted.on, true)) {
            return;
        }
        if self.scope.skips_own && self.runs_here() {
            return;
        }
        if self.in_guest.observe(|in_guest| *in_guest) {
            Sim::send_ipi(CpuId(0), NOTIFY);
        } else {
            let (scheduler, task) = self.task.get().expect("it is set before anything runs");
            scheduler.wake(*task);
        }
    }

    /// Whether the vCPU runs on the CPU of the caller.
    fn runs_here(&self) -> bool {
        let runs = self.running[Sim::current_cpu().0 as usize].observe(|running| *running);
        note(|| {
            let so =
                if runs { "runs here, so neither notifies nor wakes" } else { "does not run here" };
            format!("the vCPU {so}")
        });
        runs
    }

    fn halt(&self) {
        while self.descriptor.observe(|posted| posted.pir == 0) {
            Sim::park();
        }
    }

    /// With interrupts off.
    fn enter(&self) {
        self.in_guest.change(|in_guest| *in_guest = true);
        if self.descriptor.observe(|posted| posted.on) {
            self.descriptor.change(|posted| posted.on = false);
            self.cpu.merge();
        }
        self.cpu.enter();
    }

    /// The handler of the device's interrupt. It takes the CPU out of the guest, and back when it
    /// is done.
    fn device_handler(&self, number: u8) {
        let was_in_guest = Sim::current_cpu() == CpuId(0) && self.cpu.leave();
        if was_in_guest {
            self.in_guest.change(|in_guest| *in_guest = false);
        }
        self.deliver(number);
        if was_in_guest {
            self.enter();
        }
    }
}

struct Loads(Rc<Kvm>);

impl Hooks for Loads {
    fn sched_out(&self, _task: SchedTask, cpu: CpuId, _preempted: bool) {
        self.0.running[cpu.0 as usize].change(|running| *running = false);
        note(|| format!("{cpu} runs the vCPU no more"));
    }

    fn sched_in(&self, _task: SchedTask, cpu: CpuId) {
        self.0.running[cpu.0 as usize].change(|running| *running = true);
        note(|| format!("{cpu} runs the vCPU"));
    }
}

fn program(m: &Machine, scope: Scope) {
    let descriptor = Rc::new(Descriptor::new("descriptor", NOTIFY, CpuId(0)));
    let cpu = GuestCpu::new(m, CpuId(0), &descriptor);
    // The vCPU is in no guest when its own CPU posts for it.
    cpu.notification().may_not_run();
    let kvm = Rc::new(Kvm {
        scope,
        descriptor: Rc::clone(&descriptor),
        cpu: Rc::clone(&cpu),
        in_guest: Model::new("mode", false),
        running: ["running on CPU0", "running on CPU1"].map(|name| Model::new(name, false)),
        task: OnceCell::new(),
    });
    let scheduler = Scheduler::new(m, 1, Placement::Previous, false, Loads(Rc::clone(&kvm)));
    let vcpu = Rc::clone(&kvm);
    let task = scheduler.task(m, CpuId(0), "vCPU", move || match scope.vcpu {
        Does::Halts => vcpu.halt(),
        Does::Enters => {
            local_irq_disable();
            vcpu.enter();
            local_irq_enable();
        }
    });
    kvm.task.set((scheduler, task)).unwrap_or_else(|_| unreachable!("it is set once"));
    // A vector for each interrupt, so that two do not become one.
    for number in 0..scope.interrupts {
        let delivers = Rc::clone(&kvm);
        let vector = Vector(DEVICE.0 + number);
        let handler = m.handler(scope.device_on, vector, format!("device {number}"), move || {
            delivers.device_handler(number)
        });
        m.hardware(format!("device {number}"), move || handler.raise());
    }
    m.at_quiescence("the guest has got what was posted, or will look", move || {
        let (posted, got) = ((1 << scope.interrupts) - 1, cpu.delivered());
        let waits = descriptor.observe(|posted| posted.pir);
        let looks = scope.vcpu == Does::Halts;
        if got == posted || looks && waits == posted {
            Ok(())
        } else {
            Err(format!("it has got {got:#b}"))
        }
    });
}
