//! Vectors of x86 CPUs: which interrupt of the host has which, and how it gets another without
//! losing one.
//!
//! A CPU's local APIC keeps what has arrived and not been taken in its IRR (Intel SDM vol. 3,
//! 11.8.4), and no other CPU can read it. So only the CPU itself can say that a vector is quiet,
//! and until it has, the vector stays in *quarantine*: its entry goes on saying what an interrupt
//! that still arrives was meant for, and nobody gets it. Everything here follows from that:
//!
//! - a move leaves the former vector installed, and what was sent there is handled
//! - a shutdown leaves a mark, and what was sent before is counted and harmless
//! - a CPU that finds something other than an interrupt in its table writes nothing: nobody can
//!   have installed anything there since (document 004 is about the CPU that writes "unused" over
//!   what was installed in between)
//! - a CPU that goes offline hands over what is in its IRR

mod best;
mod error;
mod irq;
mod matrix;
mod table;

use alloc::boxed::Box;
use core::ops::RangeInclusive;

use doorbell_platform::{CachePadded, CpuId, Lock, LockClass, Platform, Vector, WaitType};

pub use self::error::VectorError;
pub use self::irq::{Affinity, CpuVector, Irq};
use self::matrix::{Full, Matrix};
use self::table::Entry;
pub use self::table::{Arrived, Unhandled, VectorIrq};
use crate::CpuSet;

/// A leaf, taken with interrupts off, also by interrupt handlers that clean up.
pub(crate) static VECTORS: LockClass = LockClass::new("host.vectors", WaitType::Spin).leaf();

/// How a device gets a new message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// In one step, as far as an interrupt can see: the device can mask, or an entry of the IOMMU
    /// stands between.
    Whole,
    /// Address and data are written one after the other, while the device may send what stands
    /// there: plain MSI without mask bit. The new place differs from the former one in the address
    /// only; or there is a place [between](Move::between), with the new vector on the former CPU:
    /// data first, then the address. Each of them is installed.
    WordByWord,
}

/// What an interrupt has.
#[derive(Default)]
struct Assigned {
    current: Option<CpuVector>,
    /// What it had before, and what stood between. Still installed.
    former: [Option<CpuVector>; 2],
    /// Somebody gives the device the new message.
    moving: bool,
    /// A vector is reserved for it, for when it is activated, or moved away from a CPU that goes
    /// offline.
    reserved: bool,
    managed: Option<CpuSet>,
}

impl Assigned {
    fn busy(&self) -> Option<VectorError> {
        let former = self.former.iter().flatten().next()?;
        Some(VectorError::Moving(former.cpu))
    }

    /// Has a vector reserved exactly if it goes to a CPU that goes offline. (One that is
    /// managed has its own everywhere.)
    fn settle(&mut self, matrix: &mut Matrix) {
        let leaves = self.managed.is_none()
            && self.current.is_some_and(|place| !matrix.is_online(place.cpu));
        match (self.reserved, leaves) {
            (false, true) => matrix.reserve_for_leaving(),
            (true, false) => matrix.unreserve(),
            _ => {}
        }
        self.reserved = leaves;
    }
}

struct State {
    matrix: Matrix,
    irqs: Box<[Assigned]>,
}

/// The vectors of all CPUs.
///
/// One lock orders what changes them; a CPU that an interrupt arrives at takes none.
pub struct Vectors<P: Platform> {
    state: Lock<P, State>,
    /// The vector tables, by CPU.
    tables: Box<[CachePadded<VectorIrq<P>>]>,
    vectors: RangeInclusive<u8>,
}

doorbell_platform::opaque_debug!([P: Platform] Vectors<P>);

/// An interrupt goes from one place to another: the device is to be given a new message, and then
/// this is to be [handed back](Vectors::moved).
#[derive(Debug)]
#[must_use = "the device still sends to the former place, and the interrupt cannot be moved again before this is handed back"]
pub struct Move {
    irq: Irq,
    from: CpuVector,
    between: Option<CpuVector>,
    to: CpuVector,
}

impl Move {
    /// The interrupt that is moved.
    pub fn irq(&self) -> Irq {
        self.irq
    }

    /// The place where the interrupt has gone so far.
    pub fn from(&self) -> CpuVector {
        self.from
    }

    /// The place that the device's message names after the first of two writes, if there have to be
    /// two.
    pub fn between(&self) -> Option<CpuVector> {
        self.between
    }

