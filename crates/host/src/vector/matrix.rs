//! The free vectors of each CPU.

use alloc::boxed::Box;
use core::ops::RangeInclusive;

use doorbell_platform::{CpuId, Vector};

use super::best::Best;
use super::irq::{Affinity, CpuVector};
use crate::CpuSet;

/// A set of vectors.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct VectorSet([u64; 4]);

impl VectorSet {
    pub(super) fn contains(&self, vector: Vector) -> bool {
        self.0[usize::from(vector.0) / 64] >> (vector.0 % 64) & 1 != 0
    }

    fn insert(&mut self, vector: Vector) {
        self.0[usize::from(vector.0) / 64] |= 1 << (vector.0 % 64);
    }

    fn remove(&mut self, vector: Vector) {
        self.0[usize::from(vector.0) / 64] &= !(1 << (vector.0 % 64));
    }

    fn of(vectors: RangeInclusive<u8>) -> VectorSet {
        let mut set = VectorSet::default();
        vectors.for_each(|vector| set.insert(Vector(vector)));
        set
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn iter(mut self) -> impl Iterator<Item = Vector> {
        core::iter::from_fn(move || {
            let first = self.first()?;
            self.remove(first);
            Some(first)
        })
    }

    fn and(&self, other: &VectorSet) -> VectorSet {
        VectorSet(core::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    fn first(&self) -> Option<Vector> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(Vector(word as u8 * 64 + self.0[word].trailing_zeros() as u8))
    }
}

/// Free vectors of one CPU, and how many they are: asked whenever one comes or goes.
struct Free {
    set: VectorSet,
    len: u32,
}

impl Free {
    fn of(vectors: RangeInclusive<u8>) -> Free {
        let set = VectorSet::of(vectors);
        Free { set, len: set.len() }
    }

    /// Adds a vector that is not free.
    fn insert(&mut self, vector: Vector) {
        debug_assert!(!self.set.contains(vector));
        self.set.insert(vector);
        self.len += 1;
    }

    /// Removes a vector that is free.
    fn remove(&mut self, vector: Vector) {
        debug_assert!(self.set.contains(vector));
        self.set.remove(vector);
        self.len -= 1;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// The CPU has its share of the vectors that are given out.
    Online,
    /// The CPU still takes what goes there, but gets no more.
    Leaving,
    Offline,
}

/// A vector is free; or it is taken: in use, quarantined, or set aside for a managed interrupt.
struct Cpu {
    presence: Presence,
    free: Free,
    /// Vectors that were in use once, and that the CPU has not said to be clear in its IRR.
    quarantined: VectorSet,
    /// Set aside for managed interrupts, in use or not.
    managed: VectorSet,
    /// Vectors that are set aside, that no interrupt uses, and that are not in quarantine.
    managed_free: VectorSet,
}

impl Cpu {
    fn is_online(&self) -> bool {
        self.presence == Presence::Online
    }

    /// How many managed interrupts go there. What is in quarantine is used by none.
    fn managed_in_use(&self) -> u32 {
        let quarantined = self.managed.and(&self.quarantined).len();
        self.managed.len() - self.managed_free.len() - quarantined
    }
}

/// There is none.
#[derive(Debug)]
pub(super) struct Full;

pub(super) struct Matrix {
    cpus: Box<[Cpu]>,
    /// The CPUs by free vectors. Those that are offline have none.
    best: Best,
    /// Free vectors of CPUs that are online.
    free: u32,
    /// How many are reserved (guaranteed, unlike with Linux's `irq_matrix_reserve`): of those that
    /// are free, or that a cancelled move has put into quarantine and that are free before the
    /// interrupt that they are reserved for can ask.
    reserved: u32,
}

impl Matrix {
    /// All CPUs are offline.
    pub(super) fn new(cpus: u32, vectors: RangeInclusive<u8>) -> Self {
        let cpu = || Cpu {
            presence: Presence::Offline,
            free: Free::of(vectors.clone()),
            quarantined: VectorSet::default(),
            managed: VectorSet::default(),
            managed_free: VectorSet::default(),
        };
        Matrix {
            cpus: (0..cpus).map(|_| cpu()).collect(),
            best: Best::new(cpus),
            free: 0,
            reserved: 0,
        }
    }

    fn cpu(&self, cpu: CpuId) -> Option<&Cpu> {
        self.cpus.get(cpu.0 as usize)
    }

    pub(super) fn is_online(&self, cpu: CpuId) -> bool {
        self.cpu(cpu).is_some_and(Cpu::is_online)
    }

    /// Returns whether `cpu` exists and takes interrupts.
    pub(super) fn takes(&self, cpu: CpuId) -> bool {
        self.cpu(cpu).is_some_and(|cpu| cpu.presence != Presence::Offline)
    }

    /// Returns the quarantined vectors of one CPU, which exists.
    pub(super) fn quarantined(&self, cpu: CpuId) -> VectorSet {
        self.cpus[cpu.0 as usize].quarantined
    }

    /// Free vectors of one CPU; 0 if it is offline.
    pub(super) fn free_on(&self, cpu: CpuId) -> u32 {
        self.cpu(cpu).filter(|cpu| cpu.is_online()).map_or(0, |cpu| cpu.free.len)
    }

    /// Free vectors that are reserved for nobody.
    pub(super) fn unreserved(&self) -> u32 {
        self.free.saturating_sub(self.reserved)
    }

    /// Changes a CPU, and what is known of all.
    fn update<R>(&mut self, id: CpuId, f: impl FnOnce(&mut Cpu) -> R) -> R {
        let before = self.free_on(id);
        let result = f(&mut self.cpus[id.0 as usize]);
        let now = self.free_on(id);
        if now != before {
            self.free = self.free + now - before;
            self.best.set(id, before as u8, now as u8);
        }
        result
    }

    /// Vectors of `cpu`, which exists, can be used.
    pub(super) fn online(&mut self, cpu: CpuId) {
        self.update(cpu, |cpu| cpu.presence = Presence::Online);
    }

    /// No more vectors of `cpu` are allocated, and none of them is one of those reserved.
    ///
    /// # Errors
    /// If the rest cannot take `leaving` interrupts and keep what was reserved.
    pub(super) fn begin_offline(&mut self, cpu: CpuId, leaving: u32) -> Result<(), Full> {
        if self.free - self.free_on(cpu) < self.reserved + leaving {
            return Err(Full);
        }
        self.update(cpu, |cpu| cpu.presence = Presence::Leaving);
        Ok(())
    }

    /// `cpu`, which exists and [begins to go offline](Matrix::begin_offline), takes nothing more.
    pub(super) fn offline(&mut self, cpu: CpuId) {
        self.cpus[cpu.0 as usize].presence = Presence::Offline;
    }

    /// Promises a vector, somewhere.
    pub(super) fn reserve(&mut self) -> Result<(), Full> {
        if self.unreserved() == 0 {
            return Err(Full);
        }
        self.reserved += 1;
        Ok(())
    }

    /// Promises a vector that [`begin_offline`](Matrix::begin_offline) has found to be there, or
    /// one that the interrupt itself gives back: it asks for it only when that has left the
    /// quarantine.
    pub(super) fn reserve_for_leaving(&mut self) {
        self.reserved += 1;
    }

    /// How many are reserved.
    pub(super) fn reserved(&self) -> u32 {
        self.reserved
    }

    pub(super) fn unreserve(&mut self) {
        self.reserved -= 1;
    }

    /// A free vector of the CPU that has most of them.
    pub(super) fn allocate(&mut self, to: Affinity<'_>, reserved: bool) -> Result<CpuVector, Full> {
        if !reserved && self.unreserved() == 0 {
            return Err(Full);
        }
        let cpu = match to {
            Affinity::Anywhere => self.best.anywhere(),
            Affinity::In(mask) => self.best.within(mask),
        };
        let cpu = cpu.ok_or(Full)?;
        let vector = self.cpus[cpu.0 as usize].free.set.first().ok_or(Full)?;
        self.take(CpuVector { cpu, vector });
        self.reserved -= u32::from(reserved);
        Ok(CpuVector { cpu, vector })
    }

    fn take(&mut self, place: CpuVector) {
        self.update(place.cpu, |cpu| cpu.free.remove(place.vector));
    }

    /// For an interrupt whose message cannot be changed in one step, and now is at `from`: the same
    /// vector of another CPU; or a vector that is free on another and on its own, which is
    /// allocated on both.
    pub(super) fn allocate_beside(
        &mut self,
        from: CpuVector,
        to: Affinity<'_>,
        reserved: bool,
    ) -> Result<(CpuVector, Option<CpuVector>), Full> {
        let spare = self.unreserved() + u32::from(reserved);
        if spare == 0 {
            return Err(Full);
        }
        let here = self.cpus[from.cpu.0 as usize].free.set;
        let (mut same, mut common) = (None, None);
        for (number, cpu) in self.cpus.iter().enumerate() {
            let id = CpuId(number as u32);
            if !cpu.is_online() || id == from.cpu || !to.contains(id) {
                continue;
            }
            if cpu.free.set.contains(from.vector) {
                same = Some(CpuVector { cpu: id, vector: from.vector });
                break;
            }
            common = common.or(cpu
                .free
                .set
                .and(&here)
                .first()
                .map(|vector| CpuVector { cpu: id, vector }));
        }
        // Those of a CPU that goes offline are reserved for nobody.
        let needed = 1 + u32::from(self.is_online(from.cpu));
        let between = match same {
            Some(_) => None,
            None => {
                common.filter(|_| spare >= needed).map(|place| CpuVector { cpu: from.cpu, ..place })
            }
        };
        let place = same.or(common.filter(|_| between.is_some())).ok_or(Full)?;
        self.take(place);
        between.into_iter().for_each(|between| self.take(between));
        self.reserved -= u32::from(reserved);
        Ok((place, between))
    }

    /// Sets a vector aside on each CPU of the mask, online or not.
    pub(super) fn reserve_managed(&mut self, mask: &CpuSet) -> Result<(), Full> {
        let mut online = 0;
        for cpu in mask.iter() {
            let Some(found) = self.cpu(cpu).filter(|found| found.free.len > 0) else {
                return Err(Full);
            };
            online += u32::from(found.is_online());
        }
        if self.unreserved() < online {
            return Err(Full);
        }
        for cpu in mask.iter() {
            self.update(cpu, |cpu| {
                let vector = cpu.free.set.first().expect("each has one that is free");
                cpu.free.remove(vector);
                cpu.managed.insert(vector);
                cpu.managed_free.insert(vector);
            });
        }
        Ok(())
    }

    /// Undoes [`reserve_managed`](Matrix::reserve_managed): the interrupt uses none of them any
    /// more.
    pub(super) fn remove_managed(&mut self, mask: &CpuSet) {
        for cpu in mask.iter() {
            self.update(cpu, |cpu| {
                if let Some(vector) = cpu.managed.and(&cpu.quarantined).first() {
                    // It becomes free as any other does that leaves the quarantine; what is left
                    // can be used at once.
                    cpu.managed.remove(vector);
                } else if let Some(vector) = cpu.managed_free.first() {
                    cpu.managed_free.remove(vector);
                    cpu.managed.remove(vector);
                    cpu.free.insert(vector);
                }
            });
        }
    }

    /// The CPU of the mask that is in `to` and online, has a vector set aside that can be used, and
    /// fewest that are: the first of them, and how many.
    fn best_managed(&self, mask: &CpuSet, to: Affinity<'_>) -> Option<(CpuId, u32)> {
        let fits = |id: CpuId| {
            let cpu =
                self.cpu(id).filter(|cpu| cpu.is_online() && cpu.managed_free.first().is_some())?;
            to.contains(id).then(|| (id, cpu.managed_in_use()))
        };
        mask.iter().filter_map(fits).min_by_key(|(_, in_use)| *in_use)
    }

    /// One of those set aside on the CPUs of the mask, on that of `to` where the fewest are in use.
    pub(super) fn allocate_managed(
        &mut self,
        mask: &CpuSet,
        to: Affinity<'_>,
    ) -> Result<CpuVector, Full> {
        let (cpu, _) = self.best_managed(mask, to).ok_or(Full)?;
        let managed = &mut self.cpus[cpu.0 as usize].managed_free;
        let vector = managed.first().ok_or(Full)?;
        managed.remove(vector);
        Ok(CpuVector { cpu, vector })
    }

    /// Returns whether a managed interrupt of `cpu` would leave the CPUs of its mask more alike if
    /// it went to another of `to`.
    pub(super) fn is_crowded(&self, cpu: CpuId, mask: &CpuSet, to: Affinity<'_>) -> bool {
        let here = self.cpu(cpu).map_or(0, Cpu::managed_in_use);
        self.best_managed(mask, to).is_some_and(|(_, there)| there + 1 < here)
    }

    /// A vector in use is used no more, but must not be used again before its CPU has said so.
    pub(super) fn quarantine(&mut self, place: CpuVector) {
        self.cpus[place.cpu.0 as usize].quarantined.insert(place.vector);
    }

    /// A vector in quarantine can be used again.
    pub(super) fn release(&mut self, place: CpuVector) {
        self.update(place.cpu, |cpu| {
            cpu.quarantined.remove(place.vector);
            if cpu.managed.contains(place.vector) {
                cpu.managed_free.insert(place.vector);
            } else {
                cpu.free.insert(place.vector);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `cpus` CPUs that are online, with `vectors` vectors each.
    fn matrix(cpus: u32, vectors: u8) -> Matrix {
        let mut matrix = Matrix::new(cpus, 0x20..=0x20 + (vectors - 1));
        (0..cpus).for_each(|cpu| matrix.online(CpuId(cpu)));
        matrix
    }

    #[test]
    fn a_vector_is_reserved_on_all_cpus_or_on_none() {
        let mut matrix = matrix(2, 2);
        for _ in 0..2 {
            matrix.allocate(Affinity::In(&CpuSet::of([CpuId(1)])), false).unwrap();
        }
        assert!(matrix.reserve_managed(&CpuSet::of([CpuId(0), CpuId(1)])).is_err());
        assert_eq!((matrix.free_on(CpuId(0)), matrix.unreserved()), (2, 2));
    }

    #[test]
    fn the_same_vector_of_another_cpu_is_taken_where_it_is_asked_for_and_not_reserved() {
        let mut matrix = matrix(3, 1);
        let from = matrix.allocate(Affinity::In(&CpuSet::of([CpuId(0)])), false).unwrap();
        matrix.reserve().unwrap();
        matrix.reserve().unwrap();
        assert!(matrix.allocate_beside(from, Affinity::Anywhere, false).is_err());
        matrix.unreserve();
        let (place, between) =
            matrix.allocate_beside(from, Affinity::In(&CpuSet::of([CpuId(2)])), false).unwrap();
        assert_eq!((place, between), (CpuVector { cpu: CpuId(2), ..from }, None));
    }

    #[test]
    fn who_has_a_vector_reserved_and_asks_for_one_by_which_two_writes_go_has_none_reserved_any_more()
     {
        let mut matrix = matrix(2, 2);
        let from = matrix.allocate(Affinity::In(&CpuSet::of([CpuId(0)])), false).unwrap();
        matrix.reserve().unwrap();
        matrix.allocate_beside(from, Affinity::Anywhere, true).unwrap();
        assert_eq!((matrix.reserved(), matrix.unreserved()), (0, 2));
    }
}
