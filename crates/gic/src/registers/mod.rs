//! The memory-mapped registers: which there are, and how wide an access to each may be.

mod active;
mod distributor;
pub(crate) mod interrupts;
mod redistributor;

use doorbell_platform::Platform;

use crate::access::Access;
use crate::{Gic, Host, VcpuId};

/// A memory-mapped frame that an access is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// The distributor, GICD: 64 KiB.
    Distributor,
    /// The redistributor of a vCPU, GICR: its RD_base and SGI_base frames, 128 KiB together.
    Redistributor(VcpuId),
}

/// How wide an access is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// Returns the width of so many bytes: 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: usize) -> Option<Width> {
        match bytes {
            1 => Some(Width::Byte),
            2 => Some(Width::Half),
            4 => Some(Width::Word),
            8 => Some(Width::Double),
            _ => None,
        }
    }

    /// Returns how many bytes it is.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }
}

/// An access to a frame, at an offset that is a multiple of the width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At {
    pub(crate) offset: u32,
    pub(crate) width: Width,
}

impl At {
    /// Returns which part of a value of 64 bits that begins at `base` the access is to: how far it
    /// is shifted, and which bits it has. For registers that may be accessed whole or by halves.
    pub(crate) fn half_of(self, base: u32) -> Option<(u32, u64)> {
        match (self.width, self.offset.wrapping_sub(base)) {
            (Width::Double, 0) => Some((0, u64::MAX)),
            (Width::Word, 0) => Some((0, 0xffff_ffff)),
            (Width::Word, 4) => Some((32, 0xffff_ffff)),
            _ => None,
        }
    }
}

impl<P: Platform> Gic<P> {
    /// Reads a register, as an access of the guest does. By any task, outside of the guest, with
    /// nothing held. The value is there when the access is [complete](Access).
    ///
    /// What is not aligned, what is wider or narrower than the register allows, and what is no
    /// register reads as zero. At most 32 interrupts are looked at, and for GICD_CTLR all vCPUs.
    pub fn read(
        &self,
        frame: Frame,
        offset: u32,
        width: Width,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        if !offset.is_multiple_of(width.bytes()) {
            return Access::done(0);
        }
        let at = At { offset, width };
        match frame {
            Frame::Distributor => self.read_distributor(at, host),
            Frame::Redistributor(vcpu) => match self.redistributor(vcpu) {
                Ok(redistributor) => self.read_redistributor(redistributor, at, host),
                Err(_) => Access::done(0),
            },
        }
    }

    /// Writes a register, as an access of the guest does. By any task, outside of the guest, with
    /// nothing held. The write has taken effect when the access is [complete](Access).
    ///
    /// What is not aligned, what is wider or narrower than the register allows, and what is no
    /// register is ignored. At most 32 interrupts are changed; a write of GICD_CTLR tells all
    /// vCPUs, and one that makes a vCPU take part in what any may have, or not, looks at all SPIs.
    ///
    /// In atomic operations, that is at most 4 for each vCPU for GICD_CTLR, and 12 for each
    /// interrupt else; for an SPI that any vCPU may have, or that is routed, 2 for each vCPU more.
    /// GICR_WAKER and GICR_CTLR take that for each SPI (`tests/cost.rs`).
    pub fn write(
        &self,
        frame: Frame,
        offset: u32,
        width: Width,
        value: u64,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        if !offset.is_multiple_of(width.bytes()) {
            return Access::done(0);
        }
        let at = At { offset, width };
        match frame {
            Frame::Distributor => self.write_distributor(at, value, host),
            Frame::Redistributor(vcpu) => match self.redistributor(vcpu) {
                Ok(redistributor) => self.write_redistributor(redistributor, at, value, host),
                Err(_) => Access::done(0),
            },
        }
    }
}