    /// The place where the interrupt will go.
    pub fn to(&self) -> CpuVector {
        self.to
    }
}

/// A CPU has to say of some vectors whether they are quiet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the vector is not used again before its CPU has looked"]
pub struct Cleanup {
    cpu: CpuId,
}

impl Cleanup {
    /// The CPU that is to call [`Vectors::cleanup`].
    pub fn cpu(self) -> CpuId {
        self.cpu
    }

    /// Interrupts the CPU, with a vector whose handler calls [`Vectors::cleanup`].
    ///
    /// The vector should be that of the lowest priority: a CPU that is asked to look
    /// [again](Cleaned::Again) then takes what is in its IRR before.
    ///
    /// # Context
    /// Any task or hard interrupt, with no lock held that the interrupt might need; does not sleep.
    #[track_caller]
    pub fn send<P: Platform>(self, vector: Vector) {
        P::send_ipi(self.cpu, vector);
    }
}

/// What a look at the IRR has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "some may have to be looked at again"]
pub enum Cleaned {
    /// Nothing is in quarantine on this CPU.
    All,
    /// Some interrupt has arrived and not been taken: to be done again after it was.
    Again(Cleanup),
}

/// A move was cancelled: the interrupt goes where it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the vectors are not used again before their CPUs have looked"]
pub struct Cancelled {
    /// The CPU that the interrupt was to go to is to look.
    pub to: Cleanup,
    /// The CPU where the interrupt stays is to look, too, if there was a place
    /// [between](Move::between).
    pub between: Option<Cleanup>,
    /// The CPU where it stays is going offline: it has to be moved again, as soon as those have
    /// looked. There is a vector for it.
    pub leaves: bool,
}

impl<P: Platform> Vectors<P> {
    /// The greatest number of CPUs.
    pub const MAX_CPUS: u32 = 1 << 13;
    /// The greatest number of interrupts.
    pub const MAX_IRQS: u32 = 1 << 20;

    /// Creates the vectors: `vectors` of each of `cpus` CPUs, for interrupts below `irqs`. All CPUs
    /// are [offline](Vectors::online). Those of `vectors` below 32, which belong to exceptions, are
    /// left out.
    ///
    /// # Errors
    /// If there are more than [`MAX_CPUS`](Vectors::MAX_CPUS) or [`MAX_IRQS`](Vectors::MAX_IRQS).
    pub fn new(cpus: u32, irqs: u32, vectors: RangeInclusive<u8>) -> Result<Self, VectorError> {
        if cpus > Self::MAX_CPUS {
            return Err(VectorError::TooManyCpus(Self::MAX_CPUS));
        }
        if irqs > Self::MAX_IRQS {
            return Err(VectorError::TooManyIrqs(Self::MAX_IRQS));
        }
        let vectors = (*vectors.start()).max(32)..=*vectors.end();
        let irqs = (0..irqs).map(|_| Assigned::default()).collect();
        Ok(Vectors {
            state: Lock::new(&VECTORS, State { matrix: Matrix::new(cpus, vectors.clone()), irqs }),
            tables: (0..cpus).map(|_| CachePadded(VectorIrq::new())).collect(),
            vectors,
        })
    }

    /// Returns what a CPU looks at when an interrupt arrives.
    ///
    /// # Errors
    /// If there is no such CPU.
    pub fn cpu(&self, cpu: CpuId) -> Result<&VectorIrq<P>, VectorError> {
        self.tables.get(cpu.0 as usize).map(|table| &table.0).ok_or(VectorError::NoSuchCpu(cpu))
    }

