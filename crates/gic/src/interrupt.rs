//! One word says the truth about an interrupt.
//!
//! ```text
//!   a device, a guest's write,        the holder: the vCPU that may signal it
//!   a route: one read-modify-write    takes the latch into a list register
//!   says what was, and so whom to     folds: gives back what was not acknowledged
//!   tell: the holder of that moment   lets go of it if it was routed elsewhere meanwhile
//! ```
//!
//! Levels, latch, active, enabled, priority, group and holder change in one step each, so that
//! there is no lock and no order of two words to get wrong. Who comes before the exchange of the
//! holder is seen by whoever makes it; who comes after sees the new holder. A vCPU's lists hold
//! hints only: what is stale in them is found when it is next.

mod lpi;

use core::fmt;
use core::sync::atomic::Ordering::{self, Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform};

use crate::groups::Groups;
use crate::spec::lr;
use crate::{Affinity, Group, InterruptState, PhysicalIntId, Priority, VcpuId};

pub(crate) use lpi::{Generation, LpiChange, PutDown};

/// The level that each source gives: a bit for each of 32.
const SOURCES: u64 = 0xffff_ffff;
const HOLDER_SHIFT: u32 = 32;
/// The vCPU that hears of changes, and nobody else has it in a list register: its number, or all
/// bits if there is none.
const HOLDER: u64 = 0x1fff << HOLDER_SHIFT;
const ENABLED: u64 = 1 << 45;
const EDGE: u64 = 1 << 46;
/// The holder has the SPI in a list register, or knows that it is active: it does not move.
const HELD: u64 = 1 << 47;
/// A list register of the holder has taken the latch over: it is pending there, or was acknowledged
/// since. Who clears this takes that back.
const TAKEN: u64 = 1 << 56;
/// The priority, the group or the holder has changed: in the holder's lists, it may be in the wrong
/// one. (A vCPU to which it comes back may have it there still, as it was.)
const CHANGED: u64 = 1 << 57;
/// Any vCPU that takes part may have it (`GICD_IROUTER<n>.Interrupt_Routing_Mode`).
const ONE_OF_N: u64 = 1 << 58;
/// The interrupt is routed elsewhere since it is held.
const REROUTED: u64 = 1 << 59;
// The rest is where a list register has it.
/// An edge has come, or software has made it pending, and nobody has acknowledged that yet.
const LATCH: u64 = lr::PENDING;
const ACTIVE: u64 = lr::ACTIVE;
/// A physical interrupt backs it.
const PHYSICAL: u64 = lr::HW;
const GROUP_ONE: u64 = lr::GROUP_ONE;
const PRIORITY_SHIFT: u32 = lr::PRIORITY_SHIFT;
const PRIORITY: u64 = 0xff << PRIORITY_SHIFT;

/// In the other word: where the guest has routed the interrupt, and the physical INTID.
const AFFINITY: u64 = 0xffff_ffff;
const ANY: u64 = 1 << 45;
const PINTID_SHIFT: u32 = lr::PINTID_SHIFT;
const PINTID: u64 = lr::PINTID;

/// How an interrupt is triggered (`GICD_ICFGR<n>`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Pending while a source gives a level, and when software says so.
    Level,
    /// Pending from an edge to its acknowledgement.
    Edge,
}

/// What the word of an interrupt said at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u64);

