//! The active and pending interrupts of a vCPU, as its owner knows them.
//!
//! ```text
//!   pending lists ── flush ──▶ list registers ── fold ──▶ active: known
//!        ▲                          │                        │
//!        └── still pending ─────────┘           deactivated ─┴─▶ let go of
//! ```
//!
//! An interrupt's word says that its vCPU is the holder; where the holder has it, only this list
//! knows. The owner alone touches the list, with the vCPU outside of the guest, so nothing here is
//! atomic. Others change the word and post the INTID; the owner then [looks](ApList::look) at it.
//! What the list says may be older than the word, and never the other way about: a stale place in a
//! pending list is found and dropped when its turn comes.

use core::fmt;

use doorbell_platform::Platform;

use crate::counts::Counts;
use crate::groups::Groups;
use crate::holders::{Holders, Level};
use crate::id_set::IdSet;
use crate::interrupt::Candidates;
use crate::levels::Lists;
use crate::lpi_lists::LpiLists;
use crate::running::subpriority_bits;
use crate::slot::Slot;
use crate::spec::{Vtr, hcr};
use crate::{Group, IntId, Interrupt, Priority, State, VcpuId};

/// Where the interrupts of a vCPU are: its own private ones, and the SPIs of its VM.
pub trait Interrupts<P: Platform> {
    /// Returns the interrupt of that INTID, as this vCPU has it.
    fn interrupt(&self, id: IntId) -> &Interrupt<P>;
}

/// The active and pending interrupts of a vCPU, outside of the guest and in its list registers. Of
/// the one owner: the task that runs the vCPU.
pub struct ApList {
    vcpu: VcpuId,
    pub(crate) vtr: Vtr,
    pub(crate) counts: Counts,
    /// What ICH_HCR_EL2 has at each entry, if the CPUs can trap DIR alone.
    pub(crate) hcr: u64,
    /// The groups that were disabled at the last entry.
    pub(crate) off: Groups,
    pub(crate) slots: [Slot; 16],
    /// What is pending outside of the list registers: candidates, and what was one when it came.
    pub(crate) pending: Lists,
    pub(crate) holders: Holders,
    /// The interrupts that are active here, as this list knows: the word may say so no more, and
    /// the news be on the way.
    pub(crate) known: IdSet,
    /// Those of them that hold no bit: dropped and not deactivated, or made active by a write.
    pub(crate) others: IdSet,
    /// Levels whose end the guest has said, for their sources.
    pub(crate) ended: IdSet,
    /// Those that ended outside, and are to be deactivated physically.
    pub(crate) physical: IdSet,
    /// Those that may have to go to another vCPU.
    pub(crate) leaving: IdSet,
    /// The LPIs that wait, of which none is in the other lists.
    pub(crate) lpis: LpiLists,
    /// The groups that others know this vCPU to take no part in.
    pub(crate) told_apart: Groups,
}

impl ApList {
    /// Returns that of a vCPU, for CPUs with that virtual CPU interface. Nothing is allocated
    /// later.
    pub fn new(vtr: Vtr, vcpu: VcpuId) -> Self {
        let mut counts = Counts::ZERO;
        counts.unlists(vtr.list_registers());
        ApList {
            vcpu,
            vtr,
            counts,
            hcr: if vtr.traps_dir() { hcr::EN | hcr::TDIR } else { hcr::EN },
            off: Groups::NONE,
            slots: [Slot::NONE; 16],
            pending: Lists::new(vcpu, vtr.priority_bits()),
            holders: Holders::new(vtr.preemption_bits()),
            known: IdSet::EMPTY,
            others: IdSet::EMPTY,
            ended: IdSet::EMPTY,
            physical: IdSet::EMPTY,
            leaving: IdSet::EMPTY,
            lpis: LpiLists::NONE,
            told_apart: Groups::NONE,
        }
    }

    /// Forgets everything but LPIs. By the owner, outside of the guest; whoever calls lets go of
    /// what was held.
    pub(crate) fn clear(&mut self) {
        let mut next = self.pending.chain_all();
        while let Some(id) = next.id() {
            next = self.pending.unlink(id);
        }
        // What was to be told is.
        self.counts = Counts::ZERO;
        self.counts.set_tells(true);
        self.counts.set_lpis(!self.lpis.are_empty());
        self.comes_to_cpu();
        self.off = Groups::NONE;
        self.holders.clear_all();
        (self.known, self.others) = (IdSet::EMPTY, IdSet::EMPTY);
    }

    /// Takes note that the vCPU has come to a CPU that may have run another one: the list registers
    /// there are none of this one's. By the owner, outside of the guest, before the next flush.
    #[inline]
    pub fn comes_to_cpu(&mut self) {
        self.counts.unlists(self.vtr.list_registers());
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
        self.look_at_word(interrupts, id.number() & !63, 1 << (id.number() & 63), vmcr);
    }

