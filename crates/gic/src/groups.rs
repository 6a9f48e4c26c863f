//! Sets of groups.

use core::ops::{BitAnd, BitOr, BitXor, Not};

use crate::Group;

/// A set of groups: a bit for each, where GICD_CTLR and ICH_VMCR_EL2 have their enables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Groups(u8);

impl Groups {
    pub(crate) const NONE: Groups = Groups(0);
    pub(crate) const BOTH: Groups = Groups(3);

    /// Returns those whose bit is set, of the lowest two.
    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Groups {
        Groups((bits & 3) as u8)
    }

    /// Returns the bits.
    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether each is one of them.
    #[inline]
    pub(crate) const fn each(self) -> [bool; 2] {
        [self.contains(Group::Zero), self.contains(Group::One)]
    }

    #[inline]
    pub(crate) const fn only(group: Group) -> Groups {
        Groups(1 << group as u8)
    }

    #[inline]
    pub(crate) const fn contains(self, group: Group) -> bool {
        self.0 as u32 >> group as u32 & 1 != 0
    }

    /// Returns what ICH_HCR_EL2 says of these groups: `field` is that of group 0, and that of group
    /// 1 is two bits on.
    #[inline]
    pub(crate) const fn in_hcr(self, field: u64) -> u64 {
        (self.0 as u64 & 1 | (self.0 as u64 & 2) << 1) * field
    }
}

impl From<[bool; 2]> for Groups {
    #[inline]
    fn from([zero, one]: [bool; 2]) -> Groups {
        Groups(u8::from(zero) | u8::from(one) << 1)
    }
}

impl BitAnd for Groups {
    type Output = Groups;

    #[inline]
    fn bitand(self, other: Groups) -> Groups {
        Groups(self.0 & other.0)
    }
}

impl BitOr for Groups {
    type Output = Groups;

    #[inline]
    fn bitor(self, other: Groups) -> Groups {
        Groups(self.0 | other.0)
    }
}

impl BitXor for Groups {
    type Output = Groups;

    #[inline]
    fn bitxor(self, other: Groups) -> Groups {
        Groups(self.0 ^ other.0)
    }
}

impl Not for Groups {
    type Output = Groups;

    #[inline]
    fn not(self) -> Groups {
        Groups(self.0 ^ 3)
    }
}
