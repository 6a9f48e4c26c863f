//! Pending bits with a summary of the words that may have any.
//!
//! ```text
//!   a sender                          the owner
//!   sets the bit of the word          clears the bit of the summary, if the word was empty
//!   full barrier                      full barrier
//!   reads the summary: clear,         looks at the word again: bits, sets the summary
//!     sets it
//! ```
//!
//! The posting protocol once more, one level up. A bit of the summary that is clear is a promise;
//! one that is set is none.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::{Bit, Layout};

/// `WORDS` × 64 pending bits, at most 64 × 64, with one bit for each word that may have any: an
/// owner that has nothing to take loads one word, however many there are.
///
/// A bit of the summary that is clear says that its word has nothing whose sender has finished. One
/// that is set says nothing: it stays set when the word is taken, so that a sender to a busy word
/// does not write the summary, and is cleared by an owner that finds the word empty.
///
/// The hand-over is that of the bits once more, one level up. A sender sets the bit and then looks
/// at the summary; the owner clears the bit of the summary and then looks at the word again. So if
/// the sender still sees the summary set, the owner sees the bit.
pub struct TwoLevel<P: Platform, const WORDS: usize> {
    summary: P::AtomicU64,
    words: [P::AtomicU64; WORDS],
}

doorbell_platform::opaque_debug!([P: Platform, const WORDS: usize] TwoLevel<P, WORDS>);

impl<P: Platform, const WORDS: usize> TwoLevel<P, WORDS> {
    const FITS: () = assert!(WORDS <= 64, "one word of summary");

    /// Returns bits of which none is pending.
    pub fn new() -> Self {
        const { Self::FITS };
        TwoLevel {
            summary: P::AtomicU64::new(0),
            words: core::array::from_fn(|_| P::AtomicU64::new(0)),
        }
    }

    /// Returns which words may have any bits at this moment.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn summary(&self) -> Summary<WORDS> {
        Summary(self.summary.load(SeqCst))
    }

    /// Takes all bits: `each` gets the words that had any, by index, the lowest first.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take_words(&self, each: impl FnMut(usize, u64)) {
        self.take_words_of(self.summary(), each);
    }

    /// Takes all bits of some words, as [`take_words`](TwoLevel::take_words) does.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take_words_of(&self, words: Summary<WORDS>, mut each: impl FnMut(usize, u64)) {
        let mut summary = words.0;
        while summary != 0 {
            let index = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            if self.peek(index) == 0 {
                self.summary.fetch_and(!(1 << index), SeqCst);
                // A sender may have set a bit before the summary was cleared, and have seen it set.
                if self.peek(index) == 0 {
                    continue;
                }
            }
            each(index, self.take_word(index));
        }
    }

    #[cold]
    fn summarize(&self, index: usize) {
        self.summary.fetch_or(1 << index, SeqCst);
    }

    /// Returns the bits of a word at this moment.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn peek(&self, index: usize) -> u64 {
        // The remainder is the index: only bits of words are set, which the compiler does not know.
        self.words[index % WORDS].load(SeqCst)
    }

    /// Takes all bits of a word.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take_word(&self, index: usize) -> u64 {
        self.words[index % WORDS].swap(0, SeqCst)
    }

    /// Writes what `to` makes of a word, until nobody has come between: for a word that has other
    /// news than bits, such as the first of a chain. Returns whether there was
    /// nothing in the word: then [`published`](crate::Post::published) is next. If there was,
    /// whoever has put it there answers for both, until the word is [taken](TwoLevel::take_word).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn publish_in(&self, index: usize, mut to: impl FnMut(u64) -> u64) -> bool {
        let mut seen = self.peek(index);
        while let Err(now) =
            self.words[index % WORDS].compare_exchange(seen, to(seen), SeqCst, SeqCst)
        {
            seen = now;
        }
        if seen == 0 && self.summary.load(SeqCst) >> (index % WORDS) & 1 == 0 {
            self.summarize(index % WORDS);
        }
        seen == 0
    }

    /// Takes all bits, each by itself, in ascending order.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take(&self, mut each: impl FnMut(Bit<WORDS>)) {
        self.take_words(|index, bits| Bit::each(index, bits, &mut each));
    }
}

