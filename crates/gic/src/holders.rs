//! Which interrupt holds which bit of the active priority registers.

use alloc::boxed::Box;
use alloc::vec;

use crate::{Group, IntId};

/// A bit of the active priority registers: of which group, and of which preemption level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level(u8);

impl Level {
    /// Returns that of a preemption level below 128.
    #[inline]
    pub(crate) const fn new(group: Group, number: u32) -> Level {
        Level((group as u8) << 7 | (number & 0x7f) as u8)
    }

    pub(crate) const fn group(self) -> Group {
        if self.0 >> 7 == 0 { Group::Zero } else { Group::One }
    }

    pub(crate) const fn number(self) -> u32 {
        self.0 as u32 & 0x7f
    }
}

/// A set of bits of the active priority registers, by their words: those of group 0 come first.
#[derive(Clone, Copy)]
pub(crate) struct Levels([u32; 8]);

impl Levels {
    const EMPTY: Levels = Levels([0; 8]);

    #[inline]
    pub(crate) fn contains(&self, level: Level) -> bool {
        self.0[usize::from(level.0 / 32)] >> (level.0 % 32) & 1 != 0
    }

    #[inline]
    pub(crate) fn put(&mut self, level: Level, set: bool) {
        let word = &mut self.0[usize::from(level.0 / 32)];
        *word = *word & !(1 << (level.0 % 32)) | u32::from(set) << (level.0 % 32);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }

    /// Returns that of the highest priority.
    #[inline]
    pub(crate) fn first(&self) -> Option<Level> {
        (0..4).find_map(|word| {
            let [zero, one] = [self.0[word], self.0[word + 4]];
            let bit = (zero | one).trailing_zeros();
            let group = if bit < 32 && zero >> bit & 1 != 0 { Group::Zero } else { Group::One };
            (bit < 32).then(|| Level::new(group, word as u32 * 32 + bit))
        })
    }

    /// Calls `each` for those whose bit the registers do not have any more. `read` reads a word of
    /// them that has any, by group and number.
    #[inline]
    pub(crate) fn gone(&self, read: impl Fn(Group, usize) -> u32, mut each: impl FnMut(Level)) {
        for (number, held) in self.0.into_iter().enumerate().filter(|(_, held)| *held != 0) {
            let group = if number < 4 { Group::Zero } else { Group::One };
            let mut gone = held & !read(group, number % 4);
            while gone != 0 {
                each(Level::new(group, number as u32 % 4 * 32 + gone.trailing_zeros()));
                gone &= gone - 1;
            }
        }
    }
}

/// Which interrupt holds which bit.
///
/// An acknowledged interrupt holds the bit of its preemption level alone: none of the same level is
/// signalled until the priority is dropped (IHI 0069H, section 4.8.3).
pub(crate) struct Holders {
    /// The bits that are held,
    pub(crate) held: Levels,
    /// those of interrupts outside of the list registers,
    pub(crate) outside: Levels,
    /// and of these, those whose end has to be seen.
    pub(crate) seen: Levels,
    /// By group and number, of which there are as many as there are preemption levels.
    ids: Box<[u16]>,
    preemption_bits: u32,
}

impl Holders {
    /// Returns bits that nobody holds, with so many bits of priority for preemption: 5 to 7.
    pub(crate) fn new(preemption_bits: u32) -> Self {
        let ids = vec![0; 2 << preemption_bits].into();
        Holders { held: Levels::EMPTY, outside: Levels::EMPTY, seen: Levels::EMPTY, ids, preemption_bits }
    }

    #[inline]
    fn index(&self, level: Level) -> usize {
        let (group, number) = (usize::from(level.0 >> 7), usize::from(level.0 & 0x7f));
        group << self.preemption_bits | number
    }

    /// Returns who holds a bit.
    #[inline]
    pub(crate) fn get(&self, level: Level) -> Option<IntId> {
        if !self.held.contains(level) {
            return None;
        }
        IntId::new((*self.ids.get(self.index(level))?).into())
    }

    /// Gives a bit to an interrupt.
    #[inline]
    pub(crate) fn set(&mut self, level: Level, id: IntId) {
        let index = self.index(level);
        if let Some(holder) = self.ids.get_mut(index) {
            *holder = id.number() as u16;
            self.held.put(level, true);
        }
    }

    /// Returns all bits that are held, with who holds each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Level, IntId)> + '_ {
        (0..=u8::MAX).map(Level).filter_map(|level| Some((level, self.get(level)?)))
    }

    /// Takes all bits from whoever holds them.
    pub(crate) fn clear_all(&mut self) {
        (self.held, self.outside, self.seen) = (Levels::EMPTY, Levels::EMPTY, Levels::EMPTY);
    }

    /// Takes the bit from whoever holds it.
    #[inline]
    pub(crate) fn clear(&mut self, level: Level) {
        for bits in [&mut self.held, &mut self.outside, &mut self.seen] {
            bits.put(level, false);
        }
    }
}
