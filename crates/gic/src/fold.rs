//! After the guest was left: what became of the list registers, and of what was in none.

use doorbell_platform::Platform;

use crate::ap_list::Slot;
use crate::holders::Level;
use crate::spec::{lr, vmcr};
use crate::{ApList, IntId, Interrupts, ListRegisters, PhysicalIntId};

/// An end that somebody has to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a level that is not told to its sources stays, and a physical interrupt stays active"]
pub enum Ended {
    /// The guest has ended a level-triggered interrupt: its sources are told.
    Level(IntId),
    /// A physical interrupt ended outside of the list registers: it is deactivated by the host.
    Physical(PhysicalIntId),
}

impl ApList {
    /// Takes back what the CPU holds for the vCPU: from here on the words say all that there is to
    /// know. By the owner, with interrupts off, on the CPU where the guest was left, before it says
    /// that the vCPU is out of the guest.
    #[inline]
    pub fn fold<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, registers: &mut impl ListRegisters) {
        if self.used | self.active != 0 {
            self.take_all_back(interrupts, registers);
        }
    }

    #[inline(never)]
    fn take_all_back<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, registers: &mut impl ListRegisters) {
        let vmcr = registers.vmcr();
        for number in 0..core::mem::take(&mut self.unfolded) as usize {
            self.take_back(interrupts, self.slots[number % 16], registers.list_register(number), vmcr);
        }
        if self.active != 0 {
            self.see_drops(interrupts, registers, vmcr);
        }
    }

    /// Calls `each` for what has ended since it was asked last. By the owner, with nothing held.
    #[inline]
    pub fn take_ended<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, mut each: impl FnMut(Ended)) {
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
    }

    #[inline]
    pub(crate) fn take_levels(&mut self, mut each: impl FnMut(IntId)) {
        while let Some(id) = self.ended.pop() {
            each(id);
        }
    }

    /// Returns whether levels have ended that nobody was told of.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    fn take_back<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, slot: Slot, bits: u64, vmcr: u64) {
        let interrupt = interrupts.interrupt(slot.id);
        let (pending, active) = (bits & lr::PENDING != 0, bits & lr::ACTIVE != 0);
        // Its deactivation has deactivated the physical interrupt.
        let physically = bits & lr::HW != 0;
        // What was taken over at the flush, and was not acknowledged. (A line is looked at again.)
        if slot.active && pending {
            let _ = interrupt.give_back(true);
        }
        match (slot.active, active) {
            // It has not been acknowledged. (If it is no candidate by now, whoever makes it one again
            // tells its holder.)
            (false, false) if pending => {
                let state = interrupt.give_back(false);
                self.stays(interrupt, slot.id, state, vmcr);
            }
            (false, false) => {
                let was = interrupt.let_go(slot.id.is_spi());
                self.says_ended(interrupts, slot.id, was, !physically, vmcr);
            }
            (false, true) => self.acknowledged(interrupts, slot.id, vmcr),
            // It was both, has ended, and was acknowledged once more, perhaps at another level.
            (true, true) if slot.latched && !pending => {
                self.forget(slot.id, slot.level);
                self.acknowledged(interrupts, slot.id, vmcr);
            }
            (true, true) => self.stays_active(interrupts, slot.id, slot.level),
            (true, false) => {
                self.forget(slot.id, slot.level);
                self.end(interrupts, slot.id, !physically, vmcr);
            }
        }
    }

    /// Takes note that an interrupt has become active in its list register.
    fn acknowledged<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) {
        let state = interrupts.interrupt(id).activate(id.is_spi());
        self.counts(id, true);
        let level = self.level(state.priority(), state.group(), vmcr);
        if let Some(former) = self.holders.get(level) {
            // It could be acknowledged because the former one had been dropped. (One that is in a
            // list register is told by that.)
            if self.holders.outside.contains(level) {
                self.holders.clear(level);
                self.dropped(interrupts, former, vmcr);
            } else {
                self.others.insert(former);
            }
        }
        self.holders.set(level, id);
        self.stays_active(interrupts, id, Some(level));
    }

    /// Takes note that an interrupt is active, and in no list register from here on.
    fn stays_active<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, level: Option<Level>) {
        match level.filter(|&level| self.holders.get(level) == Some(id)) {
            Some(level) => {
                self.holders.outside.put(level, true);
                let seen = interrupts.interrupt(id).state().is_seen_at_its_end();
                self.holders.seen.put(level, seen);
            }
            None => _ = self.others.insert(id),
        }
    }

    /// Finds out whose priority was dropped: the bits that are held and gone.
    fn see_drops<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, registers: &impl ListRegisters, vmcr: u64) {
        let held = self.holders.held;
        held.gone(
            |group, number| registers.active_priorities(group, number),
            |level| {
                let holder = self.holders.get(level);
                self.holders.clear(level);
                if let Some(id) = holder.filter(|&id| self.known.contains(id)) {
                    self.dropped(interrupts, id, vmcr);
                }
            },
        );
    }

    /// Takes note that the priority of an interrupt was dropped that is active in no list register:
    /// that is its end, unless the guest deactivates it apart (EOImode 1).
    fn dropped<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) {
        if vmcr & vmcr::VEOIM != 0 {
            let _ = self.others.insert(id);
        } else {
            self.end(interrupts, id, true, vmcr);
        }
    }
}
