//! The running priority, and which bits of a priority count for preemption.

use crate::spec::{Vtr, vmcr};
use crate::{Group, ListRegisters, Priority};

/// Returns how many of the lowest bits of a priority are the subpriority: `n + 1` by a BPR0 of `n`,
/// and `n` by a BPR1 of `n`. The others are the group priority (sections 4.8.2 and 4.8.3).
#[inline]
pub(crate) fn subpriority_bits(group: Group, vmcr: u64) -> u32 {
    let of = |shift: u32| (vmcr >> shift & 7) as u32;
    match group {
        Group::One if vmcr & vmcr::VCBPR == 0 => of(vmcr::VBPR1_SHIFT),
        _ => of(vmcr::VBPR0_SHIFT) + 1,
    }
}

/// Returns the highest active priority of both groups with all bits of preemption, or none if
/// nothing is active (section 4.8.3).
#[inline]
pub(crate) fn running_priority(registers: &impl ListRegisters, vtr: Vtr) -> Option<Priority> {
    (0..vtr.active_priority_registers()).find_map(|number| {
        let [zero, one] = Group::BOTH.map(|group| registers.active_priorities(group, number));
        let level = number as u32 * 32 + (zero | one).trailing_zeros();
        (zero | one != 0).then(|| Priority((level << (8 - vtr.preemption_bits())) as u8))
    })
}
