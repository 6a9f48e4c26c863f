//! What interrupts are told apart and ordered by.

/// The INTID of an interrupt: SGIs are 0 to 15, PPIs 16 to 31, SPIs 32 to 1019, and LPIs 8192 to
/// 65535 here (Arm IHI 0069H, section 2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntId(u16);

impl IntId {
    /// How many INTIDs there are before the special ones.
    pub const COUNT: usize = 1020;

    /// The number of the first LPI.
    pub(crate) const FIRST_LPI: u32 = 8192;

    pub(crate) const LPI: IntId = IntId(Self::FIRST_LPI as u16);
    pub(crate) const FIRST: IntId = IntId(0);
    pub(crate) const FIRST_SPI: IntId = IntId(32);

    /// Returns the INTID of that number, below 1020.
    #[inline]
    pub const fn new(number: u32) -> Option<IntId> {
        if number < Self::COUNT as u32 { Some(IntId(number as u16)) } else { None }
    }

    /// Returns the LPI of that number, 8192 to 65535.
    #[inline]
    pub const fn lpi(number: u32) -> Option<IntId> {
        if number >= Self::FIRST_LPI && number <= u16::MAX as u32 {
            Some(IntId(number as u16))
        } else {
            None
        }
    }

    /// Returns its number.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Returns whether it is an SPI, which several vCPUs share.
    #[inline]
    pub const fn is_spi(self) -> bool {
        self.0 >= 32 && !self.is_lpi()
    }

    /// Returns whether it is an LPI: a message of a device, which is pending or not, and never
    /// active.
    #[inline]
    pub const fn is_lpi(self) -> bool {
        self.0 as u32 >= Self::FIRST_LPI
    }

    /// Returns whether it is an SPI or an LPI: its word says who holds it.
    #[inline]
    pub(crate) const fn is_shared(self) -> bool {
        self.0 >= 32
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The INTID of the physical interrupt that backs a virtual one: 13 bits, as a list register has
/// room for (`ICH_LR<n>_EL2.pINTID`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PhysicalIntId(u16);

impl PhysicalIntId {
    /// Returns the INTID of that number, below 1020: an LPI is not active, and so backs nothing.
    #[inline]
    pub const fn new(number: u32) -> Option<PhysicalIntId> {
        if number < IntId::COUNT as u32 { Some(PhysicalIntId(number as u16)) } else { None }
    }

    /// Returns its number.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// A priority. The smaller number is the higher priority (section 4.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(pub u8);

/// A group of interrupts, each with its own acknowledge, EOI and enable (section 4.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Signalled as virtual FIQ.
    Zero,
    /// Signalled as virtual IRQ.
    One,
}

impl Group {
    pub(crate) const BOTH: [Group; 2] = [Group::Zero, Group::One];
}

/// The number of a vCPU in its VM: GICR_TYPER.Processor_Number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuId(u16);

impl VcpuId {
    /// How many vCPUs a VM may have.
    pub const COUNT: usize = 512;

    pub(crate) const FIRST: VcpuId = VcpuId(0);

    /// Returns the vCPU of that number, below 512.
    #[inline]
    pub const fn new(number: u32) -> Option<VcpuId> {
        if number < Self::COUNT as u32 { Some(VcpuId(number as u16)) } else { None }
    }

    /// Returns its number.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The affinity of a vCPU, as in GICR_TYPER: Aff3 in the highest byte, Aff0 in the lowest (IHI
/// 0069H, section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Affinity(pub u32);

impl Affinity {
    /// Returns that of a value of MPIDR_EL1, or of GICD_IROUTER: Aff3 is apart.
    pub const fn from_mpidr(bits: u64) -> Affinity {
        Affinity((bits >> 8) as u32 & 0xff00_0000 | bits as u32 & 0xff_ffff)
    }

    /// Returns it as MPIDR_EL1 and GICD_IROUTER have it.
    pub const fn mpidr(self) -> u64 {
        (self.0 as u64 & 0xff00_0000) << 8 | self.0 as u64 & 0xff_ffff
    }
}
