//! What the locks of this crate are for.

use doorbell_platform::LockUse;

use crate::acks::ACKS;
use crate::routes::ROUTES;
use crate::vm::IRQFDS;

/// All locks of this crate.
pub static LOCKS: &[LockUse] = &[
    LockUse::leaf(
        &IRQFDS,
        "task context; interrupts off where a routing update writes",
        "a hard-interrupt `signal` must not find the route of an active irqfd half-written by what it interrupted",
    ),
    LockUse::leaf(&ACKS, "task context, one for each GSI", "who listens"),
    LockUse::leaf(&ROUTES, "task context", "which edition of the routes is staged"),
];
