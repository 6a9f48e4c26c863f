//! The active and pending interrupts of a vCPU, as its owner knows them.

use core::fmt;

use doorbell_platform::Platform;

use crate::holders::{Holders, Level};
use crate::id_set::IdSet;
use crate::levels::Levels;
use crate::spec::{Vtr, vmcr};
use crate::{Group, IntId, Interrupt, Priority, State, Trigger};

/// Where the interrupts of a vCPU are: its own private ones, and the SPIs of its VM.
pub trait Interrupts<P: Platform> {
    /// Returns the interrupt of that INTID, as this vCPU has it.
    fn interrupt(&self, id: IntId) -> &Interrupt<P>;
}

/// What was put into a list register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) id: IntId,
    /// It was active,
    pub(crate) active: bool,
    /// and holds a bit.
    pub(crate) level: Option<Level>,
    /// Its latch was taken over by the list register.
    pub(crate) latched: bool,
    /// It is active, and an edge has come since.
    pub(crate) again: bool,
}

impl Slot {
    const NONE: Slot = Slot::pending(IntId::FIRST, false);

    #[inline]
    pub(crate) const fn pending(id: IntId, latched: bool) -> Slot {
        Slot { id, active: false, level: None, latched, again: false }
    }

    #[inline]
    pub(crate) const fn active(id: IntId, level: Option<Level>) -> Slot {
        Slot { id, active: true, level, latched: false, again: false }
    }
}

/// The active and pending interrupts of a vCPU, outside of the guest and in its list registers. Of
/// the one owner: the task that runs the vCPU.
pub struct ApList {
    /// How many interrupts are in the lists of `pending`,
    queued: u32,
    /// how many are in none because there is room for them anyway,
    pub(crate) staged: u32,
    /// how many are active,
    pub(crate) active: u32,
    /// of these, how many are SPIs,
    pub(crate) active_spis: u32,
    /// how many list registers were filled last,
    pub(crate) used: u32,
    /// and how many of these were not folded yet.
    pub(crate) unfolded: u32,
    pub(crate) vtr: Vtr,
    pub(crate) slots: [Slot; 16],
    /// What is pending: candidates, and what was one when it came. All of it, if it is no more than
    /// there are list registers;
    pub(crate) stage: [IntId; 16],
    /// else by group and priority.
    pub(crate) pending: [Levels; 2],
    pub(crate) holders: Holders,
    /// The interrupts that are active here, as this list knows: the word may say so no more, and the
    /// news be on the way.
    pub(crate) known: IdSet,
    /// Of these, those that hold no bit: dropped and not deactivated, or made active by a write.
    pub(crate) others: IdSet,
    /// Levels whose end the guest has said, for their sources.
    pub(crate) ended: IdSet,
    /// Those that ended outside, and are to be deactivated physically.
    pub(crate) physical: IdSet,
}

impl ApList {
    /// Returns one for CPUs with that virtual CPU interface. Less than 4 KiB, and nothing else is
    /// allocated.
    pub fn new(vtr: Vtr) -> Self {
        ApList {
            queued: 0,
            staged: 0,
            active: 0,
            active_spis: 0,
            used: 0,
            unfolded: 0,
            vtr,
            slots: [Slot::NONE; 16],
            stage: [IntId::FIRST; 16],
            pending: core::array::from_fn(|_| Levels::new(vtr.priority_bits())),
            holders: Holders::NONE,
            known: IdSet::EMPTY,
            others: IdSet::EMPTY,
            ended: IdSet::EMPTY,
            physical: IdSet::EMPTY,
        }
    }

