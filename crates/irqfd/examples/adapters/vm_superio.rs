//! The shape of `vm_superio`'s trigger: what a UART or an RTC does when it wants an interrupt.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use it"))]

use doorbell_irqfd::{Error, Gsi, Irqfd, Signalled};
use doorbell_platform::Std;

use crate::board::{Board, Chip};

/// An interrupt that can be triggered.
pub trait Trigger {
    type E;
    fn trigger(&self) -> Result<(), Self::E>;
}

/// An irqfd of the process: no descriptor, no system call.
pub struct IrqfdTrigger(Irqfd<Std, Chip>);

impl IrqfdTrigger {
    pub fn new(board: &Board, gsi: u32) -> Result<Self, Error> {
        let irqfd = board.vm.irqfd();
        irqfd.assign(Gsi(gsi))?;
        Ok(IrqfdTrigger(irqfd))
    }
}

/// The host has refused the interrupt.
#[derive(PartialEq, Eq, Debug)]
pub struct Refused;

impl Trigger for IrqfdTrigger {
    type E = Refused;

    fn trigger(&self) -> Result<(), Refused> {
        match self.0.signal() {
            Signalled::Failed => Err(Refused),
            // Pending, it is delivered when its GSI has a route again.
            Signalled::Delivered | Signalled::Coalesced | Signalled::Pending => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trigger_is_a_pulse() {
        let board = Board::new().unwrap();
        let trigger = IrqfdTrigger::new(&board, 4).unwrap();
        assert_eq!([trigger.trigger(), trigger.trigger()], [Ok(()), Ok(())]);
        assert_eq!((board.edges(), board.is_high(4)), (2, false));
        assert_eq!(IrqfdTrigger::new(&board, 30).err(), Some(Error::UnknownGsi(Gsi(30))));
    }
}
