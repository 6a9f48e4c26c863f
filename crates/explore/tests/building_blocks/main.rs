//! What a host builds on, under every interleaving: the locks, wait queues, grace periods and pools
//! of `doorbell-platform`, run by a host whose atomics, interrupts and tasks are those of the
//! simulated machine.
//!
//! Each promise is explored twice: of what is shipped, where the search has to come to its end, and
//! of a copy of the protocol whose decisive step is done wrong, where the same program has to fail.

mod cells;
mod exclusion;
mod grace;
mod host;
mod jobs;
mod once;
mod removal;
mod sequence;
mod waiting;