    /// Looks at an interrupt that was pending, enabled or made active or inactive by somebody: the
    /// word has changed, and the vCPU was told. By the owner, outside of the guest.
    #[inline]
    pub fn look<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) {
        let interrupt = interrupts.interrupt(id);
        let state = interrupt.state();
        if self.active != 0 || state.is_active() {
            self.look_at_active(id, state, vmcr);
        }
        self.push(interrupt, id, state);
    }

    #[inline(never)]
    fn look_at_active(&mut self, id: IntId, state: State, vmcr: u64) {
        let level = self.level(state.priority(), state.group(), vmcr);
        let holds = self.holders.get(level) == Some(id);
        match (state.is_active(), self.known.contains(id)) {
            (true, true) if holds => self.holders.seen.put(level, state.is_seen_at_its_end()),
            // By a write.
            (true, false) => {
                self.others.insert(id);
                self.counts(id, true);
            }
            (false, true) => {
                self.forget(id, Some(level));
                self.counts(id, false);
            }
            _ => {}
        }
    }

    /// Puts a candidate into its list, or before the lists.
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State) {
        if !state.is_candidate() {
            return;
        }
        if self.queued == 0 && self.staged < self.vtr.list_registers() as u32 {
            if interrupt.link(None) {
                self.stage[self.staged as usize % 16] = id;
                self.staged += 1;
            }
        } else {
            self.queue(interrupt, id, state);
        }
    }

    /// Puts a candidate into its list.
    #[inline(never)]
    pub(crate) fn queue<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State) {
        let pushed = self.pending[state.group() as usize].push(interrupt, id, state.priority());
        self.queued += u32::from(pushed);
    }

    /// Takes the first out of a list that is not empty.
    #[inline]
    pub(crate) fn pop<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, group: Group, level: u32) {
        self.pending[group as usize].pop(interrupts, level);
        self.queued -= 1;
    }

    /// Returns whether a list has any.
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.queued != 0
    }

    /// Deactivates an interrupt, whose write to DIR was trapped. By the owner, outside of the guest.
    /// Returns whether it is this vCPU's; if not, it may be active on another one.
    #[inline]
    pub fn deactivate<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) -> bool {
        let state = interrupts.interrupt(id).state();
        let level = self.level(state.priority(), state.group(), vmcr);
        let known = self.forget(id, Some(level));
        if known {
            self.end(interrupts, id, true);
        }
        known
    }

    /// Takes the bit of an active interrupt, if it holds that one, or takes it from those that hold
    /// none. Returns whether it was among either.
    #[inline]
    pub(crate) fn forget(&mut self, id: IntId, level: Option<Level>) -> bool {
        match level.filter(|&level| self.holders.get(level) == Some(id)) {
            Some(level) => {
                self.holders.clear(level);
                true
            }
            None => self.others.remove(id),
        }
    }

    /// Returns whether there is nothing to do for it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.used | self.active | self.queued | self.staged == 0
    }

    /// Notes that an interrupt is active here, or is not.
    #[inline]
    pub(crate) fn counts(&mut self, id: IntId, active: bool) {
        let changed = if active { self.known.insert(id) } else { self.known.remove(id) };
        if changed {
            let (more, less) = (u32::from(active), u32::from(!active));
            self.active = self.active + more - less;
            if id.is_spi() {
                self.active_spis = self.active_spis + more - less;
            }
        }
    }

    /// Returns the bit that an interrupt sets when it is acknowledged: its group priority, by the
    /// binary point of the group (sections 4.8.2 and 4.8.3).
    #[inline]
    pub(crate) fn level(&self, priority: Priority, group: Group, vmcr: u64) -> Level {
        let of = |shift: u32| (vmcr >> shift & 7) as u32;
        let subpriority = match group {
            Group::One if vmcr & vmcr::VCBPR == 0 => of(vmcr::VBPR1_SHIFT),
            _ => of(vmcr::VBPR0_SHIFT) + 1,
        };
        // Bits that are not implemented are none of preemption.
        let masked = u32::from(priority.0) >> subpriority << subpriority;
        Level::new(group, masked >> (8 - self.vtr.preemption_bits()))
    }

    /// Deactivates an interrupt, which holds no bit any more, and is none of the others.
    #[inline]
    pub(crate) fn end<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, outside: bool) {
        let interrupt = interrupts.interrupt(id);
        self.counts(id, false);
        // Whoever makes it pending from here on tells this vCPU.
        let was = interrupt.set_active(false);
        self.says_ended(interrupts, id, was, outside);
    }

    /// Tells who waits for it that an interrupt has ended, which is inactive by now.
    #[inline]
    pub(crate) fn says_ended<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        id: IntId,
        was: State,
        outside: bool,
    ) {
        if was.trigger() == Trigger::Level {
            self.ended.insert(id);
        }
        if outside && was.physical().is_some() {
            self.physical.insert(id);
        }
        let interrupt = interrupts.interrupt(id);
        self.push(interrupt, id, interrupt.state());
    }
}

impl fmt::Debug for ApList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApList")
            .field("pending", &(self.queued + self.staged))
            .field("active", &self.active)
            .field("list_registers", &&self.slots[..self.unfolded as usize])
            .finish_non_exhaustive()
    }
}
