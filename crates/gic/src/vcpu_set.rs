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
        *self == Self::EMPTY
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
