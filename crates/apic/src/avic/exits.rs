//! Exits of a guest with AVIC, as what is to be done about them. A guest can bring about any of
//! them, with any bits.

use super::icr::Icr;
use super::spec::{self, register};
use crate::GuestVector;

/// An IPI that hardware did not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the IPI is lost"]
pub enum IncompleteIpi {
    /// Hardware has set the bit in the page of each target, and has rung the doorbells of those
    /// that run. The others must be [told](super::AvicVcpu::tell): each [target](Icr::targets),
    /// because which ones run may have changed.
    Tell(Icr),
    /// Software is to send the IPI, to all of its targets: some may have got it, and find the bit
    /// set.
    Emulate(Icr, Unemulated),
    /// The vector is below 16: an APIC sets "send illegal vector" (bit 5 of its error status), and
    /// sends nothing.
    IllegalVector(Icr),
}

/// Why hardware did not send an IPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unemulated {
    /// Neither fixed nor edge-triggered.
    Type,
    /// A target is not in the tables, which is so for any ID that the guest makes up.
    Target,
    /// The IPI is not one to the sender itself, and the guest is a confidential one (Secure AVIC).
    NotAccelerated,
    /// The page of an entry: the tables are wrong, which is the host's mistake and not the guest's.
    BackingPage {
        /// The entry of the table that hardware was at.
        index: u16,
    },
    /// A reason that was not defined when this was written.
    Unknown(u32),
}

/// Returns what is to be done about an exit [`EXIT_INCOMPLETE_IPI`](spec::EXIT_INCOMPLETE_IPI). Its
/// EXITINFO1 is the value of the interrupt command register.
pub fn incomplete_ipi(info1: u64, info2: u64) -> IncompleteIpi {
    let icr = Icr(info1);
    let (reason, index) = spec::incomplete_ipi(info2);
    match reason {
        0 => IncompleteIpi::Emulate(icr, Unemulated::Type),
        1 => IncompleteIpi::Tell(icr),
        2 => IncompleteIpi::Emulate(icr, Unemulated::Target),
        3 => IncompleteIpi::Emulate(icr, Unemulated::BackingPage { index }),
        4 => IncompleteIpi::IllegalVector(icr),
        5 => IncompleteIpi::Emulate(icr, Unemulated::NotAccelerated),
        other => IncompleteIpi::Emulate(icr, Unemulated::Unknown(other)),
    }
}

/// An access to a register that hardware does not do alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the guest's access is lost"]
#[doc(alias = "Access")]
pub enum UnacceleratedAccess {
    /// The instruction has completed, and the page holds what the guest has written: act upon it.
    Written(WrittenRegister),
    /// The guest has ended an interrupt that is level-triggered: its source must be told. The
    /// instruction has completed; software ends the interrupt in the page if it is in service there
    /// still. (Table 15-22 calls this exit a trap, section 15.29.9.2 a fault, so look.)
    Eoi(GuestVector),
    /// Nothing is to be done: the guest has ended an interrupt, and hardware names none that could
    /// be.
    Nothing,
    /// The instruction has done nothing: software is to do it.
    Emulate {
        /// The offset of the register, in bytes: a multiple of 16 below 4096. There need not be
        /// such a register.
        offset: usize,
        /// Whether it writes.
        write: bool,
    },
}

/// A register that a guest has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Written")]
pub enum WrittenRegister {
    /// The APIC ID: the guest is not to change it; AVIC is inhibited if it did.
    Id,
    /// Remote read.
    RemoteRead,
    /// The logical destination: its entry in the logical table changes.
    LogicalDestination,
    /// The destination format: the whole logical table means something else.
    DestinationFormat,
    /// The spurious interrupt vector, with the bit that enables the APIC.
    SpuriousVector,
    /// The error status.
    ErrorStatus,
    /// The low half of the interrupt command register.
    InterruptCommand,
    /// An entry of the local vector table, 0 (the timer) to 5 (errors).
    LocalVector(u8),
    /// An entry of the extended local vector table, 0 to 7.
    ExtendedLocalVector(u8),
    /// The timer's initial count.
    TimerInitial,
    /// The timer's divisor.
    TimerDivide,
}

