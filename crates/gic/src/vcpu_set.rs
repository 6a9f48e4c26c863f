//! Sets of vCPUs.

use crate::VcpuId;

/// A set of vCPUs of a VM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct VcpuSet([u64; VcpuId::COUNT / 64]);

impl VcpuSet {
    /// Nobody.
    pub(crate) const EMPTY: VcpuSet = VcpuSet([0; VcpuId::COUNT / 64]);

    /// Inserts it; returns whether it was not there.
    pub(crate) fn insert(&mut self, vcpu: VcpuId) -> bool {
        let new = !self.contains(vcpu);
        self.0[vcpu.index() / 64] |= 1 << (vcpu.index() % 64);
        new
    }

    pub(crate) fn contains(&self, vcpu: VcpuId) -> bool {
        self.0[vcpu.index() / 64] >> (vcpu.index() % 64) & 1 != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |any, word| any | word) == 0
    }

    /// Returns those for which `keep` is true.
    pub(crate) fn filter(mut self, keep: impl Fn(VcpuId) -> bool) -> VcpuSet {
        for (number, word) in (0..).zip(&mut self.0) {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if !VcpuId::new(number * 64 + bit).is_some_and(&keep) {
                    *word &= !(1 << bit);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: [u32; 9] = [0, 1, 62, 63, 64, 65, 127, 128, 511];

    fn vcpu(number: u32) -> VcpuId {
        VcpuId::new(number).expect("it is small")
    }

    fn all() -> impl Iterator<Item = VcpuId> {
        (0..VcpuId::COUNT as u32).map(vcpu)
    }

    #[test]
    fn what_is_inserted_is_there_and_nothing_else() {
        let mut set = VcpuSet::EMPTY;
        assert!(set.is_empty());
        for (n, &number) in SOME.iter().enumerate() {
            assert!(set.insert(vcpu(number)) && !set.insert(vcpu(number)));
            assert!(
                all().filter(|&vcpu| set.contains(vcpu)).eq(SOME[..=n].iter().copied().map(vcpu))
            );
            assert!(!set.is_empty());
        }
    }

    #[test]
    fn a_filter_keeps_what_it_is_asked_to_of_what_is_there() {
        let mut set = VcpuSet::EMPTY;
        SOME.iter().for_each(|&number| _ = set.insert(vcpu(number)));
        assert!(set.filter(|_| true) == set && set.filter(|_| false).is_empty());
        for number in SOME {
            let one = set.filter(|of| of == vcpu(number));
            assert!(all().filter(|&vcpu| one.contains(vcpu)).eq([vcpu(number)]));
            let others = set.filter(|of| of != vcpu(number));
            assert_eq!(all().filter(|&vcpu| others.contains(vcpu)).count(), SOME.len() - 1);
        }
    }
}