    /// Returns how many vectors are free and reserved for nobody, on all CPUs that are online.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn free(&self) -> u32 {
        self.state.lock_irqsave().matrix.unreserved()
    }

    /// Returns where an interrupt goes.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn place(&self, irq: Irq) -> Option<CpuVector> {
        self.state.lock_irqsave().irqs.get(irq.0 as usize)?.current
    }

    fn set(&self, place: CpuVector, entry: Entry) {
        if let Some(table) = self.tables.get(place.cpu.0 as usize) {
            table.set(place.vector, entry);
        }
    }

    /// Runs `f` on one interrupt under the lock. What it refuses for want of a vector becomes an
    /// error that says where, when the lock is gone.
    fn with<R>(
        &self,
        irq: Irq,
        to: Affinity<'_>,
        f: impl FnOnce(&mut Matrix, &mut Assigned) -> Result<R, Refused>,
    ) -> Result<R, VectorError> {
        let (refused, reserved) = {
            let mut state = self.state.lock_irqsave();
            let State { matrix, irqs } = &mut *state;
            let assigned = irqs.get_mut(irq.0 as usize).ok_or(VectorError::NoSuchIrq(irq))?;
            match f(matrix, assigned) {
                Ok(done) => return Ok(done),
                Err(refused) => (refused, matrix.reserved()),
            }
        };
        Err(match (refused, to) {
            (Refused::Because(error), _) => error,
            (Refused::Full, Affinity::Anywhere) => VectorError::Full { of: None, reserved },
            (Refused::Full, Affinity::In(mask)) => {
                VectorError::Full { of: Some(mask.clone()), reserved }
            }
        })
    }

    /// Promises that there will be a vector for an interrupt, on some CPU, when it is
    /// [activated](Vectors::activate).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If all are in use or reserved; if the interrupt has a vector or one reserved, or is managed.
    pub fn reserve(&self, irq: Irq) -> Result<(), VectorError> {
        self.with(irq, Affinity::Anywhere, |matrix, assigned| {
            if assigned.current.is_some() || assigned.reserved {
                return Err(VectorError::Active(irq).into());
            }
            if assigned.managed.is_some() {
                return Err(VectorError::Managed(irq).into());
            }
            matrix.reserve()?;
            assigned.reserved = true;
            Ok(())
        })
    }

    /// Undoes [`reserve`](Vectors::reserve).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the interrupt has no vector reserved.
    pub fn unreserve(&self, irq: Irq) -> Result<(), VectorError> {
        self.with(irq, Affinity::Anywhere, |matrix, assigned| {
            // For one that has a vector, `begin_offline` has reserved the next.
            if assigned.current.is_some() || !core::mem::take(&mut assigned.reserved) {
                return Err(VectorError::Inactive(irq).into());
            }
            matrix.unreserve();
            Ok(())
        })
    }

    /// Makes an interrupt a managed one: a vector is set aside on each CPU of `mask`, so that it
    /// can be activated there as long as one of them is online.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If a CPU of `mask` has none; if there is no such CPU, or none at all; if the interrupt has a
    /// vector or one reserved, or is managed already.
    pub fn manage(&self, irq: Irq, mask: CpuSet) -> Result<(), VectorError> {
        let beyond = mask.iter().find(|cpu| cpu.0 as usize >= self.tables.len());
        if let Some(cpu) = beyond {
            return Err(VectorError::NoSuchCpu(cpu));
        }
        let kept = mask.clone();
        self.with(irq, Affinity::In(&mask), move |matrix, assigned| {
            if assigned.current.is_some() || assigned.reserved {
                return Err(VectorError::Active(irq).into());
            }
            if assigned.managed.is_some() {
                return Err(VectorError::Managed(irq).into());
            }
            if kept.is_empty() {
                return Err(Refused::Full);
            }
            matrix.reserve_managed(&kept)?;
            assigned.managed = Some(kept);
            Ok(())
        })
    }

    /// Gives back what was set aside for a managed interrupt.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the interrupt has a vector, or is not managed.
    pub fn unmanage(&self, irq: Irq) -> Result<(), VectorError> {
        let mask = self.with(irq, Affinity::Anywhere, |matrix, assigned| {
            if assigned.current.is_some() {
                return Err(VectorError::Active(irq).into());
            }
            let mask = assigned.managed.take().ok_or(VectorError::Managed(irq))?;
            matrix.remove_managed(&mask);
            Ok(mask)
        })?;
        drop(mask);
        Ok(())
    }

    /// Gives an interrupt a vector on a CPU of `to`: on the one that has most left, or if it is
    /// managed, of those set aside for it on the one where the fewest managed interrupts go. The
    /// caller then composes the device's message.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If none is free; if the interrupt has one.
    pub fn activate(&self, irq: Irq, to: Affinity<'_>) -> Result<CpuVector, VectorError> {
        self.with(irq, to, |matrix, assigned| {
            if assigned.current.is_some() {
                return Err(VectorError::Active(irq).into());
            }
            let place = match &assigned.managed {
                Some(mask) => matrix.allocate_managed(mask, to)?,
                None => matrix.allocate(to, assigned.reserved)?,
            };
            assigned.reserved = false;
            assigned.current = Some(place);
            self.set(place, Entry::Installed(irq));
            Ok(place)
        })
    }

    /// Takes its vector from an interrupt whose device has been kept from sending (masked, or its
    /// message cleared), and that nobody moves. What was sent before and arrives from here on is
    /// counted as [late](Unhandled::late), and is lost: who shuts down an interrupt whose device is
    /// in use (as VFIO does) answers for it, by injecting one once there is a receiver again.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the interrupt has no vector; if it is being moved.
    pub fn deactivate(&self, irq: Irq) -> Result<Cleanup, VectorError> {
        self.with(irq, Affinity::Anywhere, |matrix, assigned| {
            let place = assigned.current.ok_or(VectorError::Inactive(irq))?;
            if assigned.moving {
                return Err(VectorError::Moving(place.cpu).into());
            }
            // The former places are in quarantine already, and their CPU is asked to look; only
            // what they stand for changes.
            for place in core::mem::take(&mut assigned.former).into_iter().flatten() {
                self.set(place, Entry::Shutdown);
            }
            assigned.current = None;
            assigned.settle(matrix);
            matrix.quarantine(place);
            self.set(place, Entry::Shutdown);
            Ok(Cleanup { cpu: place.cpu })
        })
    }

    /// Begins to move an interrupt to one of the CPUs of `to`: `None` if it goes to one already.
    /// Both places are installed when this returns.
    ///
    /// A managed interrupt that goes to one of them is moved all the same if another has at least
    /// two fewer: asked of each one when a CPU has come back, they are spread evenly again.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If there is no vector; if the interrupt has none; if it is being moved.
    pub fn begin_move(
        &self,
        irq: Irq,
        to: Affinity<'_>,
        update: Update,
    ) -> Result<Option<Move>, VectorError> {
        self.with(irq, to, |matrix, assigned| {
            let from = assigned.current.ok_or(VectorError::Inactive(irq))?;
            if to.contains(from.cpu) && matrix.is_online(from.cpu) {
                let crowded =
                    |mask| update == Update::Whole && matrix.is_crowded(from.cpu, mask, to);
                // No reason to refuse anything: it is where it may be.
                if assigned.busy().is_some() || !assigned.managed.as_ref().is_some_and(crowded) {
                    return Ok(None);
                }
            }
            if let Some(busy) = assigned.busy() {
                return Err(busy.into());
            }
            let (place, between) = match (&assigned.managed, update) {
                (Some(mask), Update::Whole) => (matrix.allocate_managed(mask, to)?, None),
                (None, Update::Whole) => (matrix.allocate(to, assigned.reserved)?, None),
                (None, Update::WordByWord) => {
                    matrix.allocate_beside(from, to, assigned.reserved)?
                }
                (Some(_), Update::WordByWord) => return Err(VectorError::Managed(irq).into()),
            };
            self.set(place, Entry::Installed(irq));
            if let Some(between) = between {
                self.set(between, Entry::Installed(irq));
            }
            assigned.reserved = false;
            assigned.current = Some(place);
            assigned.former = [Some(from), between];
            assigned.moving = true;
            Ok(Some(Move { irq, from, between, to: place }))
        })
    }

    /// Ends a move: the device has the new message, and nothing more can be sent by the former.
    /// (Its mask bit, or what it was written, was read back, or the IOMMU's invalidation has
    /// completed.) The former vector is free once its CPU has seen its IRR clear.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the move is not one of these vectors.
    pub fn moved(&self, moved: Move) -> Result<Cleanup, VectorError> {
        let cpu = moved.from.cpu;
        self.end_move(moved, |_, _| ())?;
        Ok(Cleanup { cpu })
    }

    /// Takes a move back: the device still has its former message, also if two writes were to be
    /// made, and the interrupt goes where it went. The places that were to be used are free once
    /// their CPUs have seen their IRRs clear, in case the device has used them: that is the CPU
    /// that the interrupt was to go to, and the one where it stays, if there was a place
    /// [between](Move::between).
    ///
    /// Where the interrupt went may be [going offline](Vectors::begin_offline) by now. Then the
    /// vector that it gives back is reserved for it.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the move is not one of these vectors.
    pub fn cancel(&self, moved: Move) -> Result<Cancelled, VectorError> {
        let Move { from, between, to, .. } = moved;
        let leaves = self.end_move(moved, |matrix, assigned| {
            assigned.current = Some(from);
            assigned.former[0] = Some(to);
            assigned.settle(matrix);
            !matrix.is_online(from.cpu)
        })?;
        let between = between.map(|between| Cleanup { cpu: between.cpu });
        Ok(Cancelled { to: Cleanup { cpu: to.cpu }, between, leaves })
    }

    fn end_move<R>(
        &self,
        moved: Move,
        f: impl FnOnce(&mut Matrix, &mut Assigned) -> R,
    ) -> Result<R, VectorError> {
        let irq = moved.irq;
        self.with(irq, Affinity::Anywhere, |matrix, assigned| {
            if !assigned.moving
                || assigned.current != Some(moved.to)
                || assigned.former[0] != Some(moved.from)
            {
                return Err(VectorError::NotMoving(irq).into());
            }
            let result = f(matrix, assigned);
            assigned.moving = false;
            assigned.former.iter().flatten().for_each(|place| matrix.quarantine(*place));
            Ok(result)
        })
    }

    /// Frees those quarantined vectors of the calling CPU that `irr` says are clear. A CPU calls
    /// this of itself. A CPU that goes offline calls it too, as long as it takes interrupts: what
    /// is in quarantine there may be in the way of an interrupt that has to leave.
    ///
    /// `irr` reads the local APIC, under the lock. If it were read before, a vector that is
    /// quarantined between could have arrived after the look.
    ///
    /// # Context
    /// Hard interrupt of the CPU, or a task that is not moved to another CPU meanwhile; does not
    /// sleep.
    pub fn cleanup(&self, cpu: CpuId, irr: impl Fn(Vector) -> bool) -> Cleaned {
        let mut state = self.state.lock_irqsave();
        if !state.matrix.takes(cpu) {
            return Cleaned::All;
        }
        let mut again = false;
        for vector in state.matrix.quarantined(cpu).iter() {
            if irr(vector) {
                again = true;
            } else {
                self.end_quarantine(&mut state, CpuVector { cpu, vector });
            }
        }
        if again { Cleaned::Again(Cleanup { cpu }) } else { Cleaned::All }
    }

    fn end_quarantine(&self, state: &mut State, place: CpuVector) {
        if let Entry::Installed(irq) = self.tables[place.cpu.0 as usize].get(place.vector) {
            forget(&mut state.irqs[irq.0 as usize], place);
        }
        self.set(place, Entry::Unused);
        state.matrix.release(place);
    }

    /// Brings a CPU online, which takes interrupts from now on. What was in its IRR when it went
    /// away, it will take now: that was [handed over](Vectors::pending), so it is counted as
    /// [retriggered](Unhandled::retriggered). The CPU is to look at its quarantined vectors once
    /// its interrupts are on.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the CPU is online, or does not exist.
    pub fn online(&self, cpu: CpuId) -> Result<Cleanup, VectorError> {
        self.cpu(cpu)?;
        let mut state = self.state.lock_irqsave();
        if state.matrix.is_online(cpu) {
            return Err(VectorError::Online(cpu));
        }
        state.matrix.online(cpu);
        // If it had not gone yet, some may still go there, which need not leave any more.
        self.settle_on(&mut state, cpu);
        Ok(Cleanup { cpu })
    }

    /// Begins to take a CPU offline: it gets no more vectors, and each interrupt that goes there is
    /// sure of one elsewhere, whatever others ask for meanwhile. Next, the host moves what goes
    /// [there](Vectors::next_on) (and waits where an interrupt is being moved already: the CPUs
    /// that have to look are not this one); then the CPU itself, with interrupts off for good,
    /// handles what is [pending](Vectors::pending).
    ///
    /// One CPU at a time goes or comes.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the others have not enough free vectors for what goes there and what was reserved; if the
    /// CPU is offline.
    pub fn begin_offline(&self, cpu: CpuId) -> Result<(), VectorError> {
        self.cpu(cpu)?;
        let mut state = self.state.lock_irqsave();
        if !state.matrix.is_online(cpu) {
            return Err(VectorError::Offline(cpu));
        }
        let leaving =
            self.going_to(&state, cpu).filter(|irq| state.irqs[irq.0 as usize].managed.is_none());
        let leaving = leaving.count() as u32;
        let reserved = state.matrix.reserved();
        state
            .matrix
            .begin_offline(cpu, leaving)
            .map_err(|Full| VectorError::Full { of: None, reserved })?;
        self.settle_on(&mut state, cpu);
        Ok(())
    }

    /// `cpu`, which exists, has come or begun to go.
    fn settle_on(&self, state: &mut State, cpu: CpuId) {
        for vector in self.vectors.clone().map(Vector) {
            if let Some(irq) = self.goes_to(state, CpuVector { cpu, vector }) {
                state.irqs[irq.0 as usize].settle(&mut state.matrix);
            }
        }
    }

    /// Returns the interrupt that goes to a place of a CPU that exists.
    fn goes_to(&self, state: &State, place: CpuVector) -> Option<Irq> {
        match self.tables[place.cpu.0 as usize].get(place.vector) {
            Entry::Installed(irq) if state.irqs[irq.0 as usize].current == Some(place) => Some(irq),
            _ => None,
        }
    }

    /// What goes to `cpu`, which exists.
    fn going_to(&self, state: &State, cpu: CpuId) -> impl Iterator<Item = Irq> {
        self.vectors
            .clone()
            .map(Vector)
            .filter_map(move |vector| self.goes_to(state, CpuVector { cpu, vector }))
    }

    /// Returns an interrupt that goes to `cpu`, if there is one.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn next_on(&self, cpu: CpuId) -> Option<Irq> {
        self.cpu(cpu).ok()?;
        let state = self.state.lock_irqsave();
        self.going_to(&state, cpu).next()
    }

    /// Returns an interrupt that `irr` says has arrived and that the CPU will not take. A CPU that
    /// goes offline calls this, when all interrupts that went there were moved or shut down, and
    /// with interrupts off for good. The caller handles the interrupt as if it had
    /// [arrived](Arrived::Irq), there or elsewhere, and calls this again, until there is none. From
    /// then on the CPU has no part in any interrupt, until it is [online](Vectors::online) again.
    ///
    /// The interrupt is handled, not sent anew to where it goes now: that place could be another by
    /// the time the message arrives.
    ///
    /// # Context
    /// The CPU that goes offline, with interrupts off for good; does not sleep.
    ///
    /// # Errors
    /// If the CPU is online; if an interrupt still goes there.
    pub fn pending(
        &self,
        cpu: CpuId,
        irr: impl Fn(Vector) -> bool,
    ) -> Result<Option<Irq>, VectorError> {
        self.cpu(cpu)?;
        // The caller has turned them off, so the lock need not.
        debug_assert!(
            !P::irqs_enabled(),
            "a CPU that hands over what it does not take takes nothing more"
        );
        let mut state = self.state.lock();
        if state.matrix.is_online(cpu) {
            return Err(VectorError::Online(cpu));
        }
        for vector in self.vectors.clone().map(Vector) {
            let place = CpuVector { cpu, vector };
            match self.tables[cpu.0 as usize].get(vector) {
                Entry::Installed(irq) => {
                    let assigned = &mut state.irqs[irq.0 as usize];
                    if assigned.current == Some(place) {
                        return Err(VectorError::Occupied(irq));
                    }
                    if assigned.moving {
                        return Err(VectorError::Moving(cpu));
                    }
                    if irr(vector) {
                        // The IRR keeps it over the time that the CPU is offline (SDM vol. 3,
                        // 11.4.7.2), so it stays in quarantine, with a mark.
                        forget(assigned, place);
                        self.set(place, Entry::Retriggered);
                        return Ok(Some(irq));
                    }
                    self.end_quarantine(&mut state, place);
                }
                // A mark of the last time, too: what it was for was taken since.
                Entry::Shutdown | Entry::Retriggered if !irr(vector) => {
                    self.end_quarantine(&mut state, place)
                }
                Entry::Unused | Entry::Shutdown | Entry::Retriggered => {}
            }
        }
        state.matrix.offline(cpu);
        Ok(None)
    }
}

fn forget(assigned: &mut Assigned, place: CpuVector) {
    assigned
        .former
        .iter_mut()
        .filter(|former| **former == Some(place))
        .for_each(|former| *former = None);
}

enum Refused {
    Full,
    Because(VectorError),
}

impl From<Full> for Refused {
    fn from(Full: Full) -> Self {
        Refused::Full
    }
}

impl From<VectorError> for Refused {
    fn from(error: VectorError) -> Self {
        Refused::Because(error)
    }
}
