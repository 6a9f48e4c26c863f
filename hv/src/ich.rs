//! The virtual CPU interface of this CPU: `ICH_*_EL2` (Arm IHI 0069H, section 12.4).

use doorbell_gic::spec::Vtr;
use doorbell_gic::{Group, ListRegisters};

use crate::sysreg::{read_sysreg, write_sysreg};

/// The registers of the CPU that this runs on. With interrupts off, or by the one vCPU of the CPU.
pub(crate) struct Ich;

/// Reads the register of that number, of those that are named; zero if there is none.
macro_rules! read_numbered {
    ($number:expr, $($index:literal $name:literal)*) => {
        match $number {
            $($index => read_sysreg!($name),)*
            _ => 0,
        }
    };
}

/// Writes the register of that number, of those that are named.
macro_rules! write_numbered {
    ($number:expr, $value:expr, $($index:literal $name:literal)*) => {
        match $number {
            $($index => write_sysreg!($name, $value),)*
            _ => {}
        }
    };
}

/// Reads or writes a list register.
macro_rules! list_register {
    ($do:ident $(, $argument:expr)*) => {
        $do!($($argument,)*
            0 "ich_lr0_el2" 1 "ich_lr1_el2" 2 "ich_lr2_el2" 3 "ich_lr3_el2"
            4 "ich_lr4_el2" 5 "ich_lr5_el2" 6 "ich_lr6_el2" 7 "ich_lr7_el2"
            8 "ich_lr8_el2" 9 "ich_lr9_el2" 10 "ich_lr10_el2" 11 "ich_lr11_el2"
            12 "ich_lr12_el2" 13 "ich_lr13_el2" 14 "ich_lr14_el2" 15 "ich_lr15_el2")
    };
}

impl ListRegisters for Ich {
    #[inline]
    fn vmcr(&self) -> u64 {
        read_sysreg!("ich_vmcr_el2")
    }

    #[inline]
    fn set_vmcr(&mut self, value: u64) {
        // SAFETY: the virtual CPU interface concerns the guest only; here, and below.
        unsafe { write_sysreg!("ich_vmcr_el2", value) }
    }

    #[inline]
    fn hcr(&self) -> u64 {
        read_sysreg!("ich_hcr_el2")
    }

    #[inline]
    fn set_hcr(&mut self, value: u64) {
        // SAFETY: as above.
        unsafe { write_sysreg!("ich_hcr_el2", value) }
    }

    #[inline]
    fn list_register(&self, number: usize) -> u64 {
        list_register!(read_numbered, number)
    }

    #[inline]
    fn set_list_register(&mut self, number: usize, value: u64) {
        // SAFETY: as above.
        unsafe { list_register!(write_numbered, number, value) }
    }

    #[inline]
    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        let value: u64 = match group {
            Group::Zero => {
                read_numbered!(number, 0 "ich_ap0r0_el2"  1 "ich_ap0r1_el2"  2 "ich_ap0r2_el2"  3 "ich_ap0r3_el2")
            }
            Group::One => {
                read_numbered!(number, 0 "ich_ap1r0_el2"  1 "ich_ap1r1_el2"  2 "ich_ap1r2_el2"  3 "ich_ap1r3_el2")
            }
        };
        value as u32
    }
}

/// Returns what there is.
pub(crate) fn vtr() -> Vtr {
    Vtr::from_bits(read_sysreg!("ich_vtr_el2")).with_ctlr(read_sysreg!("icc_ctlr_el1"))
}

/// The registers that the host keeps for a vCPU: see [`ListRegisters`].
#[derive(Clone)]
pub(crate) struct Saved {
    vmcr: u64,
    /// ICH_AP0R<n>_EL2 and ICH_AP1R<n>_EL2.
    active_priorities: [[u32; 4]; 2],
}

impl Saved {
    /// What they are after a reset: everything disabled, nothing active.
    pub(crate) const RESET: Saved = Saved { vmcr: 0, active_priorities: [[0; 4]; 2] };

    /// Restores the registers. With interrupts off.
    pub(crate) fn restore(&self) {
        Ich.set_hcr(0);
        Ich.set_vmcr(self.vmcr);
        let [zero, one] = self.active_priorities;
        for number in 0..vtr().active_priority_registers() {
            let [zero, one] = [zero[number % 4].into(), one[number % 4].into()];
            // SAFETY: as above. The registers with higher numbers are there with more bits of
            // preemption.
            unsafe {
                write_numbered!(number, zero,
                    0 "ich_ap0r0_el2" 1 "ich_ap0r1_el2" 2 "ich_ap0r2_el2" 3 "ich_ap0r3_el2");
                write_numbered!(number, one,
                    0 "ich_ap1r0_el2" 1 "ich_ap1r1_el2" 2 "ich_ap1r2_el2" 3 "ich_ap1r3_el2");
            }
        }
    }
}

/// Saves the registers. With interrupts off.
pub(crate) fn save() -> Saved {
    let registers = vtr().active_priority_registers();
    let of = |group| {
        core::array::from_fn(|n| if n < registers { Ich.active_priorities(group, n) } else { 0 })
    };
    Saved { vmcr: Ich.vmcr(), active_priorities: [of(Group::Zero), of(Group::One)] }
}
