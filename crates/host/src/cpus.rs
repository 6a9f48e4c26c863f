//! Sets of CPUs.

use alloc::vec::Vec;
use core::fmt;

use doorbell_platform::CpuId;

/// A set of CPUs: of any numbers, as large as its members take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuSet(Vec<Group>);

/// Sixty-four CPUs, of which at least one is in the set: CPU n is bit n % 64 of group n / 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) index: u32,
    pub(crate) bits: u64,
}

impl CpuSet {
    /// Returns the set without a CPU.
    pub const fn none() -> Self {
        CpuSet(Vec::new())
    }

    /// Returns the set of these CPUs.
    pub fn of(cpus: impl IntoIterator<Item = CpuId>) -> Self {
        let mut set = CpuSet::none();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }

    fn find(&self, cpu: CpuId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(cpu.0 / 64), |group| group.index)
    }

    /// Adds a CPU.
    pub fn insert(&mut self, cpu: CpuId) {
        let at = self.find(cpu).unwrap_or_else(|at| {
            self.0.insert(at, Group { index: cpu.0 / 64, bits: 0 });
            at
        });
        self.0[at].bits |= 1 << (cpu.0 % 64);
    }

    /// Returns whether a CPU is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.find(cpu).is_ok_and(|at| self.0[at].bits >> (cpu.0 % 64) & 1 != 0)
    }

    /// Returns the first CPU that is in both sets.
    pub fn first_common(&self, other: &CpuSet) -> Option<CpuId> {
        self.iter().find(|cpu| other.contains(*cpu))
    }

    /// Returns whether each of its CPUs is in another set, too.
    pub fn is_subset_of(&self, other: &CpuSet) -> bool {
        self.iter().all(|cpu| other.contains(cpu))
    }

    /// Returns whether no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the CPUs, in order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        self.groups().iter().flat_map(|group| {
            let mut bits = group.bits;
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(CpuId(group.index * 64 + bit))
            })
        })
    }

    /// Those that have members, in order.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.0
    }
}

impl fmt::Display for CpuSet {
    /// As in `CPUs 0-3, 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CPUs")?;
        let mut cpus = self.iter().map(|cpu| cpu.0).peekable();
        let mut separator = " ";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next - last == 1) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_set_tells_its_cpus_in_order_and_as_ranges() {
        let set = CpuSet::of([CpuId(70), CpuId(0), CpuId(2), CpuId(1), CpuId(63)]);
        assert_eq!(set.iter().map(|cpu| cpu.0).collect::<Vec<_>>(), [0, 1, 2, 63, 70]);
        assert_eq!(set.to_string(), "CPUs 0-2, 63, 70");
        assert_eq!(CpuSet::none().iter().count(), 0);
        assert!(set.contains(CpuId(63)) && !set.contains(CpuId(64)) && !set.contains(CpuId(128)));
        assert_eq!(
            set.first_common(&CpuSet::of([CpuId(400), CpuId(70), CpuId(69)])),
            Some(CpuId(70))
        );
        assert_eq!(set.first_common(&CpuSet::of([CpuId(69)])), None);
    }

    #[test]
    fn a_set_is_as_large_as_its_members_whatever_their_numbers() {
        let set = CpuSet::of([CpuId(u32::MAX), CpuId(0), CpuId(u32::MAX - 1)]);
        assert_eq!(
            (set.0.len(), set.to_string()),
            (2, "CPUs 0, 4294967294-4294967295".to_string())
        );
        assert!(set.contains(CpuId(u32::MAX)) && !set.contains(CpuId(u32::MAX - 2)));
    }
}
