//! X01: notifications are allowed again, but what was posted while they were not stays unseen.
//!
//! A vCPU that is preempted needs no notifications, so sched-out sets SN in its descriptor. An
//! IOMMU that posts then sets the request bit and leaves ON alone. Sched-in clears SN, and the code
//! that enters the guest looks at the requests only if ON is set. What came in between waits for
//! some later interrupt, if there is one.
//!
//! The IOMMU's write of the request and its look at SN are one step, so it suffices to clear SN
//! first and to look at the requests then; the other way round there is a window again.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{local_irq_disable, local_irq_enable};
use doorbell_explore::trace::FailureKind;
use doorbell_hardware::vmx::{GuestCpu, NOTIFY};
use doorbell_hardware::vtd::{self, Descriptor};
use doorbell_platform::CpuId;

use crate::case::{self, variant};
use crate::count::count;
use crate::{Case, Expected};

/// The case.
pub(crate) fn case() -> Case {
    let lost = Expected::Found(FailureKind::Quiescence);
    let exhausted = Expected::Exhausted;
    Case::new(
        "pi-suppress",
        "notifications are allowed again, but what was posted while they were not stays unseen",
        "known-races X01: Linux c112b5f50232 (2019)",
        vec![
            variant(
                "as-reported",
                lost,
                "what was posted under SN has not set ON, so the entry into the guest does not look for it",
                Scope { sched_in: SchedIn::ClearsOnly, ..ONE },
            ),
            variant(
                "look-before-clearing",
                lost,
                "between the look at the requests and the end of SN there is room for one more post",
                Scope { sched_in: SchedIn::LooksThenClears, ..ONE },
            ),
            variant(
                "entry-ignores-on",
                exhausted,
                "who always reads the requests before it enters needs no ON, but reads them at each entry",
                Scope { sched_in: SchedIn::ClearsOnly, entry_asks_on: false, ..ONE },
            ),
            variant(
                "fixed",
                exhausted,
                "with SN clear, whoever posts sets ON himself; what came before is there to be seen",
                Scope { sched_in: SchedIn::ClearsThenLooks, ..ONE },
            ),
            variant(
                "fixed-two-devices",
                exhausted,
                "nor is one of two lost",
                Scope { sched_in: SchedIn::ClearsThenLooks, devices: 2, ..ONE },
            ),
            variant(
                "fixed-preempted-twice",
                exhausted,
                "nor with a second preemption, out of the guest",
                Scope { sched_in: SchedIn::ClearsThenLooks, devices: 2, preemptions: 2, ..ONE },
            ),
        ],
    )
}

/// How sched-in allows notifications again.
#[derive(Clone, Copy, PartialEq)]
enum SchedIn {
    ClearsOnly,
    /// Looks at the requests, clears SN, and sets ON if there were any.
    LooksThenClears,
    ClearsThenLooks,
}

#[derive(Clone, Copy)]
struct Scope {
    sched_in: SchedIn,
    /// Whether the requests are looked at only if ON is set.
    entry_asks_on: bool,
    devices: u8,
    preemptions: u32,
}

const ONE: Scope =
    Scope { sched_in: SchedIn::ClearsOnly, entry_asks_on: true, devices: 1, preemptions: 1 };

impl case::Scope for Scope {
    fn text(self) -> String {
        let (preemptions, devices) =
            (count(self.preemptions, "preemption"), count(self.devices, "device"));
        format!("1 vCPU, {preemptions}, {devices}, 1 interrupt each")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

struct Vcpu {
    scope: Scope,
    descriptor: Rc<Descriptor>,
    cpu: Rc<GuestCpu>,
}

impl Vcpu {
    fn sched_out(&self) {
        self.descriptor.change(|posted| posted.sn = true);
    }

    fn sched_in(&self) {
        let looks = || self.descriptor.observe(|posted| posted.pir != 0);
        let before = self.scope.sched_in == SchedIn::LooksThenClears && looks();
        self.descriptor.change(|posted| posted.sn = false);
        if before || (self.scope.sched_in == SchedIn::ClearsThenLooks && looks()) {
            self.descriptor.change(|posted| posted.on = true);
        }
    }

    fn enter(&self) {
        local_irq_disable();
        if !self.scope.entry_asks_on || self.descriptor.observe(|posted| posted.on) {
            self.descriptor.change(|posted| posted.on = false);
            self.cpu.merge();
        }
        self.cpu.enter();
        local_irq_enable();
    }
}

fn program(m: &Machine, scope: Scope) {
    let descriptor = Rc::new(Descriptor::new("descriptor", NOTIFY, CpuId(0)));
    let cpu = GuestCpu::new(m, CpuId(0), &descriptor);
    let vcpu = Rc::new(Vcpu { scope, descriptor: Rc::clone(&descriptor), cpu: Rc::clone(&cpu) });
    m.task_on(CpuId(0), "vCPU", move || {
        for round in 0..scope.preemptions {
            if round > 0 {
                local_irq_disable();
                vcpu.cpu.leave();
            }
            vcpu.sched_out();
            local_irq_enable();
            vcpu.sched_in();
            vcpu.enter();
        }
    });
    for device in 0..scope.devices {
        let descriptor = Rc::clone(&descriptor);
        m.hardware(format!("IOMMU for device {device}"), move || vtd::post(&descriptor, device));
    }
    m.at_quiescence("the guest has got what was posted", move || {
        let (posted, got) = ((1 << scope.devices) - 1, cpu.delivered());
        let waits = descriptor.observe(|posted| posted.pir);
        if got == posted {
            Ok(())
        } else {
            Err(format!("{waits:#b} is posted, and nobody will look"))
        }
    });
}