impl State {
    /// Returns whether it is pending (section 4.1.2), be it enabled or not, active or not.
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.0 & LATCH != 0 || self.0 & EDGE == 0 && self.0 & SOURCES != 0
    }

    /// Returns whether it is pending as far as memory knows: also if a list register has taken that
    /// over, unless its holder has said since that it was acknowledged.
    #[inline]
    pub const fn reads_as_pending(self) -> bool {
        self.is_pending() || self.is_taken()
    }

    /// Returns whether none of them may read as pending: nobody has made one pending, nor gives it
    /// a level.
    #[inline(always)]
    pub(crate) fn none_may_be_pending<const N: usize>(states: [State; N]) -> bool {
        states.iter().fold(0, |bits, state| bits | state.0) & (LATCH | TAKEN | SOURCES) == 0
    }

    /// Returns whether a list register of the holder has taken the latch over, as far as memory
    /// knows.
    #[inline]
    pub(crate) const fn is_taken(self) -> bool {
        self.0 & TAKEN != 0
    }

    /// Returns whether it is active.
    #[inline]
    pub const fn is_active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    /// Returns whether it is enabled.
    #[inline]
    pub const fn is_enabled(self) -> bool {
        self.0 & ENABLED != 0
    }

    /// Returns whether it may be signalled, if its group may: pending, enabled, and not active.
    #[inline]
    pub const fn is_candidate(self) -> bool {
        self.is_pending() && self.0 & (ENABLED | ACTIVE) == ENABLED
    }

    /// Returns whether it would be a candidate if it were pending.
    #[inline]
    pub(crate) const fn is_candidate_if_pending(self) -> bool {
        self.0 & (ENABLED | ACTIVE) == ENABLED
    }

    /// Returns whether it is a candidate of that vCPU, which may signal it. What is rerouted is
    /// another's: whoever has let go of it hands it over.
    #[inline]
    pub(crate) const fn is_candidate_of(self, vcpu: VcpuId) -> bool {
        self.is_candidate() && self.is_held_by(vcpu) && !self.is_rerouted()
    }

    /// Returns whether nobody hears of its end in its list register, and nothing follows it: it is
    /// an edge, which has not come once more, and stays where it is.
    #[inline]
    pub(crate) const fn ends_for_good(self) -> bool {
        self.0 & (EDGE | LATCH | PHYSICAL | REROUTED) == EDGE
    }

    /// Returns whether nothing is left to do when it has ended in its list register: it ends for
    /// good, or is a level that no source gives, and the CPU has deactivated the physical interrupt
    /// that backs it, which is all that there was to do.
    #[inline]
    pub(crate) const fn ends_in_list_register(self) -> bool {
        let physically = self.0 & (EDGE | LATCH | PHYSICAL | REROUTED) == PHYSICAL;
        self.ends_for_good() || physically && self.0 & SOURCES == 0
    }

    /// Returns whether the sources of a level hear of its end. If a physical interrupt backs it and
    /// none of them gives it, it was passed on, and comes again if it has to.
    #[inline]
    pub(crate) const fn tells_of_level(self) -> bool {
        self.0 & EDGE == 0 && (self.0 & PHYSICAL == 0 || self.0 & SOURCES != 0)
    }

    /// Returns its priority.
    #[inline]
    pub const fn priority(self) -> Priority {
        Priority((self.0 >> PRIORITY_SHIFT) as u8)
    }

    /// Returns the highest bits of its priority: 64 less `shift`, which is 56 to 63.
    #[inline]
    pub(crate) const fn level(self, shift: u32) -> u32 {
        (self.0 << (56 - PRIORITY_SHIFT) >> (shift % 64)) as u32
    }

    /// Returns its group.
    #[inline]
    pub const fn group(self) -> Group {
        if self.0 & GROUP_ONE != 0 { Group::One } else { Group::Zero }
    }

    /// Returns how it is triggered.
    #[inline]
    pub const fn trigger(self) -> Trigger {
        if self.0 & EDGE != 0 { Trigger::Edge } else { Trigger::Level }
    }

    /// Returns the vCPU that is told of changes, and may have it in a list register. `None` if it
    /// is routed to no vCPU that there is.
    #[inline]
    pub const fn holder(self) -> Option<VcpuId> {
        VcpuId::new(self.holder_number())
    }

    /// Returns the number of its holder, or one that no vCPU has.
    #[inline]
    pub(crate) const fn holder_number(self) -> u32 {
        ((self.0 & HOLDER) >> HOLDER_SHIFT) as u32
    }

    /// Returns the level that each source gives: a bit for each.
    #[inline]
    pub const fn sources(self) -> u32 {
        (self.0 & SOURCES) as u32
    }

    /// Returns whether any vCPU that takes part may have it.
    #[inline]
    pub const fn is_one_of_n(self) -> bool {
        self.0 & ONE_OF_N != 0
    }

    /// Returns whether a physical interrupt backs it.
    #[inline]
    pub const fn is_physical(self) -> bool {
        self.0 & PHYSICAL != 0
    }

    /// Returns whether it is an edge that no physical interrupt backs: nobody waits for its end.
    #[inline]
    pub(crate) const fn is_virtual_edge(self) -> bool {
        self.0 & (EDGE | PHYSICAL) == EDGE
    }

    /// Returns whether its end has to be seen when it ends outside of the list registers: a level
    /// is looked at again and its sources are told, a physical interrupt is deactivated, and what
    /// is pending again is signalled.
    #[inline]
    pub(crate) const fn is_seen_at_its_end(self) -> bool {
        self.0 & EDGE == 0 || self.0 & (PHYSICAL | LATCH) != 0
    }

    /// Returns whether an edge has come since it is active, and is to be signalled when it has
    /// ended: here, with these groups enabled, or on another vCPU. A level is looked at then, and a
    /// physical one is never both.
    #[inline]
    pub(crate) const fn is_pending_again(self, groups: Groups) -> bool {
        self.0 & (EDGE | LATCH | ENABLED | PHYSICAL) == EDGE | LATCH | ENABLED
            && (groups.contains(self.group()) || self.is_rerouted())
    }

    /// Returns what of a list register the word says: group, priority, and whether a physical
    /// interrupt backs it.
    #[inline]
    pub(crate) const fn list_register(self) -> u64 {
        self.0 & (PHYSICAL | GROUP_ONE | PRIORITY)
    }

    /// Returns what it is with another group and priority.
    pub(crate) const fn at(self, group: Group, priority: Priority) -> State {
        State(self.0 & !(GROUP_ONE | PRIORITY) | order(group, priority))
    }

    /// Returns what it is when a list register has it, and if it is an SPI, it does not move.
    #[inline]
    const fn taken(self, is_shared: bool) -> State {
        State(latch_taken(self.0) | if is_shared { HELD } else { 0 })
    }

    /// Returns what it is when it is not active.
    #[inline]
    pub(crate) const fn inactive(self) -> State {
        State(self.0 & !ACTIVE)
    }

    #[inline]
    pub(crate) const fn is_latched(self) -> bool {
        self.0 & LATCH != 0
    }

    /// Returns whether a list register of the holder says that it is pending, as far as the holder
    /// knows: also if it is active, too.
    #[inline]
    pub(crate) const fn is_pending_inside(self) -> bool {
        self.is_taken() || !self.is_active()
    }

    /// Returns whether the holder has it, and it does not move.
    #[inline]
    pub(crate) const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    #[inline]
    pub(crate) const fn is_rerouted(self) -> bool {
        self.0 & REROUTED != 0
    }

    /// Returns whether its priority or group has changed since it was put into a list.
    #[inline]
    pub(crate) const fn is_changed(self) -> bool {
        self.0 & CHANGED != 0
    }

    /// Returns whether it is the vCPU's, to signal or to end.
    #[inline]
    pub(crate) const fn is_held_by(self, vcpu: VcpuId) -> bool {
        self.holder_number() == vcpu.number()
    }
}

