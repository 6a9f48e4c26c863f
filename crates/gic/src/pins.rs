//! The SPIs as the pins of an interrupt controller, for irqfds.

use alloc::sync::Arc;
use core::fmt;

use doorbell_irqfd::{Controller, Msi, Pin, SourceId};
use doorbell_platform::{CpuId, Platform};
use doorbell_post::Notice;

use crate::{Gic, IntId, Line, Trigger, VcpuId};

/// The SPIs of a controller as pins of chip 0: pin 0 is INTID 32. What has to be kicked or woken
/// goes to the one function.
///
/// The end of a level, which [`tell_ended`](crate::CpuInterface::tell_ended) tells, goes back
/// through `Irqfds::ack`, with the pin that [`pin`](Pins::pin) says.
pub struct Pins<P: Platform, F> {
    gic: Arc<Gic<P>>,
    notice: F,
}

impl<P: Platform, F: Fn(VcpuId, Notice<CpuId>)> Pins<P, F> {
    /// Returns the pins of a controller. `notice` kicks a vCPU or wakes its task, as
    /// [`Kick`](crate::Kick) does; irqfds are signalled in any context, so that it may not sleep.
    pub fn new(gic: Arc<Gic<P>>, notice: F) -> Self {
        Pins { gic, notice }
    }

    fn line(&self, pin: Pin) -> Option<Line<'_, P>> {
        let number = pin.number.checked_add(IntId::FIRST_SPI.number())?;
        if pin.chip == 0 { self.gic.spi(IntId::new(number)?).ok() } else { None }
    }
}

impl<P: Platform, F> Pins<P, F> {
    /// Returns the controller.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        &self.gic
    }

    /// Returns the pin of an SPI; `None` if the interrupt is private.
    pub fn pin(&self, id: IntId) -> Option<Pin> {
        Some(Pin::new(0, id.number().checked_sub(IntId::FIRST_SPI.number())?))
    }
}

impl<P: Platform, F: Fn(VcpuId, Notice<CpuId>) + Send + Sync + 'static> Controller for Pins<P, F> {
    fn pins(&self, chip: u16) -> u32 {
        if chip == 0 { self.gic.spis() } else { 0 }
    }

    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        if let Some(line) = self.line(pin) {
            line.set_level(source.number().into(), level, &mut &self.notice);
        }
    }

    fn edge(&self, pin: Pin) {
        if let Some(line) = self.line(pin) {
            line.edge(&mut &self.notice);
        }
    }

    /// Asks the trigger that the guest has set: an edge is latched, of a level the vCPU sees what it
    /// looks at.
    fn pulse(&self, pin: Pin) {
        let Some(line) = self.line(pin) else { return };
        if line.state().trigger() == Trigger::Edge {
            return line.edge(&mut &self.notice);
        }
        let source = SourceId::IRQFD.number().into();
        line.set_level(source, true, &mut &self.notice);
        line.set_level(source, false, &mut &self.notice);
    }

    /// Ignores the message: there is no frame yet that translates messages.
    fn msi(&self, _: Msi) {}
}

impl<P: Platform, F> fmt::Debug for Pins<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pins").field("gic", &self.gic).finish_non_exhaustive()
    }
}
