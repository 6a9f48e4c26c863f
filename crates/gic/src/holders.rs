//! The holders of the bits of the active priority registers.

use alloc::boxed::Box;
use alloc::vec;

use crate::{Group, IntId, Priority};

/// A bit of the active priority registers: of which group, and of which preemption level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level(u8);

impl Level {
    /// Returns that of a preemption level below 128.
    #[inline]
    pub(crate) const fn new(group: Group, number: u32) -> Level {
        Level((group as u8) << 7 | (number & 0x7f) as u8)
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Level {
        Level(bits)
    }

    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn group(self) -> Group {
        if self.0 >> 7 == 0 { Group::Zero } else { Group::One }
    }

    pub(crate) const fn number(self) -> u32 {
        self.0 as u32 & 0x7f
    }

    /// Returns its place among those of both groups by number, so that those that there are come
    /// first.
    #[inline]
    const fn place(self) -> usize {
        self.0.rotate_left(1) as usize
    }

    #[inline]
    const fn word(self) -> usize {
        self.0 as usize / 32
    }

    #[inline]
    const fn mask(self) -> u32 {
        1 << (self.0 % 32)
    }
}

/// A set of bits of the active priority registers, by their words: those of group 0 come first.
#[derive(Clone, Copy)]
pub(crate) struct Levels {
    /// A bit for each word that is not zero.
    summary: u8,
    words: [u32; 8],
}

impl Levels {
    const EMPTY: Levels = Levels { summary: 0, words: [0; 8] };

    #[inline]
    pub(crate) fn contains(&self, level: Level) -> bool {
        self.words[level.word()] & level.mask() != 0
    }

    #[inline]
    pub(crate) fn insert(&mut self, level: Level) {
        self.words[level.word()] |= level.mask();
        self.summary |= 1 << level.word();
    }

    #[inline]
    pub(crate) fn remove(&mut self, level: Level) {
        self.remove_of(level.word(), level.mask());
    }

    #[inline]
    pub(crate) fn put(&mut self, level: Level, set: bool) {
        if set { self.insert(level) } else { self.remove(level) }
    }

