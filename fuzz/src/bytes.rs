//! Bytes as numbers.

/// Bytes that are taken from the front. When none are left, zeros come.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    /// Returns whether none are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| {
            let Some((first, rest)) = self.0.split_first() else { return 0 };
            self.0 = rest;
            *first
        })
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Returns a number below `end`, which is not 0, of one byte.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.u8() % end
    }
}