/// Returns what a word says of a group and a priority.
#[inline]
const fn order(group: Group, priority: Priority) -> u64 {
    (group as u64) << GROUP_ONE.trailing_zeros() | (priority.0 as u64) << PRIORITY_SHIFT
}

/// Some of the candidates of a vCPU: what their words have in common.
#[derive(Clone, Copy)]
pub(crate) struct Candidates {
    mask: u64,
    bits: u64,
}

impl Candidates {
    const fn of(vcpu: VcpuId, mask: u64) -> Candidates {
        let bits = ENABLED | (vcpu.number() as u64) << HOLDER_SHIFT;
        Candidates { mask: ENABLED | ACTIVE | HOLDER | REROUTED | mask, bits }
    }

    /// Returns those that no other vCPU may have, and whose priority and group are what they were
    /// when they were put into a list.
    #[inline]
    pub(crate) const fn plain(vcpu: VcpuId) -> Candidates {
        Candidates::of(vcpu, ONE_OF_N | CHANGED)
    }

    /// Returns those of group 0 and the highest priority, of which so many bits count.
    pub(crate) const fn first(vcpu: VcpuId, priority_bits: u32) -> Candidates {
        Candidates::of(vcpu, GROUP_ONE | PRIORITY & (PRIORITY << ((8 - priority_bits) % 8)))
    }

