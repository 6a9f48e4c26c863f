//! An interrupt that a VT-d unit remaps, or posts to a vCPU.

use doorbell_platform::Platform;

use super::irte::{IntelIrte, RemappedIrte, Source};
use crate::remap::postable_irte::PostableIrte;
use crate::{Invalidate, IrteMemory, IrteSlot, RetiredIrte};

/// An interrupt of a device behind a VT-d unit: its entry, and where it arrives in the host.
///
/// Unlike an entry of AMD, it says nothing about where a vCPU is: the descriptor does, which
/// hardware reads anew for each interrupt. So a vCPU has no list of the entries that post to it.
pub struct IntelInterrupt<P: Platform, M: IrteMemory<P>> {
    pub(super) switch: PostableIrte<P, M>,
    pub(super) source: Source,
}

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] IntelInterrupt<P, M>);

impl<P: Platform, M: IrteMemory<P>> IntelInterrupt<P, M> {
    /// Creates an interrupt that comes from `source` and arrives in the host.
    pub fn new(entry: IrteSlot<P, M>, source: Source, host: RemappedIrte) -> Self {
        let host = IntelIrte::remapped(source, host).bits();
        IntelInterrupt {
            switch: PostableIrte::new(entry, host, IntelIrte::IN_POSTED_FORMAT),
            source,
        }
    }

    /// The interrupt's entry.
    pub fn entry(&self) -> &IrteSlot<P, M> {
        self.switch.entry()
    }

    /// Reads what the interrupt's entry says.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn load(&self) -> IntelIrte {
        IntelIrte::from_bits(self.entry().load())
    }

    /// Changes where it arrives in the host: at once, or when it is not posted any more.
    ///
    /// Until the invalidation has completed, interrupts may come as they did before, also if it is
    /// posted, which may be so only since just now: so long the former vector cannot be used for
    /// anything else.
    ///
    /// # Context
    /// Any task or hard interrupt, with any locks held; does not sleep.
    pub fn set_host(&self, host: RemappedIrte) -> Invalidate<()> {
        self.switch.set_host(IntelIrte::remapped(self.source, host).bits())
    }

    /// Blocks the interrupt, and gives its entry back.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn retire(self) -> Invalidate<RetiredIrte<P, M>> {
        self.switch.into_entry().retire()
    }
}
