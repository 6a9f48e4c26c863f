//! Before the guest is entered: what goes into the list registers.
//!
//! The latch goes from the interrupt's word into the list register in one read-modify-write, which
//! takes nothing that is not the holder's to signal any more. An edge that comes after the
//! acknowledgement sets the latch anew, and is another one. What has no room waits, and a
//! maintenance interrupt is asked for. What is posted after the owner has looked is a kick, because
//! the mode said "in the guest" before the look.

use doorbell_platform::Platform;

use crate::counts::Counts;
use crate::groups::Groups;
use crate::holders::{Holders, Level};
use crate::interrupt::{Candidates, Edges};
use crate::levels::{Link, ListNumber};
use crate::slot::Slot;
use crate::spec::{hcr, lr, vmcr};
use crate::{ApList, Group, IntId, Interrupt, Interrupts, ListRegisters, Priority, State};

/// EOIcount has five bits, and the guest may end some more before the exit.
const MOST_UNCOUNTED: u32 = 24;

/// What an entry into the guest depends on.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The groups that the distributor has enabled.
    pub(crate) groups: Groups,
    /// The redistributor forwards LPIs.
    pub(crate) lpis: bool,
    /// ICH_VMCR_EL2.
    pub(crate) vmcr: u64,
    /// What ICH_HCR_EL2 has at each entry.
    pub(crate) hcr: u64,
}

impl Entry {
    /// Returns the groups that the guest has enabled in its CPU interface.
    #[inline]
    fn on(self) -> Groups {
        Groups::from_bits(self.vmcr)
    }

    /// Returns whether the guest drops and deactivates apart (EOImode 1).
    #[inline]
    fn drops_only(self) -> bool {
        self.vmcr & vmcr::VEOIM != 0
    }

    /// Returns which maintenance interrupts a candidate wants that has no room: what a group has in
    /// list registers gives way to it, too.
    #[inline]
    fn outside(self) -> u64 {
        hcr::NPIE | self.on().in_hcr(hcr::VGRP0DIE)
    }

    /// Returns the groups that are enabled here and in the distributor.
    #[inline]
    pub(crate) fn enabled(self) -> Groups {
        self.groups & self.on()
    }
}

/// What is placed where.
pub(crate) struct Flush<'a, I, R> {
    pub(crate) interrupts: &'a I,
    registers: &'a mut R,
    pub(crate) entry: Entry,
    /// How many list registers are filled.
    pub(crate) placed: usize,
    /// An interrupt in a list register is active, and pending again.
    again: bool,
    /// The groups of which one is pending in a list register that any vCPU may have.
    one_of_n: Groups,
}

impl<'a, I, R> Flush<'a, I, R> {
    #[inline]
    fn new(interrupts: &'a I, registers: &'a mut R, entry: Entry) -> Self {
        Flush { interrupts, registers, entry, placed: 0, again: false, one_of_n: Groups::NONE }
    }

    #[cold]
    fn has_one_of_n(&mut self, group: Group) {
        self.one_of_n = self.one_of_n | Groups::only(group);
    }
}

