//! The state of a controller between two hosts, or two lives of a VM.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::holders::Level;
use crate::interrupt::Route;
use crate::vcpu_set::VcpuSet;
use crate::{
    Affinity, CpuInterface, Gic, Group, IntId, Interrupt, Interrupts, Kick, ListRegisters,
    PhysicalIntId, VcpuId,
};

/// What an interrupt controller is, apart from the registers of the virtual CPU interfaces
/// (ICH_VMCR_EL2, `ICH_AP0R<n>_EL2` and `ICH_AP1R<n>_EL2`), which are the host's to save.
///
/// With the feature `serde`, in whatever format the host writes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GicState {
    /// [`GicState::VERSION`]: first, so that a reader of another one can tell.
    pub version: u32,
    /// GICD_CTLR.EnableGrp0 and EnableGrp1.
    pub enabled_groups: u32,
    /// One for each vCPU.
    pub redistributors: Vec<RedistributorState>,
    /// From INTID 32 on.
    pub spis: Vec<InterruptState>,
}

/// What a redistributor is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RedistributorState {
    /// The affinity of its vCPU, as in GICR_TYPER.
    pub affinity: u32,
    /// GICR_WAKER.ProcessorSleep.
    pub asleep: bool,
    /// The vCPU is powered off.
    pub off: bool,
    /// GICR_CTLR.DPG0 and DPG1NS.
    pub dpg: u32,
    /// SGIs and PPIs, from INTID 0 on.
    pub private: Vec<InterruptState>,
    /// The holders of the bits of the active priority registers: INTID, group, and the
    /// priority that the bit is for.
    pub active_priorities: Vec<(u16, u8, u8)>,
}

/// What an interrupt is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InterruptState {
    /// `GICD_ISENABLER<n>`.
    pub enabled: bool,
    /// `GICD_ICFGR<n>`: edge-triggered.
    pub edge: bool,
    /// Pending until it is acknowledged.
    pub latched: bool,
    /// `GICD_ISACTIVER<n>`.
    pub active: bool,
    /// `GICD_IGROUPR<n>`.
    pub group: u8,
    /// `GICD_IPRIORITYR<n>`.
    pub priority: u8,
    /// The level that each source gives.
    pub sources: u32,
    /// The INTID of the physical interrupt that backs it.
    pub physical: Option<u16>,
    /// The affinity that `GICD_IROUTER<n>` says, as in GICR_TYPER.
    pub affinity: u32,
    /// `GICD_IROUTER<n>.Interrupt_Routing_Mode`.
    pub one_of_n: bool,
    /// The vCPU on which it is active, or would be signalled.
    pub holder: Option<u16>,
}

/// Why a state is not saved or restored. The controller is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StateError {
    /// The owned half of this vCPU was not given, or not once.
    Missing(VcpuId),
    /// This vCPU is in the guest.
    InGuest(VcpuId),
    /// This vCPU has levels that have ended and that nobody was told of.
    Untold(VcpuId),
    /// The state is of a version that is not known.
    Version(u32),
    /// The state is of a controller with other vCPUs.
    Vcpus,
    /// The state is of a controller with another number of SPIs.
    Spis(usize),
    /// The redistributor of this vCPU is not one that there can be.
    Redistributor(VcpuId),
    /// An interrupt is not one that there can be here: its INTID.
    Interrupt(u32),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Missing(vcpu) => {
                write!(f, "the CPU interface of vCPU {} is not there once", vcpu.number())
            }
            StateError::InGuest(vcpu) => write!(f, "vCPU {} is in the guest", vcpu.number()),
            StateError::Untold(vcpu) => {
                write!(f, "nobody was told of levels that vCPU {} has ended", vcpu.number())
            }
            StateError::Version(version) => {
                write!(f, "a state of version {version}, which is not known")
            }
            StateError::Vcpus => write!(f, "the state is of a controller with other vCPUs"),
            StateError::Spis(spis) => write!(f, "the state is of a controller with {spis} SPIs"),
            StateError::Redistributor(vcpu) => {
                write!(f, "vCPU {}: no redistributor can be like that", vcpu.number())
            }
            StateError::Interrupt(id) => {
                write!(f, "INTID {id}: no interrupt can be like that here")
            }
        }
    }
}

