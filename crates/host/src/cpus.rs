//! Sets of CPUs.

use alloc::vec::Vec;
use core::fmt;

use doorbell_platform::CpuId;

/// A set of CPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuSet(Vec<u64>);

impl CpuSet {
    /// No CPU.
    pub const fn none() -> Self {
        CpuSet(Vec::new())
    }

    /// These CPUs.
    pub fn of(cpus: impl IntoIterator<Item = CpuId>) -> Self {
        let mut set = CpuSet::none();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }

    /// Adds a CPU.
    pub fn insert(&mut self, cpu: CpuId) {
        let word = cpu.0 as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (cpu.0 % 64);
    }

    /// Whether a CPU is in it.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0.get(cpu.0 as usize / 64).is_some_and(|word| word >> (cpu.0 % 64) & 1 != 0)
    }

    /// The first CPU that is in both.
    pub fn first_common(&self, other: &CpuSet) -> Option<CpuId> {
        let (index, both) = self.0.iter().zip(&other.0).map(|(a, b)| a & b).enumerate().find(|(_, both)| *both != 0)?;
        Some(CpuId(index as u32 * 64 + both.trailing_zeros()))
    }

    /// Whether no CPU is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The CPUs, in order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        self.words().enumerate().flat_map(|(index, mut word)| {
            core::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(CpuId(index as u32 * 64 + bit))
            })
        })
    }

    /// CPU n is bit n % 64 of word n / 64.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
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
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
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
    }
}
