//! The gate of a layout that only software uses.

use core::marker::PhantomData;

use doorbell_platform::{CpuId, Platform};

use crate::Gate;

/// Every sender whose bit was clear looks at the vCPU's mode, as with
/// [`ModeGate`](crate::ModeGate), but without a fence between.
///
/// The layout's [`publish`](crate::Layout::publish) and the load of the mode are both sequentially
/// consistent, and so are the owner's store of the mode and its look at the bits: one of the two
/// comes to see the other. That needs no fence as long as no hardware is among them, which is in no
/// such order. A `ModeGate` stands for layouts that a device may write, too.
#[derive(Debug)]
#[doc(alias = "Software")]
pub struct SoftwareGate<P>(PhantomData<fn() -> P>);

impl<P> SoftwareGate<P> {
    /// Returns the gate.
    pub const fn new() -> Self {
        SoftwareGate(PhantomData)
    }
}

impl<P> Default for SoftwareGate<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> Gate<P> for SoftwareGate<P> {
    type Seen = ();
    /// The CPU that is to be told.
    type Notification = CpuId;

    #[inline]
    fn announce(&self) -> Option<()> {
        Some(())
    }

    #[inline]
    fn notification((): (), cpu: CpuId) -> CpuId {
        cpu
    }
}
