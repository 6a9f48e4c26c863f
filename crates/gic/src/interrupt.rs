//! One word says the truth about an interrupt.

use core::fmt;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform};

use crate::spec::lr;
use crate::{Group, IntId, PhysicalIntId, Priority};

/// The level that each source gives: a bit for each of 32.
const SOURCES: u64 = 0xffff_ffff;
const ENABLED: u64 = 1 << 45;
const EDGE: u64 = 1 << 46;
// The rest is where a list register has it.
/// An edge has come, or software has made it pending, and nobody has acknowledged that yet.
const LATCH: u64 = lr::PENDING;
const ACTIVE: u64 = lr::ACTIVE;
/// A physical interrupt backs it, of that INTID.
const PHYSICAL: u64 = lr::HW;
const PINTID_SHIFT: u32 = lr::PINTID_SHIFT;
const PINTID: u64 = lr::PINTID;
const GROUP_ONE: u64 = lr::GROUP_ONE;
const PRIORITY_SHIFT: u32 = lr::PRIORITY_SHIFT;
const PRIORITY: u64 = 0xff << PRIORITY_SHIFT;

/// In no list.
const FREE: u32 = u32::MAX;
/// The last of its list.
const LAST: u32 = u32::MAX - 1;

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

    /// Returns its priority.
    #[inline]
    pub const fn priority(self) -> Priority {
        Priority((self.0 >> PRIORITY_SHIFT) as u8)
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

    /// Returns the physical interrupt that backs it.
    #[inline]
    pub const fn physical(self) -> Option<PhysicalIntId> {
        if self.0 & PHYSICAL == 0 { None } else { PhysicalIntId::new(((self.0 & PINTID) >> PINTID_SHIFT) as u32) }
    }

    /// Returns whether its end has to be seen when it ends outside of the list registers: a level
    /// is looked at again and its sources are told, a physical interrupt is deactivated, and what is
    /// pending again is signalled.
    #[inline]
    pub(crate) const fn is_seen_at_its_end(self) -> bool {
        self.0 & EDGE == 0 || self.0 & (PHYSICAL | LATCH) != 0
    }

    /// Returns whether an edge has come since it is active, and is to be signalled when it has ended,
    /// with these groups enabled. A level is looked at then, and a physical one is never both.
    #[inline]
    pub(crate) const fn is_pending_again(self, groups: [bool; 2]) -> bool {
        self.0 & (EDGE | LATCH | ENABLED | PHYSICAL) == EDGE | LATCH | ENABLED && groups[self.group() as usize]
    }

    /// Returns what of a list register the word says: group, priority, and the physical interrupt.
    #[inline]
    pub(crate) const fn list_register(self) -> u64 {
        self.0 & (PHYSICAL | PINTID | GROUP_ONE | PRIORITY)
    }

    /// Returns what it is when it has been latched.
    #[inline]
    pub(crate) const fn latched(self) -> State {
        State(self.0 | LATCH)
    }

    #[inline]
    pub(crate) const fn is_latched(self) -> bool {
        self.0 & LATCH != 0
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
            .field("physical", &self.physical())
            .finish()
    }
}

/// An interrupt: its word, which anybody changes, and its place in the list of the vCPU that holds
/// it, which is that vCPU's.
pub struct Interrupt<P: Platform> {
    word: P::AtomicU64,
    next: P::AtomicU32,
}

impl<P: Platform> Interrupt<P> {
    /// Returns one that is neither pending, active nor enabled, of group 1 and the highest priority.
    pub fn new(trigger: Trigger) -> Self {
        let edge = if trigger == Trigger::Edge { EDGE } else { 0 };
        Interrupt { word: P::AtomicU64::new(GROUP_ONE | edge), next: P::AtomicU32::new(FREE) }
    }

    /// Returns what it is at this moment. By anybody.
    #[inline]
    pub fn state(&self) -> State {
        State(self.word.load(SeqCst))
    }

    /// Makes it pending until it is acknowledged. By anybody, who tells the holder then; returns
    /// what it was.
    #[inline]
    pub fn latch(&self) -> State {
        State(self.word.fetch_or(LATCH, SeqCst))
    }

    /// Takes back that it is pending by itself (`GICD_ICPENDR<n>`); a level stays. By anybody.
    #[inline]
    pub fn unlatch(&self) -> State {
        State(self.word.fetch_and(!LATCH, SeqCst))
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

    /// Sets what does not change while it is pending or active: its priority, group, and the
    /// physical interrupt that backs it.
    pub fn configure(&self, priority: Priority, group: Group, physical: Option<PhysicalIntId>) {
        let (backed, pintid) = physical.map_or((0, 0), |id| (PHYSICAL, u64::from(id.number()) << PINTID_SHIFT));
        let group = if group == Group::One { GROUP_ONE } else { 0 };
        let new = u64::from(priority.0) << PRIORITY_SHIFT | group | backed | pintid;
        let mut seen = self.word.load(SeqCst);
        loop {
            let to = seen & !(PRIORITY | GROUP_ONE | PHYSICAL | PINTID) | new;
            match self.word.compare_exchange(seen, to, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    fn put(&self, bit: u64, set: bool) -> State {
        State(if set { self.word.fetch_or(bit, SeqCst) } else { self.word.fetch_and(!bit, SeqCst) })
    }

    /// Puts it into a list before `next`, unless it is in one. By the holder.
    #[inline]
    pub(crate) fn link(&self, next: Option<IntId>) -> bool {
        if self.next.load(Relaxed) != FREE {
            return false;
        }
        self.next.store(next.map_or(LAST, IntId::number), Relaxed);
        true
    }

    /// Takes it out of its list; returns what comes after it. By the holder.
    #[inline]
    pub(crate) fn unlink(&self) -> Option<IntId> {
        let next = IntId::new(self.next.load(Relaxed));
        self.next.store(FREE, Relaxed);
        next
    }
}

impl<P: Platform> fmt::Debug for Interrupt<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupt").field(&self.state()).finish()
    }
}
