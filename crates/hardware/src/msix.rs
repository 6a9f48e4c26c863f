//! A PCI device with one MSI or MSI-X message (PCI Local Bus Specification 3.0, section 6.8): its
//! address and its data are words of their own, each written by a configuration write or a store of
//! its own.
//!
//! The device sends what the words hold at that moment; the message is then on its way for some
//! time. While it is masked, or has been told to be silent, what it has to say waits. Many devices
//! raise nothing more until their driver has read their status: [`Kind::waits_for_driver`].

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{Model, fail, note};
use doorbell_explore::{Ended, Machine, Sim};
use doorbell_platform::{CpuId, Platform, Vector};

use crate::lapic::{Lapics, Message};

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// Has a mask bit, and a pending bit with it.
    pub masks: bool,
    /// Keeps what it raises while it is masked. One that does not is broken: it sends by whatever
    /// its words hold then.
    pub heeds_mask: bool,
    /// Raises nothing more until its driver has acknowledged what it raised last.
    pub waits_for_driver: bool,
    /// A write to one of its words completes when the messages that it has sent have arrived: what
    /// is read comes after what was posted (PCI Express Base Specification, "Transaction
    /// Ordering"). Else they may come later still.
    pub ordered: bool,
}

impl Kind {
    /// A device that masks, does not wait, and promises nothing of its messages.
    pub const PLAIN: Kind =
        Kind { masks: true, heeds_mask: true, waits_for_driver: false, ordered: false };
}

/// The device.
pub struct Device {
    name: &'static str,
    kind: Kind,
    registers: Model<Registers>,
}

doorbell_platform::opaque_debug!([] Device; name, kind);

/// What a [`Device`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// The APIC ID that the address names.
    pub address: u32,
    /// The vector that the data names.
    pub data: u8,
    /// The entry's mask bit.
    pub masked: bool,
    /// A message waits for the mask to be taken off.
    pub pending: bool,
    /// Told by its driver to be silent.
    pub silent: bool,
    /// Something has happened while it was silent.
    pub unsaid: bool,
    /// Has interrupted, and was not acknowledged since.
    pub waits: bool,
    /// A message is on its way.
    pub under_way: bool,
    /// Events that its driver has not seen.
    pub unseen: u32,
    /// Events that will happen.
    pub left: u32,
}

impl Registers {
    fn message(&self) -> Message {
        Message { cpu: CpuId(self.address), vector: Vector(self.data) }
    }

    /// What is raised goes out, if it may.
    fn raise(&mut self, kind: Kind) -> Option<Message> {
        self.waits = kind.waits_for_driver;
        self.pending = self.masked && kind.heeds_mask;
        (!self.pending).then(|| self.message())
    }

    /// One thing that the device does of itself.
    fn goes_on(&mut self, kind: Kind) -> (&'static str, Option<Message>) {
        if self.sends_what_waits() {
            self.pending = false;
            return ("pending", Some(self.message()));
        }
        self.left -= 1;
        self.unseen += 1;
        self.unsaid |= self.silent;
        if self.silent || self.waits {
            return ("event, says nothing", None);
        }
        ("event", self.raise(kind))
    }

    fn sends_what_waits(&self) -> bool {
        self.pending && !self.masked
    }
}

impl Device {
    /// Creates a device whose messages go to `to` and that has that many `events`, at any moments.
    #[track_caller]
    pub fn new(name: &'static str, kind: Kind, to: Message, events: u32) -> Arc<Device> {
        let registers = Registers {
            address: to.cpu.0,
            data: to.vector.0,
            masked: false,
            pending: false,
            silent: false,
            unsaid: false,
            waits: false,
            under_way: false,
            unseen: 0,
            left: events,
        };
        Arc::new(Device { name, kind, registers: Model::new(name, registers) })
    }

    /// Lets it run. `sends` is told of each message when it leaves the device, in the same step.
    pub fn run(
        self: &Arc<Self>,
        m: &Machine,
        lapics: &Rc<Lapics>,
        sends: impl Fn(Message) + 'static,
    ) {
        let (this, lapics) = (Arc::clone(self), Rc::clone(lapics));
        let silent = self.registers.observe(|registers| registers.left == 0);
        let device = m.hardware(self.name, move || {
            while let Ok(message) = this.next() {
                if let Some(message) = message {
                    sends(message);
                    lapics.arrive(message);
                    if this.kind.ordered {
                        this.registers.change(|registers| registers.under_way = false);
                        note(|| "the message has arrived".to_owned());
                    }
                }
            }
        });
        if silent {
            // It is there for the vector that it has.
            device.may_not_run();
        }
    }