/// The words of a [`TwoLevel`] that may have any bits, as its owner has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary<const WORDS: usize>(u64);

impl<const WORDS: usize> Summary<WORDS> {
    /// None of them.
    pub const NONE: Self = Summary(0);

    /// Returns the index of the only one, if there is one alone.
    #[inline]
    pub const fn only(self) -> Option<usize> {
        if self.0.is_power_of_two() { Some(self.0.trailing_zeros() as usize) } else { None }
    }

    /// Returns whether there are none: nothing is pending whose sender had finished.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl<P: Platform, const WORDS: usize> Default for TwoLevel<P, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform, const WORDS: usize> Layout for TwoLevel<P, WORDS> {
    type Bit = Bit<WORDS>;

    #[inline]
    fn publish(&self, bit: Bit<WORDS>) -> bool {
        // The remainder is the index, as in `Pending`.
        let index = (bit.number() / 64) % WORDS;
        if self.words[index].fetch_or(bit.mask(), SeqCst) & bit.mask() != 0 {
            return false;
        }
        // Whoever has set another bit of the word may be just about to do this. It is not waited
        // for: this bit is pending from here on, whatever becomes of that sender.
        if self.summary.load(SeqCst) >> index & 1 == 0 {
            self.summarize(index);
        }
        true
    }

    #[inline]
    fn any(&self) -> bool {
        let mut summary = self.summary.load(SeqCst);
        while summary != 0 {
            let index = summary.trailing_zeros() as usize;
            if self.words[index % WORDS].load(SeqCst) != 0 {
                return true;
            }
            summary &= summary - 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use doorbell_platform::Std;

    use super::*;

    fn bit(number: usize) -> Bit<16> {
        Bit::new(number).unwrap()
    }

    #[test]
    fn what_is_published_is_taken_once_in_ascending_order() {
        let pending = TwoLevel::<Std, 16>::new();
        for number in [1023, 0, 63, 640] {
            assert!(pending.publish(bit(number)));
        }
        assert!(!pending.publish(bit(63)));
        let mut taken = Vec::new();
        pending.take(|bit| taken.push(bit.number()));
        assert_eq!(taken, [0, 63, 640, 1023]);
        assert!(!pending.any());
        pending.take(|bit| panic!("{bit:?} was taken before"));
    }

    #[test]
    fn a_word_that_is_not_of_bits_is_published_when_there_was_nothing_in_it() {
        let pending = TwoLevel::<Std, 16>::new();
        assert!(pending.publish_in(3, |was| was + 5));
        assert!(!pending.publish_in(3, |was| was + 7));
        assert!(pending.any());
        let mut taken = Vec::new();
        pending.take_words(|index, word| taken.push((index, word)));
        assert_eq!(taken, [(3, 12)]);
        assert!(!pending.any());
        pending.take_words(|_, _| panic!("it was taken before"));
        assert!(pending.publish_in(3, |was| was + 1) && pending.any());
    }

    #[test]
    fn the_summary_is_cleared_when_a_word_is_found_empty_and_set_again_by_the_next_sender() {
        let pending = TwoLevel::<Std, 16>::new();
        let summary = || pending.summary.load(SeqCst);
        assert!(pending.publish(bit(64)));
        pending.take(|_| ());
        assert_eq!((summary(), pending.any()), (1 << 1, false));
        pending.take(|bit| panic!("{bit:?} was taken before"));
        assert_eq!(summary(), 0);
        assert!(pending.publish(bit(65)));
        assert_eq!((summary(), pending.any()), (1 << 1, true));
    }
}