    /// Returns those of another group and priority instead, of the [first](Candidates::first) ones.
    #[inline]
    pub(crate) const fn with(self, group: Group, priority: Priority) -> Candidates {
        Candidates { mask: self.mask, bits: self.bits | order(group, priority) }
    }

    /// Returns whether it is one of them.
    #[inline]
    pub(crate) const fn contain(self, state: State) -> bool {
        state.0 & self.mask == self.bits && state.is_pending()
    }

    /// Returns those of them whose words alone say what is to be done: edges of whose end nobody
    /// hears, and which no other vCPU may have.
    #[inline]
    pub(crate) const fn edges(self) -> Edges {
        Edges {
            mask: self.mask | EDGE | LATCH | PHYSICAL | ONE_OF_N,
            bits: self.bits | EDGE | LATCH,
        }
    }
}

/// Those of some [`Candidates`] of one priority and group that are edges of whose end nobody hears.
#[derive(Clone, Copy)]
pub(crate) struct Edges {
    mask: u64,
    bits: u64,
}

impl Edges {
    /// Returns whether it is one of them.
    #[inline]
    pub(crate) const fn contain(self, state: State) -> bool {
        state.0 & self.mask == self.bits
    }

    /// Returns what of a list register the words of all of them say.
    #[inline]
    pub(crate) const fn list_register(self) -> u64 {
        State(self.bits).list_register()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("pending", &self.is_pending())
            .field("active", &self.is_active())
            .field("enabled", &self.is_enabled())
            .field("priority", &self.priority())
            .field("group", &self.group())
            .field("trigger", &self.trigger())
            .field("holder", &self.holder())
            .finish_non_exhaustive()
    }
}

/// Where the guest has routed an interrupt (`GICD_IROUTER<n>`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) affinity: Affinity,
    /// Any vCPU that takes part may have it.
    pub(crate) one_of_n: bool,
}

impl Route {
    fn from_bits(bits: u64) -> Route {
        Route { affinity: Affinity((bits & AFFINITY) as u32), one_of_n: bits & ANY != 0 }
    }

    fn bits(self) -> u64 {
        u64::from(self.affinity.0) | if self.one_of_n { ANY } else { 0 }
    }
}

/// An interrupt: its word, which anybody changes, and where the guest has routed it.
///
/// Every change is one read-modify-write of the word, and the word names the holder, the one vCPU
/// that may signal the interrupt. So whoever changes something learns in the same step who has to
/// hear of it, and a holder that hands it over learns in the same step what there is to hear.
pub struct Interrupt<P: Platform> {
    word: P::AtomicU64,
    route: P::AtomicU64,
}

impl<P: Platform> Interrupt<P> {
    /// Returns one that is neither pending, active nor enabled, of group 1 and the highest
    /// priority, and held by that vCPU.
    pub fn new(trigger: Trigger, holder: VcpuId) -> Self {
        let edge = if trigger == Trigger::Edge { EDGE } else { 0 };
        let holder = u64::from(holder.number()) << HOLDER_SHIFT;
        Interrupt {
            word: P::AtomicU64::new(GROUP_ONE | edge | holder),
            route: P::AtomicU64::new(0),
        }
    }

    /// Returns what it is at this moment. By anybody.
    #[inline]
    pub fn state(&self) -> State {
        self.load(SeqCst)
    }

    /// Returns what it is, for a register that a guest reads: in no order with anything else that
    /// the guest or the host does, but for the barriers that the guest has. That is all that a
    /// device promises, and a trap is no barrier either.
    #[inline]
    pub(crate) fn glance(&self) -> State {
        self.load(Relaxed)
    }

    #[inline(always)]
    fn load(&self, order: Ordering) -> State {
        State(self.word.load(order))
    }

    /// Makes it pending until it is acknowledged. By anybody, who tells the holder then; returns
    /// what it was.
    #[inline]
    pub fn latch(&self) -> State {
        State(self.word.fetch_or(LATCH, SeqCst))
    }

    /// Takes back that it is pending by itself (`GICD_ICPENDR<n>`), also what a list register says
    /// of that; a level stays. By anybody, who makes a holder fold that has it; returns what it
    /// was.
    #[inline]
    pub fn unlatch(&self) -> State {
        State(self.word.fetch_and(!(LATCH | TAKEN), SeqCst))
    }

