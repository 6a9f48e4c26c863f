//! Vectors of the guest.

use doorbell_post::Bit;

/// A vector that an interrupt may have: 16 to 255. (0 to 15 are illegal in every register and
/// message of an APIC: Intel SDM vol. 3, section 12.5.2.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GuestVector(u8);

impl GuestVector {
    /// Creates the vector of that number, if it is legal.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 16 { Some(GuestVector(number)) } else { None }
    }

    /// The vector's number, 16 to 255.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl From<GuestVector> for Bit<4> {
    fn from(vector: GuestVector) -> Self {
        vector.0.into()
    }
}
