//! Sets of interrupts.

use crate::IntId;

/// A set of INTIDs.
#[derive(Clone)]
pub(crate) struct IdSet {
    /// A bit for each word that is not zero.
    summary: u16,
    words: [u64; 16],
}

impl IdSet {
    /// Nothing.
    pub(crate) const EMPTY: IdSet = IdSet { summary: 0, words: [0; 16] };

    /// Inserts it; returns whether it was not there.
    #[inline]
    pub(crate) fn insert(&mut self, id: IntId) -> bool {
        let (word, bit) = (&mut self.words[id.index() / 64 % 16], 1 << (id.index() % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.summary |= 1 << (id.index() / 64 % 16);
        new
    }

    /// Removes it; returns whether it was there.
    #[inline]
    pub(crate) fn remove(&mut self, id: IntId) -> bool {
        let (word, bit) = (&mut self.words[id.index() / 64 % 16], 1 << (id.index() % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        if *word == 0 {
            self.summary &= !(1 << (id.index() / 64 % 16));
        }
        was
    }

    /// Returns whether it is there.
    #[inline]
    pub(crate) fn contains(&self, id: IntId) -> bool {
        self.words[id.index() / 64 % 16] >> (id.index() % 64) & 1 != 0
    }

    /// Returns whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Removes the smallest; returns it.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<IntId> {
        if self.summary == 0 {
            return None;
        }
        let word = self.summary.trailing_zeros();
        let id = IntId::new(word * 64 + self.words[word as usize].trailing_zeros())?;
        self.remove(id);
        Some(id)
    }
}
