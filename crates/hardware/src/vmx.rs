//! A CPU that processes posted interrupts in guest mode (VMX).

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use doorbell_explore::{HandlerHandle, Machine};
use doorbell_platform::{CpuId, Vector};

use crate::vtd::Descriptor;

/// The notification vector that a CPU in guest mode knows. On one that is not in guest mode it is
/// an interrupt like any other, whose handler has nothing to do: whoever enters a guest looks by
/// himself.
pub const NOTIFY: Vector = Vector(0xf2);

/// A CPU with one vCPU that runs on no other. Its state is its own: the vCPU changes it with
/// interrupts off, the notification in their handler, so the order of the two is visible without
/// steps of their own.
pub struct GuestCpu {
    descriptor: Rc<Descriptor>,
    in_guest: Cell<bool>,
    /// The virtual APIC's request register, a bit for each of the first vectors.
    virr: Cell<u8>,
    notification: OnceCell<HandlerHandle>,
}

doorbell_platform::opaque_debug!([] GuestCpu);

impl GuestCpu {
    /// Creates CPU `cpu`, not in guest mode, for the vCPU with that descriptor.
    pub fn new(m: &Machine, cpu: CpuId, descriptor: &Rc<Descriptor>) -> Rc<GuestCpu> {
        let descriptor = Rc::clone(descriptor);
        let this = Rc::new(GuestCpu {
            descriptor,
            in_guest: Cell::new(false),
            virr: Cell::new(0),
            notification: OnceCell::new(),
        });
        let notified = Rc::clone(&this);
        let handler = m.handler(cpu, NOTIFY, "notification", move || {
            if notified.in_guest.get() {
                notified.descriptor.change(|posted| posted.on = false);
                notified.merge();
            }
        });
        assert!(this.notification.set(handler).is_ok(), "it is new");
        this
    }

    /// The handler of the CPU's notifications.
    pub fn notification(&self) -> HandlerHandle {
        *self.notification.get().expect("it is set from the start")
    }

    /// Takes what is posted into the virtual APIC: the hardware in guest mode, or software before
    /// it enters, with interrupts off.
    pub fn merge(&self) {
        let posted = self.descriptor.change(|posted| std::mem::take(&mut posted.pir));
        self.virr.set(self.virr.get() | posted);
    }

    /// Enters the guest. Interrupts are off until then.
    pub fn enter(&self) {
        self.in_guest.set(true);
    }

    /// Leaves the guest, with interrupts off; says whether it was in it.
    pub fn leave(&self) -> bool {
        self.in_guest.replace(false)
    }

    /// Returns what the guest has been told of.
    pub fn delivered(&self) -> u8 {
        self.virr.get()
    }
}
