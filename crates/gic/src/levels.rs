//! Interrupts by priority: the best is found by looking for the first bit that is set.

use alloc::boxed::Box;
use alloc::vec;

use crate::{Group, IntId, Priority};

/// The head of an empty list.
const NONE: u16 = u16::MAX;
/// What is in no list comes before nothing.
const FREE: u16 = u16::MAX;
/// The last of its list.
const LAST: u16 = u16::MAX - 1;

/// The links of the lists: which interrupt comes after which.
///
/// A vCPU has its own, so that another one may take an interrupt that is in a list here: its place
/// is found to be stale when it is the next to be taken.
pub(crate) struct Links(Box<[u16]>);

impl Links {
    pub(crate) fn new(interrupts: usize) -> Self {
        Links(vec![FREE; interrupts].into())
    }

    /// Puts an interrupt before `next`, unless it is in a list. Returns whether it was not.
    #[inline]
    pub(crate) fn link(&mut self, id: IntId, next: Option<IntId>) -> bool {
        match self.0.get_mut(id.index()) {
            Some(link) if *link == FREE => {
                *link = next.map_or(LAST, |next| next.number() as u16);
                true
            }
            _ => false,
        }
    }

    /// Takes an interrupt out of its list. Returns what comes after it.
    #[inline]
    pub(crate) fn unlink(&mut self, id: IntId) -> Option<IntId> {
        let link = self.0.get_mut(id.index())?;
        IntId::new(core::mem::replace(link, FREE).into())
    }
}

/// Lists of interrupts of one group, one for each level of priority.
///
/// An interrupt that is not what it was when it came stays until it is the next to be taken: who
/// takes it looks at it.
pub(crate) struct Levels {
    /// A bit for each word that is not zero.
    summary: u8,
    /// A bit for each list that is not empty.
    words: [u64; 4],
    heads: Box<[u16]>,
    /// How far a priority is shifted to the number of its level.
    shift: u32,
}

impl Levels {
    /// The number of no level, after all others.
    pub(crate) const NO_LEVEL: u32 = 256;

    /// Returns empty lists for priorities of so many bits, of which there are 5 to 8.
    pub(crate) fn new(priority_bits: u32) -> Self {
        Levels { summary: 0, words: [0; 4], heads: vec![NONE; 1 << priority_bits].into(), shift: 8 - priority_bits }
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
    pub(crate) fn push(&mut self, links: &mut Links, id: IntId, priority: Priority) -> bool {
        let level = priority.0 >> self.shift;
        let Some(head) = self.heads.get_mut(usize::from(level)) else { return false };
        if !links.link(id, IntId::new((*head).into())) {
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
        IntId::new((*self.heads.get(level as usize)?).into())
    }

    /// Takes the first out of a list. Returns it.
    #[inline]
    pub(crate) fn pop(&mut self, links: &mut Links, level: u32) -> Option<IntId> {
        let head = self.heads.get_mut(level as usize)?;
        let first = IntId::new((*head).into())?;
        match links.unlink(first) {
            Some(next) => *head = next.number() as u16,
            None => {
                *head = NONE;
                let word = &mut self.words[level as usize / 64 % 4];
                *word &= !(1 << (level % 64));
                if *word == 0 {
                    self.summary &= !(1 << (level / 64 % 4));
                }
            }
        }
        Some(first)
    }
}

/// What is pending and waits, by group and priority.
pub(crate) struct Lists {
    pub(crate) links: Links,
    levels: [Levels; 2],
    /// How many there are.
    queued: u32,
}

impl Lists {
    /// Returns empty lists for so many interrupts, with priorities of so many bits.
    pub(crate) fn new(interrupts: usize, priority_bits: u32) -> Self {
        Lists { links: Links::new(interrupts), levels: core::array::from_fn(|_| Levels::new(priority_bits)), queued: 0 }
    }

    #[inline]
    pub(crate) fn of(&self, group: Group) -> &Levels {
        &self.levels[group as usize]
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.queued
    }

    /// Puts an interrupt into its list, unless it is in one. Returns whether it was in none.
    #[inline]
    pub(crate) fn push(&mut self, id: IntId, group: Group, priority: Priority) -> bool {
        let pushed = self.levels[group as usize].push(&mut self.links, id, priority);
        self.queued += u32::from(pushed);
        pushed
    }

    /// Takes the first out of a list.
    #[inline]
    pub(crate) fn pop(&mut self, group: Group, level: u32) {
        let popped = self.levels[group as usize].pop(&mut self.links, level);
        self.queued -= u32::from(popped.is_some());
    }

    /// Takes everything out of the lists, as one list. Returns its first.
    pub(crate) fn take_all(&mut self) -> Option<IntId> {
        let mut first = None;
        for levels in &mut self.levels {
            while !levels.is_empty() {
                let Some(id) = levels.pop(&mut self.links, levels.best()) else { break };
                self.links.link(id, first);
                first = Some(id);
            }
        }
        self.queued = 0;
        first
    }
}
