//! The SPIs as the pins of an interrupt controller, for irqfds.

use alloc::sync::Arc;
use alloc::vec::{self, Vec};
use core::fmt;
use core::iter::Chain;
use core::option;

use doorbell_irqfd::{Controller, Delivery, Msi, Outcome, Pin, SourceId};
use doorbell_platform::{CpuId, Platform};
use doorbell_post::Notice;

use crate::{Gic, IntId, Kick, Line, State, Trigger, VcpuId};

/// The SPIs of a controller as pins of chip 0: pin 0 is INTID 32.
///
/// What has to be kicked or woken comes back to who has signalled, as [`Notices`]: nobody is called
/// from inside.
///
/// The end of a level, which [`tell_ended`](crate::CpuInterface::tell_ended) tells, goes back
/// through `Irqfds::ack`, with the pin that [`pin`](Pins::pin) says.
pub struct Pins<P: Platform> {
    gic: Arc<Gic<P>>,
}

impl<P: Platform> Pins<P> {
    /// Returns the pins of a controller.
    pub fn new(gic: Arc<Gic<P>>) -> Self {
        Pins { gic }
    }

    /// Returns the controller.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        &self.gic
    }

    /// Returns the pin of an SPI; `None` if the interrupt is another one.
    pub fn pin(&self, id: IntId) -> Option<Pin> {
        if id.is_lpi() {
            return None;
        }
        Some(Pin::new(0, id.number().checked_sub(IntId::FIRST_SPI.number())?))
    }

    fn line(&self, pin: Pin) -> Option<Line<'_, P>> {
        let number = pin.number.checked_add(IntId::FIRST_SPI.number())?;
        if pin.chip == 0 { self.gic.spi(IntId::new(number)?).ok() } else { None }
    }

    fn told(&self, pin: Pin, f: impl FnOnce(&Line<'_, P>, &mut Notices) -> Outcome) -> Told {
        let mut notices = Notices::default();
        let outcome = self.line(pin).map_or(Outcome::Failed, |line| f(&line, &mut notices));
        Told { outcome, notices }
    }
}

/// Says what a latch has brought about, and tells the holder.
fn latched<P: Platform>(line: &Line<'_, P>, notices: &mut Notices) -> Outcome {
    let was = line.interrupt().latch();
    line.tells_of_latch(was, notices);
    coalesced(was.is_latched())
}

fn coalesced(is_so: bool) -> Outcome {
    if is_so { Outcome::Coalesced } else { Outcome::Delivered }
}

/// Whether a rise of a source found the interrupt pending already.
fn was_high(was: State, source: SourceId) -> bool {
    match was.trigger() {
        Trigger::Edge => was.is_latched() || was.sources() & source.bit() != 0,
        Trigger::Level => was.is_pending(),
    }
}

impl<P: Platform> Controller for Pins<P> {
    type Delivery = Told;

    fn pins(&self, chip: u16) -> u32 {
        if chip == 0 { self.gic.spis() } else { 0 }
    }

    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) -> Told {
        self.told(pin, |line, notices| {
            let was = line.change_level(source.number().into(), level, notices);
            coalesced(level && was_high(was, source))
        })
    }

    fn edge(&self, pin: Pin) -> Told {
        self.told(pin, latched)
    }

    /// Asks the trigger that the guest has set: an edge is latched, of a level the vCPU sees what
    /// it looks at.
    fn pulse(&self, pin: Pin) -> Told {
        self.told(pin, |line, notices| {
            if line.state().trigger() == Trigger::Edge {
                return latched(line, notices);
            }
            let source = SourceId::IRQFD;
            let was = line.change_level(source.number().into(), true, notices);
            let _ = line.change_level(source.number().into(), false, notices);
            coalesced(was_high(was, source))
        })
    }

    /// Lowers a level, and recalls nobody: a vCPU that has it in a list register takes one spurious
    /// interrupt, unless it comes out of the guest before.
    fn lower(&self, pin: Pin, source: SourceId) {
        if let Some(line) = self.line(pin) {
            let _ = line.interrupt().set_level(source.number().into(), false);
        }
    }

    /// Refuses the message: there is no frame yet that translates messages.
    fn msi(&self, _: Msi) -> Told {
        Told { outcome: Outcome::Failed, notices: Notices::default() }
    }
}

impl<P: Platform> fmt::Debug for Pins<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pins").field("gic", &self.gic).finish()
    }
}

/// What became of an interrupt at its pin, and who is to be kicked or woken for it.
#[derive(PartialEq, Eq, Default, Debug)]
#[must_use = "vCPUs wait to be kicked or woken"]
pub struct Told {
    outcome: Outcome,
    notices: Notices,
}

impl Delivery for Told {
    type Owed = Notices;

    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn owed(self) -> Notices {
        self.notices
    }

    fn and(self, other: Told) -> Told {
        let mut notices = self.notices;
        other.notices.into_iter().for_each(|(vcpu, notice)| notices.notice(vcpu, notice));
        Told { outcome: self.outcome.max(other.outcome), notices }
    }
}

/// The vCPUs that are to be kicked or woken, when whoever has signalled holds nothing any more: in
/// any context, also that of an interrupt handler that has signalled.
///
/// Takes no memory for the one notice of an SPI; a GSI with several pins may take some.
#[derive(PartialEq, Eq, Default, Debug)]
#[must_use = "vCPUs wait to be kicked or woken"]
pub struct Notices {
    first: Option<(VcpuId, Notice<CpuId>)>,
    more: Vec<(VcpuId, Notice<CpuId>)>,
}

impl Notices {
    /// Kicks and wakes them.
    pub fn give(self, host: &mut impl Kick) {
        self.into_iter().for_each(|(vcpu, notice)| host.notice(vcpu, notice));
    }

    /// Returns whether nobody is to be told.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl Kick for Notices {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        match self.first {
            None => self.first = Some((vcpu, notice)),
            Some(_) => self.more.push((vcpu, notice)),
        }
    }
}

impl IntoIterator for Notices {
    type Item = (VcpuId, Notice<CpuId>);
    type IntoIter = Chain<option::IntoIter<Self::Item>, vec::IntoIter<Self::Item>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}
