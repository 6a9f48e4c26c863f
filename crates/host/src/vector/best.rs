//! The CPU that has the most free vectors.

use alloc::vec;
use alloc::vec::Vec;

use doorbell_platform::CpuId;

use crate::CpuSet;

/// A number below 256 for each CPU, and quick answers to where it is greatest.
///
/// Sixty-four CPUs are a group, their numbers bit-sliced: one word holds one binary digit of all of
/// them, so the greatest of a group is found in eight steps, whichever CPUs of it are asked for.
/// Above the groups stands a tree of their maxima. Anywhere: logarithmic in the groups. In a mask:
/// linear in the groups that it has members in.
#[derive(Debug)]
pub(super) struct Best {
    groups: Vec<[u64; 8]>,
    /// The greatest number below each node: node n has the children 2n and 2n + 1, and 1 is the
    /// root.
    tree: Vec<u8>,
}

impl Best {
    /// All are 0.
    pub(super) fn new(cpus: u32) -> Self {
        let groups = (cpus as usize).div_ceil(64).max(1);
        Best { groups: vec![[0; 8]; groups], tree: vec![0; 2 * groups.next_power_of_two()] }
    }

    /// Changes the number of `cpu`, which exists. What stays as it is, is not looked at: most
    /// numbers go up or down by one.
    pub(super) fn set(&mut self, cpu: CpuId, before: u8, now: u8) {
        let (group, bit) = (cpu.0 as usize / 64, cpu.0 % 64);
        let digits = &mut self.groups[group];
        let mut changed = before ^ now;
        while changed != 0 {
            digits[changed.trailing_zeros() as usize] ^= 1 << bit;
            changed &= changed - 1;
        }
        let mut node = self.tree.len() / 2 + group;
        let most = self.tree[node];
        let mut greatest = if now >= most {
            now
        } else if before == most {
            // Another may have had as many.
            greatest(digits, u64::MAX).0
        } else {
            most
        };
        while self.tree[node] != greatest {
            self.tree[node] = greatest;
            if node == 1 {
                break;
            }
            greatest = greatest.max(self.tree[node ^ 1]);
            node /= 2;
        }
    }

    /// The first of the CPUs whose number is greatest, unless all are 0.
    pub(super) fn anywhere(&self) -> Option<CpuId> {
        let most = self.tree[1];
        if most == 0 {
            return None;
        }
        let mut node = 1;
        while node < self.tree.len() / 2 {
            node = 2 * node + usize::from(self.tree[2 * node] < most);
        }
        let group = node - self.tree.len() / 2;
        Some(first(group, greatest(&self.groups[group], u64::MAX).1))
    }

    /// The first of the CPUs of a mask whose number is greatest, unless all are 0.
    pub(super) fn within(&self, mask: &CpuSet) -> Option<CpuId> {
        let mut best = (0, None);
        for asked in mask.groups() {
            let group = asked.index as usize;
            // The mask may name CPUs that do not exist.
            let Some(digits) = self.groups.get(group) else { break };
            let (most, which) = greatest(digits, asked.bits);
            if most > best.0 {
                best = (most, Some(first(group, which)));
            }
        }
        best.1
    }
}

fn first(group: usize, which: u64) -> CpuId {
    CpuId(group as u32 * 64 + which.trailing_zeros())
}

/// The greatest number of those asked for, and who has it.
fn greatest(digits: &[u64; 8], mut which: u64) -> (u8, u64) {
    let mut most = 0;
    for (digit, word) in digits.iter().enumerate().rev() {
        if which & word != 0 {
            which &= word;
            most |= 1 << digit;
        }
    }
    (most, which)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_finds_what_a_look_at_all_finds(
            cpus in 1u32..300,
            sets in prop::collection::vec((any::<u32>(), any::<u8>(), prop::collection::vec(0u32..400, 0..60)), 1..60),
        ) {
            let mut best = Best::new(cpus);
            let mut plain = vec![0; cpus as usize];
            for (cpu, number, mask) in sets {
                let cpu = cpu % cpus;
                best.set(CpuId(cpu), plain[cpu as usize], number);
                plain[cpu as usize] = number;
                let look = |asked: &dyn Fn(u32) -> bool| {
                    let most = (0..cpus).filter(|cpu| asked(*cpu)).map(|cpu| plain[cpu as usize]).max()?;
                    (0..cpus).find(|cpu| asked(*cpu) && most > 0 && plain[*cpu as usize] == most).map(CpuId)
                };
                prop_assert_eq!(best.anywhere(), look(&|_| true));
                let set = CpuSet::of(mask.iter().copied().map(CpuId));
                prop_assert_eq!(best.within(&set), look(&|cpu| mask.contains(&cpu)));
            }
        }
    }
}
