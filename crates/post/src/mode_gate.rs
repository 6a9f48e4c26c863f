//! The gate without a word of its own.

use core::marker::PhantomData;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{CpuId, Platform};

use crate::Gate;

/// Every sender whose bit was clear looks at the vCPU's mode, and rings the doorbell of its CPU if
/// it is in the guest: AVIC (AMD APM vol. 2, section 15.29), and anything without a place to
/// coalesce notifications.
///
/// Hardware senders have a copy of the mode: IsRunning in the physical ID table and in every IRTE.
#[derive(Debug)]
#[doc(alias = "Level")]
pub struct ModeGate<P>(PhantomData<fn() -> P>);

impl<P> ModeGate<P> {
    /// Creates the gate.
    pub const fn new() -> Self {
        ModeGate(PhantomData)
    }
}

impl<P> Default for ModeGate<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> Gate<P> for ModeGate<P> {
    type Seen = ();
    /// The CPU whose doorbell is to be rung.
    type Notification = CpuId;

    #[inline]
    fn announce(&self) -> Option<()> {
        P::fence(SeqCst);
        Some(())
    }

    #[inline]
    fn notification((): (), cpu: CpuId) -> CpuId {
        cpu
    }
}