    /// Sets the level that a source below 32 gives. An edge makes an edge-triggered interrupt
    /// pending. By the source, which tells the holder then; returns what it was.
    #[inline]
    pub fn set_level(&self, source: u32, high: bool) -> State {
        let bit = 1 << (source % 32);
        State(if high {
            let seen = self.word.load(SeqCst);
            let latch = if seen & (EDGE | bit) == EDGE { LATCH } else { 0 };
            self.word.fetch_or(bit | latch, SeqCst)
        } else {
            self.word.fetch_and(!bit, SeqCst)
        })
    }

    /// Enables or disables it. By anybody, who tells the holder then; returns what it was.
    #[inline]
    pub fn set_enabled(&self, enabled: bool) -> State {
        self.put(ENABLED, enabled)
    }

    /// Makes it active, or not, as a write does (`GICD_ISACTIVER<n>`). By whoever has recalled the
    /// holder, and tells it then; returns what it was.
    #[inline]
    pub fn set_active(&self, active: bool) -> State {
        self.put(ACTIVE, active)
    }

    /// Sets its priority. By anybody, who tells the holder then; returns what it was.
    pub fn set_priority(&self, priority: Priority) -> State {
        self.change(|word| {
            let to = word & !PRIORITY | u64::from(priority.0) << PRIORITY_SHIFT;
            if to == word { word } else { to | CHANGED }
        })
    }

    /// Sets its group. By anybody, who tells the holder then; returns what it was.
    pub fn set_group(&self, group: Group) -> State {
        self.change(|word| {
            let to = if group == Group::One { word | GROUP_ONE } else { word & !GROUP_ONE };
            if to == word { word } else { to | CHANGED }
        })
    }

    /// Sets how it is triggered. By anybody, who tells the holder then; returns what it was.
    pub fn set_trigger(&self, trigger: Trigger) -> State {
        self.put(EDGE, trigger == Trigger::Edge)
    }

    /// Sets its priority, its group, and the physical interrupt that backs it. By the host, before
    /// the vCPUs run.
    pub fn configure(&self, priority: Priority, group: Group, physical: Option<PhysicalIntId>) {
        let _ = self.set_priority(priority);
        let _ = self.set_group(group);
        self.set_physical(physical);
    }

    /// Sets the physical interrupt that backs it. By the host, while it is neither pending nor
    /// active.
    pub fn set_physical(&self, physical: Option<PhysicalIntId>) {
        if let Some(id) = physical {
            // Before the word says that there is one.
            self.change_route(|route| route & !PINTID | u64::from(id.number()) << PINTID_SHIFT);
        }
        let _ = self.put(PHYSICAL, physical.is_some());
    }

    /// Returns the physical interrupt that backs it.
    #[inline]
    pub fn physical(&self) -> Option<PhysicalIntId> {
        if !self.state().is_physical() {
            return None;
        }
        PhysicalIntId::new(((self.route.load(SeqCst) & PINTID) >> PINTID_SHIFT) as u32)
    }

    /// Returns what of a list register says which physical interrupt backs it.
    #[inline]
    pub(crate) fn pintid(&self) -> u64 {
        self.route.load(SeqCst) & PINTID
    }

    /// Returns where the guest has routed it.
    pub(crate) fn route(&self) -> Route {
        Route::from_bits(self.route.load(SeqCst))
    }

    /// Routes it as `to` says of what it is now: `settle` has to follow. By anybody.
    pub(crate) fn set_route(&self, to: impl Fn(Route) -> Route) {
        self.change_route(|bits| bits & !(AFFINITY | ANY) | to(Route::from_bits(bits)).bits());
    }

