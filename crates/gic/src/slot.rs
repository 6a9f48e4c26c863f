//! What was put into a list register.

use crate::IntId;
use crate::holders::Level;

/// What was put into a list register.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) id: IntId,
    flags: u16,
}

/// The list register has taken the latch over.
const LATCHED: u16 = 1 << 0;
/// The interrupt was active, and held a bit of the active priority registers.
const ACTIVE: u16 = 1 << 1;
/// The interrupt was active, and an edge had come since.
const AGAIN: u16 = 1 << 2;
/// Where the number of that bit is.
const LEVEL_SHIFT: u32 = 8;

impl Slot {
    pub(crate) const NONE: Slot = Slot::pending(IntId::FIRST, false);

    #[inline]
    pub(crate) const fn pending(id: IntId, latched: bool) -> Slot {
        Slot { id, flags: if latched { LATCHED } else { 0 } }
    }

    #[inline]
    pub(crate) const fn active(id: IntId, level: Level, again: bool) -> Slot {
        let again = if again { AGAIN } else { 0 };
        Slot { id, flags: ACTIVE | again | (level.bits() as u16) << LEVEL_SHIFT }
    }

    #[inline]
    pub(crate) const fn is_active(self) -> bool {
        self.flags & ACTIVE != 0
    }

    /// Returns whether its latch was taken over by the list register.
    #[inline]
    pub(crate) const fn is_latched(self) -> bool {
        self.flags & LATCHED != 0
    }

    pub(crate) const fn set_latched(&mut self) {
        self.flags |= LATCHED;
    }

    /// Returns whether it was active, and an edge had come since.
    #[inline]
    pub(crate) const fn is_again(self) -> bool {
        self.flags & AGAIN != 0
    }

    /// Returns the bit of the active priority registers that it held, if it was active.
    #[inline]
    pub(crate) const fn level(self) -> Option<Level> {
        if self.is_active() {
            Some(Level::from_bits((self.flags >> LEVEL_SHIFT) as u8))
        } else {
            None
        }
    }
}