impl WrittenRegister {
    fn of(offset: usize, extended: bool) -> Option<Self> {
        let from = |first| ((offset - first) / 16) as u8;
        Some(match offset {
            register::ID => WrittenRegister::Id,
            register::REMOTE_READ => WrittenRegister::RemoteRead,
            register::LDR => WrittenRegister::LogicalDestination,
            register::DFR => WrittenRegister::DestinationFormat,
            register::SVR => WrittenRegister::SpuriousVector,
            register::ESR => WrittenRegister::ErrorStatus,
            register::ICR_LOW => WrittenRegister::InterruptCommand,
            register::LVT_TIMER..=register::LVT_ERROR => {
                WrittenRegister::LocalVector(from(register::LVT_TIMER))
            }
            register::EXTENDED_LVT..0x580 if extended => {
                WrittenRegister::ExtendedLocalVector(from(register::EXTENDED_LVT))
            }
            register::TIMER_INITIAL => WrittenRegister::TimerInitial,
            register::TIMER_DIVIDE => WrittenRegister::TimerDivide,
            _ => return None,
        })
    }
}

/// Returns what is to be done about an exit [`EXIT_UNACCELERATED`](spec::EXIT_UNACCELERATED).
///
/// Writes to some registers exit when they have been done (traps); everything else exits before
/// (faults): APM vol. 2, table 15-22. Those to the extended local vector table do what CPUID
/// Fn8000_000A_EDX\[27\] says: `extended_lvt` is that bit.
pub fn access(info1: u64, info2: u64, extended_lvt: bool) -> UnacceleratedAccess {
    let (offset, write) = spec::unaccelerated(info1);
    let emulate = UnacceleratedAccess::Emulate { offset, write };
    match (write, offset, GuestVector::new(info2 as u8)) {
        (false, ..) => emulate,
        (true, register::EOI, Some(vector)) => UnacceleratedAccess::Eoi(vector),
        // The instruction has completed: to emulate it would end another interrupt.
        (true, register::EOI, None) => UnacceleratedAccess::Nothing,
        (true, ..) => {
            WrittenRegister::of(offset, extended_lvt).map_or(emulate, UnacceleratedAccess::Written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_an_incomplete_ipi_has_its_effect() {
        let icr = Icr(0x0300_0000_0000_0041);
        let of = |reason: u64| incomplete_ipi(icr.0, reason << 32 | 7);
        assert_eq!(of(0), IncompleteIpi::Emulate(icr, Unemulated::Type));
        assert_eq!(of(1), IncompleteIpi::Tell(icr));
        assert_eq!(of(2), IncompleteIpi::Emulate(icr, Unemulated::Target));
        assert_eq!(of(3), IncompleteIpi::Emulate(icr, Unemulated::BackingPage { index: 7 }));
        assert_eq!(of(4), IncompleteIpi::IllegalVector(icr));
        assert_eq!(of(5), IncompleteIpi::Emulate(icr, Unemulated::NotAccelerated));
        assert_eq!(of(0xffff_ffff), IncompleteIpi::Emulate(icr, Unemulated::Unknown(u32::MAX)));
    }

    #[test]
    fn a_trapped_write_is_acted_upon_and_everything_else_emulated() {
        let write = |offset: u64| access(1 << 32 | offset, 0x41, true);
        assert_eq!(write(0xd0), UnacceleratedAccess::Written(WrittenRegister::LogicalDestination));
        assert_eq!(write(0x320), UnacceleratedAccess::Written(WrittenRegister::LocalVector(0)));
        assert_eq!(write(0x370), UnacceleratedAccess::Written(WrittenRegister::LocalVector(5)));
        assert_eq!(
            write(0x570),
            UnacceleratedAccess::Written(WrittenRegister::ExtendedLocalVector(7))
        );
        assert_eq!(
            access(1 << 32 | 0x500, 0, false),
            UnacceleratedAccess::Emulate { offset: 0x500, write: true }
        );
        assert_eq!(write(0xb0), UnacceleratedAccess::Eoi(GuestVector::new(0x41).unwrap()));
        assert_eq!(access(1 << 32 | 0xb0, 3, true), UnacceleratedAccess::Nothing);
        assert_eq!(write(0x30), UnacceleratedAccess::Emulate { offset: 0x30, write: true });
        assert_eq!(
            access(0xd0, 0, true),
            UnacceleratedAccess::Emulate { offset: 0xd0, write: false }
        );
    }
}