    /// Does the next thing; with the message, if one leaves.
    fn next(&self) -> Result<Option<Message>, Ended> {
        let due = |registers: &Registers| registers.sends_what_waits() || registers.left > 0;
        let (what, message) = self.registers.serve(due, |registers| {
            let went = registers.goes_on(self.kind);
            registers.under_way = self.kind.ordered && went.1.is_some();
            went
        })?;
        note(|| match message {
            Some(message) => format!("{what}: {message}"),
            None => what.to_owned(),
        });
        Ok(message)
    }

    /// Writes the address, in one configuration write.
    #[track_caller]
    pub fn write_address(&self, cpu: CpuId) {
        self.write(|registers| registers.address = cpu.0);
        note(|| format!("{}.address := {cpu}", self.name));
    }

    /// A write, in one step with its completion: what the device has sent before the write has
    /// arrived by then. (What it sends between the two, it might as well send after both: its
    /// driver does nothing meanwhile.)
    #[track_caller]
    fn write(&self, f: impl Fn(&mut Registers)) {
        let mut done = false;
        loop {
            self.registers.change_if(|registers| {
                done = !(self.kind.ordered && registers.under_way);
                if done {
                    f(registers);
                }
                done
            });
            if done {
                break;
            }
            note(|| "waits for the write to complete".to_owned());
            Sim::cpu_relax();
        }
    }

    /// Writes the data, in one configuration write.
    #[track_caller]
    pub fn write_data(&self, vector: Vector) {
        self.write(|registers| registers.data = vector.0);
        note(|| format!("{}.data := {:#x}", self.name, vector.0));
    }

    /// Writes both words, one after the other.
    #[track_caller]
    pub fn write_message(&self, message: Message) {
        self.write_address(message.cpu);
        self.write_data(message.vector);
    }

    /// Writes both words while the entry is masked: the device does not look at them, so nobody can
    /// tell in how many steps.
    #[track_caller]
    pub fn write_masked_message(&self, message: Message) {
        let unmasked = Cell::new(false);
        self.write(|registers| {
            unmasked.set(!registers.masked);
            (registers.address, registers.data) = (message.cpu.0, message.vector.0);
        });
        note(|| format!("{} := {message}", self.name));
        if unmasked.get() {
            fail(format!("{} is not masked", self.name));
        }
    }

    /// Sets the mask bit, or takes it off.
    #[track_caller]
    pub fn mask(&self, masked: bool) {
        self.write(|registers| registers.masked = masked);
        note(|| format!("{} {}", if masked { "masks" } else { "unmasks" }, self.name));
        if !self.kind.masks {
            fail(format!("{} has no mask bit", self.name));
        }
    }

    /// Silences the device, as its driver does.
    #[track_caller]
    pub fn silence(&self) {
        self.registers.change(|registers| registers.silent = true);
        note(|| format!("silences {}", self.name));
    }

    /// Lets the device speak again, as its driver does. If the driver `looks`, it sees what has
    /// happened meanwhile; if not, the device raises it, unless it waits for something that it
    /// raised before.
    #[track_caller]
    pub fn enable(&self, looks: bool) {
        self.registers.change(|registers| {
            registers.silent = false;
            let unsaid = std::mem::take(&mut registers.unsaid);
            if looks {
                registers.waits = false;
                registers.unseen = 0;
            } else if unsaid && !registers.waits {
                registers.waits = self.kind.waits_for_driver;
                registers.pending = true;
            }
        });
        note(|| format!("enables {}", self.name));
    }

    /// Reads the status register, as the device's driver does, which acknowledges what it says.
    /// Returns how many events that were.
    #[track_caller]
    pub fn acknowledge(&self) -> u32 {
        let events = self.registers.change(|registers| {
            registers.waits = false;
            std::mem::take(&mut registers.unseen)
        });
        note(|| {
            let new = match events {
                0 => "nothing new".to_owned(),
                1 => "1 new event".to_owned(),
                _ => format!("{events} new events"),
            };
            format!("acknowledges {}: {new}", self.name)
        });
        events
    }

