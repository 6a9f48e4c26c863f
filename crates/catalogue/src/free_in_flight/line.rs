//! A level-triggered line: the EOI of an interrupt whose vector the pin no longer has does not
//! reach the pin.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, note};
use doorbell_explore::trace::FailureKind;
use doorbell_platform::{CpuId, Vector};

use crate::{Expected, Variant};
use doorbell_hardware::ioapic::Pin;
use doorbell_hardware::lapic::{Lapics, Message};

const TO: Message = Message { cpu: CpuId(1), vector: Vector(0x41) };
/// What it gets when it is requested anew.
const AGAIN: Message = Message { cpu: CpuId(1), vector: Vector(0x51) };

pub(super) fn variants() -> Vec<Variant> {
    let variant = |name, expected, why, asks_chip| {
        let text =
            "1 line that is up once before; freed and requested on another CPU, then up once more";
        Variant::new(name, expected, why, text, move |m| program(m, asks_chip))
    };
    vec![
        variant(
            "as-reported-line",
            Expected::Found(FailureKind::Quiescence),
            "the EOI comes when the pin has another vector, so Remote IRR stays, and the line is never heard again",
            false,
        ),
        variant(
            "chip-state-line",
            Expected::Exhausted,
            "while Remote IRR is set the interrupt is on its way, so whoever frees it waits for that, too",
            true,
        ),
    ]
}

struct Desc {
    requested: bool,
    in_progress: bool,
    /// The vectors whose table entries name it.
    vector: Option<Vector>,
}

struct Kernel {
    asks_chip: bool,
    apics: Rc<Lapics>,
    pin: Rc<Pin>,
    desc: Model<Desc>,
}

impl Kernel {
    fn interrupt(&self, vector: Vector) {
        let handles = self.desc.change(|desc| {
            desc.in_progress = desc.requested && desc.vector == Some(vector);
            desc.in_progress
        });
        note(|| if handles { "handler in progress" } else { "the vector is nobody's" }.to_owned());
        if handles {
            self.pin.lower(false);
            self.desc.change(|desc| desc.in_progress = false);
            note(|| "handler done".to_owned());
        }
        self.apics.eoi();
        self.pin.eoi(vector);
    }

    fn free(&self) {
        self.desc.change(|desc| desc.requested = false);
        note(|| "frees: no action".to_owned());
        self.pin.mask(true);
        self.desc.wait(|desc| !desc.in_progress, |_| ());
        note(|| "synchronizes: none runs".to_owned());
        if self.asks_chip {
            self.pin.wait_for_eoi();
        }
        self.desc.change(|desc| desc.vector = None);
        note(|| "gives the vector back".to_owned());
        self.pin.program(None);
    }

    fn request(&self) {
        self.desc.change(|desc| {
            desc.requested = true;
            desc.vector = Some(AGAIN.vector);
        });
        note(|| "requests: new vector".to_owned());
        self.pin.program(Some(AGAIN));
        self.pin.mask(false);
    }
}

fn program(m: &Machine, asks_chip: bool) {
    let apics = Lapics::new(2);
    let pin = Pin::new(TO);
    let desc = Desc { requested: true, in_progress: false, vector: Some(TO.vector) };
    let kernel = Rc::new(Kernel {
        asks_chip,
        apics: Rc::clone(&apics),
        pin: Rc::clone(&pin),
        desc: Model::new("irq_desc", desc),
    });
    {
        let kernel = Rc::clone(&kernel);
        apics.on_interrupt(m, TO.cpu, move |vector| kernel.interrupt(vector));
    }
    pin.run(m, &apics);
    {
        let pin = Rc::clone(&pin);
        m.hardware("device", move || pin.raise());
    }
    {
        let pin = Rc::clone(&pin);
        m.task_on(CpuId(0), "driver", move || {
            pin.lower(true);
            kernel.free();
            kernel.request();
            pin.lower(false);
            pin.raise();
        });
    }
    m.at_quiescence("every line that is up is heard", move || match pin.observe() {
        pin if pin.high && pin.remote_irr => {
            Err("Remote IRR is set, and nobody will clear it".to_owned())
        }
        pin if pin.high => Err("it is up".to_owned()),
        _ => Ok(()),
    });
}
