//! The interrupt remapping table: which entries are in use.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitType};

use super::index::IrteIndex;
use crate::Invalidate;

/// A leaf, taken in task context only: entries are taken when a device is set up, and given back by
/// whoever has waited for an invalidation.
pub(crate) static INDICES: LockClass = LockClass::new("host.irte_indices", WaitType::Spin).leaf();

/// All entries are in use, or wait for an invalidation to complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFull;

impl core::fmt::Display for TableFull {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no entry of the interrupt remapping table is free")
    }
}

impl core::error::Error for TableFull {}

/// This machine has no compare-exchange of 128 bits: an IOMMU could see half of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotLockFree;

impl core::fmt::Display for NotLockFree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("this machine cannot change an entry of 128 bits in one access")
    }
}

impl core::error::Error for NotLockFree {}

/// Memory that an IOMMU reads: the host hands it in, zeroed, and keeps it as long as the table
/// lives.
#[doc(alias = "Entries")]
pub trait IrteMemory<P: Platform>: Send + Sync + 'static {
    /// The entries, 16 bytes each.
    fn entries(&self) -> &[P::AtomicU128];
}

impl<P: Platform> IrteMemory<P> for Box<[P::AtomicU128]> {
    fn entries(&self) -> &[P::AtomicU128] {
        self
    }
}

impl<P: Platform> IrteMemory<P> for &'static [P::AtomicU128] {
    fn entries(&self) -> &[P::AtomicU128] {
        self
    }
}

/// An interrupt remapping table of up to 65,536 entries.
#[doc(alias = "Table")]
pub struct RemapTable<P: Platform, M: IrteMemory<P>> {
    memory: M,
    /// The free entries, as a stack.
    free: Lock<P, Free>,
}

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] RemapTable<P, M>);

struct Free {
    indices: Box<[u32]>,
    len: usize,
}

impl<P: Platform, M: IrteMemory<P>> RemapTable<P, M> {
    /// Creates a table in which nothing is in use. Entries beyond 65,536 are not used.
    ///
    /// # Errors
    /// If the platform's words of 128 bits are not [lock-free](Atomic::is_lock_free).
    pub fn new(memory: M) -> Result<Arc<Self>, NotLockFree> {
        if !P::AtomicU128::is_lock_free() {
            return Err(NotLockFree);
        }
        let len = memory.entries().len().min(1 << 16);
        let indices = (0..len as u32).rev().collect();
        Ok(Arc::new(RemapTable { memory, free: Lock::new(&INDICES, Free { indices, len }) }))
    }

    /// Takes an entry that blocks its interrupt.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If there is no free entry.
    pub fn allocate(self: &Arc<Self>) -> Result<IrteSlot<P, M>, TableFull> {
        let mut free = self.free.lock();
        free.len = free.len.checked_sub(1).ok_or(TableFull)?;
        let index = IrteIndex(free.indices[free.len]);
        drop(free);
        Ok(IrteSlot { table: Arc::clone(self), index })
    }

    /// Returns how many entries are free.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn free(&self) -> usize {
        self.free.lock().len
    }

    fn release(&self, index: IrteIndex) {
        let mut free = self.free.lock();
        let at = free.len;
        free.indices[at] = index.0;
        free.len += 1;
    }
}

/// An entry in use. It is given back by [`retire`](IrteSlot::retire); one that is dropped stays in
/// use for good, because hardware may still read it.
#[doc(alias = "Entry")]
pub struct IrteSlot<P: Platform, M: IrteMemory<P>> {
    table: Arc<RemapTable<P, M>>,
    index: IrteIndex,
}

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] IrteSlot<P, M>; index);

impl<P: Platform, M: IrteMemory<P>> IrteSlot<P, M> {
    /// The entry's number, which the device's message says.
    pub fn index(&self) -> IrteIndex {
        self.index
    }

    fn word(&self) -> &P::AtomicU128 {
        &self.table.memory.entries()[self.index.number()]
    }

    /// Reads what the entry holds.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn load(&self) -> u128 {
        self.word().load(SeqCst)
    }

    /// Writes it, whole, in one access.
    pub(crate) fn store(&self, bits: u128) {
        self.word().store(bits, SeqCst);
    }

    /// Writes it, whole, in one access, if it holds `current`.
    pub(crate) fn compare_exchange(&self, current: u128, new: u128) -> Result<u128, u128> {
        self.word().compare_exchange(current, new, SeqCst, SeqCst)
    }

    /// Blocks the interrupt, and gives the entry back: others may have it when the invalidation has
    /// completed.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn retire(self) -> Invalidate<RetiredIrte<P, M>> {
        self.store(0);
        Invalidate::new(self.index, RetiredIrte(self))
    }
}

/// An entry that hardware does not read any more. Dropping it, in task context, makes it free.
#[doc(alias = "Retired")]
pub struct RetiredIrte<P: Platform, M: IrteMemory<P>>(IrteSlot<P, M>);

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] RetiredIrte<P, M>);

impl<P: Platform, M: IrteMemory<P>> Drop for RetiredIrte<P, M> {
    fn drop(&mut self) {
        self.0.table.release(self.0.index);
    }
}
