//! A message: no chip says that it waits in an IRR, so its vector has to expect it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, fail, note};
use doorbell_explore::trace::FailureKind;
use doorbell_platform::{CpuId, Vector};

use crate::case::{self, variant};
use crate::{Expected, Variant};
use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::{Device, Kind};

const TO: Message = Message { cpu: CpuId(1), vector: Vector(0x41) };
/// The vector with which that CPU is asked to look at its IRR: above the device's, or below.
const HIGH: Vector = Vector(0xec);
const LOW: Vector = Vector(0x20);

/// What becomes of a vector that is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Freed {
    /// Nobody's, at once.
    Unused,
    /// One more interrupt may come. Anybody can have it.
    Shutdown,
    /// The same, but nobody can have it until its own CPU has been there, with this vector.
    Quarantined { by: Vector, checks_irr: bool },
}

#[derive(Clone, Copy)]
struct Scope {
    freed: Freed,
    /// Another device gets the vector, and has one event.
    reused: bool,
    ordered: bool,
}

pub(super) fn variants() -> Vec<Variant> {
    let found = Expected::Found(FailureKind::Invariant);
    let exhausted = Expected::Exhausted;
    let quarantined = |by, checks_irr| Scope {
        freed: Freed::Quarantined { by, checks_irr },
        reused: true,
        ordered: true,
    };
    let shutdown = Scope { freed: Freed::Shutdown, reused: false, ordered: true };
    vec![
        variant(
            "as-reported-msi",
            found,
            "the CPU takes an interrupt whose vector is nobody's",
            Scope { freed: Freed::Unused, ..shutdown },
        ),
        variant(
            "shutdown",
            exhausted,
            "the late interrupt meets 'shutdown', is counted, and does no harm",
            shutdown,
        ),
        variant(
            "shutdown-reused",
            found,
            "if the vector is another device's by then, the late interrupt calls the wrong handler",
            Scope { reused: true, ..shutdown },
        ),
        variant(
            "quarantined",
            exhausted,
            "the vector's CPU has seen that its IRR is clear, or has taken the late interrupt, before others get the vector",
            quarantined(HIGH, true),
        ),
        variant(
            "quarantined-unchecked",
            found,
            "to have been on that CPU is not enough: the late interrupt may be of a lower priority than the visit",
            quarantined(HIGH, false),
        ),
        variant(
            "quarantined-low-priority",
            exhausted,
            "a visit of a lower priority comes after the late interrupt",
            quarantined(LOW, false),
        ),
        variant(
            "quarantined-in-flight",
            found,
            "if the message may still be on its way when the device is masked, an IRR that is clear says nothing",
            Scope { ordered: false, ..quarantined(HIGH, true) },
        ),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let reused = if self.reused { "; its vector goes to another, 1 event" } else { "" };
        format!("1 device, 1 event, freed on another CPU{reused}")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// What the vector table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Unused,
    Shutdown,
    Device,
    Other,
}

struct Kernel {
    scope: Scope,
    apics: Rc<Lapics>,
    device: Arc<Device>,
    other: Arc<Device>,
    entry: Model<Entry>,
    /// Others can have the vector.
    free: Model<bool>,
    /// A state of the vector's CPU: the vector was found in the IRR, and is free when it has been
    /// taken.
    last_to_come: Cell<bool>,
    in_progress: Model<bool>,
    /// Interrupts that have met 'shutdown'.
    late: Cell<u32>,
    /// Events that the device's handler has seen.
    seen: Cell<u32>,
    /// Counted when the other device sends, and when its handler acknowledges it.
    messages: Cell<u32>,
    calls: Cell<u32>,
}

impl Kernel {
    fn write(&self, entry: Entry) {
        let before = self.entry.change(|now| std::mem::replace(now, entry));
        note(|| format!("vector_irq: {before:?} → {entry:?}"));
    }

    fn interrupt(&self, vector: Vector) {
        if vector == TO.vector {
            self.device_interrupt()
        } else {
            self.visit()
        }
        self.apics.eoi();
    }

    fn device_interrupt(&self) {
        let entry = self.entry.observe(|entry| *entry);
        note(|| format!("vector_irq is {entry:?}"));
        match entry {
            Entry::Unused => fail(format!("no handler for {TO}")),
            Entry::Shutdown => {
                self.late.set(self.late.get() + 1);
                if self.last_to_come.replace(false) {
                    self.release();
                }
            }
            Entry::Device => {
                self.in_progress.change(|running| *running = true);
                note(|| "handler in progress".to_owned());
                self.seen.set(self.seen.get() + self.device.acknowledge());
                self.in_progress.change(|running| *running = false);
                note(|| "handler done".to_owned());
            }
            Entry::Other => {
                self.other.acknowledge();
                self.calls.set(self.calls.get() + 1);
                if self.calls.get() > self.messages.get() {
                    fail("the handler of another device is called for an interrupt of this one");
                }
            }
        }
    }

    /// The vector's CPU looks at its own IRR.
    fn visit(&self) {
        let Freed::Quarantined { checks_irr, .. } = self.scope.freed else { return };
        if checks_irr && self.apics.is_requested(TO.vector) {
            self.last_to_come.set(true);
        } else {
            self.release();
        }
    }

    fn release(&self) {
        self.free.change(|free| *free = true);
        note(|| "the vector can be used again".to_owned());
    }

    fn free(&self) {
        self.device.mask(true);
        self.in_progress.wait(|running| !running, |_| ());
        note(|| "synchronizes: none runs".to_owned());
        self.write(if self.scope.freed == Freed::Unused { Entry::Unused } else { Entry::Shutdown });
        match self.scope.freed {
            Freed::Quarantined { by, .. } => self.apics.send_ipi(Message { vector: by, ..TO }),
            _ => self.release(),
        }
    }

    /// Another device gets the vector, and is let go.
    fn reuse(&self) {
        self.free.wait(|free| *free, |_| ());
        note(|| "gets the vector".to_owned());
        self.write(Entry::Other);
        self.other.mask(false);
    }
}

fn program(m: &Machine, scope: Scope) {
    let apics = Lapics::new(2);
    apics.carry_ipis(m);
    let device = Device::new("device", Kind { ordered: scope.ordered, ..Kind::PLAIN }, TO, 1);
    let other = Device::new("other", Kind::PLAIN, TO, u32::from(scope.reused));
    let kernel = Rc::new(Kernel {
        scope,
        apics: Rc::clone(&apics),
        device: Arc::clone(&device),
        other: Arc::clone(&other),
        entry: Model::new("vector_irq", Entry::Device),
        free: Model::new("vector is free", false),
        last_to_come: Cell::new(false),
        in_progress: Model::new("in progress", false),
        late: Cell::new(0),
        seen: Cell::new(0),
        messages: Cell::new(0),
        calls: Cell::new(0),
    });
    {
        let kernel = Rc::clone(&kernel);
        apics.on_interrupt(m, TO.cpu, move |vector| kernel.interrupt(vector));
    }
    let sent = Rc::new(Cell::new(0));
    {
        let sent = Rc::clone(&sent);
        device.run(m, &apics, move |_| sent.set(sent.get() + 1));
    }
    if scope.reused {
        other.mask(true);
        let counted = Rc::clone(&kernel);
        other.run(m, &apics, move |_| counted.messages.set(counted.messages.get() + 1));
    }
    {
        let kernel = Rc::clone(&kernel);
        m.task_on(CpuId(0), "driver", move || {
            kernel.free();
            if scope.reused {
                kernel.reuse();
            }
        });
    }
    m.at_quiescence(
        "each interrupt is handled or counted, and the other device is heard",
        move || {
            let (sent, seen, late) = (sent.get(), kernel.seen.get(), kernel.late.get());
            match other.observe().unseen {
                0 if sent == seen + late => Ok(()),
                0 => Err(format!("{sent} sent, {seen} seen, {late} late")),
                _ => Err("the other device waits for ever".to_owned()),
            }
        },
    );
}