    /// Returns what the device holds.
    #[track_caller]
    pub fn observe(&self) -> Registers {
        let registers = self.registers.observe(|registers| *registers);
        note(|| format!("looks at {}", self.name));
        registers
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use doorbell_explore::trace::FailureKind;
    use doorbell_explore::{Explore, Report};

    use super::*;

    const OLD: Message = Message { cpu: CpuId(0), vector: Vector(0x31) };
    const NEW: Message = Message { cpu: CpuId(1), vector: Vector(0x41) };
    const PLAIN: Kind = Kind::PLAIN;

    /// The messages that leave a device while `driver` runs.
    fn messages(
        kind: Kind,
        events: u32,
        driver: impl Fn(&Device) + Clone + Send + Sync + 'static,
    ) -> Report {
        Explore::new("msix").collect_outcomes().jobs(1).run(move |m| {
            let lapics = Lapics::new(2);
            for cpu in [0, 1].map(CpuId) {
                let apic = Rc::clone(&lapics);
                // What comes where is told by the outcomes.
                lapics.on_interrupt(m, cpu, move |_| apic.eoi()).may_not_run();
            }
            let device = Device::new("device", kind, OLD, events);
            let sent = Rc::new(RefCell::new(Vec::new()));
            let seen = Rc::clone(&sent);
            device.run(m, &lapics, move |message| sent.borrow_mut().push(message.to_string()));
            let driver = driver.clone();
            m.task("driver", move || driver(&device));
            m.outcome(move || seen.borrow().join("; "));
        })
    }

    fn outcomes(report: &Report) -> Vec<&str> {
        report.assert_exhausted();
        report.outcomes.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_message_is_what_the_two_words_hold_at_that_moment() {
        let report = messages(PLAIN, 1, |device| device.write_message(NEW));
        assert_eq!(outcomes(&report), ["CPU0, 0x31", "CPU1, 0x31", "CPU1, 0x41"]);
    }

    #[test]
    fn a_masked_device_sends_what_the_words_hold_when_it_is_unmasked() {
        let report = messages(PLAIN, 1, |device| {
            device.mask(true);
            device.write_message(NEW);
            device.mask(false);
        });
        assert_eq!(outcomes(&report), ["CPU0, 0x31", "CPU1, 0x41"]);
    }

    #[test]
    fn a_device_that_does_not_heed_its_mask_sends_what_the_words_hold_meanwhile() {
        let report = messages(Kind { heeds_mask: false, ..PLAIN }, 1, |device| {
            device.mask(true);
            device.write_message(NEW);
            device.mask(false);
        });
        assert_eq!(outcomes(&report), ["CPU0, 0x31", "CPU1, 0x31", "CPU1, 0x41"]);
    }

    #[test]
    fn a_device_that_waits_for_its_driver_says_nothing_more() {
        let kind = Kind { waits_for_driver: true, ..PLAIN };
        let report = messages(kind, 2, |_| ());
        assert_eq!(outcomes(&report), ["CPU0, 0x31"]);
        let report = messages(kind, 2, |device| {
            device.acknowledge();
        });
        assert_eq!(outcomes(&report), ["CPU0, 0x31", "CPU0, 0x31; CPU0, 0x31"]);
    }

    #[test]
    fn a_silent_device_has_its_events_all_the_same() {
        let report = messages(PLAIN, 1, |device| {
            device.silence();
            device.enable(false);
        });
        assert_eq!(outcomes(&report), ["CPU0, 0x31"]);
        let report = messages(PLAIN, 1, |device| {
            device.silence();
            device.enable(true);
        });
        assert_eq!(outcomes(&report), ["", "CPU0, 0x31"]);
    }

    #[test]
    fn a_device_that_waits_is_not_helped_by_being_enabled() {
        let kind = Kind { waits_for_driver: true, ..PLAIN };
        let report = messages(kind, 2, |device| {
            device.silence();
            device.enable(false);
        });
        assert_eq!(outcomes(&report), ["CPU0, 0x31"]);
    }

    #[test]
    fn a_write_of_an_ordered_device_completes_when_its_messages_have_arrived() {
        let sent_before = |ordered| {
            Explore::new("ordered").run(move |m| {
                let lapics = Lapics::new(2);
                let (apic, taken) = (Rc::clone(&lapics), Rc::new(Cell::new(false)));
                let takes = Rc::clone(&taken);
                lapics.on_interrupt(m, OLD.cpu, move |_| {
                    takes.set(true);
                    apic.eoi();
                });
                let device = Device::new("device", Kind { ordered, ..PLAIN }, OLD, 1);
                device.run(m, &lapics, |_| ());
                m.task_on(OLD.cpu, "driver", move || {
                    let off = Sim::irq_save();
                    device.mask(true);
                    let sent = device.observe();
                    let arrived = taken.get() || lapics.is_requested(OLD.vector);
                    if sent.unseen > 0 && !sent.pending && !arrived {
                        fail("a message is on its way");
                    }
                    Sim::irq_restore(off);
                });
            })
        };
        sent_before(true).assert_exhausted();
        sent_before(false).assert_found(FailureKind::Invariant);
    }

    #[test]
    fn who_masks_a_device_that_cannot_is_wrong() {
        let report = messages(Kind { masks: false, ..PLAIN }, 1, |device| device.mask(true));
        report.assert_found(FailureKind::Invariant);
    }
}
