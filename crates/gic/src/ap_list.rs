//! The active and pending interrupts of a vCPU, as its owner knows them.

use core::fmt;

use doorbell_platform::Platform;

use crate::holders::{Holders, Level};
use crate::id_set::IdSet;
use crate::levels::Lists;
use crate::running::subpriority_bits;
use crate::spec::{Vtr, vmcr};
use crate::{Group, IntId, Interrupt, Priority, State, Trigger, VcpuId};

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
    vcpu: VcpuId,
    /// How many interrupts are in none of the lists because there is room for them anyway,
    pub(crate) staged: u32,
    /// how many are active,
    pub(crate) active: u32,
    /// of these, how many are SPIs,
    pub(crate) active_spis: u32,
    /// how many list registers of the CPU may not be empty: as many as were filled last, or all when
    /// the vCPU has come to a CPU that may have run another one,
    pub(crate) used: u32,
    /// and how many of these were not folded yet.
    pub(crate) unfolded: u32,
    pub(crate) vtr: Vtr,
    pub(crate) slots: [Slot; 16],
    /// What is pending: candidates, and what was one when it came. All of it, if it is no more than
    /// there are list registers;
    pub(crate) stage: [IntId; 16],
    /// else by group and priority.
    pub(crate) pending: Lists,
    /// An interrupt in the lists may be in the wrong one.
    pub(crate) relist: bool,
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
    /// Those that may have to go to another vCPU.
    pub(crate) leaving: IdSet,
    /// The groups that the guest was seen to have disabled when there was an interrupt that any vCPU
    /// may have: the vCPU takes no part in those.
    pub(crate) apart: [bool; 2],
    /// The groups that the guest had disabled when that was looked at last.
    pub(crate) off: [bool; 2],
}

impl ApList {
    /// Returns that of a vCPU, which has so many interrupts (private ones and SPIs), for CPUs with
    /// that virtual CPU interface. Nothing is allocated later.
    pub fn new(vtr: Vtr, vcpu: VcpuId, interrupts: usize) -> Self {
        ApList {
            vcpu,
            staged: 0,
            active: 0,
            active_spis: 0,
            used: vtr.list_registers() as u32,
            unfolded: 0,
            vtr,
            slots: [Slot::NONE; 16],
            stage: [IntId::FIRST; 16],
            pending: Lists::new(interrupts.min(IntId::COUNT), vtr.priority_bits()),
            relist: false,
            holders: Holders::new(vtr.preemption_bits()),
            known: IdSet::EMPTY,
            others: IdSet::EMPTY,
            ended: IdSet::EMPTY,
            physical: IdSet::EMPTY,
            leaving: IdSet::EMPTY,
            apart: [false; 2],
            off: [false; 2],
        }
    }

    /// Forgets everything. By the owner, outside of the guest; whoever calls lets go of what was held.
    pub(crate) fn clear(&mut self) {
        let mut first = self.pending.take_all();
        while let Some(id) = first {
            first = self.pending.links.unlink(id);
        }
        for index in 0..core::mem::take(&mut self.staged) as usize {
            let _ = self.pending.links.unlink(self.stage[index % 16]);
        }
        (self.active, self.active_spis, self.unfolded) = (0, 0, 0);
        self.comes_to_cpu();
        (self.relist, self.apart, self.off) = (false, [false; 2], [false; 2]);
        self.holders.clear_all();
        (self.known, self.others) = (IdSet::EMPTY, IdSet::EMPTY);
    }

    /// Takes note that the vCPU has come to a CPU that may have run another one: the list registers
    /// there are none of this one's. By the owner, before the next flush.
    #[inline]
    pub fn comes_to_cpu(&mut self) {
        self.used = self.vtr.list_registers() as u32;
    }

    /// Returns whose it is.
    #[inline]
    pub fn vcpu(&self) -> VcpuId {
        self.vcpu
    }

