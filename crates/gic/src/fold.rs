//! After the guest was left: what became of the list registers, and of what was in none.
//!
//! ```text
//!   list register      the interrupt's word
//!   pending            gets the latch back, unless somebody has cleared it meanwhile
//!   active             says active; the holder's bit of the active priorities is kept here
//!   empty              has ended: who raised a level is told
//! ```
//!
//! With interrupts off, on the CPU where the guest was left, and before the mode says that the vCPU
//! is out of the guest: so who has recalled the vCPU and sees that mode finds all in the words.

use doorbell_platform::Platform;

use crate::counts::Counts;
use crate::slot::Slot;
use crate::spec::{lr, vmcr};
use crate::{ApList, Group, IntId, Interrupt, Interrupts, ListRegisters, PhysicalIntId, Priority};

/// Fields of a list register: if all of them are zero, it says nothing, and asks for no
/// maintenance.
const NOT_CLEAR: u64 = lr::PENDING | lr::ACTIVE | lr::EOI;

/// An end that somebody has to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a level that is not told to its sources stays, and a physical interrupt stays active"]
pub enum Ended {
    /// The guest has ended a level-triggered interrupt: its sources are told. (One that a physical
    /// interrupt backs and that no source gives was [passed on](crate::Line::edge), and nobody is.)
    Level(IntId),
    /// A physical interrupt ended outside of the list registers: it is deactivated by the host.
    Physical(PhysicalIntId),
}

