//! The redistributor of a vCPU: what others may see and change of it.
//!
//! One word says whether the vCPU takes part in what any may have: whether it is awake, powered on,
//! has its groups enabled, and is not excused by DPG. Whoever clears a bit of it hands over what
//! the vCPU holds of that kind; whoever routes an interrupt reads the word, and looks again after
//! the exchange.
//!
//! RWP is two counts: writes that were begun, and how many there were when the vCPU was last seen
//! to have folded. If they differ, a write may not have taken effect in a list register.

use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, AtomicInt, Platform};
use doorbell_post::{Mode, SoftwareGate, TwoLevel};

use crate::{Affinity, Group, Interrupt, News, RedistributorState, State, Trigger, VcpuId};

/// GICR_WAKER.ProcessorSleep: nothing is forwarded.
const ASLEEP: u32 = 1 << 0;
/// The vCPU is powered off.
const OFF: u32 = 1 << 1;
/// GICR_CTLR.DPG0: no interrupt of group 0 that any vCPU may have. That of group 1 is the next bit.
const DPG: u32 = 1 << DPG_SHIFT;
const DPG_SHIFT: u32 = 2;
/// The guest has disabled group 0 in its CPU interface, as the owner has seen. Group 1 is the next.
const APART: u32 = 1 << 4;
/// Somebody has the owned half.
const OWNED: u32 = 1 << 6;
/// GICR_CTLR.EnableLPIs.
const LPIS: u32 = 1 << 7;

/// The LPIs of the vCPU are being enabled or disabled: its tables are read or written.
const BUSY: u32 = 1 << 8;

/// What the control word said at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Control(u32);

impl Control {
    #[inline]
    pub(crate) const fn is_asleep(self) -> bool {
        self.0 & ASLEEP != 0
    }

    /// Returns whether LPIs are being enabled or disabled.
    pub(crate) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// Returns whether LPIs are forwarded.
    #[inline]
    pub(crate) const fn has_lpis(self) -> bool {
        self.0 & LPIS != 0
    }
}

/// The redistributor of a vCPU, with its private interrupts, and the news for it.
pub struct Redistributor<P: Platform> {
    pub(crate) news: News<P>,
    pub(crate) private: [Interrupt<P>; 32],
    control: P::AtomicU32,
    /// How many writes were begun that are complete when the vCPU has folded,
    written: P::AtomicU32,
    /// and how many there were when it was seen to have.
    complete: P::AtomicU32,
    /// GICR_PROPBASER and GICR_PENDBASER.
    pub(crate) properties: P::AtomicU64,
    pub(crate) pending: P::AtomicU64,
    id: VcpuId,
    affinity: Affinity,
}

impl<P: Platform> Redistributor<P> {
    pub(crate) fn new(id: VcpuId, affinity: Affinity) -> Self {
        let private = core::array::from_fn(|number| {
            Interrupt::new(if number < 16 { Trigger::Edge } else { Trigger::Level }, id)
        });
        let news = News::new(TwoLevel::new(), SoftwareGate::new());
        let control = P::AtomicU32::new(ASLEEP);
        let (written, complete) = (P::AtomicU32::new(0), P::AtomicU32::new(0));
        let (properties, pending) = (P::AtomicU64::new(0), P::AtomicU64::new(0));
        Redistributor {
            news,
            private,
            control,
            written,
            complete,
            properties,
            pending,
            id,
            affinity,
        }
    }

    /// Returns whose it is.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// Returns the affinity of its vCPU.
    pub fn affinity(&self) -> Affinity {
        self.affinity
    }

    /// Returns the news for the vCPU, with its run state: where requests and the scheduler's hooks
    /// go.
    pub fn news(&self) -> &News<P> {
        &self.news
    }

