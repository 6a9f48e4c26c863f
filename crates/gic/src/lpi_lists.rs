//! The LPIs of a vCPU that wait, as its owner knows them.

use alloc::boxed::Box;

use doorbell_platform::Platform;

use crate::{IntId, Interrupt, Interrupts, Priority};

/// LPIs that are linked, each through its own link: the INTID of the first, or zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain(u16);

impl Chain {
    pub(crate) const EMPTY: Chain = Chain(0);

    /// The LPIs in a word of the news: the INTID of the first,
    const FIRST: u64 = 0xffff;
    /// and that there is one, so that the word is not one bit alone.
    const ANY: u64 = 1 << 60;

    /// Returns the chain that a word of the news has.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Chain {
        Chain((word & Chain::FIRST) as u16)
    }

    /// Returns the first of the chain that a word of the news has, if the word says nothing else.
    #[inline]
    pub(crate) fn only_in(word: u64) -> Option<IntId> {
        let only = word & !Chain::FIRST == Chain::ANY;
        Chain::from_word(word).first().filter(|_| only)
    }

    /// Returns a word of the news without its chain.
    #[inline]
    pub(crate) fn without(word: u64) -> u64 {
        word & !(Chain::FIRST | Chain::ANY)
    }

    /// Returns a word of the news with an LPI as the first of its chain.
    #[inline]
    pub(crate) fn put_first(word: u64, first: IntId) -> u64 {
        word & !Chain::FIRST | Chain::ANY | u64::from(first.number())
    }

    /// Returns the first.
    #[inline]
    pub(crate) fn first(self) -> Option<IntId> {
        IntId::lpi(self.0.into())
    }

    /// Puts an LPI before the others. By whoever has it linked.
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, lpi: &Interrupt<P>, id: IntId) {
        lpi.set_next_lpi(self.first());
        self.0 = id.number() as u16;
    }

    /// Takes the first out of it.
    #[inline]
    pub(crate) fn pop<P: Platform>(&mut self, lpis: &impl Interrupts<P>) -> Option<IntId> {
        let first = self.first()?;
        self.0 = lpis.interrupt(first).next_lpi().map_or(0, |next| next.number() as u16);
        Some(first)
    }
}

/// The number of a list: the smaller is of the higher priority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct LpiList(u32);

/// The LPIs of a vCPU, of a VM that has any.
pub(crate) struct LpiLists(Option<Box<Waiting>>);

/// The LPIs that wait, all of group 1: a list for each priority that can be configured, of which
/// there are 64 (Arm IHI 0069H, section 5.1.1).
struct Waiting {
    /// A bit for each list that is not empty.
    waiting: u64,
    lists: [Chain; 64],
    /// The LPIs that another vCPU is to have.
    leaving: Chain,
    /// The redistributor forwards LPIs, as the owner has seen last.
    on: bool,
}

impl LpiLists {
    /// The lists of a vCPU that never has any.
    pub(crate) const NONE: LpiLists = LpiLists(None);

    /// Returns those of a vCPU that has none yet.
    pub(crate) fn new() -> Self {
        let (lists, leaving) = ([Chain::EMPTY; 64], Chain::EMPTY);
        LpiLists(Some(Box::new(Waiting { waiting: 0, lists, leaving, on: false })))
    }

    /// Returns whether there can be any.
    #[inline]
    pub(crate) fn exist(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether none waits.
    #[inline]
    pub(crate) fn are_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|lpis| lpis.waiting == 0)
    }

    /// Returns whether the redistributor forwards LPIs, as the owner has seen last.
    #[inline]
    pub(crate) fn are_on(&self) -> bool {
        self.0.as_ref().is_some_and(|lpis| lpis.on)
    }

    #[inline]
    pub(crate) fn set_on(&mut self, on: bool) {
        if let Some(lpis) = &mut self.0 {
            lpis.on = on;
        }
    }

    /// Returns the list of the highest priority that is not empty.
    #[inline]
    pub(crate) fn best(&self) -> Option<LpiList> {
        let waiting = self.0.as_ref()?.waiting;
        if waiting == 0 { None } else { Some(LpiList(waiting.trailing_zeros())) }
    }

    /// Returns the priority of what is in a list.
    #[inline]
    pub(crate) fn priority(list: LpiList) -> Priority {
        Priority((list.0 << 2) as u8)
    }

    /// Returns the first of a list.
    #[inline]
    pub(crate) fn first(&self, list: LpiList) -> Option<IntId> {
        self.0.as_ref()?.lists[list.0 as usize % 64].first()
    }

    /// Puts an LPI into its list.
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, list: u32, lpi: &Interrupt<P>, id: IntId) {
        if let Some(lpis) = &mut self.0 {
            lpis.lists[list as usize % 64].push(lpi, id);
            lpis.waiting |= 1 << (list % 64);
        }
    }

    /// Takes the first out of a list.
    #[inline]
    pub(crate) fn pop<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        list: LpiList,
    ) -> Option<IntId> {
        let lpis = self.0.as_mut()?;
        let chain = &mut lpis.lists[list.0 as usize % 64];
        let first = chain.pop(interrupts);
        if *chain == Chain::EMPTY {
            lpis.waiting &= !(1 << (list.0 % 64));
        }
        first
    }

    /// Takes all out of their lists, as one chain. As many steps as there are.
    pub(crate) fn take_all<P: Platform>(&mut self, interrupts: &impl Interrupts<P>) -> Chain {
        let mut all = Chain::EMPTY;
        while let Some(list) = self.best() {
            if let Some(id) = self.pop(interrupts, list) {
                all.push(interrupts.interrupt(id), id);
            }
        }
        all
    }

    /// Takes note of an LPI that another vCPU is to have.
    pub(crate) fn leaves<P: Platform>(&mut self, lpi: &Interrupt<P>, id: IntId) {
        if let Some(lpis) = &mut self.0 {
            lpis.leaving.push(lpi, id);
        }
    }

    /// Takes one that another vCPU is to have.
    pub(crate) fn pop_leaving<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
    ) -> Option<IntId> {
        self.0.as_mut()?.leaving.pop(interrupts)
    }

    /// Returns whether another vCPU is to have one.
    pub(crate) fn any_leaving(&self) -> bool {
        self.0.as_ref().is_some_and(|lpis| lpis.leaving != Chain::EMPTY)
    }
}
