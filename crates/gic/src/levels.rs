//! Interrupts by priority: the best is found by looking for the first bit that is set.

use doorbell_platform::Platform;

use crate::{IntId, Interrupt, Interrupts, Priority};

/// The head of an empty list.
const NONE: u16 = u16::MAX;

/// Lists of interrupts, one for each level of priority, linked through the interrupts themselves.
///
/// An interrupt that is not what it was when it came stays until it is the next to be taken: who
/// takes it looks at it.
pub(crate) struct Levels {
    /// A bit for each word that is not zero.
    summary: u8,
    /// A bit for each list that is not empty.
    words: [u64; 4],
    heads: [u16; 256],
    /// How far a priority is shifted to the number of its level.
    shift: u32,
}

impl Levels {
    /// The number of no level, after all others.
    pub(crate) const NO_LEVEL: u32 = 256;

    /// Returns empty lists for priorities of so many bits, of which there are 5 to 8.
    pub(crate) fn new(priority_bits: u32) -> Self {
        Levels { summary: 0, words: [0; 4], heads: [NONE; 256], shift: 8 - priority_bits }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns the number of the level of a priority.
    #[inline]
    pub(crate) fn level_of(&self, priority: Priority) -> u32 {
        u32::from(priority.0 >> self.shift)
    }

    /// Puts an interrupt before the others of its priority, unless it is in a list. Returns whether
    /// it was not.
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, priority: Priority) -> bool {
        let level = priority.0 >> self.shift;
        let head = &mut self.heads[usize::from(level)];
        if !interrupt.link(IntId::new((*head).into())) {
            return false;
        }
        *head = id.number() as u16;
        self.words[usize::from(level / 64)] |= 1 << (level % 64);
        self.summary |= 1 << (level / 64);
        true
    }

    /// Returns the highest priority of the lists that are not empty, as the number of its level.
    #[inline]
    pub(crate) fn best(&self) -> u32 {
        if self.summary == 0 {
            return Self::NO_LEVEL;
        }
        let word = self.summary.trailing_zeros();
        word * 64 + self.words[word as usize % 4].trailing_zeros()
    }

    /// Returns the first of a list that is not empty.
    #[inline]
    pub(crate) fn first(&self, level: u32) -> Option<IntId> {
        IntId::new(self.heads[level as usize % 256].into())
    }

    /// Takes the first out of a list.
    #[inline]
    pub(crate) fn pop<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, level: u32) {
        let Some(first) = self.first(level) else { return };
        match interrupts.interrupt(first).unlink() {
            Some(next) => self.heads[level as usize % 256] = next.number() as u16,
            None => {
                self.heads[level as usize % 256] = NONE;
                let word = &mut self.words[level as usize / 64 % 4];
                *word &= !(1 << (level % 64));
                if *word == 0 {
                    self.summary &= !(1 << (level / 64 % 4));
                }
            }
        }
    }
}
