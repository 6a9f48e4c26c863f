//! What may be used again only when hardware has forgotten it.

use crate::IrteIndex;

/// An entry was changed in a way that hardware may not have noticed: it must be told to forget what
/// it has cached of it, and what the entry named until then cannot be used again before that has
/// completed.
///
/// Mode, root pointer and vector of an AMD entry, and anything in an entry of VT-d, are cached;
/// whether a vCPU runs, and where, is not (48882, section 2.2.5.3).
///
/// `T` is what the host gets [for sending](Invalidate::by) the invalidation
/// (`INVALIDATE_INTERRUPT_TABLE`; an IEC invalidation) and waiting for its completion, in a context
/// where it may wait, holding no lock.
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

    /// Has the entry invalidated, and returns what was kept until that has completed. `invalidate`
    /// returns when the host's IOMMU has said that it has; one that covers more entries, or was
    /// sent for another change that came after this one, serves as well.
    ///
    /// # Context
    /// Any task; sleeps if `invalidate` does.
    pub fn by(self, invalidate: impl FnOnce(IrteIndex)) -> T {
        invalidate(self.index);
        self.then
    }
}
