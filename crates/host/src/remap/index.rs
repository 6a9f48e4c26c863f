//! The number of an entry in the remapping table.

/// The number of an entry in its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IrteIndex(pub(super) u32);

impl IrteIndex {
    /// The entry's number, below the number of the table's entries.
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}