impl core::error::Error for StateError {}

impl GicState {
    /// The version that is saved, and the only one that there has been.
    pub const VERSION: u32 = 1;
}

impl<P: Platform> Gic<P> {
    /// Returns the state of the controller. By a host that has all vCPUs out of the guest: it has
    /// their owned halves. What devices change meanwhile may be in it or not. Does not sleep.
    ///
    /// # Errors
    /// If a vCPU is missing, is in the guest, or has ends to tell.
    pub fn save<'a>(
        &self,
        vcpus: impl IntoIterator<Item = &'a mut CpuInterface>,
    ) -> Result<GicState, StateError> {
        let mut levels: Vec<Vec<(u16, u8, u8)>> =
            self.redistributors.iter().map(|_| Vec::new()).collect();
        let mut seen = VcpuSet::EMPTY;
        for interface in vcpus {
            self.is_stopped(interface, &mut seen)?;
            let list = &interface.list;
            let view = self.view(interface.vcpu());
            // Somebody may have made it inactive, and the news be on the way.
            let active = |id| list.known.contains(id) && view.interrupt(id).state().is_active();
            levels[interface.vcpu().index()] = (list.holders.all())
                .filter(|&(_, id)| active(id))
                .map(|(level, id)| {
                    (id.number() as u16, level.group() as u8, list.holders.priority(level).0)
                })
                .collect();
        }
        self.all_are(seen)?;
        let redistributors =
            self.redistributors.iter().zip(levels).map(|(redistributor, active_priorities)| {
                RedistributorState {
                    affinity: redistributor.affinity().0,
                    asleep: redistributor.is_asleep(),
                    off: redistributor.is_off(),
                    dpg: redistributor.dpg(),
                    private: redistributor.private.iter().map(InterruptState::of).collect(),
                    active_priorities,
                }
            });
        Ok(GicState {
            version: GicState::VERSION,
            enabled_groups: self.ctlr.load(SeqCst),
            redistributors: redistributors.collect(),
            spis: self.spis.iter().map(InterruptState::of).collect(),
        })
    }

    /// Makes the controller what a state says: also after a reset of the VM, with the state of a
    /// new controller. By a host that has all vCPUs out of the guest; devices are quiet.
    /// `registers` are what the vCPUs' CPU interfaces will be when they enter the guest next,
    /// restored before. Does not sleep.
    ///
    /// # Errors
    /// If a vCPU is missing or in the guest, or the state is not of such a controller. Nothing has
    /// changed then.
    pub fn restore<'a, R: ListRegisters + 'a>(
        &self,
        state: &GicState,
        vcpus: impl IntoIterator<Item = (&'a mut CpuInterface, &'a R)>,
        host: &mut impl Kick,
    ) -> Result<(), StateError> {
        self.fits(state)?;
        let mut seen = VcpuSet::EMPTY;
        let mut stopped = Vec::new();
        for (interface, registers) in vcpus {
            self.is_stopped(interface, &mut seen)?;
            stopped.push((interface, registers));
        }
        self.all_are(seen)?;
        self.ctlr.store(state.enabled_groups, SeqCst);
        for (redistributor, saved) in self.redistributors.iter().zip(&state.redistributors) {
            redistributor.restore(saved);
            redistributor
                .private
                .iter()
                .zip(&saved.private)
                .for_each(|(interrupt, saved)| interrupt.restore(saved));
        }
        for (spi, saved) in self.spis.iter().zip(&state.spis) {
            spi.restore(saved);
        }
        for (interface, registers) in stopped {
            interface.forgets_all();
            let saved = &state.redistributors[interface.vcpu().index()];
            if !saved.off {
                interface.looks_at_all(self, registers, host);
            }
            let bits = self.vtr.preemption_bits();
            let view = self.view(interface.vcpu());
            for &(id, group, priority) in &saved.active_priorities {
                let level = Level::new(
                    Group::BOTH[usize::from(group & 1)],
                    u32::from(priority) >> (8 - bits),
                );
                if let Some(id) = IntId::new(id.into()) {
                    interface.list.holds(&view, id, level);
                }
            }
        }
        for id in self.spi_ids() {
            self.settle(id, host);
        }
        Ok(())
    }

    fn is_stopped(&self, interface: &CpuInterface, seen: &mut VcpuSet) -> Result<(), StateError> {
        let vcpu = interface.vcpu();
        if self.redistributor(vcpu).is_err() || !seen.insert(vcpu) {
            return Err(StateError::Missing(vcpu));
        }
        if interface.list.counts.listed() != 0 {
            return Err(StateError::InGuest(vcpu));
        }
        if interface.list.has_ended() {
            return Err(StateError::Untold(vcpu));
        }
        Ok(())
    }

    fn all_are(&self, seen: VcpuSet) -> Result<(), StateError> {
        let missing =
            self.redistributors.iter().find(|redistributor| !seen.contains(redistributor.id()));
        missing.map_or(Ok(()), |redistributor| Err(StateError::Missing(redistributor.id())))
    }

    /// Finds out whether a state is of such a controller.
    fn fits(&self, state: &GicState) -> Result<(), StateError> {
        if state.version != GicState::VERSION {
            return Err(StateError::Version(state.version));
        }
        if state.spis.len() != self.spis.len() {
            return Err(StateError::Spis(state.spis.len()));
        }
        let affinities = self.redistributors.iter().map(|redistributor| redistributor.affinity().0);
        if !affinities.eq(state.redistributors.iter().map(|saved| saved.affinity))
            || state.enabled_groups > 3
        {
            return Err(StateError::Vcpus);
        }
        for (redistributor, saved) in self.redistributors.iter().zip(&state.redistributors) {
            let preemption = 0xffu32 << (8 - self.vtr.preemption_bits());
            let holds = |&(id, group, priority): &(u16, u8, u8)| {
                IntId::new(id.into())
                    .is_some_and(|id| id.index() < IntId::FIRST_SPI.index() + self.spis.len())
                    && group < 2
                    && u32::from(priority) & !preemption == 0
            };
            if saved.private.len() != 32
                || saved.dpg > 3
                || !saved.active_priorities.iter().all(holds)
            {
                return Err(StateError::Redistributor(redistributor.id()));
            }
            for (number, interrupt) in (0..).zip(&saved.private) {
                self.fits_interrupt(number, interrupt)?;
                let its = interrupt.holder == Some(redistributor.id().number() as u16);
                if !its || number < 16 && !interrupt.edge {
                    return Err(StateError::Interrupt(number));
                }
            }
        }
        (32..)
            .zip(&state.spis)
            .try_for_each(|(number, interrupt)| self.fits_interrupt(number, interrupt))
    }

    fn fits_interrupt(&self, number: u32, interrupt: &InterruptState) -> Result<(), StateError> {
        let implemented = 0xffu32 << (8 - self.vtr.priority_bits());
        let holder = |holder: u16| usize::from(holder) < self.vcpus();
        let physical = |id: u16| PhysicalIntId::new(id.into()).is_some();
        let fits = interrupt.group < 2
            && u32::from(interrupt.priority) & !implemented == 0
            && interrupt.physical.is_none_or(physical)
            && interrupt.holder.is_none_or(holder);
        if fits { Ok(()) } else { Err(StateError::Interrupt(number)) }
    }
}

impl InterruptState {
    fn of<P: Platform>(interrupt: &Interrupt<P>) -> Self {
        let (state, route) = (interrupt.state(), interrupt.route());
        InterruptState {
            enabled: state.is_enabled(),
            edge: state.trigger() == crate::Trigger::Edge,
            latched: state.is_latched(),
            active: state.is_active(),
            group: state.group() as u8,
            priority: state.priority().0,
            sources: state.sources(),
            physical: interrupt.physical().map(|id| id.number() as u16),
            affinity: route.affinity.0,
            one_of_n: route.one_of_n,
            holder: state.holder().map(|vcpu| vcpu.number() as u16),
        }
    }

    pub(crate) fn route(&self) -> Route {
        Route { affinity: Affinity(self.affinity), one_of_n: self.one_of_n }
    }
}