impl ApList {
    /// Takes back what the CPU holds for the vCPU: from here on the words say all that there is to
    /// know. By the owner, with interrupts off, on the CPU where the guest was left, before it says
    /// that the vCPU is out of the guest.
    #[inline]
    pub fn fold<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
    ) {
        if !self.is_idle() && !self.fold_only_edge(interrupts, registers) {
            self.fold_all(interrupts, registers);
        }
    }

    /// Folds, as [`fold`](ApList::fold) does.
    #[inline]
    pub(crate) fn fold_all<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
    ) {
        let (listed, mut edges, mut stale) = (self.counts.listed(), 0, 0);
        while edges < listed && self.fold_edge(interrupts, registers, edges) {
            edges += 1;
        }
        for number in edges..listed {
            let bits = registers.list_register(number);
            if bits & NOT_CLEAR != 0 {
                stale = number + 1;
            }
            let slot = self.slots[number % 16];
            let only_active = slot.is_active()
                && !slot.is_latched()
                && bits & (lr::PENDING | lr::ACTIVE) == lr::ACTIVE;
            if !only_active || !self.stays_active(interrupts.interrupt(slot.id), slot) {
                self.take_back(interrupts, slot, bits, registers.vmcr());
            }
        }
        if listed != 0 {
            self.counts.unlists(stale);
        }
        if self.counts.active() != 0 {
            self.see_drops(interrupts, registers);
        }
    }

    /// Returns whether there is nothing to fold, to hand over or to tell: nothing was in a list
    /// register, and what is active outside holds no bit whose drop would have to be seen.
    #[inline]
    pub(crate) fn folds_nothing(&self) -> bool {
        self.counts.are_of_active() && self.holders.are_none()
    }

    /// Takes back one list register, and nothing else, if that is all that there is, and if it has
    /// had an edge that has ended. Returns whether that was all that there was to fold.
    #[inline]
    pub(crate) fn fold_only_edge<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &mut impl ListRegisters,
    ) -> bool {
        let only =
            self.counts == Counts::of_list_registers(1) && self.fold_edge(interrupts, registers, 0);
        if only {
            self.counts = Counts::ZERO;
        }
        only
    }

    /// Takes back a list register, if it has had an edge that has ended, and is clear. Returns
    /// whether it has.
    #[inline]
    fn fold_edge<P: Platform>(
        &self,
        interrupts: &impl Interrupts<P>,
        registers: &impl ListRegisters,
        number: usize,
    ) -> bool {
        let slot = self.slots[number % 16];
        registers.list_register(number) & NOT_CLEAR == 0
            && !slot.is_active()
            && interrupts.interrupt(slot.id).let_go_for_good()
    }

    /// Calls `each` for what has ended since it was asked last. By the owner, with nothing held.
    #[inline]
    pub fn take_ended<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        mut each: impl FnMut(Ended),
    ) {
        self.take_physical(interrupts, |physical| each(Ended::Physical(physical)));
        self.take_levels(|id| each(Ended::Level(id)));
    }

    #[inline]
    pub(crate) fn take_physical<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        mut each: impl FnMut(PhysicalIntId),
    ) {
        while let Some(id) = self.physical.pop() {
            if let Some(physical) = interrupts.interrupt(id).physical() {
                each(physical);
            }
        }
        self.has_told();
    }

    #[inline]
    pub(crate) fn take_levels(&mut self, mut each: impl FnMut(IntId)) {
        while let Some(id) = self.ended.pop() {
            each(id);
        }
        self.has_told();
    }

    /// Returns whether levels have ended that nobody was told of.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Takes back a list register other than that of an edge that has ended: `bits` are what it
    /// says.
    #[inline(never)]
    fn take_back<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        slot: Slot,
        bits: u64,
        vmcr: u64,
    ) {
        let interrupt = interrupts.interrupt(slot.id);
        let (pending, active) = (bits & lr::PENDING != 0, bits & lr::ACTIVE != 0);
        if slot.id.is_lpi() {
            return self.places_lpi(interrupt, slot.id, pending);
        }
        // Its deactivation has deactivated the physical interrupt.
        let physically = bits & lr::HW != 0;
        // What was taken over at the flush, and was not acknowledged. (A line is looked at again.)
        if slot.is_active() && pending {
            let _ = interrupt.give_back(true);
        }
        match (slot.is_active(), active) {
            // It has not been acknowledged.
            (false, false) if pending => {
                let state = interrupt.give_back(false);
                if slot.is_latched() && !state.is_latched() && state.is_physical() {
                    // It was taken back, and will not end in the guest.
                    self.physical.insert(slot.id);
                    self.counts.set_tells(true);
                }
                self.stays(interrupt, slot.id, state, vmcr);
            }
            (false, false) => {
                let was = interrupt.let_go(slot.id.is_shared());
                self.says_ended(interrupt, slot.id, was, !physically, vmcr);
            }
            (false, true) => self.acknowledged(interrupts, interrupt, slot.id, bits, vmcr),
            // It was both, has ended, and was acknowledged once more, perhaps at another level.
            (true, true) if slot.is_latched() && !pending => {
                self.forget(slot.id, slot.level());
                self.acknowledged(interrupts, interrupt, slot.id, bits, vmcr);
            }
            (true, true) => {
                if !self.stays_active(interrupt, slot) {
                    self.others.insert(slot.id);
                }
            }
            (true, false) => {
                self.forget(slot.id, slot.level());
                self.end(interrupt, slot.id, !physically, vmcr);
            }
        }
    }

    /// Takes note that an interrupt that was active in its list register is so still, in none from
    /// here on. Returns whether it holds the bit that it held.
    #[inline]
    fn stays_active<P: Platform>(&mut self, interrupt: &Interrupt<P>, slot: Slot) -> bool {
        let Some(level) = slot.level() else { return false };
        let holds = self.holders.get(level) == Some(slot.id);
        if holds {
            self.holders.leaves_list_register(level, interrupt.state().is_seen_at_its_end());
        }
        holds
    }

    /// Takes note that an interrupt has become active in its list register: `bits` are what that
    /// says.
    #[inline]
    fn acknowledged<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        interrupt: &Interrupt<P>,
        id: IntId,
        bits: u64,
        vmcr: u64,
    ) {
        // What makes its end one that has to be seen from here on comes with the news of that.
        let state = interrupt.activate(id.is_shared());
        self.counts(id, true);
        // By the priority and the group that the CPU has seen: the word's may have been written
        // since.
        let group = if bits & lr::GROUP_ONE != 0 { Group::One } else { Group::Zero };
        let level = self.level(Priority((bits >> lr::PRIORITY_SHIFT) as u8), group, vmcr);
        if let Some(former) = self.holders.get(level) {
            // It could be acknowledged because the former one had been dropped. (One that is in a
            // list register is told by that.)
            if self.holders.is_outside(level) {
                self.dropped(interrupts, former, vmcr);
            } else {
                self.others.insert(former);
            }
        }
        self.holders.set(level, id, state.is_seen_at_its_end());
    }

    /// Finds out whose priority was dropped: the bits that are held and gone.
    #[inline]
    fn see_drops<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &impl ListRegisters,
    ) {
        for word in self.holders.words() {
            let register = registers.active_priorities(word.group(), word.number());
            for level in self.holders.take_gone(word, register) {
                if let Some(id) = self.holders.last(level).filter(|&id| self.known.contains(id)) {
                    self.dropped(interrupts, id, registers.vmcr());
                }
            }
        }
    }

    /// Takes note that the priority of an interrupt was dropped that is active in no list register:
    /// that is its end, unless the guest deactivates it apart (EOImode 1).
    #[inline]
    fn dropped<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) {
        if vmcr & vmcr::VEOIM != 0 {
            let _ = self.others.insert(id);
        } else {
            self.end(interrupts.interrupt(id), id, true, vmcr);
        }
    }
}
