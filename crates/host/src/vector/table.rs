//! What a CPU finds when an interrupt arrives: one word for each vector.

use alloc::boxed::Box;
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform, Vector};

use super::Irq;

/// What one vector of one CPU stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Unused,
    /// Its interrupt was shut down, but may still be in the IRR.
    Shutdown,
    /// What is in the IRR has been handled already: the CPU was offline.
    Retriggered,
    Installed(Irq),
}

impl Entry {
    const fn bits(self) -> u32 {
        match self {
            Entry::Unused => 0,
            Entry::Shutdown => 1,
            Entry::Retriggered => 2,
            Entry::Installed(irq) => irq.0 + 3,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Entry::Unused,
            1 => Entry::Shutdown,
            2 => Entry::Retriggered,
            irq => Entry::Installed(Irq(irq - 3)),
        }
    }
}

/// How many interrupts one CPU has taken that nobody handled.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Unhandled {
    /// Of interrupts that had been shut down: sent before, taken after. Harmless.
    pub late: u32,
    /// Of those that had been handled elsewhere while the CPU was offline. Harmless.
    pub retriggered: u32,
    /// Of vectors that nothing uses: a device, or the host, is at fault.
    pub spurious: u32,
}

/// Written under the lock of all vectors; read by its CPU without.
///
/// What the CPU reads is what was meant when the interrupt was sent, or a mark that says why it is not. The store that installs an
/// interrupt comes before the message that names the vector is given to the device; the one that removes it after the CPU has seen its
/// IRR clear, when no more can come.
pub(super) struct Table<P: Platform> {
    words: Box<[P::AtomicU32]>,
    /// By its own CPU, with interrupts off: there is nobody to exclude.
    late: P::AtomicU32,
    retriggered: P::AtomicU32,
    spurious: P::AtomicU32,
    first: u8,
}

impl<P: Platform> Table<P> {
    pub(super) fn new(vectors: RangeInclusive<u8>) -> Self {
        Table {
            first: *vectors.start(),
            words: vectors.map(|_| P::AtomicU32::new(0)).collect(),
            late: P::AtomicU32::new(0),
            retriggered: P::AtomicU32::new(0),
            spurious: P::AtomicU32::new(0),
        }
    }

    fn word(&self, vector: Vector) -> Option<&P::AtomicU32> {
        self.words.get(usize::from(vector.0.wrapping_sub(self.first)))
    }

    #[inline]
    #[track_caller]
    pub(super) fn get(&self, vector: Vector) -> Entry {
        // SeqCst pairs with `set`: message passing by way of the device, which was given the vector after it was installed.
        self.word(vector).map_or(Entry::Unused, |word| Entry::from_bits(word.load(SeqCst)))
    }

    #[track_caller]
    pub(super) fn set(&self, vector: Vector, entry: Entry) {
        if let Some(word) = self.word(vector) {
            word.store(entry.bits(), SeqCst);
        }
    }

    #[cold]
    pub(super) fn count(&self, entry: Entry) {
        let counter = match entry {
            Entry::Shutdown => &self.late,
            Entry::Retriggered => &self.retriggered,
            Entry::Unused | Entry::Installed(_) => &self.spurious,
        };
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn unhandled(&self) -> Unhandled {
        Unhandled {
            late: self.late.load(Relaxed),
            retriggered: self.retriggered.load(Relaxed),
            spurious: self.spurious.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;

    #[test]
    fn a_word_says_what_was_put_into_it_and_nothing_stands_beyond_the_table() {
        let table = Table::<Std>::new(0x30..=0x31);
        for entry in
            [Entry::Installed(Irq(0)), Entry::Shutdown, Entry::Retriggered, Entry::Installed(Irq(70)), Entry::Unused]
        {
            table.set(Vector(0x31), entry);
            assert_eq!((table.get(Vector(0x30)), table.get(Vector(0x31))), (Entry::Unused, entry));
        }
        for beyond in [0, 0x2f, 0x32, 0xff] {
            table.set(Vector(beyond), Entry::Shutdown);
            assert_eq!(table.get(Vector(beyond)), Entry::Unused);
        }
    }
}
