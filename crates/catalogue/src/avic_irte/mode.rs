//! AVIC is turned off while a device is bound: does its IRTE say what the vCPU's mode is?
//!
//! A vCPU that turns AVIC off has the IRTEs on its list name the host, whose handler injects by
//! software, and looks at its IRR once more. An IRTE that is in guest mode after that posts to a
//! page at which nobody looks.

use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Machine, Sim};
use doorbell_hardware::avic::{AvicCpu, Gate, Memory};
use doorbell_hardware::iommu_amd::{Entry, Iommu, Irte, Post};
use doorbell_platform::{Atomic, Platform};

use super::irq::IrqDesc;
use super::parties::Bind;
use super::svm::{EntryWrite, VECTOR, Vcpu};

/// A vCPU that turns AVIC off, then enters its guest and stays there.
struct Guest {
    vcpu: Vcpu,
    in_guest_mode: <Sim as Platform>::AtomicBool,
    /// "Look at your IRR."
    event: <Sim as Platform>::AtomicBool,
}

impl Guest {
    fn run(&self, cpu: &AvicCpu) {
        self.vcpu.turn_off();
        // Whoever turns AVIC off makes itself a request.
        let mut look = true;
        loop {
            look |= self.event.swap(false, SeqCst);
            if std::mem::take(&mut look) {
                self.vcpu.page.deliver();
            }
            self.in_guest_mode.store(true, SeqCst);
            if !self.event.load(SeqCst) && cpu.run(None).is_err() {
                return;
            }
            self.in_guest_mode.store(false, SeqCst);
        }
    }

    /// The host's handler injects by software. The bit comes before the look at the mode (X06).
    fn inject(&self, cpu: &AvicCpu) {
        self.vcpu.page.post(VECTOR);
        if self.vcpu.is_active() {
            // Outside of the guest there is nobody to ring for: it looks when it has turned AVIC
            // off.
            return;
        }
        self.event.store(true, SeqCst);
        if self.in_guest_mode.load(SeqCst) {
            cpu.interrupt();
        }
    }
}

pub(super) const SCOPE: &str =
    "1 vCPU that turns AVIC off once and stays in the guest; 1 binding, 1 MSI";

/// The program: a device's interrupt is bound that way, while the vCPU turns AVIC off and the
/// device raises it.
pub(super) fn program(m: &Machine, bind: Bind) {
    let memory = Memory::new(1);
    let entry = Entry::new(&memory, Irte::HOST);
    let vcpu = Vcpu::new(&memory, 0, Gate::Running(0), vec![], EntryWrite::Locked);
    let flag = |name| <Sim as Platform>::AtomicBool::new(false).named(name);
    let guest =
        Rc::new(Guest { vcpu, in_guest_mode: flag("in_guest_mode"), event: flag("KVM_REQ_EVENT") });
    let iommu = Iommu::new(Rc::clone(&entry), Post::AtOnce, [AvicCpu::new("pCPU 0")].into());
    let (runs, on) = (Rc::clone(&guest), Rc::clone(&iommu.cpus));
    m.task("vCPU", move || runs.run(&on[0]));
    let bound = Rc::clone(&guest);
    m.task("bind", move || {
        let desc = IrqDesc::new(None, None);
        match bind {
            Bind::UnderListLock => bound.vcpu.bind_under_lock(&desc, &entry),
            Bind::Leaf => bound.vcpu.bind_leaf(&desc, &entry),
        }
    });
    let injected = Rc::clone(&guest);
    m.hardware("device", move || iommu.msi(|| injected.inject(&iommu.cpus[0])));
    m.at_quiescence("a vCPU in guest mode has nothing pending", move || {
        match guest.vcpu.page.pending() {
            0 => Ok(()),
            _ => {
                Err("the interrupt is pending, and AVIC, which would look at it, is off".to_owned())
            }
        }
    });
}
