//! What the locks of this crate are for.

use doorbell_platform::LockUse;

use crate::bypass::PAIRS;
use crate::irq::{IRQ_ACTIONS, IRQ_DESC};
use crate::msi::TABLE;
use crate::remap::INDICES;
use crate::vector::VECTORS;

/// All locks of this crate.
pub static LOCKS: &[LockUse] = &[
    LockUse::leaf(
        &IRQ_DESC,
        "interrupts off",
        "where an interrupt goes, its thread and notifier; the entry is stored under it, what wakes or calls is returned",
    ),
    LockUse::leaf(
        &VECTORS,
        "interrupts off",
        "who has which vector of which CPU, and the vector tables, which interrupt entry reads without it",
    ),
    LockUse::leaf(
        &IRQ_ACTIONS,
        "one for each descriptor",
        "one change of a line's handlers at a time",
    ),
    LockUse::leaf(
        &TABLE,
        "task context",
        "what a guest writes to its MSI-X table; routes and deliveries are returned, interrupts of the device do not take it",
    ),
    LockUse::leaf(&INDICES, "task context", "which entries are free"),
    LockUse::leaf(
        &PAIRS,
        "task context",
        "which producer and consumer have a token; callbacks run with the pair taken out, under no lock",
    ),
];