    /// Removes some bits of a word.
    #[inline]
    fn remove_of(&mut self, word: usize, bits: u32) {
        self.words[word] &= !bits;
        if self.words[word] == 0 {
            self.summary &= !(1 << word);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns that of the highest priority.
    #[inline]
    pub(crate) fn first(&self) -> Option<Level> {
        let words = self.summary | self.summary >> 4;
        if words == 0 {
            return None;
        }
        let word = words.trailing_zeros() as usize % 4;
        let [zero, one] = [self.words[word], self.words[word + 4]];
        let bit = (zero | one).trailing_zeros();
        let group = if zero >> (bit % 32) & 1 != 0 { Group::Zero } else { Group::One };
        Some(Level::new(group, word as u32 * 32 + bit))
    }
}

/// The holders of the bits.
///
/// An acknowledged interrupt holds the bit of its preemption level alone: none of the same level is
/// signalled until the priority is dropped (IHI 0069H, section 4.8.3).
pub(crate) struct Holders {
    /// The bits that are held,
    held: Levels,
    /// those of interrupts outside of the list registers,
    outside: Levels,
    /// and of these, those whose end has to be seen.
    seen: Levels,
    /// The holders, by the [places](Level::place) of their bits, of which there are two for each
    /// preemption level.
    ids: Box<[IntId]>,
    preemption_bits: u32,
}

impl Holders {
    /// Returns bits that nobody holds, with so many bits of priority for preemption: 5 to 7.
    pub(crate) fn new(preemption_bits: u32) -> Self {
        Holders {
            held: Levels::EMPTY,
            outside: Levels::EMPTY,
            seen: Levels::EMPTY,
            ids: vec![IntId::FIRST; 2 << preemption_bits].into(),
            preemption_bits,
        }
    }

    /// Returns the priority that a bit is for.
    #[inline]
    pub(crate) fn priority(&self, level: Level) -> Priority {
        Priority((level.number() << (8 - self.preemption_bits)) as u8)
    }

    /// Returns who holds a bit.
    #[inline]
    pub(crate) fn get(&self, level: Level) -> Option<IntId> {
        if self.held.contains(level) { self.last(level) } else { None }
    }

    /// Returns who holds a bit, or held it last.
    #[inline]
    pub(crate) fn last(&self, level: Level) -> Option<IntId> {
        self.ids.get(level.place()).copied()
    }

    /// Gives a bit to an interrupt outside of the list registers, whose end has to be seen or not.
    #[inline]
    pub(crate) fn set(&mut self, level: Level, id: IntId, seen: bool) {
        if let Some(holder) = self.ids.get_mut(level.place()) {
            *holder = id;
            self.held.insert(level);
            self.leaves_list_register(level, seen);
        }
    }

    /// Says that the holder of a bit is in no list register, and whether its end has to be seen.
    #[inline]
    pub(crate) fn leaves_list_register(&mut self, level: Level, seen: bool) {
        self.outside.insert(level);
        self.seen.put(level, seen);
    }

    /// Says whether the end of the holder of a bit has to be seen, which is in no list register.
    #[inline]
    pub(crate) fn put_seen(&mut self, level: Level, seen: bool) {
        self.seen.put(level, seen);
    }

    /// Returns whether the holder of a bit is in no list register.
    #[inline]
    pub(crate) fn is_outside(&self, level: Level) -> bool {
        self.outside.contains(level)
    }

    /// Returns whether the end of one has to be seen that is in no list register.
    #[inline]
    pub(crate) fn any_seen(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Says of a bit that its holder is in a list register: of the bit of the highest priority
    /// whose holder is in none, and whose end has to be seen. Returns both.
    #[inline]
    pub(crate) fn first_seen_enters(&mut self) -> Option<(Level, IntId)> {
        let level = self.seen.first()?;
        self.seen.remove(level);
        self.outside.remove(level);
        Some((level, self.last(level)?))
    }

    /// Says of a bit that its holder is in a list register: of the bit of the highest priority
    /// whose holder is in none, if no end [has to be seen](Holders::any_seen). Returns both.
    #[inline]
    pub(crate) fn first_enters(&mut self) -> Option<(Level, IntId)> {
        let level = self.outside.first()?;
        self.outside.remove(level);
        Some((level, self.last(level)?))
    }

    /// Returns whether no bit is held.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns all bits that are held, with who holds each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Level, IntId)> + '_ {
        (0..=u8::MAX).map(Level).filter_map(|level| Some((level, self.get(level)?)))
    }

    /// Returns the bit that an interrupt holds, by looking at all of them.
    #[inline(never)]
    pub(crate) fn level_of(&self, id: IntId) -> Option<Level> {
        self.all().find(|&(_, holder)| holder == id).map(|(level, _)| level)
    }

    /// Takes all bits from whoever holds them.
    pub(crate) fn clear_all(&mut self) {
        (self.held, self.outside, self.seen) = (Levels::EMPTY, Levels::EMPTY, Levels::EMPTY);
    }

    /// Takes the bit from whoever holds it.
    #[inline]
    pub(crate) fn clear(&mut self, level: Level) {
        for bits in [&mut self.held, &mut self.outside, &mut self.seen] {
            bits.remove(level);
        }
    }

    /// Returns the words of the registers that have a bit which is held.
    #[inline]
    pub(crate) fn words(&self) -> Words {
        Words(self.held.summary)
    }

    /// Takes the bits of a word that its register does not have any more from whoever held them.
    /// Returns those bits.
    #[inline]
    pub(crate) fn take_gone(&mut self, word: Word, register: u32) -> Gone {
        let gone = self.held.words[word.0] & !register;
        if gone != 0 {
            for levels in [&mut self.held, &mut self.outside, &mut self.seen] {
                levels.remove_of(word.0, gone);
            }
        }
        Gone { first: word.0 as u8 * 32, bits: gone }
    }
}

/// One of the active priority registers.
#[derive(Clone, Copy)]
pub(crate) struct Word(usize);

impl Word {
    /// Returns of which group it is.
    #[inline]
    pub(crate) const fn group(self) -> Group {
        if self.0 < 4 { Group::Zero } else { Group::One }
    }

    /// Returns its number among those of its group.
    #[inline]
    pub(crate) const fn number(self) -> usize {
        self.0 % 4
    }
}

/// Some of the active priority registers.
pub(crate) struct Words(u8);

impl Iterator for Words {
    type Item = Word;

    #[inline]
    fn next(&mut self) -> Option<Word> {
        if self.0 == 0 {
            return None;
        }
        let word = Word(self.0.trailing_zeros() as usize % 8);
        self.0 &= self.0 - 1;
        Some(word)
    }
}

/// Some bits of an active priority register.
pub(crate) struct Gone {
    first: u8,
    bits: u32,
}

impl Iterator for Gone {
    type Item = Level;

    #[inline]
    fn next(&mut self) -> Option<Level> {
        if self.bits == 0 {
            return None;
        }
        let level = Level(self.first + self.bits.trailing_zeros() as u8);
        self.bits &= self.bits - 1;
        Some(level)
    }
}
