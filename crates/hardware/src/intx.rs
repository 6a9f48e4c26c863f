//! A device with an INTx line (PCI Local Bus Specification 3.0, sections 2.2.6 and 6.2): the line
//! is asserted while an interrupt is pending and not disabled, and interrupts a CPU for as long.

use std::sync::OnceLock;

use doorbell_explore::HandlerHandle;
use doorbell_explore::sim::Model;

/// What the device's registers say of its line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Registers {
    /// Interrupt Status: the device wants an interrupt.
    pub pending: bool,
    /// Interrupt Disable: the line is not asserted.
    pub masked: bool,
}

/// The device.
pub struct Device {
    registers: Model<Registers>,
    /// The handler of its interrupt, once there is one.
    pub handler: OnceLock<HandlerHandle>,
}

doorbell_platform::opaque_debug!([] Device);

impl Device {
    /// Creates a device that wants no interrupt, and whose line is not masked.
    #[track_caller]
    pub fn new(name: &'static str) -> Self {
        Device { registers: Model::new(name, Registers::default()), handler: OnceLock::new() }
    }

    /// Returns what the registers say.
    #[track_caller]
    pub fn registers(&self) -> Registers {
        self.registers.observe(|registers| *registers)
    }

    /// Writes the registers; if the line is asserted then, it interrupts.
    #[track_caller]
    fn change(&self, change: impl FnOnce(&mut Registers)) {
        let asserted = self.registers.change(|registers| {
            change(registers);
            registers.pending && !registers.masked
        });
        if asserted && let Some(handler) = self.handler.get() {
            handler.raise();
        }
    }

    /// Has the device want an interrupt, or not any more.
    #[track_caller]
    pub fn set_pending(&self, pending: bool) {
        self.change(|registers| registers.pending = pending);
    }

    /// Masks the line, or unmasks it.
    #[track_caller]
    pub fn set_masked(&self, masked: bool) {
        self.change(|registers| registers.masked = masked);
    }

    /// Ends the interrupt at the CPU: a line that is asserted by then interrupts again.
    #[track_caller]
    pub fn eoi(&self) {
        self.change(|_| ());
    }

    /// Waits until the device was served.
    #[track_caller]
    pub fn is_served(&self) {
        self.registers.wait(|registers| !registers.pending, |_| ());
    }
}
