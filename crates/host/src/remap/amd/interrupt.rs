//! An interrupt that an AMD I/O MMU remaps, or posts to a vCPU.

use doorbell_platform::Platform;
use doorbell_post::{Mirror, Residency};

use super::irte::{AmdIrte, GuestMode, HostMode};
use crate::remap::postable_irte::PostableIrte;
use crate::{Invalidate, IrteMemory, IrteSlot, RetiredIrte};

/// An interrupt of a device behind an AMD I/O MMU: its entry, and where it arrives in the host.
///
/// In host mode anybody may change where it arrives. In guest mode the entry is written under the
/// lock of the vCPU's [`ResidencyCopies`](doorbell_post::ResidencyCopies) only, on which it is;
/// where it would arrive in the host may change meanwhile.
pub struct AmdInterrupt<P: Platform, M: IrteMemory<P>>(PostableIrte<P, M>);

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] AmdInterrupt<P, M>);

impl<P: Platform, M: IrteMemory<P>> AmdInterrupt<P, M> {
    /// Creates an interrupt that arrives in the host.
    pub fn new(entry: IrteSlot<P, M>, host: HostMode) -> Self {
        AmdInterrupt(PostableIrte::new(entry, AmdIrte::host(host).bits(), AmdIrte::IN_GUEST_MODE))
    }

    /// The interrupt's entry.
    pub fn entry(&self) -> &IrteSlot<P, M> {
        self.0.entry()
    }

    /// Reads what the interrupt's entry says.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn load(&self) -> AmdIrte {
        AmdIrte::from_bits(self.entry().load())
    }

    /// Changes where it arrives in the host: at once, or when it leaves guest mode.
    ///
    /// Until the invalidation has completed, interrupts may come as they did before, also in guest
    /// mode, which it may have entered just now: so long the former vector cannot be used for
    /// anything else.
    ///
    /// # Context
    /// Any task or hard interrupt, with any locks held; does not sleep.
    pub fn set_host(&self, host: HostMode) -> Invalidate<()> {
        self.0.set_host(AmdIrte::host(host).bits())
    }

    /// Puts it into guest mode. Under the lock of the copies that it joins.
    pub(crate) fn enter_guest(&self, guest: GuestMode) {
        self.0.post(AmdIrte::guest(guest).bits());
    }

    /// Puts it into host mode. Under the lock of the copies that it leaves.
    pub(crate) fn leave_guest(&self) {
        self.0.arrive();
    }

    /// Blocks the interrupt, and gives its entry back.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn retire(self) -> Invalidate<RetiredIrte<P, M>> {
        self.0.into_entry().retire()
    }
}

impl<P: Platform, M: IrteMemory<P>> Mirror for AmdInterrupt<P, M> {
    /// Nobody else writes an entry that is in guest mode.
    fn reflect(&self, residency: Residency) {
        if let Some(moved) = self.load().moved(residency) {
            self.0.post(moved.bits());
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use doorbell_platform::Std;

    use super::*;
    use crate::RemapTable;

    type Memory = Box<[<Std as Platform>::AtomicU128]>;

    fn interrupt() -> AmdInterrupt<Std, Memory> {
        let memory: Memory = (0..4).map(|_| <Std as Platform>::AtomicU128::new(0)).collect();
        let entry = RemapTable::<Std, Memory>::new(memory).unwrap().allocate().unwrap();
        AmdInterrupt::new(entry, HOST)
    }

    const HOST: HostMode =
        HostMode { destination: 0x8000_0001, logical: true, vector: 0x31, kind: 1 };
    const GUEST: GuestMode = GuestMode {
        backing_page: 5,
        vector: 0x41,
        tag: 7,
        residency: Residency::Away { log: true },
    };

    #[test]
    fn where_it_arrives_in_the_host_may_change_while_it_is_posted() {
        let interrupt = interrupt();
        assert_eq!(interrupt.load().as_host(), Some(HOST));
        interrupt.enter_guest(GUEST);
        let elsewhere = HostMode { destination: 2, ..HOST };
        assert_eq!(interrupt.set_host(elsewhere).index(), interrupt.entry().index());
        assert_eq!(interrupt.load().as_guest(), Some(GUEST));
        interrupt.leave_guest();
        assert_eq!(interrupt.load().as_host(), Some(elsewhere));
        interrupt.set_host(HOST).by(|_| ());
        assert_eq!(interrupt.load().as_host(), Some(HOST));
    }

    #[test]
    fn a_vcpu_that_moves_changes_an_entry_in_guest_mode_and_no_other() {
        let interrupt = interrupt();
        interrupt.reflect(Residency::Running { apic_id: 3 });
        assert_eq!(interrupt.load().as_host(), Some(HOST));
        interrupt.enter_guest(GUEST);
        let residency = Residency::Running { apic_id: 3 };
        interrupt.reflect(residency);
        assert_eq!(interrupt.load().as_guest(), Some(GuestMode { residency, ..GUEST }));
    }
}
