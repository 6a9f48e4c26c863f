//! The interrupt controller of a VM: what all of its vCPUs and devices share.
//!
//! ```text
//!   a device's thread                        the holder's owner
//!   one read-modify-write of the word        news: takes the INTID
//!     ▶ the holder, and whether it is to     looks at the word, lists it
//!       hear of the change                   flush ...
//!   posts the INTID to that vCPU's news
//!     ▶ nothing, or kick, or wake
//! ```
//!
//! There is no lock. The step that changes a word names who has to hear of the change, and the post
//! says what that vCPU needs. So a sender that was overtaken by a change of the route posts to a
//! vCPU that finds nothing; the change itself has told the new holder.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, CpuId, Platform};
use doorbell_post::{Bit, Mode, Notice, Post, RunState, SoftwareGate, TwoLevel};

use crate::groups::Groups;
use crate::lpis::Lpis;
use crate::spec::Vtr;
use crate::vcpu_set::VcpuSet;
use crate::{
    Affinity, Host, IntId, Interrupt, Interrupts, Kick, Redistributor, State, Trigger, VcpuId,
};

/// The news of a vCPU: the INTIDs of its interrupts that have changed, and the LPIs that have
/// become pending.
pub type News<P> = Post<P, TwoLevel<P, 16>, SoftwareGate<P>>;

/// The word of the news that has a [chain](crate::lpi_lists::Chain) of LPIs, of a controller that
/// has any: it has no SPIs there then.
pub(crate) const LPI_WORD: usize = 15;

/// In that word, where an INTID would be that no interrupt has: LPIs that the vCPU holds are to go
/// to another one, or have another priority.
pub(crate) const MOVED: u32 = 1022;

/// How many SPIs there may be if there are LPIs.
pub(crate) const SPIS_BESIDE_LPIS: u32 = LPI_WORD as u32 * 64 - 32;

/// A number of vCPUs or SPIs that there cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// SPIs come in blocks of 32 up to 960; or there are 988, all that there can be.
    Spis(u32),
    /// A VM has 1 to 512 vCPUs.
    Vcpus(usize),
    /// Two vCPUs have this affinity.
    SameAffinity(Affinity),
    /// A VM that has LPIs has at most 928 SPIs.
    SpisBesideLpis(u32),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Spis(spis) => {
                write!(f, "{spis} SPIs: a multiple of 32 up to 960 is possible, or 988")
            }
            BuildError::Vcpus(vcpus) => {
                write!(f, "{vcpus} vCPUs: 1 to {} are possible", VcpuId::COUNT)
            }
            BuildError::SpisBesideLpis(spis) => {
                write!(f, "{spis} SPIs: at most {SPIS_BESIDE_LPIS} are possible beside LPIs")
            }
            BuildError::SameAffinity(affinity) => {
                write!(f, "two vCPUs have the affinity {:#010x}", affinity.0)
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// An interrupt, a vCPU or a source that the VM does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSuch {
    /// There is no such SPI, or the INTID is that of a private interrupt where an SPI was meant, or
    /// the other way about.
    Interrupt(IntId),
    /// There is no such vCPU.
    Vcpu(VcpuId),
}

impl fmt::Display for NoSuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoSuch::Interrupt(id) => {
                write!(f, "the VM has no such interrupt: INTID {}", id.number())
            }
            NoSuch::Vcpu(vcpu) => write!(f, "the VM has no vCPU {}", vcpu.number()),
        }
    }
}

impl core::error::Error for NoSuch {}

/// A GICv3: the distributor with its SPIs, and a redistributor for each vCPU.
///
/// Nothing here takes a lock. Anybody may call anything, anywhere, unless it says otherwise;
/// nothing sleeps or waits for others.
pub struct Gic<P: Platform> {
    pub(crate) vtr: Vtr,
    /// The groups that are enabled: GICD_CTLR.EnableGrp0 and EnableGrp1.
    pub(crate) ctlr: P::AtomicU32,
    pub(crate) redistributors: Box<[Redistributor<P>]>,
    pub(crate) spis: Box<[Interrupt<P>]>,
    pub(crate) lpis: Lpis<P>,
    by_affinity: Box<[(Affinity, VcpuId)]>,
    /// Stands for those that there are not: nothing ever makes it pending.
    absent: Interrupt<P>,
}

