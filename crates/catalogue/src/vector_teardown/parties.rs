//! The parties: who frees and requests the interrupt, the device, the CPU that it interrupts, and,
//! behind VFIO, the guest.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, fail, note};
use doorbell_platform::{CpuId, Vector};

use super::kernel::{Action, DescFreed, EntryCode, Kernel};
use crate::count::count;
use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::{Device, Kind};

/// Where the device's interrupts go. Nothing else happens on that CPU; what delays the interrupt
/// there (interrupts off, an NMI) is the time that the search lets pass.
const TO: Message = Message { cpu: CpuId(1), vector: Vector(0x41) };

/// The side that frees and requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// VFIO, on a device that goes on meanwhile: its handler signals an eventfd, by which the guest
    /// is interrupted.
    Vfio,
    /// A driver of the host, which silences its device first.
    Driver,
    /// A driver of the host that has freed its interrupt long ago, and requests it. Nothing was on
    /// its way then, so the table says 'shutdown' still; the interrupt that comes to that vector is
    /// nobody's.
    SetUp,
}

/// When the user of VFIO interrupts the guest, whatever the device has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inject {
    Never,
    BeforeTheSwitch,
    AfterTheSwitch,
}

/// What must never be, beside what must hold in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guard {
    Nothing,
    /// The descriptor is not overwritten.
    Overwrite,
    /// Nor is it when the repair has been done.
    OverwriteAfterRepair,
}

/// What must hold in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Anything: what is looked for comes before.
    Anything,
    /// The device does not wait for a driver that nobody will tell.
    NothingLost,
    /// The same; but where the descriptor was overwritten, that is another matter.
    NothingLostUnlessOverwritten,
    /// The next event will reach the driver, which then sees those before it, too.
    NextArrives,
}

/// What is explored.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub form: Form,
    pub code: EntryCode,
    pub repairs: bool,
    pub inject: Inject,
    /// The guest has the vector masked during the switch, and takes the mask off afterwards.
    pub masked: bool,
    pub waits_for_driver: bool,
    /// The device sends although it is masked, by whatever message it has at that moment: it is
    /// broken.
    pub late: bool,
    pub events: u32,
    pub switches: u32,
    /// Interrupts of the guest for nothing that a switch may cost.
    pub extra: u32,
    /// The driver of the host looks at its device when it enables it.
    pub looks: bool,
    /// Set up, the interrupt is freed again, and its descriptor given back.
    pub desc_freed: Option<DescFreed>,
    pub guard: Guard,
    pub end: End,
}

/// As reported.
pub(super) const REPORTED: Scope = Scope {
    form: Form::Vfio,
    code: EntryCode::Unlocked,
    repairs: false,
    inject: Inject::Never,
    masked: false,
    waits_for_driver: true,
    late: false,
    events: 1,
    switches: 1,
    extra: 1,
    looks: true,
    desc_freed: None,
    guard: Guard::Overwrite,
    end: End::Anything,
};

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = if self.waits_for_driver { " that waits for its driver" } else { "" };
        let late = if self.late { ", and sends though it is masked" } else { "" };
        write!(f, "1 device{waits}{late}, {}", count(self.events, "event"))?;
        match self.form {
            Form::Driver => write!(f, "; silenced, freed, requested and enabled on another CPU"),
            Form::SetUp => {
                write!(
                    f,
                    "; requested and enabled on another CPU, 1 spurious interrupt at its vector"
                )?;
                f.write_str(match self.desc_freed {
                    None => "",
                    Some(DescFreed::AfterGrace) => {
                        "; freed again, and its descriptor after a grace period"
                    }
                    Some(DescFreed::AtOnce) => "; freed again, and its descriptor at once",
                })
            }
            Form::Vfio => {
                write!(f, "; freed and requested {}× on another CPU", self.switches)?;
                f.write_str(if self.masked { "; 1 guest, masked meanwhile" } else { "; 1 guest" })
            }
        }
    }
}

/// The guest's vector, as its user sees it: a mask, and a pending bit that is what is not delivered
/// yet.
struct Guest {
    vector: Model<GuestVector>,
    /// Interrupts that the guest's driver had no reason for.
    extra: Cell<u32>,
}

struct GuestVector {
    masked: bool,
    pending: bool,
}

impl Guest {
    fn new() -> Rc<Guest> {
        let vector = Model::new("guest's vector", GuestVector { masked: false, pending: false });
        Rc::new(Guest { vector, extra: Cell::new(0) })
    }

    #[track_caller]
    fn interrupt(&self, why: &'static str) {
        self.vector.change(|vector| vector.pending = true);
        note(|| format!("interrupts the guest: {why}"));
    }

    #[track_caller]
    fn mask(&self, masked: bool) {
        self.vector.change(|vector| vector.masked = masked);
        note(|| format!("the guest {} the vector", if masked { "masks" } else { "unmasks" }));
    }

