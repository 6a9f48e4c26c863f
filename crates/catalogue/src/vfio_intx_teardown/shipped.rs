//! The same with the INTx of `doorbell-host`: who signals does so in a read section, so that one
//! grace period waits for the handler and the work alike.

use std::sync::Arc;

use doorbell_explore::sim::{Ghost, Pool, note};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::intx::{Device, Registers};
use doorbell_host::intx::{Fired, Intx, IntxLine, IntxPending, Status};
use doorbell_host::msi::Signal;
use doorbell_platform::{CpuId, Platform, ReadDomain, Vector, Work, WorkQueue};

use crate::{Expected, Variant};

const LINE: Vector = Vector(0x31);
/// A CPU of its own.
const CPU: CpuId = CpuId(3);

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

/// The device's line, as `doorbell-host` uses it.
struct Line(Device);

impl IntxLine for Line {
    fn status(&self) -> Status {
        let Registers { pending, masked } = self.0.registers();
        Status { pending: if pending { IntxPending::Yes } else { IntxPending::No }, masked }
    }

    fn set_masked(&self, masked: bool) {
        self.0.set_masked(masked);
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

type Vfio = Intx<Sim, Line, Trigger>;

fn program(m: &Machine, waits: bool) {
    let eventfd = Arc::new(Ghost::new("eventfd"));
    let vfio = Arc::new(Vfio::new(
        Line(Device::new("device")),
        &Arc::new(<Sim as Platform>::Rcu::new("triggers")),
    ));
    std::mem::forget(vfio.set_trigger(Some(Trigger(Arc::clone(&eventfd)))).act());
    vfio.enable();
    {
        let fires = Arc::clone(&vfio);
        let line = m.handler(CPU, LINE, "INTx", move || {
            if let Fired::Ours(Some(tell)) = fires.fire() {
                tell.act();
            }
        });
        vfio.line().0.handler.set(line).expect("it is the only one");
    }
    {
        let vfio = Arc::clone(&vfio);
        m.hardware("device", move || {
            vfio.line().0.set_pending(true);
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
        let masked = vfio.line().0.registers().masked;
        masked
            .then_some(())
            .ok_or_else(|| "its line interrupts a CPU on which nobody handles it".to_owned())
    });
}
