//! What may be used again only when hardware has forgotten it.

use crate::IrteIndex;

/// An entry was changed in a way that hardware may not have noticed: it must be told to forget what
/// it has cached of it, and what the entry named until then cannot be used again before that has
/// completed.
///
/// Mode, root pointer and vector of an AMD entry, and anything in an entry of VT-d, are cached;
/// whether a vCPU runs, and where, is not (48882, section 2.2.5.3).
///
/// The host sends the invalidation (`INVALIDATE_INTERRUPT_TABLE`; an IEC invalidation), waits for
/// its completion in a context where it may wait, holding no lock, and then says so. `T` is what it
/// gets for that.
#[derive(Debug)]
#[must_use = "hardware may use what the entry was until it is told to forget it"]
pub struct Invalidate<T> {
    index: IrteIndex,
    then: T,
}

impl<T> Invalidate<T> {
    pub(crate) fn new(index: IrteIndex, then: T) -> Self {
        Invalidate { index, then }
    }

    /// The same, with something else to get for it.
    pub(crate) fn map<U>(self, then: impl FnOnce(T) -> U) -> Invalidate<U> {
        Invalidate { index: self.index, then: then(self.then) }
    }

    /// The entry whose invalidation is asked for.
    pub fn index(&self) -> IrteIndex {
        self.index
    }

    /// Returns what was kept until the invalidation has completed, which the caller vouches for:
    /// the host's IOMMU has said so.
    pub fn completed(self) -> T {
        self.then
    }
}
