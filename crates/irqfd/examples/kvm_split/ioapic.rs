//! An IOAPIC (Intel 82093AA, section 3.2) before KVM's local APICs, as far as the guest uses one.

use std::array;
use std::sync::{Arc, Mutex, MutexGuard};

use doorbell_irqfd::{Controller, Msi, Outcome, Pin, SourceId};
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

/// The chip's number, which is KVM's.
pub const CHIP: u16 = kvm_bindings::KVM_IRQCHIP_IOAPIC as u16;
pub const PINS: u32 = 24;
/// Bits of a redirection entry.
pub const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// The controller of a VM: with KVM's own IOAPIC, that of messages alone.
pub struct Ioapic {
    vm: Arc<VmFd>,
    registers: Mutex<Registers>,
}

struct Registers {
    selected: u32,
    pins: [Entry; PINS as usize],
}

#[derive(Clone, Copy)]
struct Entry {
    low: u32,
    sources: u32,
    remote_irr: bool,
}

impl Entry {
    fn message(self) -> Msi {
        // Of a fixed, physical interrupt of CPU 0; the level is asserted (bit 14).
        Msi::new(0xfee0_0000, self.low & (LEVEL | 0xff) | (self.low & LEVEL) >> 1)
    }

    /// What a level-triggered pin sends now.
    fn level(&mut self) -> Option<Msi> {
        let sends = self.low & (MASKED | LEVEL) == LEVEL && self.sources != 0 && !self.remote_irr;
        self.remote_irr |= sends;
        sends.then(|| self.message())
    }
}

impl Ioapic {
    pub fn new(vm: &Arc<VmFd>) -> Self {
        let entry = Entry { low: MASKED, sources: 0, remote_irr: false };
        let registers = Registers { selected: 0, pins: array::from_fn(|_| entry) };
        Ioapic { vm: Arc::clone(vm), registers: Mutex::new(registers) }
    }

    /// A write of the guest. Returns a pin whose redirection entry has changed, and what its
    /// interrupts are now, if KVM has to tell of their ends.
    pub fn write(&self, offset: u64, value: u32) -> Option<(u32, Option<Msi>)> {
        let mut registers = self.registers();
        if offset == 0 {
            registers.selected = value;
            return None;
        }
        let pin = registers.selected.checked_sub(0x10).filter(|of| of % 2 == 0)? / 2;
        let entry = registers.pins.get_mut(pin as usize)?;
        entry.low = value;
        let (message, sends) = (entry.message(), entry.level());
        drop(registers);
        sends.map(|message| self.msi(message));
        Some((pin, (value & LEVEL != 0).then_some(message)))
    }

    /// The pins that wait for the end of an interrupt of this vector.
    pub fn ends(&self, vector: u8) -> Vec<Pin> {
        let registers = self.registers();
        let pins = (0..).zip(&registers.pins);
        let ends = pins.filter(|(_, of)| of.remote_irr && of.low as u8 == vector);
        ends.map(|(number, _)| Pin::new(CHIP, number)).collect()
    }

    /// Clears Remote IRR, and looks at the level.
    pub fn end(&self, pin: Pin) {
        self.change(pin, |entry| {
            entry.remote_irr = false;
            entry.level()
        });
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("nothing panics under it")
    }

    /// Decides under the lock, and sends after it.
    fn change(&self, pin: Pin, f: impl FnOnce(&mut Entry) -> Option<Msi>) -> Outcome {
        let message = self.registers().pins.get_mut(pin.number as usize).and_then(f);
        message.map_or(Outcome::Delivered, |message| self.msi(message))
    }
}

impl Controller for Ioapic {
    type Delivery = Outcome;

    fn pins(&self, chip: u16) -> u32 {
        if chip == CHIP { PINS } else { 0 }
    }

    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) -> Outcome {
        self.change(pin, |entry| {
            let was = entry.sources;
            entry.sources = if level { was | source.bit() } else { was & !source.bit() };
            let rises = was == 0 && level && entry.low & (MASKED | LEVEL) == 0;
            if rises { Some(entry.message()) } else { entry.level() }
        })
    }

    fn edge(&self, pin: Pin) -> Outcome {
        self.change(pin, |entry| (entry.low & MASKED == 0).then(|| entry.message()))
    }

    fn msi(&self, Msi { message, .. }: Msi) -> Outcome {
        let (address_lo, address_hi) = (message.address as u32, (message.address >> 32) as u32);
        let msi = kvm_msi { address_lo, address_hi, data: message.data, ..Default::default() };
        match self.vm.signal_msi(msi) {
            Ok(0) => Outcome::Coalesced,
            Ok(_) => Outcome::Delivered,
            Err(_) => Outcome::Failed,
        }
    }
}