/// The interrupts of one vCPU: its private ones, and the SPIs.
pub(crate) struct View<'a, P: Platform> {
    gic: &'a Gic<P>,
    vcpu: VcpuId,
}

impl<P: Platform> Interrupts<P> for View<'_, P> {
    #[inline]
    fn interrupt(&self, id: IntId) -> &Interrupt<P> {
        let spi = self.gic.spis.get(id.index().wrapping_sub(IntId::FIRST_SPI.index()));
        spi.unwrap_or_else(|| self.gic.other_or_absent(self.vcpu, id))
    }
}

impl<P: Platform> Gic<P> {
    /// Returns one for CPUs with that virtual CPU interface, as after a reset: everything disabled,
    /// and the redistributors asleep. `affinities` are those of the vCPUs, in the order of their
    /// numbers.
    ///
    /// # Errors
    /// If there can be no such controller. All that is ever allocated is allocated here, unless it
    /// [has LPIs](Gic::with_lpis).
    pub fn new(vtr: Vtr, spis: u32, affinities: &[Affinity]) -> Result<Self, BuildError> {
        if !(spis.is_multiple_of(32) && spis <= 960 || spis == 988) {
            return Err(BuildError::Spis(spis));
        }
        if affinities.is_empty() || affinities.len() > VcpuId::COUNT {
            return Err(BuildError::Vcpus(affinities.len()));
        }
        let vcpus = || (0..).map_while(VcpuId::new);
        let mut by_affinity: Vec<_> = affinities.iter().copied().zip(vcpus()).collect();
        by_affinity.sort_unstable();
        if let Some(two) = by_affinity.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(BuildError::SameAffinity(two[0].0));
        }
        let redistributors =
            affinities.iter().zip(vcpus()).map(|(&affinity, id)| Redistributor::new(id, affinity));
        let gic = Gic {
            vtr,
            ctlr: P::AtomicU32::new(0),
            redistributors: redistributors.collect(),
            spis: (0..spis).map(|_| Interrupt::new(Trigger::Level, VcpuId::FIRST)).collect(),
            lpis: Lpis::none(),
            by_affinity: by_affinity.into(),
            absent: Interrupt::new(Trigger::Edge, VcpuId::FIRST),
        };
        for spi in &gic.spis {
            // GICD_IROUTER resets to affinity 0.0.0.0, be there such a vCPU or not.
            let _ = spi.settle(|state, route| gic.choose(state, route));
        }
        Ok(gic)
    }

    /// Returns how many vCPUs there are.
    #[inline]
    pub fn vcpus(&self) -> usize {
        self.redistributors.len()
    }

    /// Returns how many SPIs there are.
    #[inline]
    pub fn spis(&self) -> u32 {
        self.spis.len() as u32
    }

    /// Returns the redistributor of a vCPU.
    ///
    /// # Errors
    /// If there is no such vCPU.
    #[inline]
    pub fn redistributor(&self, vcpu: VcpuId) -> Result<&Redistributor<P>, NoSuch> {
        self.redistributors.get(vcpu.index()).ok_or(NoSuch::Vcpu(vcpu))
    }

    /// Returns the vCPU of that affinity.
    pub fn vcpu_of(&self, affinity: Affinity) -> Option<VcpuId> {
        let found = self.by_affinity.binary_search_by_key(&affinity, |&(of, _)| of).ok()?;
        Some(self.by_affinity[found].1)
    }

    /// Returns an SPI, for its device.
    ///
    /// # Errors
    /// If there is no such SPI.
    pub fn spi(&self, id: IntId) -> Result<Line<'_, P>, NoSuch> {
        let index = id.index().checked_sub(IntId::FIRST_SPI.index());
        let interrupt =
            index.and_then(|index| self.spis.get(index)).ok_or(NoSuch::Interrupt(id))?;
        Ok(Line { gic: self, interrupt, id })
    }

    /// Returns a PPI or an SGI of a vCPU, for its device.
    ///
    /// # Errors
    /// If there is no such vCPU, or if it is no private interrupt.
    pub fn private(&self, vcpu: VcpuId, id: IntId) -> Result<Line<'_, P>, NoSuch> {
        let interrupt =
            self.redistributor(vcpu)?.private.get(id.index()).ok_or(NoSuch::Interrupt(id))?;
        Ok(Line { gic: self, interrupt, id })
    }

    /// Returns the INTIDs of the SPIs.
    pub(crate) fn spi_ids(&self) -> impl Iterator<Item = IntId> + use<P> {
        (IntId::FIRST_SPI.number()..).take(self.spis.len()).filter_map(IntId::new)
    }

    #[inline]
    pub(crate) fn view(&self, vcpu: VcpuId) -> View<'_, P> {
        View { gic: self, vcpu }
    }

    #[inline]
    fn other_or_absent(&self, vcpu: VcpuId, id: IntId) -> &Interrupt<P> {
        let other = if id.is_lpi() {
            self.lpis.get(id)
        } else {
            let redistributor = self.redistributors.get(vcpu.index());
            redistributor.and_then(|redistributor| redistributor.private.get(id.index()))
        };
        other.unwrap_or(&self.absent)
    }

    /// Returns which groups the distributor and the redistributor let through, and whether LPIs.
    #[inline]
    pub(crate) fn forwards(&self, redistributor: &Redistributor<P>) -> (Groups, bool) {
        let control = redistributor.control();
        let groups = if control.is_asleep() {
            Groups::NONE
        } else {
            Groups::from_bits(self.ctlr.load(SeqCst).into())
        };
        (groups, control.has_lpis())
    }

    /// Tells the holder of an interrupt that its word has changed.
    #[inline]
    pub(crate) fn post(&self, state: State, id: IntId, host: &mut impl Kick) {
        // If it has no holder, there is no such vCPU.
        if let Some(redistributor) = self.redistributors.get(state.holder_number() as usize) {
            redistributor.tell(id.number(), host);
        }
    }

    /// Makes a vCPU look at what it knows once more: which groups are enabled.
    pub(crate) fn look_again(&self, redistributor: &Redistributor<P>, host: &mut impl Kick) {
        // An INTID that no interrupt has.
        redistributor.tell(1023, host);
    }

    /// Makes a vCPU fold, if it is in the guest. Returns whether it still has to: until then, its
    /// run state says that it was kicked.
    pub(crate) fn recall(&self, redistributor: &Redistributor<P>, host: &mut impl Kick) -> bool {
        let (notice, mut recall) = redistributor.run_state().recall();
        redistributor.pass(notice, host);
        !recall.is_complete()
    }

    /// Makes the holder of an interrupt fold, if that may have it in a list register. Returns which
    /// vCPU still has to.
    pub(crate) fn recall_holder(
        &self,
        state: State,
        id: IntId,
        host: &mut impl Kick,
    ) -> Option<VcpuId> {
        // A private interrupt is not said to be held.
        if id.is_shared() && !state.is_held() {
            return None;
        }
        let holder = state.holder()?;
        self.recall(self.redistributors.get(holder.index())?, host).then_some(holder)
    }

    /// Returns those of some vCPUs that have been kicked and have not folded yet.
    pub(crate) fn still_kicked(&self, vcpus: VcpuSet) -> VcpuSet {
        let kicked = |vcpu: VcpuId| {
            let redistributor = self.redistributors.get(vcpu.index());
            redistributor
                .is_some_and(|redistributor| redistributor.run_state().mode() == Mode::Kicked)
        };
        vcpus.filter(kicked)
    }
}

