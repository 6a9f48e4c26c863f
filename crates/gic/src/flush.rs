//! Before the guest is entered: what goes into the list registers.

use doorbell_platform::Platform;

use crate::ap_list::Slot;
use crate::levels::Levels;
use crate::spec::{hcr, lr, vmcr};
use crate::{ApList, Group, IntId, Interrupt, Interrupts, ListRegisters, State, Trigger};

/// EOIcount has five bits, and the guest may end some more before the exit.
const MOST_UNCOUNTED: u32 = 24;

/// What is placed where.
struct Flush<'a, I, R> {
    interrupts: &'a I,
    registers: &'a mut R,
    /// The groups that the distributor has enabled,
    groups: [bool; 2],
    /// and of those, the ones that the guest has enabled, too.
    enabled: [bool; 2],
    room: u32,
    /// Whether an interrupt in a list register is active, and pending again.
    again: bool,
    /// Whether one of a group is pending in a list register that any vCPU may have.
    one_of_n: [bool; 2],
}

impl ApList {
    /// Fills the list registers, and says which maintenance interrupts are wanted. By the owner,
    /// with interrupts off, on the CPU whose registers these are, after it has
    /// [looked](ApList::look) at what it was told of; nothing may be entered but the guest then.
    ///
    /// `groups` are those that the distributor has enabled (GICD_CTLR.EnableGrp0 and EnableGrp1).
    /// `alone` says that there is no other vCPU whose interrupts this one may deactivate.
    #[inline]
    pub fn flush<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        groups: [bool; 2],
        alone: bool,
    ) {
        // Another vCPU's interrupt may be deactivated here, and the CPU would not know of it. A guest
        // with EOImode 0 does not write DIR, so that the trap costs nothing; and one that changes the
        // mode need not exit.
        let wanted = match (alone, self.vtr.traps_dir()) {
            (true, _) => hcr::EN,
            (false, true) => hcr::EN | hcr::TDIR,
            (false, false) if registers.vmcr() & vmcr::VEOIM == 0 => hcr::EN,
            (false, false) => hcr::EN | hcr::TC,
        };
        if self.is_idle() {
            registers.set_hcr(wanted);
        } else {
            self.fill(interrupts, registers, groups, wanted);
        }
    }

    #[inline(never)]
    fn fill<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
        groups: [bool; 2],
        mut wanted: u64,
    ) {
        let vmcr = registers.vmcr();
        let on = Group::BOTH.map(|group| vmcr >> group as u32 & vmcr::VENG0 != 0);
        let enabled = [groups[0] && on[0], groups[1] && on[1]];
        let room = self.vtr.list_registers() as u32;
        let mut flush = Flush { interrupts, registers, groups, enabled, room, again: false, one_of_n: [false; 2] };
        let before = core::mem::take(&mut self.used);
        self.place_staged(&mut flush);
        self.sees_groups(flush.interrupts, vmcr);
        if self.active == 0 {
            self.place_pending(&mut flush, room);
        } else {
            wanted |= self.place_with_active(&mut flush, vmcr & vmcr::VEOIM != 0);
        }
        for number in self.used..before {
            flush.registers.set_list_register(number as usize, 0);
        }
        if !self.pending.is_empty() {
            wanted |= self.waits_outside(&mut flush, on);
        }
        if flush.again && wanted & hcr::NPIE == 0 {
            self.place_both(&mut flush);
        }
        for group in Group::BOTH {
            let (shift, group) = (2 * group as u32, group as usize);
            // What any vCPU may have is not for one that disables the group, and is again for one
            // that enables it.
            if flush.one_of_n[group] {
                wanted |= hcr::VGRP0DIE << shift;
            }
            if self.apart[group] {
                wanted |= hcr::VGRP0EIE << shift;
            }
        }
        self.unfolded = self.used;
        flush.registers.set_hcr(wanted);
    }

    /// Places the best of what is pending, then what has to be seen at its end, and more of what is
    /// pending. Whatever else is active keeps its priority without a list register. Returns which
    /// ends have to be told.
    #[inline(never)]
    fn place_with_active<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        drops_only: bool,
    ) -> u64 {
        let room = flush.room;
        self.place_pending(flush, 1);
        if !drops_only {
            let mut inside = self.place_holders(flush, true);
            self.place_pending(flush, room);
            if self.active - inside > MOST_UNCOUNTED {
                inside += self.place_holders(flush, false);
            }
            let told = !self.holders.seen.is_empty() || self.active - inside > MOST_UNCOUNTED;
            return if told { hcr::LRENPIE } else { 0 };
        }
        self.place_pending(flush, room);
        // Private ones whose deactivation need not be trapped, if all of them are inside.
        if self.active_spis == 0 && self.place_holders(flush, false) + self.place_others(flush) == self.active {
            return 0;
        }
        self.traps_dir()
    }

    #[inline]
    fn traps_dir(&self) -> u64 {
        if self.vtr.traps_dir() { hcr::TDIR } else { hcr::TC }
    }

    /// Returns which maintenance interrupts those want that are pending outside.
    #[inline(never)]
    fn waits_outside<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        on: [bool; 2],
    ) -> u64 {
        let mut wanted = if self.best(flush.interrupts, flush.enabled).is_some() { hcr::NPIE } else { 0 };
        for group in Group::BOTH {
            let (shift, group) = (2 * group as u32, group as usize);
            // What the group has in list registers gives way to what waits outside.
            if on[group] && wanted & hcr::NPIE != 0 {
                wanted |= hcr::VGRP0DIE << shift;
            }
            if !on[group] && flush.groups[group] && !self.pending.of(Group::BOTH[group]).is_empty() {
                wanted |= hcr::VGRP0EIE << shift;
            }
        }
        wanted
    }

    /// Returns the best candidate of the enabled groups that is in no list register. Takes those
    /// before it out of the lists that are none any more.
    #[inline]
    pub(crate) fn best<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        enabled: [bool; 2],
    ) -> Option<(Group, u32, IntId, State)> {
        loop {
            let of = |group: Group| {
                if enabled[group as usize] { self.pending.of(group).best() } else { Levels::NO_LEVEL }
            };
            let (zero, one) = (of(Group::Zero), of(Group::One));
            let (group, level) = if zero < one { (Group::Zero, zero) } else { (Group::One, one) };
            if level == Levels::NO_LEVEL {
                return None;
            }
            let id = self.pending.of(group).first(level)?;
            let interrupt = interrupts.interrupt(id);
            let state = interrupt.state();
            let there = self.pending.of(group).level_of(state.priority()) == level && state.group() == group;
            // What is known to be active, and is not by now, comes with the news of that.
            let inactive = self.active == 0 || !self.known.contains(id);
            let candidate = inactive && state.is_candidate() && state.is_held_by(self.vcpu());
            if candidate && there {
                return Some((group, level, id, state));
            }
            self.pending.pop(group, level);
            // Into its list, and not before the lists: that would be for the next entry.
            if candidate {
                self.queue(interrupt, id, state);
            }
        }
    }

    /// Places what there is room for whatever its priority; what there may not be, or whose group is
    /// disabled, comes into the lists.
    #[inline]
    fn place_staged<P: Platform>(&mut self, flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>) {
        for index in 0..core::mem::take(&mut self.staged) as usize {
            let id = self.stage[index % 16];
            let interrupt = flush.interrupts.interrupt(id);
            let _ = self.pending.links.unlink(id);
            let state = interrupt.state();
            if !state.is_candidate() {
                continue;
            }
            if self.active == 0 && self.pending.is_empty() && flush.enabled[state.group() as usize] {
                self.place_candidate(flush, id, state);
            } else {
                self.queue(interrupt, id, state);
            }
        }
    }

    #[inline]
    fn place_pending<P: Platform>(&mut self, flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>, most: u32) {
        while self.used < most && !self.pending.is_empty() {
            let Some((group, level, id, state)) = self.best(flush.interrupts, flush.enabled) else { return };
            self.pending.pop(group, level);
            self.place_candidate(flush, id, state);
        }
    }

    #[inline]
    fn place_candidate<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        id: IntId,
        seen: State,
    ) {
        let interrupt = flush.interrupts.interrupt(id);
        // Another vCPU may have it by now, or nobody any more.
        let Some(state) = interrupt.take(self.vcpu(), id.is_spi(), seen) else { return };
        flush.one_of_n[state.group() as usize] |= state.is_one_of_n();
        self.place(flush, interrupt, Slot::pending(id, state.is_latched()), state, lr::PENDING);
    }

    /// Places active interrupts that hold a bit, those of the highest priority first: they are the
    /// first to end. Returns how many.
    fn place_holders<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        seen: bool,
    ) -> u32 {
        let before = self.used;
        while self.used < flush.room {
            let from = if seen { &self.holders.seen } else { &self.holders.outside };
            let Some(level) = from.first() else { break };
            let Some(id) = self.holders.get(level) else { break };
            // A guest that changes its binary points meanwhile may have left it behind.
            if !self.known.contains(id) {
                self.holders.clear(level);
                continue;
            }
            self.holders.outside.put(level, false);
            self.holders.seen.put(level, false);
            self.place_active(flush, Slot::active(id, Some(level)));
        }
        self.used - before
    }

    /// Places active interrupts that hold none. Returns how many.
    fn place_others<P: Platform>(&mut self, flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>) -> u32 {
        let before = self.used;
        while self.used < flush.room {
            let Some(id) = self.others.pop() else { break };
            self.place_active(flush, Slot::active(id, None));
        }
        self.used - before
    }

    fn place_active<P: Platform>(&mut self, flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>, slot: Slot) {
        let interrupt = flush.interrupts.interrupt(slot.id);
        let state = interrupt.state();
        let again = state.is_pending_again(flush.groups);
        flush.again |= again;
        self.place(flush, interrupt, Slot { again, ..slot }, state, lr::ACTIVE);
    }

    /// Makes what is active and pending again both, in its list register: nothing waits outside that
    /// would have to come before it when it has ended.
    #[inline(never)]
    fn place_both<P: Platform>(&mut self, flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>) {
        for (number, slot) in self.slots[..self.used as usize].iter_mut().enumerate().filter(|(_, slot)| slot.again) {
            let interrupt = flush.interrupts.interrupt(slot.id);
            let state = interrupt.state();
            // What any vCPU may have, and this one not now, goes to another one when it has ended.
            if state.is_one_of_n() && !flush.enabled[state.group() as usize] {
                continue;
            }
            slot.latched = interrupt.take_latch();
            // Whoever disables it meanwhile recalls the vCPU.
            if slot.latched {
                flush.one_of_n[state.group() as usize] |= state.is_one_of_n();
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
        let number = self.used as usize % 16;
        flush.registers.set_list_register(number, list_register(interrupt, &slot, state, bits));
        self.slots[number] = slot;
        self.used += 1;
    }
}

/// Returns what is written for an interrupt. Its end is told, unless nobody waits for it or, of a
/// physical one, the CPU does all that there is to do.
#[inline]
fn list_register<P: Platform>(interrupt: &Interrupt<P>, slot: &Slot, state: State, bits: u64) -> u64 {
    let word = bits | state.list_register() | u64::from(slot.id.number());
    if state.is_physical() {
        // Never pending and active in a list register: it is signalled after its end.
        let apart = slot.active && state.is_pending();
        return if apart { word & !lr::HW | lr::EOI } else { word | interrupt.pintid() };
    }
    if slot.again || state.trigger() == Trigger::Level { word | lr::EOI } else { word }
}