    /// Gives it to the holder that `choose` says, or tells the holder that has it to do so when it
    /// lets go. By anybody who has changed what `choose` looks at, and by a holder that has let go.
    /// Returns what became of it.
    pub(crate) fn settle(&self, choose: impl Fn(State, Route) -> Option<VcpuId>) -> Settled {
        loop {
            let route = self.route();
            let seen = State(self.word.load(SeqCst));
            let to = choose(seen, route);
            let (held, moves) = (seen.0 & (HELD | ACTIVE) != 0, to != seen.holder());
            let waits = held && moves;
            let number = to.map_or(HOLDER >> HOLDER_SHIFT, |vcpu| u64::from(vcpu.number()));
            let new = if held {
                seen.0 & !ONE_OF_N | if waits { REROUTED } else { 0 }
            } else {
                let changed = if moves { CHANGED } else { 0 };
                seen.0 & !(HOLDER | REROUTED | ONE_OF_N) | number << HOLDER_SHIFT | changed
            };
            let new = State(new | if route.one_of_n { ONE_OF_N } else { 0 });
            if new != seen && self.word.compare_exchange(seen.0, new.0, SeqCst, SeqCst).is_err() {
                continue;
            }
            // Who has routed it meanwhile may have seen another word, and have lost to this
            // exchange: then it is not where it belongs yet.
            if self.route() == route && choose(new, route) == to {
                return if waits { Settled::Waits(new) } else { Settled::At(new) };
            }
        }
    }

    /// Makes it what was saved. By a host that has all vCPUs out of the guest, and tells them.
    pub(crate) fn restore(&self, saved: &InterruptState) {
        let physical = u64::from(saved.physical.unwrap_or_default()) << PINTID_SHIFT;
        self.route.store(saved.route().bits() | physical, SeqCst);
        let bits = [
            (saved.enabled, ENABLED),
            (saved.edge, EDGE),
            (saved.latched, LATCH),
            (saved.active, ACTIVE),
            (saved.group == 1, GROUP_ONE),
            (saved.physical.is_some(), PHYSICAL),
            (saved.one_of_n, ONE_OF_N),
        ];
        let bits = bits.into_iter().fold(0, |bits, (is, bit)| if is { bits | bit } else { bits });
        let holder = saved.holder.map_or(HOLDER, |holder| u64::from(holder) << HOLDER_SHIFT);
        let priority = u64::from(saved.priority) << PRIORITY_SHIFT;
        self.word.store(bits | holder | priority | u64::from(saved.sources), SeqCst);
    }

    /// Takes what was seen to be a candidate of the holder into a list register: what is pending by
    /// itself is pending there from here on, so that an edge that comes after its acknowledgement
    /// is another one. Returns what it was, if it still is one. By the holder.
    #[inline]
    pub(crate) fn take(&self, is_shared: bool, seen: State) -> Option<State> {
        let to = seen.taken(is_shared);
        if to == seen {
            return Some(seen);
        }
        match self.word.compare_exchange(seen.0, to.0, SeqCst, SeqCst) {
            Ok(_) => Some(seen),
            Err(now) => self.take_after_all(is_shared, seen, State(now)),
        }
    }

    /// [Takes](Interrupt::take) an interrupt, unless it has changed since it was seen. Returns
    /// whether it has. By the holder.
    #[inline]
    pub(crate) fn take_unchanged(&self, is_shared: bool, seen: State) -> bool {
        let to = seen.taken(is_shared);
        to == seen || self.word.compare_exchange(seen.0, to.0, SeqCst, SeqCst).is_ok()
    }

    /// [Takes](Interrupt::take) an SPI that was seen to be latched, unless it has changed since.
    /// Returns whether it has. By the holder.
    #[inline]
    pub(crate) fn take_latched_spi(&self, seen: State) -> bool {
        let to = seen.0 & !LATCH | TAKEN | HELD;
        self.word.compare_exchange(seen.0, to, SeqCst, SeqCst).is_ok()
    }

    /// Takes an interrupt that has changed since it was seen, if it still is a candidate of its
    /// holder.
    #[cold]
    fn take_after_all(&self, is_shared: bool, seen: State, now: State) -> Option<State> {
        let mut now = now;
        while now.is_candidate()
            && now.holder_number() == seen.holder_number()
            && !now.is_rerouted()
        {
            match self.word.compare_exchange(now.0, now.taken(is_shared).0, SeqCst, SeqCst) {
                Ok(_) => return Some(now),
                Err(again) => now = State(again),
            }
        }
        None
    }

    /// Takes over that an active interrupt is pending by itself, unless another vCPU is to have it
    /// after its end. Returns whether it has. By the holder, which has the interrupt.
    pub(crate) fn take_latch(&self) -> bool {
        let was = self.change(|word| if word & REROUTED == 0 { latch_taken(word) } else { word });
        was.is_latched() && !was.is_rerouted()
    }

