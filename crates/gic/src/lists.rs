//! The registers of the virtual CPU interface, as the hypervisor uses them.

/// The virtual CPU interface of the CPU that this runs on: `ICH_*_EL2` on the metal, a model in
/// tests. Registers are read and written with the CPU out of the guest, and interrupts off.
///
/// What is not said here keeps its value: the implementor saves and restores ICH_VMCR_EL2 and the
/// active priority registers when the vCPU changes its CPU, and
/// [says](crate::ApList::comes_to_cpu) that it has come to another one.
pub trait ListRegisters {
    /// Reads ICH_VMCR_EL2.
    fn vmcr(&self) -> u64;

    /// Writes ICH_VMCR_EL2.
    fn set_vmcr(&mut self, value: u64);

    /// Reads ICH_HCR_EL2.
    fn hcr(&self) -> u64;

    /// Writes ICH_HCR_EL2.
    fn set_hcr(&mut self, value: u64);

    /// Reads a list register, `ICH_LR<n>_EL2`.
    fn list_register(&self, number: usize) -> u64;

    /// Writes a list register.
    fn set_list_register(&mut self, number: usize, value: u64);

    /// Reads `ICH_AP0R<n>_EL2` or `ICH_AP1R<n>_EL2`, as the group says. `number` is below what
    /// ICH_VTR_EL2.PREbits has.
    fn active_priorities(&self, group: crate::Group, number: usize) -> u32;
}
