//! The pending bits.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::Layout;

/// The number of a bit among `WORDS` × 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bit<const WORDS: usize>(u32);

impl<const WORDS: usize> Bit<WORDS> {
    /// Creates the name of bit `number`, if there is such a bit.
    #[inline]
    pub const fn new(number: usize) -> Option<Self> {
        if number < WORDS * 64 { Some(Bit(number as u32)) } else { None }
    }

    /// The bit's number, below `WORDS` × 64.
    #[inline]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    #[inline]
    pub(crate) const fn mask(self) -> u64 {
        1 << (self.0 % 64)
    }

    /// Calls `each` for the bits of word `index`, in ascending order.
    #[inline]
    pub(crate) fn each(index: usize, mut bits: u64, mut each: impl FnMut(Self)) {
        while bits != 0 {
            each(Bit(index as u32 * 64 + bits.trailing_zeros()));
            bits &= bits - 1;
        }
    }
}

/// A vector of an x86 interrupt is a bit of a descriptor of 256.
impl From<u8> for Bit<4> {
    #[inline]
    fn from(vector: u8) -> Self {
        Bit(vector.into())
    }
}

/// `WORDS` × 64 pending bits. Senders set them, the owner takes them.
///
/// With four words this is the PIR of a posted-interrupt descriptor: Intel SDM vol. 3 (253668-083),
/// section 30.6, bits 255:0. It is accessed in words of 64 bits only.
#[repr(transparent)]
pub struct Pending<P: Platform, const WORDS: usize> {
    words: [P::AtomicU64; WORDS],
}

doorbell_platform::opaque_debug!([P: Platform, const WORDS: usize] Pending<P, WORDS>);

impl<P: Platform, const WORDS: usize> Pending<P, WORDS> {
    /// Creates the words, with no bit pending.
    pub fn new() -> Self {
        // Not `[ZERO; WORDS]`: a word is told by where it was made.
        Pending { words: core::array::from_fn(|_| P::AtomicU64::new(0)) }
    }

    /// The words, bit 0 of the first being bit 0: for hardware that posts, or what stands for it.
    pub fn words(&self) -> &[P::AtomicU64; WORDS] {
        &self.words
    }

    /// Takes all bits: `each` gets the words that had any, by index.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take_words(&self, mut each: impl FnMut(usize, u64)) {
        let seen: [u64; WORDS] = core::array::from_fn(|index| self.words[index].load(SeqCst));
        if seen.iter().fold(0, |any, bits| any | bits) == 0 {
            return;
        }
        for (index, word) in self.words.iter().enumerate() {
            // A word is written only if there is something to take: senders would have to fetch the
            // line again.
            if seen[index] != 0 {
                each(index, word.swap(0, SeqCst));
            }
        }
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

impl<P: Platform, const WORDS: usize> Default for Pending<P, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform, const WORDS: usize> Layout for Pending<P, WORDS> {
    type Bit = Bit<WORDS>;

    #[inline]
    fn publish(&self, bit: Bit<WORDS>) -> bool {
        // The remainder is the index: a `Bit` is in range. So says the type, which the compiler
        // does not know.
        let word = &self.words[(bit.0 as usize / 64) % WORDS];
        word.fetch_or(bit.mask(), SeqCst) & bit.mask() == 0
    }

    #[inline]
    fn any(&self) -> bool {
        self.words.iter().any(|word| word.load(SeqCst) != 0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use doorbell_platform::Std;

    use super::*;

    #[test]
    fn what_is_published_is_taken_once_in_ascending_order() {
        let pending = Pending::<Std, 2>::new();
        for number in [127, 0, 63, 64] {
            assert!(pending.publish(Bit::new(number).unwrap()));
        }
        assert!(!pending.publish(Bit::new(63).unwrap()));
        let mut taken = Vec::new();
        pending.take(|bit| taken.push(bit.number()));
        assert_eq!(taken, [0, 63, 64, 127]);
        assert!(!pending.any());
        pending.take(|bit| panic!("{bit:?} was taken before"));
    }

    #[test]
    fn there_is_no_bit_beyond_the_last_word() {
        assert_eq!(Bit::<2>::new(128), None);
        assert_eq!(Bit::<4>::from(255), Bit::new(255).unwrap());
    }
}
