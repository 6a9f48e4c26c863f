//! The same with the INTx of `doorbell-host`: who signals does so in a read section, so that one
//! grace period waits for the handler and the work alike.

use std::sync::{Arc, OnceLock};

use doorbell_explore::sim::{Ghost, Model, Pool, note};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{HandlerHandle, Machine, Sim};
use doorbell_host::intx::{Fired, Intx, IntxLine, IntxPending, Status};
use doorbell_host::msi::Signal;
use doorbell_platform::{Platform, ReadDomain, Work, WorkQueue};

use super::{CPU, LINE};
use crate::{Expected, Variant};

pub(super) fn variants() -> Vec<Variant> {
    vec![
        variant(
            "shipped",
            Expected::Exhausted,
            "who has the trigger is in a read section, and the eventfd is put after a grace period",
            true,
        ),
        variant(
            "shipped-not-waited",
            Expected::Found(FailureKind::UseAfterFree),
            "without the grace period the handler, or the work, uses the eventfd after it was put",
            false,
        ),
    ]
}

fn variant(name: &'static str, expected: Expected, why: &'static str, waits: bool) -> Variant {
    let text = "1 line, 1 interrupt, 1 unmask by eventfd, 1 worker; the line is shut and the eventfd taken away";
    Variant::new(name, expected, why, text, move |m| program(m, waits))
}

#[derive(Clone, Copy)]
struct Pins {
    pending: bool,
    masked: bool,
}

/// The device, whose line interrupts its CPU as long as it is asserted.
struct Device {
    pins: Model<Pins>,
    handler: OnceLock<HandlerHandle>,
}

impl Device {
    #[track_caller]
    fn change(&self, f: impl FnOnce(&mut Pins)) {
        let asserted = self.pins.change(|pins| {
            f(pins);
            pins.pending && !pins.masked
        });
        if asserted && let Some(handler) = self.handler.get() {
            handler.raise();
        }
    }
}

impl IntxLine for Device {
    fn status(&self) -> Status {
        let Pins { pending, masked } = self.pins.observe(|pins| *pins);
        Status { pending: if pending { IntxPending::Yes } else { IntxPending::No }, masked }
    }

    fn set_masked(&self, masked: bool) {
        self.change(|pins| pins.masked = masked);
        note(|| format!("{} the device", if masked { "masks" } else { "unmasks" }));
    }
}

/// The user's eventfd.
struct Trigger(Arc<Ghost>);

impl Signal for Trigger {
    fn signal(&self, _: u64) {
        self.0.access();
    }
}

type Vfio = Intx<Sim, Device, Trigger>;

fn program(m: &Machine, waits: bool) {
    let eventfd = Arc::new(Ghost::new("eventfd"));
    let device = Device {
        pins: Model::new("device", Pins { pending: false, masked: false }),
        handler: OnceLock::new(),
    };
    let vfio = Arc::new(Vfio::new(device, &Arc::new(<Sim as Platform>::Rcu::new("triggers"))));
    std::mem::forget(vfio.set_trigger(Some(Trigger(Arc::clone(&eventfd)))).act());
    vfio.enable();
    {
        let fires = Arc::clone(&vfio);
        let line = m.handler(CPU, LINE, "INTx", move || {
            if let Fired::Ours(Some(tell)) = fires.fire() {
                tell.act();
            }
        });
        vfio.line().handler.set(line).expect("it is the only one");
    }
    {
        let vfio = Arc::clone(&vfio);
        m.hardware("device", move || {
            vfio.line().change(|pins| pins.pending = true);
            note(|| "raises its line".to_owned());
        });
    }
    {
        let vfio = Arc::clone(&vfio);
        let unmask = Pool::new(m, "unmask", 1).work("unmask", move || {
            if let Some(tell) = vfio.unmask() {
                tell.act();
            }
        });
        m.task("unmask", move || {
            unmask.queue();
        });
    }
    {
        let vfio = Arc::clone(&vfio);
        m.task("SET_IRQS", move || {
            let former = vfio.shut().act();
            if waits {
                assert!(former.synchronize().is_some(), "there was one");
            } else {
                std::mem::forget(former);
            }
            eventfd.free();
        });
    }
    m.at_quiescence("the device is masked", move || {
        let masked = vfio.line().pins.observe(|pins| pins.masked);
        masked
            .then_some(())
            .ok_or_else(|| "its line interrupts a CPU on which nobody handles it".to_owned())
    });
}