    /// [Looks](ApList::look_at) at some interrupts, where there is no haste.
    #[inline(never)]
    pub(crate) fn look_at_word<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        first: u32,
        bits: u64,
        vmcr: u64,
    ) {
        self.look_at(interrupts, first, bits, vmcr);
    }

    /// [Looks](ApList::look) at those of 64 interrupts from one on whose bits are set.
    #[inline(always)]
    pub(crate) fn look_at<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        first: u32,
        bits: u64,
        vmcr: u64,
    ) {
        let plain = Candidates::plain(self.vcpu);
        let mut left = bits;
        while left != 0 {
            // A bit that no interrupt has says only that the vCPU is to look.
            let id = IntId::new(first + left.trailing_zeros());
            left &= left - 1;
            let Some(id) = id else { continue };
            let interrupt = interrupts.interrupt(id);
            let state = interrupt.state();
            // What is active, as this list knows, is looked at closely, whatever the word says.
            if plain.contain(state) && !self.knows(id) {
                self.queue_plain(id, state);
            } else {
                self.look_closely(interrupt, id, state, vmcr);
            }
        }
    }

    #[inline(never)]
    fn look_closely<P: Platform>(
        &mut self,
        interrupt: &Interrupt<P>,
        id: IntId,
        state: State,
        vmcr: u64,
    ) {
        if self.counts.active() != 0 || state.is_active() {
            self.look_at_active(interrupt, id, state, vmcr);
        }
        // Whoever has given it to another vCPU has told that one, or will.
        if !state.is_held_by(self.vcpu) || state.is_rerouted() {
            return;
        }
        if state.is_one_of_n() && self.takes_no_part(state, vmcr) {
            self.leaves(id);
        } else if state.is_candidate() {
            self.queue(interrupt, id, state);
        }
    }

    /// Returns whether an interrupt is active here, as this list knows.
    #[inline]
    pub(crate) fn knows(&self, id: IntId) -> bool {
        self.counts.active() != 0 && self.known.contains(id)
    }

    /// Returns whether the guest has disabled the group of a candidate that any vCPU may have.
    pub(crate) fn takes_no_part(&mut self, state: State, vmcr: u64) -> bool {
        let group = Groups::only(state.group());
        let off = state.is_candidate() && Groups::from_bits(vmcr) & group == Groups::NONE;
        if off {
            self.set_apart(self.counts.apart() | group);
        }
        off
    }

    /// Takes note of which groups the vCPU takes no part in.
    pub(crate) fn set_apart(&mut self, groups: Groups) {
        if groups != self.counts.apart() {
            self.counts.set_apart(groups);
            self.counts.set_tells(true);
        }
    }

    /// Takes note that an interrupt may have to go to another vCPU.
    pub(crate) fn leaves(&mut self, id: IntId) {
        self.leaving.insert(id);
        self.counts.set_tells(true);
    }

    /// Takes note that others were told.
    pub(crate) fn has_told(&mut self) {
        let nothing = self.leaving.is_empty()
            && self.ended.is_empty()
            && self.physical.is_empty()
            && !self.lpis.any_leaving();
        self.counts.set_tells(!nothing);
    }

    #[inline(never)]
    fn look_at_active<P: Platform>(
        &mut self,
        interrupt: &Interrupt<P>,
        id: IntId,
        state: State,
        vmcr: u64,
    ) {
        let level = self.level(state.priority(), state.group(), vmcr);
        let active = state.is_active() && state.is_held_by(self.vcpu);
        match (active, self.known.contains(id)) {
            (true, true) => {
                if let Some(level) = self.holds_level(id, level) {
                    self.holders.put_seen(level, state.is_seen_at_its_end());
                }
            }
            // By a write. Who makes it inactive from here on sees that this vCPU has it, and tells
            // it.
            (true, false) if !id.is_shared() || interrupt.hold(self.vcpu) => {
                self.others.insert(id);
                self.counts(id, true);
            }
            (false, true) => {
                self.forget(id, Some(level));
                self.counts(id, false);
                let was = interrupt.let_go(id.is_shared());
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
            self.leaves(id);
        }
    }

    /// Puts a candidate into its list, unless it is in one. Returns whether it was in none.
    #[inline]
    fn queue_plain(&mut self, id: IntId, state: State) -> bool {
        let pushed = self.pending.push(self.pending.list_of(state), id);
        if pushed {
            self.counts.queues();
        }
        pushed
    }

    /// Puts a candidate into its list, whose priority or group may have changed.
    #[inline(never)]
    pub(crate) fn queue<P: Platform>(&mut self, interrupt: &Interrupt<P>, id: IntId, state: State) {
        let pushed = self.queue_plain(id, state);
        if state.is_changed() {
            if pushed { interrupt.listed(state) } else { self.counts.set_relists(true) }
        }
    }

    /// Takes note of the groups that the guest has enabled, and puts what waits in its right place:
    /// what waits of a group that was disabled, and what any vCPU may have, is not for this one. By
    /// the owner, outside of the guest.
    #[inline]
    pub(crate) fn sees_groups<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, vmcr: u64) {
        let on = Groups::from_bits(vmcr);
        let waits = self.off != !on && self.pending.best(!on & !self.off).is_some();
        self.off = !on;
        self.set_apart(self.counts.apart() & !on);
        if self.counts.relists() || waits {
            self.list_again(interrupts, vmcr);
        }
    }

    /// Puts everything that is in the lists into the list where it belongs, or lets it leave. As
    /// many steps as there are interrupts in them.
    #[inline(never)]
    pub(crate) fn list_again<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, vmcr: u64) {
        self.counts.set_relists(false);
        let mut next = self.pending.chain_all();
        self.counts.unqueues_all();
        while let Some(id) = next.id() {
            next = self.pending.unlink(id);
            let interrupt = interrupts.interrupt(id);
            let state = interrupt.state();
            if !state.is_held_by(self.vcpu) {
                continue;
            }
            if state.is_one_of_n() && self.takes_no_part(state, vmcr) {
                self.leaves(id);
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
    pub fn deactivate<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        id: IntId,
        vmcr: u64,
    ) -> bool {
        // An LPI is never active.
        if id.is_lpi() {
            return false;
        }
        let state = interrupts.interrupt(id).state();
        let level = self.level(state.priority(), state.group(), vmcr);
        let known = self.forget(id, Some(level));
        if known {
            self.end(interrupts.interrupt(id), id, true, vmcr);
        }
        known
    }

    /// Says that an active interrupt holds a bit: a state was restored. By the owner.
    pub(crate) fn holds<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        id: IntId,
        level: Level,
    ) {
        if self.others.remove(id) {
            self.holders.set(level, id, interrupts.interrupt(id).state().is_seen_at_its_end());
        }
    }

    /// Takes the bit of an active interrupt, of which `level` is the likely one, or takes it from
    /// those that hold none. Returns whether it was among either.
    #[inline]
    pub(crate) fn forget(&mut self, id: IntId, level: Option<Level>) -> bool {
        match level.filter(|&level| self.holders.get(level) == Some(id)) {
            Some(level) => {
                self.holders.clear(level);
                true
            }
            None => {
                self.others.remove(id) || self.known.contains(id) && self.forget_other_level(id)
            }
        }
    }

    /// Takes the bit that an active interrupt holds whose priority, group or binary point was
    /// changed since. Returns whether it holds one.
    #[inline(never)]
    fn forget_other_level(&mut self, id: IntId) -> bool {
        let held = self.holders.level_of(id);
        held.is_some_and(|level| {
            self.holders.clear(level);
            true
        })
    }

    /// Returns the bit that an active interrupt holds, of which `level` is the likely one.
    fn holds_level(&self, id: IntId, level: Level) -> Option<Level> {
        if self.holders.get(level) == Some(id) {
            Some(level)
        } else if self.others.contains(id) {
            None
        } else {
            self.holders.level_of(id)
        }
    }

    /// Returns whether there is nothing to do for it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.counts.are_zero()
    }

    /// Notes that an interrupt is active here, or is not.
    #[inline]
    pub(crate) fn counts(&mut self, id: IntId, active: bool) {
        if active {
            if self.known.insert(id) {
                self.counts.activates();
            }
        } else if self.known.remove(id) {
            self.counts.deactivates();
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
    pub(crate) fn end<P: Platform>(
        &mut self,
        interrupt: &Interrupt<P>,
        id: IntId,
        outside: bool,
        vmcr: u64,
    ) {
        self.counts(id, false);
        // Whoever makes it pending from here on tells its holder.
        let was = interrupt.deactivate();
        if !was.ends_for_good() {
            self.says_ended(interrupt, id, was, outside, vmcr);
        }
    }

    /// Tells who waits for it that an interrupt has ended, which is inactive by now, and which this
    /// vCPU has let go of.
    #[inline(never)]
    pub(crate) fn says_ended<P: Platform>(
        &mut self,
        interrupt: &Interrupt<P>,
        id: IntId,
        was: State,
        outside: bool,
        vmcr: u64,
    ) {
        if was.tells_of_level() {
            self.ended.insert(id);
            self.counts.set_tells(true);
        }
        if outside && was.is_physical() {
            self.physical.insert(id);
            self.counts.set_tells(true);
        }
        // It may be pending again. Who gives it to another vCPU from here on tells that one.
        self.stays(interrupt, id, was.inactive(), vmcr);
    }

    /// Puts what the vCPU has let go of into its list, or lets it leave. (If it is no candidate by
    /// now, whoever makes it one again tells its holder.)
    #[inline]
    pub(crate) fn stays<P: Platform>(
        &mut self,
        interrupt: &Interrupt<P>,
        id: IntId,
        state: State,
        vmcr: u64,
    ) {
        if state.is_rerouted() || state.is_one_of_n() && self.takes_no_part(state, vmcr) {
            self.leaves(id);
        } else if state.is_candidate() {
            self.queue(interrupt, id, state);
        }
    }
}

impl fmt::Debug for ApList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApList")
            .field("vcpu", &self.vcpu)
            .field("pending", &self.counts.queued())
            .field("active", &self.counts.active())
            .field("list registers", &self.counts.listed())
            .finish_non_exhaustive()
    }
}
