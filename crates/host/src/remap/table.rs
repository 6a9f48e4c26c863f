//! The interrupt remapping table: which entries are in use.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitType};

use super::index::IrteIndex;
use crate::Invalidate;
use crate::msi::MessageCount;

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
    free: Lock<P, Free>,
}

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>] RemapTable<P, M>);

/// The free entries.
struct Free {
    /// A bit for each entry.
    words: Box<[u64]>,
    len: usize,
}

impl Free {
    /// All of so many.
    fn all(len: usize) -> Self {
        let word = |at: usize| match len - at * 64 {
            left @ ..64 => (1 << left) - 1,
            _ => u64::MAX,
        };
        Free { words: (0..len.div_ceil(64)).map(word).collect(), len }
    }

    /// Takes a block of `count` entries, a power of two up to 64, the first of which is a multiple
    /// of it. Entries are taken when a device is set up: to look through all of them costs 1,024
    /// loads at most.
    fn take(&mut self, count: u32) -> Result<u32, TableFull> {
        let block = u64::MAX >> (64 - count);
        for (word, at) in self.words.iter_mut().zip(0u32..) {
            let places = (0..64).step_by(count as usize);
            if let Some(place) = { places }.find(|place| *word >> place & block == block) {
                *word &= !(block << place);
                self.len -= count as usize;
                return Ok(at * 64 + place);
            }
        }
        Err(TableFull)
    }

    fn give_back(&mut self, index: u32) {
        self.words[index as usize / 64] |= 1 << (index % 64);
        self.len += 1;
    }
}

/// There is no such block of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoBlock {
    /// A device has not so many messages.
    Count(MessageCount),
    /// No entries are free beside each other.
    Full(TableFull),
}

impl core::fmt::Display for NoBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NoBlock::Count(count) => count.fmt(f),
            NoBlock::Full(_) => f.write_str(
                "no block of entries of the interrupt remapping table is free, beside each other",
            ),
        }
    }
}

impl core::error::Error for NoBlock {}

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
        Ok(Arc::new(RemapTable { memory, free: Lock::new(&INDICES, Free::all(len)) }))
    }

    /// Takes an entry that blocks its interrupt.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If there is no free entry.
    pub fn allocate(self: &Arc<Self>) -> Result<IrteSlot<P, M>, TableFull> {
        let index = self.free.lock().take(1)?;
        Ok(IrteSlot { table: Arc::clone(self), index: IrteIndex(index) })
    }

    /// Takes entries beside each other for the messages of one device, which differ in the low bits
    /// of their data alone: the first index is a multiple of their number. Each has a CPU and a
    /// vector of its own, and is given back for itself.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// If `messages` is not 1, 2, 4, 8, 16 or 32, or no such block is free.
    pub fn allocate_block(
        self: &Arc<Self>,
        messages: u16,
    ) -> Result<Box<[IrteSlot<P, M>]>, NoBlock> {
        let count = MessageCount::check(messages).map_err(NoBlock::Count)?;
        let first = self.free.lock().take(count.into()).map_err(NoBlock::Full)?;
        let slot = |index| IrteSlot { table: Arc::clone(self), index: IrteIndex(index) };
        Ok((first..).take(count.into()).map(slot).collect())
    }

    /// Returns how many entries are free.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn free(&self) -> usize {
        self.free.lock().len
    }

    fn release(&self, index: IrteIndex) {
        self.free.lock().give_back(index.0);
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

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use doorbell_platform::Std;

    use super::*;

    type Memory = Box<[<Std as Platform>::AtomicU128]>;

    fn table(entries: usize) -> Arc<RemapTable<Std, Memory>> {
        RemapTable::new((0..entries).map(|_| Atomic::new(0)).collect::<Memory>()).unwrap()
    }

    fn indices(block: &[IrteSlot<Std, Memory>]) -> Vec<usize> {
        block.iter().map(|slot| slot.index().number()).collect()
    }

    #[test]
    fn a_block_is_beside_each_other_and_begins_at_a_multiple_of_its_length() {
        let table = table(70);
        let one = table.allocate().unwrap();
        let four = table.allocate_block(4).unwrap();
        assert_eq!((one.index().number(), indices(&four)), (0, (4..8).collect()));
        let most = table.allocate_block(32).unwrap();
        assert_eq!(indices(&most), (32..64).collect::<Vec<_>>());
        assert!(matches!(table.allocate_block(32), Err(NoBlock::Full(TableFull))));
        assert_eq!(indices(&table.allocate_block(4).unwrap()), (8..12).collect::<Vec<_>>());
        for messages in [0, 3, 64] {
            let refused = table.allocate_block(messages).err();
            assert_eq!(refused, Some(NoBlock::Count(MessageCount(messages))));
        }
    }

    #[test]
    fn all_entries_are_given_out_and_each_is_free_again_when_the_invalidation_has_completed() {
        let table = table(70);
        let mut all: Vec<_> = (0..70).map(|_| table.allocate().unwrap()).collect();
        assert_eq!(table.allocate().err(), Some(TableFull));
        let retired = all.remove(66).retire();
        assert_eq!(table.free(), 0);
        drop(retired.by(|index| assert_eq!(index.number(), 66)));
        assert_eq!((table.free(), table.allocate().unwrap().index().number()), (1, 66));
    }

    #[test]
    fn entries_of_a_block_are_given_back_each_for_itself() {
        let table = table(8);
        let mut block = table.allocate_block(8).unwrap().into_vec();
        let last = block.pop().unwrap();
        drop(last.retire().by(|_| ()));
        assert_eq!(table.allocate().unwrap().index().number(), 7);
        assert!(table.allocate_block(2).is_err());
    }
}
