//! V01: a message whose address and data are written one after the other, in a device that cannot
//! mask.
//!
//! The way out that was taken goes by way of the new vector on the old CPU, so that each write
//! changes one word and every message is one of three that software knows. What came in between is
//! found in the CPU's own IRR, which is why the update runs there, with interrupts off, and is sent
//! once more. It costs spurious interrupts, of which the authors name three; each has a variant
//! that shows it, and there is no other. A handler that is called once for each message is not
//! called for nothing, even if it has seen to the event of the second at its first call.
//!
//! What they do not say: a write that has completed must have pushed the messages before it as far
//! as the IRR (`two-steps-in-flight`).

mod shipped;

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{Model, fail, note, remark};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{CpuId, Platform, Vector};

use crate::case::{self, variant};
use crate::count::count;
use crate::{Case, Expected, Variant};
use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::{Device, Kind};

const OLD: Message = Message { cpu: CpuId(0), vector: Vector(0x41) };
const NEW: Message = Message { cpu: CpuId(1), vector: Vector(0x51) };
/// In between, and its neighbour's if there is one.
const BETWEEN: Message = Message { cpu: OLD.cpu, vector: NEW.vector };

/// How the message is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Update {
    AddressFirst,
    DataFirst,
    /// A device that can mask.
    Masked,
    /// The data first, then the address, and then a look at what came in between.
    TwoSteps {
        /// Marks the vector in between, if it is nobody's.
        marks: bool,
        /// Looks at the IRR.
        tests: bool,
        irqs_off: bool,
    },
}

const TWO_STEPS: Update = Update::TwoSteps { marks: true, tests: true, irqs_off: true };

/// A call of a handler beyond one for each message of its device, or an interrupt that meets no
/// handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spurious {
    /// The message in between met a vector that is nobody's: the mark says that somebody knows.
    Marked,
    /// The neighbour's interrupt was in the IRR, and was taken for the device's.
    Mistaken,
    /// The message in between met the neighbour's handler.
    Neighbour,
}

impl fmt::Display for Spurious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spurious::Marked => "the vector is nobody's, and marked",
            Spurious::Mistaken => "the device's handler is called, and the device has said nothing",
            Spurious::Neighbour => {
                "the neighbour's handler is called, and the neighbour has said nothing"
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Scope {
    update: Update,
    /// A neighbour has the new vector on the old CPU, and one event.
    in_use: bool,
    events: u32,
    /// Messages of two configurations are reported when they are sent, and vectors that are
    /// nobody's when they come.
    strict: bool,
    ordered: bool,
    permitted: &'static [Spurious],
}

const STEPS: Scope = Scope {
    update: TWO_STEPS,
    in_use: false,
    events: 1,
    strict: true,
    ordered: true,
    permitted: &[Spurious::Marked, Spurious::Mistaken, Spurious::Neighbour],
};

const SPURIOUS: Expected = Expected::Found(FailureKind::Invariant);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "msi-torn-update",
        "a device that cannot mask sends a message of which one word is new and the other old",
        "known-races V01: Linux 6f1a4891a592 (2020)",
        [reported(), two_steps(), spurious(), shipped::variants()].into_iter().flatten().collect(),
    )
}

fn reported() -> Vec<Variant> {
    let torn = Scope { update: Update::AddressFirst, ..STEPS };
    vec![
        variant(
            "as-reported",
            SPURIOUS,
            "between the two writes, the new CPU is sent the old vector",
            torn,
        ),
        variant(
            "as-reported-lost",
            LOST,
            "that vector is nobody's there, and the interrupt is lost",
            Scope { strict: false, ..torn },
        ),
        variant(
            "data-first",
            LOST,
            "in the other order the old CPU is sent the new vector, which is nobody's there either",
            Scope { update: Update::DataFirst, strict: false, ..torn },
        ),
        variant(
            "masked",
            Expected::Exhausted,
            "a device that masks sends what it has to say when both words are written",
            Scope { update: Update::Masked, ..torn },
        ),
    ]
}

