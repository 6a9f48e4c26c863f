//! Where the fields of the registers are (Arm IHI 0069H, chapter 12).

/// Fields of `ICH_LR<n>_EL2`.
pub mod lr {
    /// State: pending.
    pub const PENDING: u64 = 1 << 62;
    /// State: active.
    pub const ACTIVE: u64 = 1 << 63;
    /// HW: a physical interrupt, which its deactivation deactivates.
    pub const HW: u64 = 1 << 61;
    /// Group 1.
    pub const GROUP_ONE: u64 = 1 << 60;
    /// Where the priority is.
    pub const PRIORITY_SHIFT: u32 = 48;
    /// EOI: its deactivation asserts a maintenance interrupt, if HW is 0.
    pub const EOI: u64 = 1 << 41;
    /// Where pINTID is, if HW is 1.
    pub const PINTID_SHIFT: u32 = 32;
    /// pINTID, of 13 bits.
    pub const PINTID: u64 = 0x1fff << PINTID_SHIFT;
}

/// Fields of ICH_HCR_EL2.
pub mod hcr {
    /// En: the interface is on.
    pub const EN: u64 = 1 << 0;
    /// LRENPIE: an EOI of what is in no list register asserts a maintenance interrupt.
    pub const LRENPIE: u64 = 1 << 2;
    /// NPIE: that no list register is pending asserts one.
    pub const NPIE: u64 = 1 << 3;
    /// VGrp0EIE: that group 0 is enabled asserts one. That of group 1 is two bits on.
    pub const VGRP0EIE: u64 = 1 << 4;
    /// VGrp0DIE: that group 0 is disabled asserts one. That of group 1 is two bits on.
    pub const VGRP0DIE: u64 = 1 << 5;
    /// TC: accesses to what both groups share are trapped.
    pub const TC: u64 = 1 << 10;
    /// TDIR: writes to DIR are trapped.
    pub const TDIR: u64 = 1 << 14;
}

/// Fields of ICH_VMCR_EL2.
pub mod vmcr {
    /// VENG0: group 0 is enabled. VENG1 is the next bit.
    pub const VENG0: u64 = 1 << 0;
    /// VCBPR: the binary point of group 0 is for both groups.
    pub const VCBPR: u64 = 1 << 4;
    /// VEOIM: an EOI only drops the priority.
    pub const VEOIM: u64 = 1 << 9;
    /// Where VBPR1 is, of three bits.
    pub const VBPR1_SHIFT: u32 = 18;
    /// Where VBPR0 is, of three bits.
    pub const VBPR0_SHIFT: u32 = 21;
    /// Where VPMR is, of eight bits.
    pub const VPMR_SHIFT: u32 = 24;
    /// VPMR: what is of no higher priority is not signalled.
    pub const VPMR: u64 = 0xff << VPMR_SHIFT;
}

/// Fields of ICV_CTLR_EL1.
pub mod ctlr {
    /// CBPR: the binary point of group 0 is for both groups (ICH_VMCR_EL2.VCBPR).
    pub const CBPR: u64 = 1 << 0;
    /// EOImode: an EOI only drops the priority (ICH_VMCR_EL2.VEOIM).
    pub const EOIMODE: u64 = 1 << 1;
    /// Where PRIbits is, of three bits, read only.
    pub const PRIBITS_SHIFT: u32 = 8;
    /// Where IDbits is, of three bits, read only: 0 for INTIDs of 16 bits, 1 for those of 24.
    pub const IDBITS_SHIFT: u32 = 11;
    /// SEIS, read only. A3V is the next bit.
    pub const SEIS_SHIFT: u32 = 14;
    /// RSS, read only: the last affinity of an SGI's targets may be above 15.
    pub const RSS: u64 = 1 << 18;
    /// ExtRange, read only: there are INTIDs from 1024 to 8191.
    pub const EXT_RANGE: u64 = 1 << 19;
}

/// What the CPUs of a host have in common: the least of their ICH_VTR_EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vtr {
    list_registers: u8,
    priority_bits: u8,
    preemption_bits: u8,
    traps_dir: bool,
    /// IDbits, SEIS, A3V, RSS and ExtRange, where ICV_CTLR_EL1 has them.
    ctlr: u32,
}

impl Vtr {
    /// Returns what a value of ICH_VTR_EL2 says: ListRegs, PRIbits, PREbits, TDS, IDbits, SEIS and
    /// A3V.
    pub const fn from_bits(bits: u64) -> Self {
        const fn field(bits: u64, low: u32, mask: u64) -> u8 {
            (bits >> low & mask) as u8 + 1
        }
        let list_registers = field(bits, 0, 0x1f);
        Vtr {
            list_registers: if list_registers > 16 { 16 } else { list_registers },
            priority_bits: field(bits, 29, 7),
            preemption_bits: field(bits, 26, 7),
            traps_dir: bits >> 19 & 1 != 0,
            ctlr: ((bits >> 23 & 7) << ctlr::IDBITS_SHIFT
                | (bits >> 22 & 1) << ctlr::SEIS_SHIFT
                | (bits >> 21 & 1) << (ctlr::SEIS_SHIFT + 1)) as u32,
        }
    }

    /// Returns the same with RSS and ExtRange of the host's ICC_CTLR_EL1, which ICH_VTR_EL2 does
    /// not have: a guest that reads ICV_CTLR_EL1 finds the same, trapped or not. Without this, both
    /// are 0.
    pub const fn with_ctlr(self, icc_ctlr: u64) -> Self {
        Vtr { ctlr: self.ctlr | (icc_ctlr & (ctlr::RSS | ctlr::EXT_RANGE)) as u32, ..self }
    }

    /// Returns how many list registers there are, 1 to 16.
    pub const fn list_registers(self) -> usize {
        self.list_registers as usize
    }

    /// Returns how many bits of a priority there are, 5 to 8.
    pub const fn priority_bits(self) -> u32 {
        match self.priority_bits {
            0..=5 => 5,
            8.. => 8,
            bits => bits as u32,
        }
    }

    /// Returns how many of them are for preemption, 5 to 7.
    pub const fn preemption_bits(self) -> u32 {
        match self.preemption_bits {
            0..=5 => 5,
            7.. => 7,
            bits => bits as u32,
        }
    }

    /// Returns how many active priority registers each group has: one for 32 levels of preemption.
    pub const fn active_priority_registers(self) -> usize {
        1 << (self.preemption_bits() - 5)
    }

    /// Returns how many bits an INTID has, 16 or 24.
    pub const fn id_bits(self) -> u32 {
        if self.ctlr >> ctlr::IDBITS_SHIFT & 7 == 0 { 16 } else { 24 }
    }

    /// Returns what a guest reads in ICV_CTLR_EL1 and cannot write.
    pub const fn ctlr(self) -> u64 {
        ((self.priority_bits() - 1) << ctlr::PRIBITS_SHIFT | self.ctlr) as u64
    }

    /// Returns whether a write to DIR can be trapped alone.
    pub const fn traps_dir(self) -> bool {
        self.traps_dir
    }
}
