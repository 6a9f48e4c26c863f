//! An MSI-X table that is saved, and made again elsewhere.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use super::{Msix, TableSize, bit};
use crate::msi::MsiMessage;

/// What a guest can see of an MSI-X table, and what is pending in it.
///
/// **In this order.** To save: stop the vCPUs and the device, wait for deliveries that are under
/// way (deassign, or what the host does for a snapshot anyway), and [save](Msix::save). Reading
/// takes nothing: the table goes on as it was, if the snapshot is of a guest that goes on. To
/// restore: make the [table](Msix::restore), which is shut whatever the guest had set; restore the
/// interrupt controller; [write](Msix::write_control) the control that was saved, which makes the
/// routes and delivers what is pending; then start the device, and the vCPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsixState {
    /// Message control, as the guest reads it.
    pub control: u16,
    /// The message of each entry, and whether the guest has masked it.
    pub entries: Vec<(MsiMessage, bool)>,
    /// The pending bits, 64 a word.
    pub pending: Vec<u64>,
}

impl<P: Platform> Msix<P> {
    /// Saves the table. The order in which a host does so is with [`MsixState`].
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    pub fn save(&self) -> MsixState {
        let mut entries = Vec::with_capacity(usize::from(self.len()));
        let control = {
            let guest = self.guest.lock();
            entries.extend(guest.entries.iter().zip(0..).map(|(entry, at): (_, u16)| {
                let group = guest.groups[usize::from(at / super::GROUP)];
                (entry.message, group.masked & bit(at) != 0)
            }));
            guest.control | (self.len() - 1)
        };
        let words: &[P::AtomicU64] = &self.pending;
        let pending = words.iter().map(|word| word.load(SeqCst)).collect();
        MsixState { control, entries, pending }
    }

    /// Makes a table of a state. The function is not enabled: what it is, the host
    /// [writes](Msix::write_control) when the interrupt controller can take what is pending.
    /// Pending bits of entries that there are not are left out.
    ///
    /// # Errors
    /// If there are no entries, or more than 2048.
    pub fn restore(state: &MsixState) -> Result<Self, TableSize> {
        let count = u16::try_from(state.entries.len()).unwrap_or(u16::MAX);
        let msix = Msix::new(count)?;
        {
            let mut guest = msix.guest.lock();
            for (&(message, masked), at) in state.entries.iter().zip(0u16..) {
                guest.entries[usize::from(at)].message = message;
                guest.compare(at);
                let group = guest.group(at);
                if !masked {
                    group.masked &= !bit(at);
                }
            }
        }
        let words: &[P::AtomicU64] = &msix.pending;
        for (at, (word, saved)) in words.iter().zip(&state.pending).enumerate() {
            let left = usize::from(count) - at * 64;
            let exist = if left < 64 { (1 << left) - 1 } else { u64::MAX };
            word.store(saved & exist, SeqCst);
        }
        Ok(msix)
    }
}