fn two_steps() -> Vec<Variant> {
    let steps = |marks, tests, irqs_off| Scope {
        update: Update::TwoSteps { marks, tests, irqs_off },
        ..STEPS
    };
    vec![
        variant(
            "two-steps",
            Expected::Exhausted,
            "what comes in between is in the IRR of the CPU that looks, and is sent once more",
            Scope { permitted: &[Spurious::Marked], ..STEPS },
        ),
        variant(
            "two-steps-in-use",
            Expected::Exhausted,
            "where a neighbour has that vector, either of the two is called once too often",
            Scope { in_use: true, permitted: &[Spurious::Mistaken, Spurious::Neighbour], ..STEPS },
        ),
        variant(
            "two-steps-2-events",
            Expected::Exhausted,
            "nor is either of two events lost, and they cost no other spurious interrupt",
            Scope { events: 2, permitted: &[Spurious::Marked], ..STEPS },
        ),
        variant(
            "two-steps-unmarked",
            SPURIOUS,
            "without the mark, the entry reports a vector that is nobody's",
            steps(false, true, true),
        ),
        variant(
            "two-steps-not-tested",
            LOST,
            "what came in between is not sent once more",
            steps(true, false, true),
        ),
        variant(
            "two-steps-irqs-on",
            LOST,
            "with interrupts on, what came in between is gone from the IRR before anybody looks",
            steps(true, true, false),
        ),
        variant(
            "two-steps-in-flight",
            LOST,
            "if a message may still be on its way when the write that follows it has completed, the look comes too early",
            Scope { ordered: false, ..STEPS },
        ),
    ]
}

