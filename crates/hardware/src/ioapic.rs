//! One pin of an I/O APIC, level-triggered (Intel 82093AA, section 3.2.4): Remote IRR is set when a
//! local APIC has accepted its message, and until an EOI of the pin's vector takes it off the pin
//! sends nothing.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, note};
use doorbell_platform::Vector;

use crate::lapic::{Lapics, Message};

/// The pin.
pub struct Pin(Model<Registers>);

doorbell_platform::opaque_debug!([] Pin);

/// What a [`Pin`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// Where its interrupts go.
    pub to: Option<Message>,
    /// The pin's mask bit.
    pub masked: bool,
    /// The interrupt was sent, and not ended by an EOI.
    pub remote_irr: bool,
    /// The line's level.
    pub high: bool,
    /// The device was told to leave the line low.
    pub silent: bool,
}

impl Pin {
    /// Creates a pin that is not masked, whose line is low.
    #[track_caller]
    pub fn new(to: Message) -> Rc<Pin> {
        let registers = Registers {
            to: Some(to),
            masked: false,
            remote_irr: false,
            high: false,
            silent: false,
        };
        Rc::new(Pin(Model::new("pin", registers)))
    }

    /// Lets it run.
    pub fn run(self: &Rc<Self>, m: &Machine, lapics: &Rc<Lapics>) {
        let (this, lapics) = (Rc::clone(self), Rc::clone(lapics));
        m.hardware("I/O APIC", move || {
            let due =
                |pin: &Registers| pin.high && !pin.masked && !pin.remote_irr && pin.to.is_some();
            let accepted = |pin: &mut Registers| {
                pin.remote_irr = true;
                pin.to
            };
            while let Ok(to) = this.0.serve(due, accepted) {
                note(|| "sends, sets Remote IRR".to_owned());
                lapics.arrive(to.expect("it has a target"));
            }
        });
    }

    /// Raises the line for the device, unless that is silent.
    #[track_caller]
    pub fn raise(&self) {
        let high = self.0.change(|pin| {
            pin.high |= !pin.silent;
            pin.high
        });
        note(|| if high { "raises the line" } else { "is silent" }.to_owned());
    }

    /// Lowers the line for the device, which is served; the device may be told to be silent from
    /// now on, or no longer.
    #[track_caller]
    pub fn lower(&self, silent: bool) {
        self.0.change(|pin| {
            pin.high = false;
            pin.silent = silent;
        });
        note(|| {
            let does = if silent { "silences" } else { "serves" };
            format!("{does} the device: its line is low")
        });
    }

    /// Masks the pin, or takes the mask off.
    #[track_caller]
    pub fn mask(&self, masked: bool) {
        self.0.change(|pin| pin.masked = masked);
        note(|| format!("{} the pin", if masked { "masks" } else { "unmasks" }));
    }

    /// Writes where its interrupts go. Remote IRR is read-only.
    #[track_caller]
    pub fn program(&self, to: Option<Message>) {
        self.0.change(|pin| pin.to = to);
        note(|| {
            to.map_or_else(
                || "the pin has no vector".to_owned(),
                |to| format!("the pin goes to {to}"),
            )
        });
    }

    /// Takes the EOI of a level-triggered vector, of which a local APIC tells.
    #[track_caller]
    pub fn eoi(&self, vector: Vector) {
        let matches = self.0.change(|pin| {
            let matches = pin.to.is_some_and(|to| to.vector == vector);
            pin.remote_irr &= !matches;
            matches
        });
        note(|| {
            format!(
                "broadcasts the EOI of {:#x}{}",
                vector.0,
                if matches { "" } else { ": no pin has it" }
            )
        });
    }

    /// Waits until Remote IRR is off.
    #[track_caller]
    pub fn wait_for_eoi(&self) {
        self.0.wait(|pin| !pin.remote_irr, |_| ());
        note(|| "Remote IRR is clear".to_owned());
    }

    /// Returns what the pin holds.
    #[track_caller]
    pub fn observe(&self) -> Registers {
        self.0.observe(|pin| *pin)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use doorbell_explore::{Explore, Report};
    use doorbell_platform::CpuId;

    use super::*;

    const TO: Message = Message { cpu: CpuId(0), vector: Vector(0x31) };

    /// How often the CPU is interrupted by a line that is lowered at the second time.
    fn interrupts(ended: Vector) -> Report {
        Explore::new("I/O APIC").collect_outcomes().jobs(1).run(move |m| {
            let lapics = Lapics::new(1);
            let pin = Pin::new(TO);
            let taken = Rc::new(Cell::new(0));
            let (apic, line, count) = (Rc::clone(&lapics), Rc::clone(&pin), Rc::clone(&taken));
            lapics.on_interrupt(m, TO.cpu, move |_| {
                count.set(count.get() + 1);
                if count.get() == 2 {
                    line.lower(false);
                }
                apic.eoi();
                line.eoi(ended);
            });
            pin.run(m, &lapics);
            m.hardware("device", move || pin.raise());
            m.outcome(move || taken.get().to_string());
        })
    }

    #[test]
    fn a_line_that_is_still_high_interrupts_again_after_the_eoi() {
        let report = interrupts(TO.vector);
        report.assert_exhausted();
        assert_eq!(report.outcomes.iter().collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn a_pin_whose_vector_is_never_ended_is_silent_for_good() {
        let report = interrupts(Vector(0x32));
        report.assert_exhausted();
        assert_eq!(report.outcomes.iter().collect::<Vec<_>>(), ["1"]);
    }
}
