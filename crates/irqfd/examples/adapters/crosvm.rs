//! The shape of crosvm's events: an edge is a blocking eventfd, a level two of them, the second of
//! which the irqchip signals when the guest has ended the interrupt.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use it"))]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use doorbell_irqfd::Gsi;
use doorbell_irqfd::eventfd::{Descriptor, EventError, EventSink, Served};
use vmm_sys_util::eventfd::EventFd;

use crate::board::Board;

/// An eventfd that blocks.
struct Event(File);

impl Event {
    fn new() -> io::Result<Self> {
        let event = EventFd::new(0)?;
        Ok(Event(doorbell_irqfd::eventfd::of_eventfd(&event).try_clone_to_owned()?.into()))
    }
    fn signal(&self) -> io::Result<()> {
        (&self.0).write_all(&1_u64.to_ne_bytes())
    }
    fn wait(&self) -> io::Result<()> {
        (&self.0).read_exact(&mut [0; 8])
    }
}

/// An edge: a pulse on a pin, or a message.
pub struct IrqEdgeEvent(Event);

impl IrqEdgeEvent {
    pub fn new() -> io::Result<Self> {
        Event::new().map(IrqEdgeEvent)
    }
    pub fn trigger(&self) -> io::Result<()> {
        self.0.signal()
    }
}

/// A level: the device triggers it, and again after each resample while it wants an interrupt.
pub struct IrqLevelEvent {
    trigger: Event,
    resample: Event,
}

impl IrqLevelEvent {
    pub fn new() -> io::Result<Self> {
        Ok(IrqLevelEvent { trigger: Event::new()?, resample: Event::new()? })
    }
    pub fn trigger(&self) -> io::Result<()> {
        self.trigger.signal()
    }
    pub fn clear_resample(&self) -> io::Result<()> {
        self.resample.wait()
    }
}

/// What an irqchip in user space does with them.
pub trait IrqChip {
    fn register_edge_irq_event(&self, irq: u32, event: &IrqEdgeEvent)
    -> Result<Served, EventError>;
    fn register_level_irq_event(
        &self,
        irq: u32,
        event: &IrqLevelEvent,
    ) -> Result<Served, EventError>;
    fn unregister_irq_event(&self, event: Served) -> Result<(), EventError>;
}

impl IrqChip for Board {
    fn register_edge_irq_event(
        &self,
        irq: u32,
        event: &IrqEdgeEvent,
    ) -> Result<Served, EventError> {
        self.events.assign(&self.vm, Descriptor::eventfd(event.0.0.as_fd())?, Gsi(irq))
    }
    fn register_level_irq_event(
        &self,
        irq: u32,
        event: &IrqLevelEvent,
    ) -> Result<Served, EventError> {
        let trigger = Descriptor::eventfd(event.trigger.0.as_fd())?;
        let resample = Arc::new(EventSink::new(event.resample.0.as_fd())?);
        self.events.assign_resample(&self.vm, trigger, Gsi(irq), resample)
    }
    fn unregister_irq_event(&self, event: Served) -> Result<(), EventError> {
        Ok(self.events.deassign(event)?)
    }
}

#[cfg(test)]
mod tests {
    use doorbell_irqfd::Pin;

    use super::*;

    #[test]
    fn an_edge_is_a_pulse_and_a_level_is_up_until_the_guest_ends_it() {
        let board = Board::new().unwrap();
        let (edge, level) = (IrqEdgeEvent::new().unwrap(), IrqLevelEvent::new().unwrap());
        let served = [
            board.register_edge_irq_event(4, &edge).unwrap(),
            board.register_level_irq_event(5, &level).unwrap(),
        ];
        edge.trigger().unwrap();
        assert_eq!((board.edges(), board.is_high(4)), (1, false));
        for rises in 2..5 {
            level.trigger().unwrap();
            assert_eq!((board.edges(), board.is_high(5)), (rises, true));
            board.vm.ack(Pin::new(0, 5));
            level.clear_resample().unwrap();
            assert!(!board.is_high(5));
        }
        served.into_iter().for_each(|served| board.unregister_irq_event(served).unwrap());
        edge.trigger().unwrap();
        assert_eq!(board.edges(), 4, "what comes now stays the device's");
        assert!(board.unregister_irq_event(served[0]).is_err());
    }
}