    /// Looks at an interrupt that was pending, enabled or made active or inactive by somebody: the
    /// word has changed, and the vCPU was told. By the owner, outside of the guest.
    #[inline]
    pub fn look<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) {
        let interrupt = interrupts.interrupt(id);
        let state = interrupt.state();
        if self.active != 0 || state.is_active() {
            self.look_at_active(interrupt, id, state, vmcr);
        }
        // Whoever has given it to another vCPU has told that one.
        if !state.is_held_by(self.vcpu) {
            return;
        }
        if state.is_one_of_n() && self.takes_no_part(state, vmcr) {
            self.leaving.insert(id);
            return;
        }
        self.push(interrupt, id, state);
    }

    /// Returns whether the guest has disabled the group of a candidate that any vCPU may have.
    pub(crate) fn takes_no_part(&mut self, state: State, vmcr: u64) -> bool {
        let group = state.group() as usize;
        let off = state.is_candidate() && vmcr >> group & vmcr::VENG0 == 0;
        self.apart[group] |= off;
        off
    }

    #[inline(never)]
    fn look_at_active<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State, vmcr: u64) {
        let level = self.level(state.priority(), state.group(), vmcr);
        let holds = self.holders.get(level) == Some(id);
        let active = state.is_active() && state.is_held_by(self.vcpu);
        match (active, self.known.contains(id)) {
            (true, true) if holds => self.holders.seen.put(level, state.is_seen_at_its_end()),
            // By a write. Who makes it inactive from here on sees that this vCPU has it, and tells it.
            (true, false) if !id.is_spi() || interrupt.hold(self.vcpu) => {
                self.others.insert(id);
                self.counts(id, true);
            }
            (false, true) => {
                self.forget(id, Some(level));
                self.counts(id, false);
                let was = interrupt.let_go(id.is_spi());
                self.lets_go(id, was);
            }
            _ => {}
        }
    }

    /// Takes note of what an interrupt was when the vCPU let go of it: if it is routed elsewhere by
    /// now, it has to be handed over.
    #[inline]
    pub(crate) fn lets_go(&mut self, id: IntId, was: State) {
        if was.is_rerouted() {
            self.leaving.insert(id);
        }
    }

    /// Puts a candidate into its list, or before the lists.
    #[inline]
    pub(crate) fn push<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State) {
        if !state.is_candidate() {
            return;
        }
        if self.pending.is_empty() && self.staged < self.vtr.list_registers() as u32 {
            if self.pending.links.link(id, None) {
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
        let pushed = self.pending.push(id, state.group(), state.priority());
        if state.is_changed() {
            if pushed { interrupt.listed(state) } else { self.relist = true }
        }
    }

    /// Takes note of the groups that the guest has enabled and disabled, and puts what waits in its
    /// right place: what waits of a group that was disabled, and what any vCPU may have, is not for
    /// this one. By the owner, outside of the guest.
    #[inline]
    pub(crate) fn sees_groups<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, vmcr: u64) {
        let both_on = vmcr::VENG0 | vmcr::VENG0 << 1;
        // Also apart: the host may have written ICH_VMCR_EL2 since that was seen.
        if self.relist || vmcr & both_on != both_on || self.off != [false; 2] || self.apart != [false; 2] {
            self.sees_change_of_groups(interrupts, vmcr);
        }
    }

    #[inline(never)]
    fn sees_change_of_groups<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, vmcr: u64) {
        let mut relist = self.relist;
        for group in Group::BOTH {
            let (on, index) = (vmcr >> group as u32 & vmcr::VENG0 != 0, group as usize);
            relist |= !on && !self.off[index] && !self.pending.of(group).is_empty();
            self.off[index] = !on;
            self.apart[index] &= !on;
        }
        if relist {
            self.list_again(interrupts, vmcr);
        }
    }

    /// Puts everything that is in the lists into the list where it belongs, or lets it leave. As many
    /// steps as there are interrupts in them.
    #[inline(never)]
    pub(crate) fn list_again<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, vmcr: u64) {
        self.relist = false;
        let mut first = self.pending.take_all();
        while let Some(id) = first {
            first = self.pending.links.unlink(id);
            let interrupt = interrupts.interrupt(id);
            let state = interrupt.state();
            if !state.is_held_by(self.vcpu) {
                continue;
            }
            if state.is_one_of_n() && self.takes_no_part(state, vmcr) {
                self.leaving.insert(id);
            } else if state.is_candidate() {
                // If it is none any more, whoever makes it one again tells this vCPU.
                self.queue(interrupt, id, state);
            }
        }
    }

    /// Deactivates an interrupt, whose write to DIR was [trapped](crate::icv::write_dir). By the
    /// owner, outside of the guest. Returns whether it is this vCPU's; if not, it may be active on
    /// another one.
    #[inline]
    pub fn deactivate<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, vmcr: u64) -> bool {
        let state = interrupts.interrupt(id).state();
        let level = self.level(state.priority(), state.group(), vmcr);
        let known = self.forget(id, Some(level));
        if known {
            self.end(interrupts, id, true, vmcr);
        }
        known
    }

    /// Says that an active interrupt holds a bit: a state was restored. By the owner.
    pub(crate) fn holds<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, level: Level) {
        if self.others.remove(id) {
            self.holders.set(level, id);
            self.holders.outside.put(level, true);
            self.holders.seen.put(level, interrupts.interrupt(id).state().is_seen_at_its_end());
        }
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
            None => self.others.remove(id) || self.known.contains(id) && self.forget_other_level(id),
        }
    }

    /// Takes the bit that an active interrupt holds whose priority, group or binary point was changed
    /// since. Returns whether it holds one.
    #[inline(never)]
    fn forget_other_level(&mut self, id: IntId) -> bool {
        let held = self.holders.all().find(|&(_, holder)| holder == id);
        held.is_some_and(|(level, _)| {
            self.holders.clear(level);
            true
        })
    }

    /// Returns whether there is nothing to do for it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.used | self.active | self.pending.len() | self.staged == 0 && self.apart == [false; 2]
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
        let subpriority = subpriority_bits(group, vmcr);
        // Bits that are not implemented are none of preemption.
        let masked = u32::from(priority.0) >> subpriority << subpriority;
        Level::new(group, masked >> (8 - self.vtr.preemption_bits()))
    }

    /// Deactivates an interrupt, which holds no bit any more, and is none of the others.
    #[inline]
    pub(crate) fn end<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, id: IntId, outside: bool, vmcr: u64) {
        self.counts(id, false);
        // Whoever makes it pending from here on tells its holder.
        let was = interrupts.interrupt(id).deactivate();
        self.says_ended(interrupts, id, was, outside, vmcr);
    }

    /// Tells who waits for it that an interrupt has ended, which is inactive by now, and which this
    /// vCPU has let go of.
    #[inline]
    pub(crate) fn says_ended<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        id: IntId,
        was: State,
        outside: bool,
        vmcr: u64,
    ) {
        if was.trigger() == Trigger::Level {
            self.ended.insert(id);
        }
        if outside && was.is_physical() {
            self.physical.insert(id);
        }
        // It may be pending again. Who gives it to another vCPU from here on tells that one.
        self.stays(interrupts.interrupt(id), id, was.inactive(), vmcr);
    }

    /// Puts what the vCPU has let go of into its list, or lets it leave.
    #[inline]
    pub(crate) fn stays<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State, vmcr: u64) {
        if state.is_rerouted() || state.is_one_of_n() && self.takes_no_part(state, vmcr) {
            self.leaving.insert(id);
        } else {
            self.push(interrupt, id, state);
        }
    }
}

impl fmt::Debug for ApList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApList")
            .field("vcpu", &self.vcpu)
            .field("pending", &(self.pending.len() + self.staged))
            .field("active", &self.active)
            .field("list_registers", &&self.slots[..self.unfolded as usize])
            .finish_non_exhaustive()
    }
}
