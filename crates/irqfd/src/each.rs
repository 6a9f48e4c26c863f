//! One after the other, also if one of them panics.

/// Calls `f` with each item. If a call panics, the others are made all the same, and then the panic
/// goes on (the first one, if there are several): whoever has lowered a line tells everyone, and
/// one callback that is wrong does not cost the others their interrupts.
///
/// Without `std` nobody catches a panic, and the first one is the last call.
#[cfg(feature = "std")]
pub(crate) fn each<T>(items: impl Iterator<Item = T>, mut f: impl FnMut(T)) {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    let mut first = None;
    for item in items {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(item))) {
            first.get_or_insert(panic);
        }
    }
    if let Some(panic) = first {
        resume_unwind(panic);
    }
}

#[cfg(not(feature = "std"))]
pub(crate) fn each<T>(items: impl Iterator<Item = T>, f: impl FnMut(T)) {
    items.for_each(f);
}
