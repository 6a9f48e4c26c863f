//! What a guest reads of what its CPU can do: what the CPU can, without what is not switched or
//! trapped (Arm DDI 0487, section D19.2).

use crate::sysreg::read_sysreg;

/// Returns what the guest reads, for ESR_EL2.ISS of a trapped access; none if the register is no
/// identification register. Those that are not named read as zero, as they do where there is
/// nothing.
pub(crate) fn read(iss: u32) -> Option<u64> {
    let field = |low: u32, bits: u32| iss >> low & ((1 << bits) - 1);
    let (op0, op2, op1, crn, crm, read) =
        (field(20, 2), field(17, 3), field(14, 3), field(10, 4), field(1, 4), iss & 1);
    if (op0, op1, crn, read) != (3, 0, 0, 1) || !(1..8).contains(&crm) {
        return None;
    }
    let without =
        |value: u64, fields: &[u32]| fields.iter().fold(value, |value, low| value & !(0xf << low));
    Some(match (crm, op2) {
        // ID_AA64PFR0_EL1: EL2, RAS, SVE, MPAM and AMU are hidden.
        (4, 0) => without(read_sysreg!("id_aa64pfr0_el1"), &[8, 28, 32, 40, 44]),
        // ID_AA64PFR1_EL1: of MTE, RAS_frac, MPAM_frac, SME and others, nothing.
        (4, 1) => read_sysreg!("id_aa64pfr1_el1") & 0xff,
        // ID_AA64DFR0_EL1: the debug architecture alone.
        (5, 0) => read_sysreg!("id_aa64dfr0_el1") & 0xf0f0_f00f,
        (6, 0) => read_sysreg!("id_aa64isar0_el1"),
        (6, 1) => read_sysreg!("id_aa64isar1_el1"),
        (6, 2) => read_sysreg!("id_aa64isar2_el1"),
        (7, 0) => read_sysreg!("id_aa64mmfr0_el1"),
        // ID_AA64MMFR1_EL1: VH and LOR are hidden.
        (7, 1) => without(read_sysreg!("id_aa64mmfr1_el1"), &[8, 16]),
        // ID_AA64MMFR2_EL1: NV is hidden.
        (7, 2) => without(read_sysreg!("id_aa64mmfr2_el1"), &[24]),
        _ => 0,
    })
}
