//! An entry that says either where its interrupt arrives in the host, or to whom it is posted.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::{Invalidate, IrteMemory, IrteSlot};

/// An entry, and what it says whenever it is not posted. Both formats are whole entries, so that
/// one store, or one exchange, goes from one to the other: the IOMMU finds no entry that is
/// neither.
pub(crate) struct PostableIrte<P: Platform, M: IrteMemory<P>> {
    entry: IrteSlot<P, M>,
    host: P::AtomicU128,
    /// The bits that are all set if and only if the entry is posted.
    posted: u128,
}

impl<P: Platform, M: IrteMemory<P>> PostableIrte<P, M> {
    /// Creates an interrupt that arrives in the host. No device has used the entry yet, so nothing
    /// has to be invalidated.
    pub fn new(entry: IrteSlot<P, M>, host: u128, posted: u128) -> Self {
        entry.store(host);
        PostableIrte { entry, host: P::AtomicU128::new(host), posted }
    }

    pub fn entry(&self) -> &IrteSlot<P, M> {
        &self.entry
    }

    pub fn into_entry(self) -> IrteSlot<P, M> {
        self.entry
    }

    /// Changes where the interrupt arrives in the host. Anybody may call this.
    ///
    /// There is something to be invalidated even if the entry is posted now: what it said before
    /// may be cached still.
    pub fn set_host(&self, host: u128) -> Invalidate<()> {
        // Publish, then look at the gate, which is the entry's format; `arrive` changes it, then
        // looks at this word.
        self.host.store(host, SeqCst);
        self.refresh();
        self.invalidate()
    }

    /// Has the interrupt posted. Only whoever decides about that may call this.
    pub fn post(&self, bits: u128) {
        self.entry.store(bits);
    }

    /// Has the interrupt arrive in the host. Only whoever decides about that may call this.
    pub fn arrive(&self) {
        self.entry.store(self.host.load(SeqCst));
        self.refresh();
    }

    pub fn invalidate(&self) -> Invalidate<()> {
        Invalidate::new(self.entry.index(), ())
    }

    /// Makes the entry say where the interrupt arrives, unless it is posted.
    ///
    /// Whoever has written the entry looks again: the exchange may have met a former value that
    /// came back, and then what it has written is what `host` was long ago. Whoever writes last has
    /// seen afterwards that both are the same.
    fn refresh(&self) {
        loop {
            let before = self.entry.load();
            let wanted = self.host.load(SeqCst);
            if before & self.posted == self.posted || before == wanted {
                return;
            }
            let _ = self.entry.compare_exchange(before, wanted);
        }
    }
}