impl<P: Platform> fmt::Debug for Gic<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self
            .spis
            .iter()
            .map(Interrupt::state)
            .filter(|state| state.is_pending() || state.is_active());
        f.debug_struct("Gic")
            .field("ctlr", &self.ctlr.load(SeqCst))
            .field("redistributors", &self.redistributors)
            .field("spis pending or active", &some.count())
            .finish_non_exhaustive()
    }
}

/// An interrupt as its device sees it.
#[derive(Clone, Copy)]
pub struct Line<'a, P: Platform> {
    gic: &'a Gic<P>,
    interrupt: &'a Interrupt<P>,
    id: IntId,
}

impl<P: Platform> Line<'_, P> {
    /// Makes the interrupt pending until it is acknowledged: an edge, a message, or a physical
    /// interrupt that is passed on, which comes again after its deactivation if it has to. By
    /// anybody.
    #[inline]
    pub fn edge(&self, host: &mut impl Kick) {
        self.tells_of_latch(self.interrupt.latch(), host);
    }

    #[inline]
    pub(crate) fn tells_of_latch(&self, was: State, host: &mut impl Kick) {
        // Whoever has latched it before tells the holder, or has. While it is disabled there is
        // nothing to tell. (When it is active there is: its end has to be seen.)
        if !was.is_latched() && was.is_enabled() {
            self.gic.post(was, self.id, host);
        }
    }

    /// Takes back that the interrupt is pending by itself, as a write of GICD_ICPENDR does, and
    /// tells of the end of a physical interrupt that was passed on by that: the device does not
    /// give it any more. What the guest has acknowledged stays active.
    ///
    /// # Context
    /// Any task, with nothing held; does not sleep.
    pub fn take_back(&self, host: &mut impl Host) {
        let was = self.interrupt.unlatch();
        // The holder's list register may say it, too: then the holder sees that it will not end in
        // the guest.
        let _ = self.gic.recall_holder(was, self.id, host);
        if was.is_latched() && was.is_physical() {
            self.gic.ends_physically(self, host);
        }
    }

    /// Sets the level that a source gives, of 32; the interrupt's is high while any is. A rising
    /// edge makes an edge-triggered interrupt pending. By the source.
    #[inline]
    pub fn set_level(&self, source: u32, high: bool, host: &mut impl Kick) {
        let _ = self.change_level(source, high, host);
    }

    /// [`set_level`](Line::set_level), which says what the interrupt was.
    #[inline]
    pub(crate) fn change_level(&self, source: u32, high: bool, host: &mut impl Kick) -> State {
        let was = self.interrupt.set_level(source, high);
        if was.trigger() == Trigger::Edge {
            if high && was.sources() >> (source % 32) & 1 == 0 {
                self.tells_of_latch(was, host);
            }
        } else if high {
            // The end of a level that is active is seen anyway.
            if was.is_candidate_if_pending() && !was.is_pending() {
                self.gic.post(was, self.id, host);
            }
        } else if was.is_candidate() && !was.is_latched() && was.sources() == 1 << (source % 32) {
            // It is pending in a list register, perhaps, and should not be.
            let _ = self.gic.recall_holder(was, self.id, host);
        }
        was
    }

    #[inline]
    pub(crate) fn new<'a>(gic: &'a Gic<P>, interrupt: &'a Interrupt<P>, id: IntId) -> Line<'a, P> {
        Line { gic, interrupt, id }
    }

    #[inline]
    pub(crate) fn interrupt(&self) -> &Interrupt<P> {
        self.interrupt
    }

    #[inline]
    pub(crate) fn id(&self) -> IntId {
        self.id
    }

    /// Returns what the interrupt is at this moment; what its holder's CPU has in a list register
    /// is not seen.
    pub fn state(&self) -> State {
        self.interrupt.state()
    }

    /// Sets the physical interrupt that backs it. By the host, while the interrupt is neither
    /// pending nor active.
    pub fn set_physical(&self, physical: Option<crate::PhysicalIntId>) {
        self.interrupt.set_physical(physical);
    }
}

impl<P: Platform> fmt::Debug for Line<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("id", &self.id).field("state", &self.state()).finish()
    }
}

impl<P: Platform> Redistributor<P> {
    #[inline]
    pub(crate) fn run_state(&self) -> &RunState<P> {
        self.news.run_state()
    }

    /// Tells the vCPU that an INTID has changed, of which there are 1,024.
    #[inline]
    pub(crate) fn tell(&self, number: u32, host: &mut impl Kick) {
        if let Some(bit) = Bit::new(number as usize % 1024) {
            self.pass(self.news.post(bit), host);
        }
    }

    #[inline]
    pub(crate) fn pass(&self, notice: Notice<CpuId>, host: &mut impl Kick) {
        if notice != Notice::Nothing {
            host.notice(self.id(), notice);
        }
    }
}
