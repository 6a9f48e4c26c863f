//! An interrupt that an AMD I/O MMU remaps, or posts to a vCPU.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};
use doorbell_post::{Mirror, Residency};

use crate::irte::amd::{AmdIrte, GuestMode, HostMode};
use crate::{Entries, Entry, Invalidate, Retired};

/// An interrupt of a device behind an AMD I/O MMU: its entry, and where it arrives in the host.
///
/// In host mode anybody may change where it arrives. In guest mode the entry is written under the lock of the vCPU's
/// [`Copies`](doorbell_post::Copies) only, on which it is; where it would arrive in the host may change meanwhile.
pub struct AmdInterrupt<P: Platform, M: Entries<P>> {
    entry: Entry<P, M>,
    /// What the entry says whenever it is in host mode.
    host: P::AtomicU64,
}

impl<P: Platform, M: Entries<P>> AmdInterrupt<P, M> {
    /// An interrupt that arrives in the host. No device has used the entry yet, so nothing has to be invalidated.
    pub fn new(entry: Entry<P, M>, host: HostMode) -> Self {
        entry.store(AmdIrte::host(host).bits());
        AmdInterrupt { entry, host: P::AtomicU64::new(pack(host)) }
    }

    /// Its entry.
    pub fn entry(&self) -> &Entry<P, M> {
        &self.entry
    }

    /// What its entry says.
    pub fn load(&self) -> AmdIrte {
        AmdIrte::from_bits(self.entry.load())
    }

    /// Changes where it arrives in the host. In guest mode, nothing changes until it leaves that.
    ///
    /// Publish, then look at the gate: `leave_guest` changes the gate, the entry's mode, then looks at what was published.
    pub fn set_host(&self, host: HostMode) -> Option<Invalidate<()>> {
        self.host.store(pack(host), SeqCst);
        self.refresh().then(|| Invalidate::new(self.entry.index(), ()))
    }

    /// Puts it into guest mode. Under the lock of the copies that it joins.
    pub(crate) fn enter_guest(&self, guest: GuestMode) {
        self.entry.store(AmdIrte::guest(guest).bits());
    }

    /// Puts it into host mode. Under the lock of the copies that it leaves.
    pub(crate) fn leave_guest(&self) {
        self.entry.store(AmdIrte::host(unpack(self.host.load(SeqCst))).bits());
        self.refresh();
    }

    /// Makes the entry say where the interrupt arrives, if it is in host mode; whether it is.
    ///
    /// Also if another did it meanwhile: both callers have to wait for an invalidation, their own or a later one.
    fn refresh(&self) -> bool {
        loop {
            let before = self.load();
            if before.is_guest() {
                return false;
            }
            let wanted = AmdIrte::host(unpack(self.host.load(SeqCst)));
            // Who has changed it meanwhile may have looked at `host` before.
            if before == wanted || self.entry.compare_exchange(before.bits(), wanted.bits()).is_ok() {
                return true;
            }
        }
    }

    /// Blocks the interrupt, and gives its entry back.
    pub fn retire(self) -> Invalidate<Retired<P, M>> {
        self.entry.retire()
    }
}

impl<P: Platform, M: Entries<P>> Mirror for AmdInterrupt<P, M> {
    /// Nobody else writes an entry that is in guest mode.
    fn reflect(&self, residency: Residency) {
        if let Some(moved) = self.load().moved(residency) {
            self.entry.store(moved.bits());
        }
    }
}

fn pack(host: HostMode) -> u64 {
    let low = u32::from(host.vector) | u32::from(host.kind) << 8 | u32::from(host.logical) << 16;
    u64::from(host.destination) << 32 | u64::from(low)
}

fn unpack(bits: u64) -> HostMode {
    HostMode {
        destination: (bits >> 32) as u32,
        logical: bits >> 16 & 1 != 0,
        kind: (bits >> 8) as u8,
        vector: bits as u8,
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use doorbell_platform::Std;

    use super::*;
    use crate::Table;

    type Memory = Box<[<Std as Platform>::AtomicU128]>;

    fn interrupt() -> AmdInterrupt<Std, Memory> {
        let memory: Memory = (0..4).map(|_| <Std as Platform>::AtomicU128::new(0)).collect();
        let entry = Table::<Std, Memory>::new(memory).allocate().unwrap();
        AmdInterrupt::new(entry, HOST)
    }

    const HOST: HostMode = HostMode { destination: 0x8000_0001, logical: true, vector: 0x31, kind: 1 };
    const GUEST: GuestMode =
        GuestMode { backing_page: 5, vector: 0x41, tag: 7, residency: Residency::Away { log: true } };

    #[test]
    fn where_it_arrives_in_the_host_may_change_while_it_is_posted() {
        let interrupt = interrupt();
        assert_eq!(interrupt.load().as_host(), Some(HOST));
        interrupt.enter_guest(GUEST);
        let elsewhere = HostMode { destination: 2, ..HOST };
        assert!(interrupt.set_host(elsewhere).is_none());
        assert_eq!(interrupt.load().as_guest(), Some(GUEST));
        interrupt.leave_guest();
        assert_eq!(interrupt.load().as_host(), Some(elsewhere));
        assert!(interrupt.set_host(HOST).is_some());
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
