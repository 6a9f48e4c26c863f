//! Where the registers are, and how they may be accessed.

use super::{PRIVATE, SPECIAL};

/// A frame of 64 KiB (section 12.8 for the Distributor, 12.10 for the two of each Redistributor).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    Distributor,
    RdBase(usize),
    SgiBase(usize),
}

/// The size of a frame.
pub const SIZE: u32 = 0x1_0000;

/// A read, or a write of a value, of 1, 2, 4 or 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    pub frame: Frame,
    pub offset: u32,
    pub size: u32,
    pub written: Option<u64>,
}

impl Access {
    pub fn read(frame: Frame, offset: u32, size: u32) -> Self {
        Access { frame, offset, size, written: None }
    }

    pub fn write(frame: Frame, offset: u32, size: u32, value: u64) -> Self {
        Access { frame, offset, size, written: Some(value) }
    }
}

/// What each bit of a register of 32 interrupts says, and what writing 1 does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

/// A register. Those of several interrupts have the INTID of the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    GicdCtlr,
    GicdTyper,
    /// GICD_IIDR, GICR_IIDR.
    Iidr,
    /// GICD_SETSPI_NSR, GICD_CLRSPI_NSR, GICD_SETSPI_SR, GICD_CLRSPI_SR.
    Setspi,
    /// GICD_IGROUPR<n> to GICD_ICACTIVER<n>, and those of the SGI_base frame.
    Flags(Flag, u32),
    Ipriorityr(u32),
    Itargetsr,
    Icfgr(u32),
    /// GICD_CPENDSGIR<n>, GICD_SPENDSGIR<n>.
    Pendsgir,
    /// RAZ/WI with affinity routing or one Security state: GICD_TYPER2, GICD_STATUSR,
    /// GICD_IGRPMODR<n>, GICD_NSACR<n>, GICD_SGIR, and those of a Redistributor.
    Unused,
    Irouter(u32),
    GicrCtlr,
    GicrTyper,
    Waker,
    /// GICR_SETLPIR, GICR_CLRLPIR, GICR_PROPBASER, GICR_PENDBASER, GICR_INVLPIR, GICR_INVALLR.
    Lpi,
    Pidr2,
    /// An identification register whose value is IMPLEMENTATION DEFINED.
    Identification,
    Reserved,
}

impl Register {
    /// Returns the register that a byte of a frame belongs to.
    pub fn at(frame: Frame, offset: u32) -> Self {
        assert!(offset < SIZE);
        match frame {
            Frame::Distributor => Self::of_distributor(offset),
            Frame::RdBase(_) => Self::of_rd_base(offset),
            Frame::SgiBase(_) => Self::of_sgi_base(offset),
        }
    }

    /// Returns the register of the Distributor (section 12.8).
    fn of_distributor(offset: u32) -> Self {
        match offset {
            0x0000..0x0004 => Register::GicdCtlr,
            0x0004..0x0008 => Register::GicdTyper,
            0x0008..0x000c => Register::Iidr,
            0x000c..0x0014 => Register::Unused,
            0x0040..0x0044 | 0x0048..0x004c | 0x0050..0x0054 | 0x0058..0x005c => Register::Setspi,
            0x0080..0x0400 => Self::flags(offset),
            0x0400..0x0800 => Register::Ipriorityr((offset - 0x400) / 4 * 4),
            0x0800..0x0c00 => Register::Itargetsr,
            0x0c00..0x0d00 => Register::Icfgr((offset - 0xc00) / 4 * 16),
            0x0d00..0x0d80 | 0x0e00..0x0f04 => Register::Unused,
            0x0f10..0x0f30 => Register::Pendsgir,
            0x6000..0x8000 => match (offset - 0x6000) / 8 {
                id @ PRIVATE..SPECIAL => Register::Irouter(id),
                _ => Register::Reserved,
            },
            _ => Self::identification(offset),
        }
    }

    /// Returns the register of an RD_base frame (section 12.10).
    fn of_rd_base(offset: u32) -> Self {
        match offset {
            0x0000..0x0004 => Register::GicrCtlr,
            0x0004..0x0008 => Register::Iidr,
            0x0008..0x0010 => Register::GicrTyper,
            0x0010..0x0014 => Register::Unused,
            0x0014..0x0018 => Register::Waker,
            0x0040..0x0050 | 0x0070..0x0080 | 0x00a0..0x00a8 | 0x00b0..0x00b8 => Register::Lpi,
            // GICR_SYNCR.
            0x00c0..0x00c4 => Register::Unused,
            _ => Self::identification(offset),
        }
    }

    /// Returns the register of an SGI_base frame (section 12.10).
    fn of_sgi_base(offset: u32) -> Self {
        match offset {
            0x0080..0x0400 if offset % 0x80 < 4 => Self::flags(offset),
            0x0400..0x0420 => Register::Ipriorityr((offset - 0x400) / 4 * 4),
            0x0c00..0x0c08 => Register::Icfgr((offset - 0xc00) / 4 * 16),
            0x0d00..0x0d04 | 0x0e00..0x0e04 => Register::Unused,
            _ => Register::Reserved,
        }
    }

    fn flags(offset: u32) -> Self {
        let flag = match offset / 0x80 {
            1 => Flag::Group,
            2 => Flag::SetEnable,
            3 => Flag::ClearEnable,
            4 => Flag::SetPending,
            5 => Flag::ClearPending,
            6 => Flag::SetActive,
            _ => Flag::ClearActive,
        };
        Register::Flags(flag, offset % 0x80 / 4 * 32)
    }

    fn identification(offset: u32) -> Self {
        match offset {
            0xffe8..0xffec => Register::Pidr2,
            0xffd0..SIZE => Register::Identification,
            _ => Register::Reserved,
        }
    }

    /// Returns how many bytes the register has.
    pub fn width(self) -> u32 {
        if matches!(self, Register::Irouter(_) | Register::GicrTyper | Register::Lpi) {
            8
        } else {
            4
        }
    }

    /// Returns the sizes of accesses that section 12.1.3 wants to be supported.
    pub fn sizes(self) -> &'static [u32] {
        match self {
            // The list of byte accesses.
            Register::Ipriorityr(_) | Register::Itargetsr | Register::Pendsgir => &[1, 4],
            // The list of halfword accesses.
            Register::Setspi => &[2, 4],
            // A register of 64 bits may be accessed as a whole, or each half by itself.
            Register::Irouter(_) | Register::GicrTyper | Register::Lpi => &[4, 8],
            // No register: RES0, however it is read.
            Register::Reserved => &[1, 2, 4, 8],
            // All others are accessed as words.
            _ => &[4],
        }
    }
}

impl Access {
    /// Returns whether the size is one that the register supports, and the offset a multiple of it
    /// (section 12.1.3).
    pub fn is_supported(&self) -> bool {
        self.offset.is_multiple_of(self.size)
            && Register::at(self.frame, self.offset).sizes().contains(&self.size)
    }
}