    #[inline]
    pub(crate) fn control(&self) -> Control {
        Control(self.control.load(SeqCst))
    }

    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        self.control().is_asleep()
    }

    /// Returns whether LPIs are forwarded: GICR_CTLR.EnableLPIs.
    #[inline]
    pub(crate) fn forwards_lpis(&self) -> bool {
        self.control().has_lpis()
    }

    /// Begins to enable or disable LPIs, if nobody is about that; returns whether it has begun.
    pub(crate) fn begins_tables(&self) -> bool {
        self.set(BUSY, true)
    }

    /// Says that LPIs are enabled or disabled.
    pub(crate) fn ends_tables(&self) {
        self.set(BUSY, false);
    }

    /// Sets GICR_CTLR.EnableLPIs; returns whether that is a change.
    pub(crate) fn set_lpis(&self, enabled: bool) -> bool {
        self.set(LPIS, enabled)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.control.load(SeqCst) & OFF != 0
    }

    /// Makes it what was saved. Which groups the guest has disabled is seen again. LPIs are
    /// disabled.
    pub(crate) fn restore(&self, saved: &RedistributorState) {
        let bits = |is: bool, bit: u32| if is { bit } else { 0 };
        let new = bits(saved.asleep, ASLEEP) | bits(saved.off, OFF) | (saved.dpg << DPG_SHIFT);
        self.control.store(new | self.control.load(SeqCst) & OWNED, SeqCst);
        self.properties.store(0, SeqCst);
        self.pending.store(0, SeqCst);
    }

    /// Returns GICR_CTLR.DPG0 and DPG1NS.
    pub(crate) fn dpg(&self) -> u32 {
        self.control.load(SeqCst) >> DPG_SHIFT & 3
    }

    /// Returns whether the vCPU may have what any may have.
    pub(crate) fn takes_part(&self, state: State) -> bool {
        let group = state.group() as u32;
        self.control.load(SeqCst) & (ASLEEP | OFF | DPG << group | APART << group) == 0
    }

    /// Sets GICR_WAKER.ProcessorSleep; returns whether that is a change.
    pub(crate) fn set_asleep(&self, asleep: bool) -> bool {
        self.set(ASLEEP, asleep)
    }

    pub(crate) fn set_off(&self, off: bool) -> bool {
        self.set(OFF, off)
    }

    /// Sets GICR_CTLR.DPG0 and DPG1NS; returns whether that is a change.
    pub(crate) fn set_dpg(&self, dpg: u32) -> bool {
        let changed = [self.set(DPG, dpg & 1 != 0), self.set(DPG << 1, dpg & 2 != 0)];
        changed.contains(&true)
    }

    pub(crate) fn set_apart(&self, group: Group, apart: bool) -> bool {
        self.set(APART << group as u32, apart)
    }

    /// Takes the owned half; returns whether it was to be had.
    pub(crate) fn take_owned(&self) -> bool {
        self.set(OWNED, true)
    }

    /// Takes note of a write that is complete when the vCPU has folded, which was kicked for it.
    pub(crate) fn begins_write(&self) {
        self.written.fetch_add(1, SeqCst);
    }

    /// Returns whether a write is not complete: GICR_CTLR.RWP, and part of GICD_CTLR.RWP.
    pub(crate) fn write_pending(&self) -> bool {
        if self.control().is_busy() {
            return true;
        }
        let written = self.written.load(SeqCst);
        if self.complete.load(SeqCst) == written {
            return false;
        }
        // Each is counted after the kick. So if the vCPU is not said to be kicked now, it has
        // folded since all that were counted.
        if self.run_state().mode() == Mode::Kicked {
            return true;
        }
        self.complete.store(written, SeqCst);
        false
    }

    fn set(&self, bit: u32, on: bool) -> bool {
        let was = if on {
            self.control.fetch_or(bit, SeqCst)
        } else {
            self.control.fetch_and(!bit, SeqCst)
        };
        (was & bit != 0) != on
    }
}

impl<P: Platform> fmt::Debug for Redistributor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redistributor")
            .field("id", &self.id)
            .field("affinity", &format_args!("{:#010x}", self.affinity.0))
            .field("mode", &self.run_state().mode())
            .field("asleep", &self.is_asleep())
            .finish_non_exhaustive()
    }
}
