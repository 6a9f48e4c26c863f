//! The registers of the guest's CPU interface that ICH_HCR_EL2.TC traps, which the owner reads and
//! writes in the guest's place (Arm IHI 0069H, chapter 12, by their names).
//!
//! [`ApList::flush`](crate::ApList::flush) sets TC where the guest's writes to DIR have to be seen
//! and ICH_VTR_EL2.TDS says that they cannot be trapped alone; a host may set TC for reasons of its
//! own. [`Access::from_iss`] says what was accessed. The registers that send SGIs are trapped as
//! well, and are named there; SGIs are not sent here.
//!
//! What the guest writes is kept in ICH_VMCR_EL2, on the CPU or as that was saved.

mod access;

pub use access::{Access, Direction, Register};

use crate::running::running_priority;
use crate::spec::{Vtr, ctlr, vmcr};
use crate::{IntId, ListRegisters};

/// The fields of ICV_CTLR_EL1 that can be written, and where ICH_VMCR_EL2 keeps them.
const CTLR: [(u64, u64); 2] = [(ctlr::CBPR, vmcr::VCBPR), (ctlr::EOIMODE, vmcr::VEOIM)];

/// Reads ICV_CTLR_EL1. By the owner, outside of the guest; does not sleep.
#[inline]
pub fn read_ctlr(registers: &impl ListRegisters, vtr: Vtr) -> u64 {
    let vmcr = registers.vmcr();
    CTLR.into_iter()
        .filter(|(_, there)| vmcr & there != 0)
        .fold(vtr.ctlr(), |ctlr, (here, _)| ctlr | here)
}

/// Writes ICV_CTLR_EL1: EOImode and CBPR. By the owner, outside of the guest, after the
/// [fold](crate::ApList::fold), which judges what the guest has done by the former modes; does not
/// sleep.
#[inline]
pub fn write_ctlr(registers: &mut impl ListRegisters, value: u64) {
    let vmcr = registers.vmcr();
    let set = CTLR
        .into_iter()
        .filter(|(here, _)| value & here != 0)
        .fold(0, |set, (_, there)| set | there);
    registers.set_vmcr(vmcr & !(vmcr::VCBPR | vmcr::VEOIM) | set);
}

/// Reads ICV_PMR_EL1. By the owner, outside of the guest; does not sleep.
#[inline]
pub fn read_pmr(registers: &impl ListRegisters) -> u64 {
    (registers.vmcr() & vmcr::VPMR) >> vmcr::VPMR_SHIFT
}

/// Writes ICV_PMR_EL1, of which the bits that a priority does not have stay zero. By the owner,
/// outside of the guest; does not sleep.
#[inline]
pub fn write_pmr(registers: &mut impl ListRegisters, vtr: Vtr, value: u64) {
    let implemented = 0xff << (8 - vtr.priority_bits()) & 0xff;
    let vmcr = registers.vmcr();
    registers.set_vmcr(vmcr & !vmcr::VPMR | (value & implemented) << vmcr::VPMR_SHIFT);
}

/// Reads ICV_RPR_EL1: the highest active priority of both groups, as if the binary point were the
/// smallest, or 0xff if none is active. By the owner, outside of the guest; does not sleep.
#[inline]
pub fn read_rpr(registers: &impl ListRegisters, vtr: Vtr) -> u64 {
    running_priority(registers, vtr).map_or(0xff, |priority| priority.0.into())
}

/// Writes ICV_DIR_EL1. Returns which interrupt is to be [deactivated](crate::ApList::deactivate),
/// here or on another vCPU. By the owner, outside of the guest, after the
/// [fold](crate::ApList::fold); does not sleep.
///
/// The write is ignored with EOImode 0 (the architecture lets a CPU report an SError, too; none is
/// reported here), and for an INTID that no distributor keeps active: a special one, one of the
/// extended ranges, which are not here, or an LPI, which its EOI has deactivated.
#[inline]
pub fn write_dir(registers: &impl ListRegisters, vtr: Vtr, value: u64) -> Option<IntId> {
    if registers.vmcr() & vmcr::VEOIM == 0 {
        return None;
    }
    IntId::new((value & ((1 << vtr.id_bits()) - 1)) as u32)
}
