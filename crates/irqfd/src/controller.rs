//! What stands behind an irqfd (the interrupt controller) and beside it (who hears of
//! acknowledgements).

use alloc::sync::Arc;

use crate::{Delivery, Msi, Pin, SourceId};

/// The interrupt controllers of a VM, as seen from their inputs.
///
/// The calls come from any context in which an irqfd is signalled (also a hard interrupt handler,
/// if the host does that), inside an SRCU read section. They must not sleep there, nor wait for a
/// grace period, nor call back: in particular an acknowledgement that a call causes is not reported
/// from inside it, but by the controller's user through [`Irqfds::ack`](crate::Irqfds::ack), when
/// the controller's own locks are gone. (Known race F09: a callback out of the pin update that
/// caused it recursed without bound.)
///
/// A call that panics: the panic goes to whoever has called (who signals, acknowledges, deassigns
/// or reroutes; an eventfd loop catches it and says so; of a deassignment that nobody waits for, it
/// goes to the platform's workers). The event counts as delivered. Nothing else is left undone for
/// it: lines that were to be lowered are, whoever was to be told is, the irqfd stays what it was
/// and can be used and deassigned.
///
/// Calls for the same pin must synchronise with each other, as those under one lock or on one
/// `AcqRel` atomic do: who lowers a pin after someone raised it must see what that someone did
/// before. Resampling rests on this.
pub trait Controller: Send + Sync + 'static {
    /// What comes back from a delivery; `()` if nobody wants to know.
    type Delivery: Delivery;

    /// Returns how many pins controller `chip` has; 0 if there is no such controller.
    fn pins(&self, chip: u16) -> u32;

    /// Sets the level that `source` gives to a pin. The pin's level is the OR over all sources;
    /// where the guest has made the pin edge-triggered, a rise of it is an edge.
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) -> Self::Delivery;

    /// Takes an edge on a pin, which is latched: it cannot be over too soon.
    fn edge(&self, pin: Pin) -> Self::Delivery;

    /// Takes an event of a plain irqfd on a pin whose trigger mode is the guest's affair: asserts
    /// and deasserts it, as KVM does. On a level-triggered pin nobody may be looking in between,
    /// and the event is over; devices that cannot live with that resample.
    ///
    /// All plain irqfds share one source: of two pulses at once, the second finds the pin asserted,
    /// and is no edge. A controller that can tell an edge-triggered pin takes an
    /// [`edge`](Controller::edge) there instead, and loses none.
    fn pulse(&self, pin: Pin) -> Self::Delivery {
        let raised = self.set_irq(pin, SourceId::IRQFD, true);
        // What became of it is what became of the rise.
        raised.and(self.set_irq(pin, SourceId::IRQFD, false))
    }

    /// Lowers what `source` gives to a pin, as [`set_irq`](Controller::set_irq) does, for somebody
    /// who has acknowledged or gone, and does nothing more for it: what is owed for a lowering is
    /// dropped here. A controller that owes something does it otherwise: it leaves what a vCPU has
    /// seen of the level until that comes out of the guest, at the cost of a spurious interrupt.
    fn lower(&self, pin: Pin, source: SourceId) {
        drop(self.set_irq(pin, source, false));
    }

    /// Takes a message-signalled interrupt, which arrives.
    fn msi(&self, msi: Msi) -> Self::Delivery;
}

/// What a controller's deliveries leave to be done.
pub type Owed<C> = <<C as Controller>::Delivery as Delivery>::Owed;

impl<C: Controller + ?Sized> Controller for Arc<C> {
    type Delivery = C::Delivery;
    fn pins(&self, chip: u16) -> u32 {
        (**self).pins(chip)
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) -> C::Delivery {
        (**self).set_irq(pin, source, level)
    }
    fn edge(&self, pin: Pin) -> C::Delivery {
        (**self).edge(pin)
    }
    fn pulse(&self, pin: Pin) -> C::Delivery {
        (**self).pulse(pin)
    }
    fn lower(&self, pin: Pin, source: SourceId) {
        (**self).lower(pin, source);
    }
    #[inline(always)]
    fn msi(&self, msi: Msi) -> C::Delivery {
        (**self).msi(msi)
    }
}

/// A listener that wants to know that the guest acknowledged an interrupt: the resamplefd of an
/// irqfd, or an ack notifier.
///
/// Called in task context without any lock held, but inside an SRCU read section of the VM: the
/// listener may signal irqfds and even sleep for a moment, but must not wait for a grace period
/// (use [`Irqfd::deassign_begin`](crate::Irqfd::deassign_begin), not
/// [`Irqfd::deassign`](crate::Irqfd::deassign)). A call may be spurious. For a resampling irqfd it
/// means: the line was lowered; look at the device, and signal again if it still wants an
/// interrupt.
///
/// One that signals its own irqfd takes it from
/// [`Irqfd::assign_resample_with`](crate::Irqfd::assign_resample_with): an `Arc` of it would keep
/// both.
///
/// A listener that panics stays registered; the others are notified all the same, and then the
/// panic goes to whoever has acknowledged.
pub trait Notify: Send + Sync + 'static {
    /// Takes notice of an acknowledgement.
    fn notify(&self);
}

impl<F: Fn() + Send + Sync + 'static> Notify for F {
    fn notify(&self) {
        self();
    }
}