impl ApList {
    /// Fills the list registers, and says which maintenance interrupts are wanted. By the owner,
    /// with interrupts off, on the CPU whose registers these are, after it has
    /// [looked](ApList::look) at what it was told of; nothing may be entered but the guest then.
    ///
    /// `groups` are those that the distributor has enabled (GICD_CTLR.EnableGrp0 and EnableGrp1).
    #[inline]
    pub fn flush<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        groups: [bool; 2],
    ) {
        let hcr = self.hcr(registers);
        if !self.flush_idle(registers, hcr) {
            let vmcr = registers.vmcr();
            let entry = Entry { groups: groups.into(), lpis: self.lpis.are_on(), vmcr, hcr };
            self.fill(interrupts, registers, entry);
        }
    }

    /// Returns what ICH_HCR_EL2 has at each entry: DIR is trapped, with what is trapped with it
    /// where the CPU cannot trap it alone.
    ///
    /// What it deactivates may be in no list register here, or on another vCPU, and the CPU would
    /// not know of it. A guest with EOImode 0 does not write DIR, so that the trap costs nothing;
    /// and one that changes the mode need not exit.
    #[inline]
    pub(crate) fn hcr(&self, registers: &impl ListRegisters) -> u64 {
        if self.hcr & hcr::TDIR != 0 { self.hcr } else { hcr_of_mode(registers.vmcr()) }
    }

    /// Flushes, if there is nothing to do for it. Returns whether that was all.
    #[inline]
    pub(crate) fn flush_idle(&self, registers: &mut impl ListRegisters, hcr: u64) -> bool {
        let idle = self.is_idle();
        if idle {
            registers.set_hcr(hcr);
        }
        idle
    }

    /// Puts an interrupt into the first list register, if it is a candidate, and nothing else has
    /// to be in any. Returns whether that was all; if not, nothing has changed.
    #[inline(always)]
    pub(crate) fn fill_with<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        entry: Entry,
        id: IntId,
    ) -> bool {
        let interrupt = interrupts.interrupt(id);
        let state = interrupt.state();
        let idle = self.counts.are_zero() && self.off == !entry.on();
        if !idle && (!self.needs_nothing(entry) || self.knows(id))
            || !Candidates::plain(self.vcpu()).contain(state)
            || !entry.enabled().contains(state.group())
        {
            return false;
        }
        if !interrupt.take_unchanged(id.is_shared(), state) {
            return false;
        }
        let slot = Slot::pending(id, state.is_latched());
        registers.set_list_register(0, list_register(interrupt, slot, state, lr::PENDING));
        self.slots[0] = slot;
        if idle {
            self.counts = Counts::of_list_registers(1);
            registers.set_hcr(entry.hcr);
        } else {
            self.filled(registers, 1, entry.hcr);
        }
        true
    }

    /// Puts those of 64 interrupts from one on whose bits are set into the list registers, if all
    /// are edges of whose end nobody hears, there is room for them, and nothing else has to be in
    /// any: then their order does not matter, and no list is needed. Returns whether that was all;
    /// if not, nothing has changed.
    #[inline(never)]
    pub(crate) fn fill_with_few<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        entry: Entry,
        first: u32,
        bits: u64,
    ) -> bool {
        if !self.counts.are_of_stale() || self.off != !entry.on() {
            return false;
        }
        // More than there is room for are to be told from few at once.
        let room = self.vtr.list_registers();
        if (0..room).fold(bits, |left, _| left & left.wrapping_sub(1)) != 0 {
            return false;
        }
        let edges = Candidates::plain(self.vcpu()).edges();
        let mut left = bits;
        while left != 0 {
            let Some(id) = IntId::new(first + left.trailing_zeros()) else { return false };
            left &= left - 1;
            let state = interrupts.interrupt(id).state();
            let enabled = entry.enabled().contains(state.group());
            if !id.is_shared() || !edges.contain(state) || !enabled {
                return false;
            }
        }
        let (mut left, mut placed, mut wanted) = (bits, 0, entry.hcr);
        while left != 0 {
            let Some(id) = IntId::new(first + left.trailing_zeros()) else { break };
            left &= left - 1;
            let interrupt = interrupts.interrupt(id);
            let mut state = interrupt.state();
            if !edges.contain(state) || !interrupt.take_unchanged(true, state) {
                let Some(changed) = self.take_changed(interrupt, &mut wanted) else { continue };
                state = changed;
            }
            let slot = Slot::pending(id, state.is_latched());
            let number = placed % 16;
            let bits = list_register(interrupt, slot, state, lr::PENDING);
            registers.set_list_register(number, bits);
            self.slots[number] = slot;
            placed += 1;
        }
        self.filled(registers, placed, wanted);
        true
    }

    /// Takes an SPI that somebody has changed since it was looked at, and that may not be an edge
    /// any more, or be one that any vCPU may have: then the guest's disabling of its group is to be
    /// noticed. If it is no candidate any more, whoever makes it one again tells this vCPU.
    #[cold]
    fn take_changed<P: Platform>(
        &self,
        interrupt: &Interrupt<P>,
        wanted: &mut u64,
    ) -> Option<State> {
        let seen = interrupt.state();
        if !seen.is_candidate_of(self.vcpu()) {
            return None;
        }
        let state = interrupt.take(true, seen)?;
        if state.is_one_of_n() {
            *wanted |= Groups::only(state.group()).in_hcr(hcr::VGRP0DIE);
        }
        Some(state)
    }

    /// Returns whether nothing waits in a list, and what is active needs no list register, and no
    /// maintenance interrupt.
    #[inline]
    fn needs_nothing(&self, entry: Entry) -> bool {
        self.counts.none_waits() && self.off == !entry.on() && self.active_needs_nothing(entry)
    }

    /// Returns whether what is active needs no list register, and no maintenance interrupt.
    #[inline]
    fn active_needs_nothing(&self, entry: Entry) -> bool {
        match self.counts.active() {
            0 => true,
            // What the guest deactivates apart is seen by its write, which is trapped.
            active => entry.drops_only() || active <= MOST_UNCOUNTED && !self.holders.any_seen(),
        }
    }

    /// Flushes, if nothing has to be in a list register. Returns whether that was all.
    #[inline]
    pub(crate) fn flush_none(&mut self, registers: &mut impl ListRegisters, entry: Entry) -> bool {
        let none = self.needs_nothing(entry);
        if none {
            self.filled(registers, 0, entry.hcr);
        }
        none
    }

    /// Fills the list registers with what is pending and active.
    #[inline]
    pub(crate) fn fill<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        entry: Entry,
    ) {
        let in_place = self.counts.are_of_lists() && self.off == !entry.on();
        if !in_place || !self.active_needs_nothing(entry) {
            return self.fill_with_active(interrupts, registers, entry);
        }
        let (room, any_active) = (self.vtr.list_registers(), self.counts.active() != 0);
        let mut flush = Flush::new(interrupts, registers, entry);
        let mut wanted = entry.hcr;
        if self.place_pending(&mut flush, room, any_active, None) {
            wanted |= entry.outside();
        }
        wanted |= self.waits_for_groups(&flush);
        self.filled(flush.registers, flush.placed, wanted);
    }

    /// Fills the list registers, with what is active, too.
    #[inline(never)]
    fn fill_with_active<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        entry: Entry,
    ) {
        let mut flush = Flush::new(interrupts, registers, entry);
        let mut wanted = entry.hcr;
        self.sees_groups(interrupts, entry.vmcr);
        wanted |= self.place_with_active(&mut flush, entry.drops_only());
        if flush.again && wanted & hcr::NPIE == 0 {
            self.place_both(&mut flush);
        }
        wanted |= self.waits_for_groups(&flush);
        self.filled(flush.registers, flush.placed, wanted);
    }

    /// Takes note of how many list registers are filled, clears those that may say something else,
    /// and says which maintenance interrupts are wanted.
    #[inline]
    fn filled(&mut self, registers: &mut impl ListRegisters, placed: usize, wanted: u64) {
        for number in placed..self.counts.stale() {
            registers.set_list_register(number, 0);
        }
        self.counts.lists(placed);
        registers.set_hcr(wanted);
    }

    /// Places the best of what is pending, then what has to be seen at its end, and more of what is
    /// pending. Whatever else is active keeps its priority without a list register. Returns which
    /// maintenance interrupts are wanted.
    #[inline]
    fn place_with_active<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        drops_only: bool,
    ) -> u64 {
        let (room, active) = (self.vtr.list_registers(), self.counts.active());
        let mut outside = self.place_best(flush, 1);
        let mut inside = if drops_only {
            0
        } else {
            self.place_holders(flush, room, Holders::first_seen_enters)
        };
        if outside {
            outside = self.place_best(flush, room);
        }
        let outside = if outside { flush.entry.outside() } else { 0 };
        if drops_only {
            return outside;
        }
        let uncounted =
            |inside| active.saturating_sub(inside).saturating_sub(MOST_UNCOUNTED) as usize;
        if uncounted(inside) != 0 {
            // If there is room, it was enough for those whose end has to be seen.
            let most = room.min(flush.placed + uncounted(inside));
            inside += self.place_holders(flush, most, Holders::first_enters);
        }
        let told = self.holders.any_seen() || uncounted(inside) != 0;
        outside | if told { hcr::LRENPIE } else { 0 }
    }

    /// Returns which maintenance interrupts are wanted for the groups: what any vCPU may have is
    /// not for one that disables the group, and is again for one that enables it; and what waits of
    /// a group that the guest has disabled waits for that.
    #[inline]
    fn waits_for_groups<P: Platform>(
        &mut self,
        flush: &Flush<'_, impl Interrupts<P>, impl ListRegisters>,
    ) -> u64 {
        let mut enables = self.counts.apart();
        let listed =
            self.counts.queued() != 0 && self.pending.best(!flush.entry.enabled()).is_some();
        if listed || self.counts.lpis() {
            enables = enables | self.waits_disabled(flush.interrupts, flush.entry);
        }
        if (enables | flush.one_of_n) == Groups::NONE {
            return 0;
        }
        flush.one_of_n.in_hcr(hcr::VGRP0DIE) | enables.in_hcr(hcr::VGRP0EIE)
    }

    /// Returns the groups that the guest alone has disabled, and of which a candidate waits. Takes
    /// what comes before the first candidate of each group that is disabled out of the lists.
    #[inline(never)]
    fn waits_disabled<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        entry: Entry,
    ) -> Groups {
        let disabled = !entry.enabled();
        let waits = Group::BOTH.map(|group| {
            let group = Groups::only(group) & disabled;
            self.highest_pending(interrupts, group).is_some()
        });
        Groups::from(waits) & entry.groups & !entry.on()
    }

    /// Places the best of what is pending, in the list registers below that number. Returns whether
    /// there is a candidate that has no room there.
    #[inline(always)]
    fn place_best<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        most: usize,
    ) -> bool {
        if self.counts.lpis() {
            self.place_with_lpis(flush, most)
        } else {
            self.place_pending(flush, most, true, None)
        }
    }

    /// Places the best of what is pending and no LPI, in the list registers below that number.
    /// Returns whether there is a candidate that has no room there. `any_active` says whether
    /// anything is active. What is of a lower priority than `before` stays.
    #[inline(always)]
    pub(crate) fn place_pending<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        most: usize,
        any_active: bool,
        before: Option<Priority>,
    ) -> bool {
        while let Some(list) = self.pending.best(flush.entry.enabled()) {
            if before.is_some_and(|before| self.pending.priority(list) > before) {
                break;
            }
            let candidates = self.pending.candidates(list);
            let mut first = self.pending.first(list);
            first = self.place_edges(flush, candidates.edges(), first, most, any_active);
            while let Some(id) = first.id() {
                let interrupt = flush.interrupts.interrupt(id);
                let state = interrupt.state();
                // What is known to be active, and is not by now, comes with the news of that.
                if !candidates.contain(state) || any_active && self.known.contains(id) {
                    break;
                }
                if flush.placed >= most {
                    self.pending.set_first(list, first);
                    return true;
                }
                first = self.pending.unlink(id);
                self.counts.unqueues(1);
                // Another vCPU may have it by now, or nobody any more.
                if let Some(state) = interrupt.take(id.is_shared(), state) {
                    if state.is_one_of_n() {
                        flush.has_one_of_n(list.group());
                    }
                    self.place(
                        flush,
                        interrupt,
                        Slot::pending(id, state.is_latched()),
                        state,
                        lr::PENDING,
                    );
                }
            }
            self.pending.set_first(list, first);
            if first.id().is_some() {
                self.moves_first(flush.interrupts, list);
            }
        }
        false
    }

    /// Places the edges that a chain begins with, in the list registers below that number. Returns
    /// what is the first of the chain then.
    ///
    /// What [`place_pending`](ApList::place_pending) does, where nothing has to be found out about
    /// each: most of what waits is of this kind.
    #[inline(always)]
    fn place_edges<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        edges: Edges,
        first: Link,
        most: usize,
        any_active: bool,
    ) -> Link {
        let (mut first, before) = (first, flush.placed);
        while flush.placed < most
            && let Some(id) = first.id()
        {
            let interrupt = flush.interrupts.interrupt(id);
            let state = interrupt.state();
            if !id.is_shared() || !edges.contain(state) || any_active && self.known.contains(id) {
                break;
            }
            if !interrupt.take_latched_spi(state) {
                break;
            }
            first = self.pending.unlink(id);
            let bits = edges.list_register() | lr::PENDING | u64::from(id.number());
            self.put(flush, Slot::pending(id, true), bits);
        }
        self.counts.unqueues((flush.placed - before) as u32);
        first
    }

    /// Takes the first out of a list where it does not belong, and puts it where it does, if it
    /// still is a candidate.
    #[inline(never)]
    pub(crate) fn moves_first<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        list: ListNumber,
    ) {
        let Some(id) = self.pending.first(list).id() else { return };
        let next = self.pending.unlink(id);
        self.pending.set_first(list, next);
        self.counts.unqueues(1);
        let interrupt = interrupts.interrupt(id);
        let state = interrupt.state();
        if state.is_candidate_of(self.vcpu()) && !self.knows(id) {
            self.queue(interrupt, id, state);
        }
    }

    /// Places active interrupts that hold a bit, in the list registers below a number, those of the
    /// highest priority first: they are the first to end. `next` says which is next. Returns how
    /// many.
    #[inline(always)]
    fn place_holders<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        most: usize,
        next: impl Fn(&mut Holders) -> Option<(Level, IntId)>,
    ) -> u32 {
        let before = flush.placed;
        while flush.placed < most
            && let Some((level, id)) = next(&mut self.holders)
        {
            // A guest that changes its binary points meanwhile may have left it behind.
            if self.known.contains(id) {
                self.place_active(flush, id, level);
            } else {
                self.holders.clear(level);
            }
        }
        (flush.placed - before) as u32
    }

    #[inline]
    fn place_active<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        id: IntId,
        level: Level,
    ) {
        let interrupt = flush.interrupts.interrupt(id);
        let mut state = interrupt.state();
        let again = state.is_pending_again(flush.entry.groups);
        // An EOI drops the bit that was set at the acknowledgement, and deactivates what has the
        // priority of that, which may have been written since.
        if self.level(state.priority(), state.group(), flush.entry.vmcr) == level {
            flush.again |= again;
        } else {
            state = state.at(level.group(), self.holders.priority(level));
        }
        self.place(flush, interrupt, Slot::active(id, level, again), state, lr::ACTIVE);
    }

    /// Makes what is active and pending again both, in its list register: nothing waits outside
    /// that would have to come before it when it has ended.
    #[inline(never)]
    fn place_both<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
    ) {
        for number in 0..flush.placed {
            let slot = self.slots[number % 16];
            if !slot.is_again() {
                continue;
            }
            let interrupt = flush.interrupts.interrupt(slot.id);
            let state = interrupt.state();
            // What has another priority by now is signalled by that, when it has ended.
            if slot.level() != Some(self.level(state.priority(), state.group(), flush.entry.vmcr)) {
                continue;
            }
            // What any vCPU may have, and this one not now, goes to another one when it has ended.
            if state.is_one_of_n() && !flush.entry.enabled().contains(state.group()) {
                continue;
            }
            // Whoever disables it meanwhile recalls the vCPU.
            if interrupt.take_latch() {
                self.slots[number % 16].set_latched();
                if state.is_one_of_n() {
                    flush.has_one_of_n(state.group());
                }
                let bits = list_register(interrupt, slot, state, lr::PENDING | lr::ACTIVE);
                flush.registers.set_list_register(number, bits & !lr::EOI);
            }
        }
    }

    #[inline]
    fn place<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        interrupt: &Interrupt<P>,
        slot: Slot,
        state: State,
        bits: u64,
    ) {
        self.put(flush, slot, list_register(interrupt, slot, state, bits));
    }

    /// Fills the next list register with that.
    #[inline]
    pub(crate) fn put<I, R: ListRegisters>(
        &mut self,
        flush: &mut Flush<'_, I, R>,
        slot: Slot,
        bits: u64,
    ) {
        let number = flush.placed % 16;
        flush.registers.set_list_register(number, bits);
        self.slots[number] = slot;
        flush.placed += 1;
    }
}

/// Returns what ICH_HCR_EL2 has at each entry on a CPU that cannot trap DIR alone.
#[cold]
fn hcr_of_mode(vmcr: u64) -> u64 {
    if vmcr & vmcr::VEOIM == 0 { hcr::EN } else { hcr::EN | hcr::TC }
}

/// Returns what is written for an interrupt. Its end is told, unless nobody waits for it or, of a
/// physical one, the CPU does all that there is to do.
#[inline(always)]
fn list_register<P: Platform>(
    interrupt: &Interrupt<P>,
    slot: Slot,
    state: State,
    bits: u64,
) -> u64 {
    let word = bits | state.list_register() | u64::from(slot.id.number());
    if state.is_virtual_edge() && !slot.is_again() {
        return word;
    }
    if state.is_physical() {
        // Never pending and active in a list register: it is signalled after its end.
        let apart = slot.is_active() && state.is_pending();
        return if apart { word & !lr::HW | lr::EOI } else { word | interrupt.pintid() };
    }
    word | lr::EOI
}
