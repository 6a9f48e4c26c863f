//! What a guest's exit says: ESR_EL2, by its fields (Arm DDI 0487, section D17.2.37).

use doorbell_gic::Width;

/// Why a guest was left, by a synchronous exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// WFI or WFE.
    Wait,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
    /// An access to a system register, with ESR_EL2.ISS.
    SystemRegister(u32),
    /// An access to memory that is not mapped, and may be a device's.
    Memory(Memory),
    /// What a guest that is shown no such feature takes for UNDEFINED.
    Undefined,
    /// Anything else: what the guest cannot be helped with.
    Other,
}

/// An access to memory, by one load or store of one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// The address, as the guest takes it for a physical one.
    pub address: u64,
    /// ESR_EL2.ISS, which says the rest: two words, that stay in registers.
    iss: u32,
}

impl Trap {
    /// Returns what ESR_EL2 says; `addresses` reads FAR_EL2 and HPFAR_EL2, if they matter.
    #[inline(always)]
    pub fn from_syndrome(esr: u64, addresses: impl FnOnce() -> [u64; 2]) -> Trap {
        let iss = (esr & 0x1ff_ffff) as u32;
        match esr >> 26 & 0x3f {
            // Coprocessors of AArch32, what is trapped with FP, LS64, PAuth, SVE, ERET, SME, and
            // the unknown.
            0x00 | 0x03..=0x0c | 0x19..=0x1d => Trap::Undefined,
            0x01 => Trap::Wait,
            0x16 => Trap::Hvc,
            0x17 => Trap::Smc,
            0x18 => Trap::SystemRegister(iss),
            0x24 => Memory::from_iss(iss, addresses).map_or(Trap::Other, Trap::Memory),
            _ => Trap::Other,
        }
    }
}

impl Memory {
    /// Returns the access of a data abort; none if the syndrome is not valid, or if it is no
    /// translation fault outside of a walk of the guest's own tables.
    #[inline(always)]
    fn from_iss(iss: u32, addresses: impl FnOnce() -> [u64; 2]) -> Option<Memory> {
        /// ISV, S1PTW, and DFSC without the level.
        const MASK: u32 = 1 << 24 | 1 << 7 | 0x3c;
        /// Valid, of no walk, a translation fault.
        const TRANSLATION: u32 = 1 << 24 | 0b000100;
        if iss & MASK != TRANSLATION {
            return None;
        }
        let [far, hpfar] = addresses();
        let address = (hpfar >> 4 & 0xff_ffff_ffff) << 12 | far & 0xfff;
        Some(Memory { address, iss })
    }

    /// Returns how wide it is.
    #[inline(always)]
    pub const fn width(&self) -> Width {
        match self.iss >> 22 & 3 {
            0 => Width::Byte,
            1 => Width::Half,
            2 => Width::Word,
            _ => Width::Double,
        }
    }

    /// Returns whether it is a store.
    #[inline(always)]
    pub const fn is_write(&self) -> bool {
        self.iss >> 6 & 1 != 0
    }

    /// Returns the number of the register, 0 to 31; 31 is XZR.
    #[inline(always)]
    pub const fn register(&self) -> u8 {
        (self.iss >> 16 & 31) as u8
    }

    /// Returns what the register holds after a read of `value`, sign-extended if the access says
    /// so, to the 32 or 64 bits of the register.
    #[inline(always)]
    pub const fn extend(&self, value: u64) -> u64 {
        let unused = self.unused();
        let (signed, wide) = (self.iss >> 21 & 1 != 0, self.iss >> 15 & 1 != 0);
        if !signed {
            return value << unused >> unused;
        }
        let value = ((value << unused) as i64 >> unused) as u64;
        if wide { value } else { value & 0xffff_ffff }
    }

    /// Returns what of the register is written.
    #[inline(always)]
    pub const fn truncate(&self, value: u64) -> u64 {
        let unused = self.unused();
        value << unused >> unused
    }

    /// Returns how many of 64 bits are not accessed.
    #[inline(always)]
    const fn unused(&self) -> u32 {
        64 - (8 << (self.iss >> 22 & 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The syndrome of a data abort of level 3 with these fields.
    fn abort(size: u32, signed: bool, register: u32, wide: bool, write: bool) -> u64 {
        let iss =
            1 << 24 | size << 22 | u32::from(signed) << 21 | register << 16 | u32::from(wide) << 15;
        0x24 << 26 | 1 << 25 | u64::from(iss | u32::from(write) << 6 | 0b000111)
    }

    fn memory(esr: u64) -> Memory {
        match Trap::from_syndrome(esr, || [0xffff_0000_0000_5104, 0x80_0040]) {
            Trap::Memory(memory) => memory,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_store_says_where_and_what() {
        let store = memory(abort(2, false, 25, false, true));
        assert_eq!(
            (store.address, store.width(), store.is_write(), store.register()),
            (0x8000_4104, Width::Word, true, 25)
        );
        assert_eq!(store.truncate(0x1_2345_6789), 0x2345_6789);
        assert_eq!(memory(abort(3, false, 31, true, true)).truncate(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_load_extends_what_it_reads() {
        let of = |size, signed, wide| memory(abort(size, signed, 0, wide, false));
        assert_eq!(of(0, false, false).extend(0x1ff), 0xff);
        assert_eq!(of(0, true, false).extend(0x80), 0xffff_ff80);
        assert_eq!(of(1, true, true).extend(0x8000), 0xffff_ffff_ffff_8000);
        assert_eq!(of(2, false, false).extend(0x8000_0000), 0x8000_0000);
        assert_eq!(of(3, false, true).extend(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_cannot_be_done_in_the_guests_place_is_told() {
        let without_syndrome = abort(2, false, 0, false, false) & !(1 << 24);
        let of_a_walk = abort(2, false, 0, false, false) | 1 << 7;
        let permission = abort(2, false, 0, false, false) & !0x3f | 0b001111;
        for esr in [without_syndrome, of_a_walk, permission, 0x20 << 26, 0x2f << 26] {
            assert_eq!(Trap::from_syndrome(esr, || [0, 0]), Trap::Other);
        }
    }

    #[test]
    fn calls_waits_and_registers_are_told_apart() {
        let trap = |class: u64| {
            Trap::from_syndrome(class << 26 | 0x12_3456, || panic!("{class:#x} has no address"))
        };
        assert_eq!([trap(0x01), trap(0x16), trap(0x17)], [Trap::Wait, Trap::Hvc, Trap::Smc]);
        assert_eq!([trap(0x00), trap(0x07), trap(0x19)], [Trap::Undefined; 3]);
        assert_eq!(trap(0x18), Trap::SystemRegister(0x12_3456));
    }
}
