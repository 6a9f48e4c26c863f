//! A few words that readers see whole without taking a lock.
//!
//! ```text
//!   the writer, under a lock          a reader
//!   makes the count odd               reads the count: odd, waits
//!   writes the words                  reads the words
//!   makes the count even              reads the count again: another, begins anew
//! ```
//!
//! A writer that is stopped in between stops all readers, hence the spin lock, and interrupts off
//! where a reader may be a handler.

use core::array;
use core::sync::atomic::Ordering;

use crate::{Atomic, IrqLockGuard, LockGuard, Platform};

mod sealed {
    pub trait Sealed {}
}

/// Evidence that a spin lock of the platform is held: its guard.
///
/// Spin locks only, because a writer that is preempted between its two steps makes every reader
/// spin until it runs again.
pub trait Held<P: Platform>: sealed::Sealed {}

impl<P: Platform, T> sealed::Sealed for LockGuard<'_, P, T> {}
impl<P: Platform, T> Held<P> for LockGuard<'_, P, T> {}
impl<P: Platform, T> sealed::Sealed for IrqLockGuard<'_, P, T> {}
impl<P: Platform, T> Held<P> for IrqLockGuard<'_, P, T> {}

/// `N` words that are written together under a lock and read together without one.
///
/// All writers hold the same spin lock. If there are readers in hard-interrupt context, they hold
/// it with interrupts off ([`lock_irqsave`](crate::Lock::lock_irqsave)): such a reader would wait
/// forever for the writer that it interrupted. A write that no such reader can meet needs the lock
/// only.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use doorbell_platform::{Lock, LockClass, SeqWords, Std, WaitType};
/// static LOCK: LockClass = LockClass::new("irqfd.lock", WaitType::Spin);
///
/// let lock = Lock::<Std, ()>::new(&LOCK, ());
/// let route = SeqWords::<Std, 2>::new([0, 0]);
/// route.write(&lock.lock_irqsave(), [0xfee0_0000, 0x41]);
/// assert_eq!(route.read(), [0xfee0_0000, 0x41]);
/// # }
/// ```
pub struct SeqWords<P: Platform, const N: usize> {
    /// Odd while a write is under way. Wraps: a reader that slept through exactly 2³¹ writes would
    /// be fooled.
    seq: P::AtomicU32,
    words: [P::AtomicU64; N],
}

crate::opaque_debug!([P: Platform, const N: usize] SeqWords<P, N>);

impl<P: Platform, const N: usize> SeqWords<P, N> {
    /// Words that hold `words`.
    #[track_caller]
    pub fn new(words: [u64; N]) -> Self {
        SeqWords { seq: P::AtomicU32::ZERO.named("sequence"), words: words.map(P::AtomicU64::new) }
    }

    /// Returns the words, under a name for traces.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.words.iter_mut().for_each(|word| word.set_name(name));
        self
    }

    /// Reads the words as one write left them. Waits while a write is under way.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> [u64; N] {
        loop {
            // Pairs with the release store that ends a write: an even number brings that write's
            // words along.
            let before = self.seq.load(Ordering::Acquire);
            if before & 1 == 0 {
                let words = array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
                // Pairs with the fence of `write`: if any word came from a later write, the load
                // below sees at least the odd number which that write stored before its fence.
                P::fence(Ordering::Acquire);
                if self.seq.load(Ordering::Relaxed) == before {
                    return words;
                }
            }
            P::cpu_relax();
        }
    }

    /// Writes the words, under the lock that all writers hold.
    #[inline]
    #[track_caller]
    pub fn write<H: Held<P>>(&self, held: &H, words: [u64; N]) {
        let _ = held;
        // Relaxed: only writers write it, and the lock orders them.
        let seq = self.seq.load(Ordering::Relaxed);
        debug_assert!(seq & 1 == 0, "two writers at once: they hold different locks");
        self.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the fence of `read`: who sees one of the words below sees the odd number too.
        P::fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.seq.store(seq.wrapping_add(2), Ordering::Release);
    }
}
