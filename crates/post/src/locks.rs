//! What the locks of this crate are for.

use doorbell_platform::LockUse;

use crate::copies::COPIES;

/// All locks of this crate.
pub static LOCKS: &[LockUse] = &[LockUse::leaf(
    &COPIES,
    "interrupts off, also under a scheduler's locks",
    "the copies of a vCPU's mode that hardware reads: the leaf of document 000",
)];
