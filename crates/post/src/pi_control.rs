//! The control word of a posted-interrupt descriptor.
//!
//! Intel VT-d specification (D51397-015), section 9.11 "Posted Interrupt Descriptor", bits 319:256;
//! Intel SDM vol. 3 (253668-083), section 30.6, which leaves bits 511:257 to software and to other
//! agents such as an IOMMU.

use doorbell_platform::Vector;

pub(crate) const ON: u64 = 0b01;
pub(crate) const SN: u64 = 0b10;
const NV_SHIFT: u32 = 16;
const NV: u64 = 0xff << NV_SHIFT;
const NDST_SHIFT: u32 = 32;
const NDST: u64 = 0xffff_ffff << NDST_SHIFT;

/// Where a notification goes: the field NDST.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Destination(u32);

impl Destination {
    /// Creates the destination in xAPIC mode: the 8-bit APIC ID of a CPU is in bits 15:8 of the
    /// field, the others are zero.
    pub const fn xapic(id: u8) -> Self {
        Destination((id as u32) << 8)
    }

    /// Creates the destination in x2APIC mode: the field is the 32-bit APIC ID.
    pub const fn x2apic(id: u32) -> Self {
        Destination(id)
    }

    /// The field, as in the descriptor.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// A value of the control word: ON, SN, NV and NDST.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "Control")]
pub struct PiControl(u64);

impl PiControl {
    /// Notifications go to a CPU with a vector; none is outstanding or suppressed.
    pub const fn new(destination: Destination, vector: Vector) -> Self {
        PiControl(0).with_destination(destination).with_vector(vector)
    }

    /// The word.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Creates the control word from its bits.
    pub const fn from_bits(bits: u64) -> Self {
        PiControl(bits)
    }

    /// Returns ON, bit 256 of the descriptor: a notification was sent, and the bits that it
    /// announces were not taken yet.
    pub const fn outstanding(self) -> bool {
        self.0 & ON != 0
    }

    /// Returns SN, bit 257: hardware sets the PIR bits of non-urgent interrupts and does no more.
    pub const fn suppressed(self) -> bool {
        self.0 & SN != 0
    }

    /// Returns NV, bits 279:272.
    pub const fn vector(self) -> Vector {
        Vector((self.0 >> NV_SHIFT) as u8)
    }

    /// Returns NDST, bits 319:288.
    pub const fn destination(self) -> Destination {
        Destination((self.0 >> NDST_SHIFT) as u32)
    }

    /// Returns the word with that ON.
    pub const fn with_outstanding(self, on: bool) -> Self {
        PiControl(if on { self.0 | ON } else { self.0 & !ON })
    }

    /// Returns the word with that SN.
    pub const fn with_suppressed(self, sn: bool) -> Self {
        PiControl(if sn { self.0 | SN } else { self.0 & !SN })
    }

    /// Returns the word with that NV.
    pub const fn with_vector(self, vector: Vector) -> Self {
        PiControl(self.0 & !NV | (vector.0 as u64) << NV_SHIFT)
    }

    /// Returns the word with that NDST.
    pub const fn with_destination(self, destination: Destination) -> Self {
        PiControl(self.0 & !NDST | (destination.0 as u64) << NDST_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_where_vt_d_9_11_has_them() {
        let word = PiControl::new(Destination::x2apic(0x1234_5678), Vector(0xf2));
        assert_eq!(word.bits(), 0x1234_5678_00f2_0000);
        assert_eq!(word.with_outstanding(true).with_suppressed(true).bits(), 0x1234_5678_00f2_0003);
        let word = PiControl::from_bits(u64::MAX)
            .with_vector(Vector(0))
            .with_destination(Destination::xapic(0xab));
        assert_eq!(word.bits(), 0x0000_ab00_ff00_ffff);
        assert_eq!((word.vector(), word.destination().bits()), (Vector(0), 0xab00));
    }

    #[test]
    fn setting_a_field_leaves_the_others_alone() {
        let word = PiControl::new(Destination::x2apic(7), Vector(0x31)).with_suppressed(true);
        assert!(word.suppressed() && !word.outstanding());
        let word = word.with_outstanding(true).with_suppressed(false);
        assert!(!word.suppressed() && word.outstanding());
        assert_eq!((word.vector(), word.destination()), (Vector(0x31), Destination::x2apic(7)));
    }

    #[test]
    fn a_bit_that_is_set_again_is_still_set() {
        let word = PiControl::from_bits(u64::MAX);
        assert_eq!((word.with_outstanding(true), word.with_suppressed(true)), (word, word));
    }
}