/// The spurious interrupts, one by one: each occurs.
fn spurious() -> Vec<Variant> {
    vec![
        variant(
            "spurious-marked",
            SPURIOUS,
            "the old CPU is given the new vector, which is nobody's there, and finds the mark",
            Scope { permitted: &[], ..STEPS },
        ),
        variant(
            "spurious-mistaken",
            SPURIOUS,
            "a neighbour's interrupt is in the IRR, and the device's handler is called although the device said nothing",
            Scope { in_use: true, permitted: &[Spurious::Neighbour], ..STEPS },
        ),
        variant(
            "spurious-neighbour",
            SPURIOUS,
            "the device's message calls the neighbour's handler",
            Scope { in_use: true, permitted: &[Spurious::Mistaken], ..STEPS },
        ),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let neighbour =
            if self.in_use { "; a neighbour on the new vector there, 1 event" } else { "" };
        let events = count(self.events, "event");
        format!("1 move to another CPU and vector; 1 device, {events}{neighbour}")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// What a vector table says of a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Unused,
    /// Something may come that was sent elsewhere since.
    Retriggered,
    Device,
    Neighbour,
}

struct Kernel {
    scope: Scope,
    apics: Rc<Lapics>,
    device: Arc<Device>,
    neighbour: Arc<Device>,
    /// What the old CPU's table says of the new vector.
    between: Model<Entry>,
    device_calls: Calls,
    neighbour_calls: Calls,
}

/// Counted in the steps in which the device sends, and in which its handler acknowledges it.
#[derive(Default)]
struct Calls {
    messages: Cell<u32>,
    handler: Cell<u32>,
}

impl Calls {
    fn sent(&self) {
        self.messages.set(self.messages.get() + 1);
    }
}

impl Kernel {
    fn look_up(&self, message: Message) -> Entry {
        match message {
            OLD | NEW => Entry::Device,
            BETWEEN => {
                let entry = self.between.observe(|entry| *entry);
                note(|| format!("the vector is {entry:?}"));
                entry
            }
            _ => Entry::Unused,
        }
    }

    fn interrupt(&self, message: Message) {
        match self.look_up(message) {
            Entry::Device => {
                self.device.acknowledge();
                self.called(&self.device_calls, Spurious::Mistaken);
            }
            Entry::Neighbour => {
                self.neighbour.acknowledge();
                self.called(&self.neighbour_calls, Spurious::Neighbour);
            }
            Entry::Retriggered => {
                self.between.change(|entry| *entry = Entry::Unused);
                note(|| "the vector is nobody's: the mark is taken off".to_owned());
                self.spurious(Spurious::Marked);
            }
            Entry::Unused if self.scope.strict => fail(format!("no handler for {message}")),
            Entry::Unused => remark(|| "the vector is nobody's".to_owned()),
        }
        self.apics.eoi();
    }

    /// A handler was called, after the step in which it acknowledged its device.
    fn called(&self, calls: &Calls, spurious: Spurious) {
        calls.handler.set(calls.handler.get() + 1);
        if calls.handler.get() > calls.messages.get() {
            self.spurious(spurious);
        }
    }

    fn spurious(&self, what: Spurious) {
        if !self.scope.permitted.contains(&what) {
            fail(format!("an interrupt for nothing: {what}"));
        }
    }

    /// The device sends a message: one of those that software knows, or it is torn.
    fn sends(&self, message: Message) {
        let two_steps = matches!(self.scope.update, Update::TwoSteps { .. });
        let known = message == OLD || message == NEW || two_steps && message == BETWEEN;
        if self.scope.strict && !known {
            fail(format!("a message of two configurations: {message}"));
        }
        self.device_calls.sent();
    }

    /// The interrupt is moved, on the CPU that it came to so far.
    fn set_affinity(&self) {
        let off = match self.scope.update {
            Update::TwoSteps { irqs_off: false, .. } => None,
            _ => Some(Sim::irq_save()),
        };
        match self.scope.update {
            Update::AddressFirst => self.device.write_message(NEW),
            Update::DataFirst => {
                self.device.write_data(NEW.vector);
                self.device.write_address(NEW.cpu);
            }
            Update::Masked => {
                self.device.mask(true);
                self.device.write_message(NEW);
                self.device.mask(false);
            }
            Update::TwoSteps { marks, tests, .. } => self.two_steps(marks, tests),
        }
        if let Some(off) = off {
            Sim::irq_restore(off);
        }
    }

    fn two_steps(&self, marks: bool, tests: bool) {
        if marks && self.look_up(BETWEEN) == Entry::Unused {
            self.between.change(|entry| *entry = Entry::Retriggered);
            note(|| "marks the new vector here".to_owned());
        }
        self.device.write_data(NEW.vector);
        self.device.write_address(NEW.cpu);
        if tests && self.apics.is_requested(NEW.vector) {
            self.apics.send_ipi(NEW);
        }
    }
}

fn program(m: &Machine, scope: Scope) {
    let apics = Lapics::new(2);
    apics.carry_ipis(m);
    let kind =
        Kind { masks: scope.update == Update::Masked, ordered: scope.ordered, ..Kind::PLAIN };
    let device = Device::new("device", kind, OLD, scope.events);
    let neighbour = Device::new("neighbour", Kind::PLAIN, BETWEEN, u32::from(scope.in_use));
    let between = if scope.in_use { Entry::Neighbour } else { Entry::Unused };
    let kernel = Rc::new(Kernel {
        scope,
        apics: Rc::clone(&apics),
        device: Arc::clone(&device),
        neighbour: Arc::clone(&neighbour),
        between: Model::new("vector_irq", between),
        device_calls: Calls::default(),
        neighbour_calls: Calls::default(),
    });
    for cpu in [OLD.cpu, NEW.cpu] {
        let kernel = Rc::clone(&kernel);
        apics.on_interrupt(m, cpu, move |vector| kernel.interrupt(Message { cpu, vector }));
    }
    {
        let kernel = Rc::clone(&kernel);
        m.task_on(OLD.cpu, "affinity", move || kernel.set_affinity());
    }
    {
        let kernel = Rc::clone(&kernel);
        device.run(m, &apics, move |message| kernel.sends(message));
    }
    if scope.in_use {
        neighbour.run(m, &apics, move |_| kernel.neighbour_calls.sent());
    }
    m.at_quiescence("nothing is lost", move || {
        match (device.observe().unseen, neighbour.observe().unseen) {
            (0, 0) => Ok(()),
            (0, neighbours) => {
                Err(format!("nobody has seen to {} of the neighbour", count(neighbours, "event")))
            }
            (events, _) => {
                Err(format!("nobody has seen to {} of the device", count(events, "event")))
            }
        }
    });
}
