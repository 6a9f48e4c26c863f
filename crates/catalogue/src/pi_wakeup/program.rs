//! The machine that the parameters of the case stand for.

use std::rc::Rc;

use doorbell_explore::sim::{Placement, Scheduler};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, Notification, WAKEUP};
use doorbell_platform::{CpuId, Platform, Vector};

use super::kvm::{Kvm, VcpuHooks};
use super::scope::{Preemption, Scope};

const TIMER: Vector = Vector(0xec);

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let kvm = Kvm::new(self);
        let scheduler = Scheduler::new(
            m,
            self.cpus,
            Placement::Waker,
            self.preemption != Preemption::Off,
            VcpuHooks(Rc::downgrade(&kvm)),
        );
        for (number, vcpu) in kvm.vcpus.iter().enumerate() {
            let halts = Rc::clone(&kvm);
            let task =
                scheduler.task(m, self.first_cpu(number), format!("vCPU {number}"), move || {
                    halts.halt(number)
                });
            vcpu.task.set(task).expect("it is set once");
        }
        for cpu in (0..self.cpus).map(CpuId) {
            let handles = Rc::clone(&kvm);
            let wakeup = m.handler(cpu, WAKEUP, format!("wake-up {cpu}"), move || {
                handles.wakeup_handler(cpu)
            });
            // On a CPU that is in no guest, the notification has nothing to do: whoever enters one
            // looks by himself.
            let notification = m.handler(cpu, NOTIFY, format!("notification {cpu}"), || ());
            // Where no vCPU begins that has a device, none may come.
            if (self.vcpus - self.devices..self.vcpus).all(|vcpu| self.first_cpu(vcpu) != cpu) {
                wakeup.may_not_run();
                notification.may_not_run();
            }
        }
        for vcpu in self.vcpus - self.devices..self.vcpus {
            let posts = Rc::clone(&kvm);
            m.hardware(format!("IOMMU for vCPU {vcpu}"), move || {
                vtd::post(&posts.vcpus[vcpu].descriptor, 1)
            });
        }
        if self.sender {
            let sends = Rc::clone(&kvm);
            let send = move || sends.send(0, 2);
            if self.cpus == 1 {
                m.task_on(CpuId(1), "sender", send);
            } else {
                scheduler.task(m, CpuId(self.cpus - 1), "sender", send);
            }
        }
        if self.late_notification {
            let late = Notification { vector: WAKEUP, cpu: CpuId(self.cpus - 1) };
            m.hardware("late notification", move || late.send());
        }
        if self.preemption == Preemption::ByTimer {
            let other = scheduler.task(m, CpuId(0), "another task", Sim::park);
            let wakes = scheduler.clone();
            let handler = m.handler(CpuId(0), TIMER, "timer", move || wakes.wake(other));
            m.hardware("timer", move || handler.raise());
        }
        kvm.scheduler.set(scheduler).unwrap_or_else(|_| unreachable!("it is set once"));
        m.at_quiescence("nobody who runs is on a list", move || kvm.check());
    }
}

impl crate::case::Scope for Scope {
    fn text(self) -> String {
        self.to_string()
    }

    fn program(self, m: &Machine) {
        Scope::program(self, m);
    }
}