    /// Lets go of an interrupt that was acknowledged and has ended in its list register. Returns
    /// what it was. By the holder.
    #[inline]
    pub(crate) fn let_go(&self, is_shared: bool) -> State {
        if !is_shared {
            let seen = self.state();
            // Nobody else takes a latch.
            if !seen.is_taken() {
                return seen;
            }
        }
        State(self.word.fetch_and(!(HELD | TAKEN), SeqCst))
    }

    /// Lets go of an interrupt that was acknowledged and has ended in its list register, if that
    /// [is all](State::ends_in_list_register) that there is to do. Returns whether it has. By the
    /// holder.
    #[inline]
    pub(crate) fn let_go_for_good(&self) -> bool {
        let seen = self.state();
        let to = seen.0 & !(HELD | TAKEN);
        seen.ends_in_list_register()
            && (to == seen.0 || self.word.compare_exchange(seen.0, to, SeqCst, SeqCst).is_ok())
    }

    /// Gives back that an interrupt is pending by itself, unless that was taken back meanwhile;
    /// lets go of it if it is not active. Returns what it is. By the holder.
    #[inline]
    pub(crate) fn give_back(&self, active: bool) -> State {
        let back = |word: u64| {
            let latch = if word & TAKEN != 0 { LATCH } else { 0 };
            word & if active { !TAKEN } else { !(TAKEN | HELD) } | latch
        };
        State(back(self.change(back).0))
    }

    /// Says that it is active: acknowledged in a list register of the holder, which has it from
    /// here on. Returns what it was. By the holder.
    #[inline]
    pub(crate) fn activate(&self, is_shared: bool) -> State {
        self.change(|word| word & !TAKEN | if is_shared { ACTIVE | HELD } else { ACTIVE })
    }

    /// Says that the holder has an SPI of which it has heard that it is active, if it still is: who
    /// has made it inactive may have given it to another vCPU. Returns whether it is. By the
    /// holder.
    pub(crate) fn hold(&self, holder: VcpuId) -> bool {
        let its = |state: State| state.is_active() && state.is_held_by(holder);
        its(self.change(|word| if its(State(word)) { word | HELD } else { word }))
    }

    /// Says that it is not active any more, and lets go of it. Returns what it was. By the holder.
    #[inline]
    pub(crate) fn deactivate(&self) -> State {
        State(self.word.fetch_and(!(ACTIVE | HELD | TAKEN), SeqCst))
    }

    /// Says that it is in the list of the priority and group that were seen, unless it has changed
    /// meanwhile. By the holder.
    pub(crate) fn listed(&self, seen: State) {
        let _ = self.word.compare_exchange(seen.0, seen.0 & !CHANGED, SeqCst, SeqCst);
    }

    #[inline]
    fn put(&self, bit: u64, set: bool) -> State {
        State(if set { self.word.fetch_or(bit, SeqCst) } else { self.word.fetch_and(!bit, SeqCst) })
    }

    /// Changes the word, unless there is nothing to change. Returns what it was.
    #[inline]
    fn change(&self, to: impl Fn(u64) -> u64) -> State {
        let mut seen = self.word.load(SeqCst);
        loop {
            let new = to(seen);
            if new == seen {
                return State(seen);
            }
            match self.word.compare_exchange(seen, new, SeqCst, SeqCst) {
                Ok(_) => return State(seen),
                Err(now) => seen = now,
            }
        }
    }

    fn change_route(&self, to: impl Fn(u64) -> u64) {
        let mut seen = self.route.load(SeqCst);
        while let Err(now) = self.route.compare_exchange(seen, to(seen), SeqCst, SeqCst) {
            seen = now;
        }
    }
}

/// Returns what a word is when its latch was taken over by a list register.
#[inline]
const fn latch_taken(word: u64) -> u64 {
    if word & LATCH == 0 { word } else { word & !LATCH | TAKEN }
}

/// What became of an interrupt that may have been routed elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settled {
    /// The holder is the one that the interrupt is to have, and is to be told.
    At(State),
    /// The holder has the interrupt, and hands it over when it lets go.
    Waits(State),
}

impl<P: Platform> fmt::Debug for Interrupt<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupt").field(&self.state()).finish()
    }
}
