//! What a controller says of what it was told.

/// What became of a delivery at the controller, as `KVM_IRQ_LINE_STATUS` has it.
///
/// Of several pins, the best counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Outcome {
    /// The controller does not have it: nothing takes the message, or the host refused it.
    Failed,
    /// The delivery is one with an interrupt that is pending already.
    Coalesced,
    /// The controller has it, or there was nothing to be delivered: an edge that falls.
    #[default]
    Delivered,
}

/// What comes back from a controller: `()` if nobody wants to know, an [`Outcome`], or a type of
/// the controller's that says, too, what is owed. The default is that of a delivery of nothing.
pub trait Delivery: Default + Send + 'static {
    /// What is left to be done when the delivery is over: vCPUs to be kicked or woken. `()` if
    /// there is never anything; else a `#[must_use]` type whose default is nothing.
    type Owed: Default + Send + 'static;

    /// Returns what became of it.
    fn outcome(&self) -> Outcome;

    /// Returns what is owed for it.
    fn owed(self) -> Self::Owed;

    /// Joins what one event has brought about at several pins.
    #[must_use]
    fn and(self, other: Self) -> Self;
}

impl Delivery for () {
    type Owed = ();

    #[inline(always)]
    fn outcome(&self) -> Outcome {
        Outcome::Delivered
    }

    #[inline(always)]
    fn owed(self) {}

    #[inline(always)]
    fn and(self, (): Self) {}
}

impl Delivery for Outcome {
    type Owed = ();

    #[inline]
    fn outcome(&self) -> Outcome {
        *self
    }

    #[inline]
    fn owed(self) {}

    #[inline]
    fn and(self, other: Self) -> Self {
        self.max(other)
    }
}