    /// The driver in the guest, for as long as it is interrupted, and no more often for nothing
    /// than is permitted.
    fn runs(&self, device: &Device, permitted: u32) {
        let due = |vector: &GuestVector| vector.pending && !vector.masked;
        while self.vector.serve(due, |vector| vector.pending = false).is_ok() {
            note(|| "the guest is interrupted".to_owned());
            if device.acknowledge() == 0 {
                self.extra.set(self.extra.get() + 1);
            }
            if self.extra.get() > permitted {
                fail(format!(
                    "extra interrupts of the guest: {}, permitted: {permitted}",
                    self.extra.get()
                ));
            }
        }
    }
}

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let apics = Lapics::new(2);
        let kind =
            Kind { waits_for_driver: self.waits_for_driver, heeds_mask: !self.late, ..Kind::PLAIN };
        let device = Device::new("device", kind, TO, self.events);
        let guest = Guest::new();
        let action = self.action(&device, &guest);
        let kernel = Kernel::new(self.code, &apics, &device, TO, Rc::clone(&action));
        if self.form == Form::SetUp {
            device.silence();
            kernel.free();
            let apics = Rc::clone(&apics);
            m.hardware("spurious interrupt", move || apics.arrive(TO));
        }
        if self.guard == Guard::Overwrite {
            kernel.guard();
        }
        {
            let (kernel, device, guest) =
                (Rc::clone(&kernel), Arc::clone(&device), Rc::clone(&guest));
            match self.form {
                Form::Driver => {
                    m.task_on(CpuId(0), "driver", move || self.reset(&kernel, &device, action))
                }
                Form::SetUp => {
                    m.task_on(CpuId(0), "driver", move || self.set_up(&kernel, &device, action))
                }
                Form::Vfio => m.task_on(CpuId(0), "QEMU", move || {
                    for _ in 0..self.switches {
                        self.switch(&kernel, &guest, Rc::clone(&action));
                    }
                }),
            };
        }
        {
            let kernel = Rc::clone(&kernel);
            apics.on_interrupt(m, TO.cpu, move |vector| kernel.interrupt(vector));
        }
        if self.late {
            // A message of no address, and what is half another, comes to nobody.
            let nobody = Rc::clone(&apics);
            apics.on_interrupt(m, CpuId(0), move |_| nobody.eoi());
        }
        if self.form == Form::Vfio {
            let (device, guest) = (Arc::clone(&device), Rc::clone(&guest));
            m.task_on(CpuId(2), "guest", move || guest.runs(&device, self.switches * self.extra));
        }
        device.run(m, &apics, |_| ());
        m.at_quiescence("nothing is lost", move || {
            let (state, installed) = (device.observe(), kernel.is_installed());
            let lost = match self.end {
                End::Anything => false,
                End::NothingLost => state.unseen > 0,
                End::NothingLostUnlessOverwritten => state.unseen > 0 && installed,
                End::NextArrives => state.waits || !installed,
            };
            let waits = if state.waits {
                "the device waits for its driver"
            } else {
                "the device has an event"
            };
            let table = if installed { "" } else { ", and the vector is nobody's" };
            if lost { Err(format!("{waits}, nothing is pending{table}")) } else { Ok(()) }
        });
    }

    fn action(self, device: &Arc<Device>, guest: &Rc<Guest>) -> Action {
        let (device, guest) = (Arc::clone(device), Rc::clone(guest));
        match self.form {
            Form::Vfio => Rc::new(move || guest.interrupt("its eventfd is signalled")),
            Form::Driver | Form::SetUp => Rc::new(move || {
                device.acknowledge();
            }),
        }
    }

    /// A driver of the host frees its interrupt, and requests it again.
    fn reset(self, kernel: &Kernel, device: &Device, action: Action) {
        device.silence();
        kernel.free();
        self.again(kernel, action);
        device.enable(self.looks);
    }

    /// A driver of the host requests its interrupt; perhaps it is done with its device then.
    fn set_up(self, kernel: &Kernel, device: &Device, action: Action) {
        self.again(kernel, action);
        device.enable(self.looks);
        if let Some(freed) = self.desc_freed {
            device.silence();
            kernel.free();
            kernel.give_back(freed);
        }
    }

    /// The user of VFIO has the interrupt signal another eventfd.
    fn switch(self, kernel: &Kernel, guest: &Guest, action: Action) {
        if self.masked {
            guest.mask(true);
        }
        if self.inject == Inject::BeforeTheSwitch {
            guest.interrupt("whatever the device has said");
        }
        kernel.free();
        self.again(kernel, action);
        if self.inject == Inject::AfterTheSwitch {
            guest.interrupt("whatever the device has said");
        }
        if self.masked {
            guest.mask(false);
        }
    }

    fn again(self, kernel: &Kernel, action: Action) {
        kernel.request(action);
        if self.repairs {
            kernel.repair(self.guard == Guard::OverwriteAfterRepair);
        }
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
