//! What a CPU finds when an interrupt arrives: one word for each vector.
//!
//! Interrupt entry reads the table without a lock and never writes to it; all writers hold the lock
//! of the vectors. What makes that right is the order of the two with the message and the IRR:
//!
//! ```text
//!   a word is installed     before    the message that names the vector is given to the device
//!   a word is taken out     after     its CPU has seen its IRR clear, and nothing more can come
//! ```
//!
//! In between, a vector that was given back keeps its word, or a mark that says why what arrives is
//! nobody's.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform, Vector};

use super::irq::Irq;

/// What one vector of one CPU stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Unused,
    /// The interrupt of the vector was shut down, but may still be in the IRR.
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
    /// Interrupts that had been shut down: sent before, taken after. Harmless.
    pub late: u32,
    /// Interrupts that had been handled elsewhere while the CPU was offline. Harmless.
    pub retriggered: u32,
    /// Interrupts with vectors that nothing uses: a device, or the host, is at fault.
    pub spurious: u32,
}

/// What an interrupt that has arrived is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "nobody else handles it"]
pub enum Arrived {
    /// This one.
    Irq(Irq),
    /// Nobody's, and counted: see [`Unhandled`].
    Unhandled,
}

/// What the vectors of one CPU stand for. The host keeps it where the CPU's interrupt entry finds
/// it.
///
/// Written under the lock of all vectors; read by its CPU without. What the CPU reads is what was
/// meant when the interrupt was sent, or a mark that says why it is not. The store that installs an
/// interrupt comes before the message that names the vector is given to the device; the one that
/// removes it after the CPU has seen its IRR clear, when no more can come.
#[doc(alias = "CpuVectors")]
pub struct VectorIrq<P: Platform> {
    /// The words by vector: all 256, so that an interrupt finds its word without a comparison.
    words: [P::AtomicU32; 256],
    /// The first of three counters that only the table's own CPU writes, with interrupts off: there
    /// is nobody to exclude.
    late: P::AtomicU32,
    retriggered: P::AtomicU32,
    spurious: P::AtomicU32,
}

doorbell_platform::opaque_debug!([P: Platform] VectorIrq<P>);

impl<P: Platform> VectorIrq<P> {
    pub(super) fn new() -> Self {
        VectorIrq {
            words: core::array::from_fn(|_| P::AtomicU32::new(0)),
            late: P::AtomicU32::new(0),
            retriggered: P::AtomicU32::new(0),
            spurious: P::AtomicU32::new(0),
        }
    }

    #[inline]
    #[track_caller]
    pub(super) fn get(&self, vector: Vector) -> Entry {
        // SeqCst pairs with `set`: message passing by way of the device, which was given the vector
        // after it was installed.
        Entry::from_bits(self.words[usize::from(vector.0)].load(SeqCst))
    }

    #[track_caller]
    pub(super) fn set(&self, vector: Vector, entry: Entry) {
        self.words[usize::from(vector.0)].store(entry.bits(), SeqCst);
    }

    /// Returns what an interrupt is that has arrived at the CPU, which calls this. The end of
    /// interrupt (EOI) is the host's, whatever this says.
    ///
    /// # Context
    /// Hard interrupt of the CPU; does not sleep.
    #[inline]
    #[track_caller]
    pub fn arrived(&self, vector: Vector) -> Arrived {
        match self.get(vector) {
            Entry::Installed(irq) => Arrived::Irq(irq),
            // Nothing is written: see the module's documentation.
            entry => self.count(entry),
        }
    }

    #[cold]
    fn count(&self, entry: Entry) -> Arrived {
        let counter = match entry {
            Entry::Shutdown => &self.late,
            Entry::Retriggered => &self.retriggered,
            Entry::Unused | Entry::Installed(_) => &self.spurious,
        };
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        Arrived::Unhandled
    }

    /// Returns what the CPU has taken that nobody handled.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn unhandled(&self) -> Unhandled {
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
    fn a_word_says_what_was_put_into_it() {
        let table = VectorIrq::<Std>::new();
        let marks = [Entry::Shutdown, Entry::Retriggered, Entry::Unused];
        for entry in [Entry::Installed(Irq(0)), Entry::Installed(Irq(70))].into_iter().chain(marks)
        {
            table.set(Vector(0x31), entry);
            assert_eq!((table.get(Vector(0x30)), table.get(Vector(0x31))), (Entry::Unused, entry));
        }
    }
}
