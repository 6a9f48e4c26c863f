//! What happened in the programs, so that nobody has to believe the generator.

/// Something that happened in at least one execution of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Feature {
    Interrupt,
    NestedInterrupt,
    Ipi,
    Coalesced,
    TryFailed,
    Awaited,
    Woken,
    TimedOut,
    Retried,
    Spawned,
    Blocked,
    BlockedOnLock,
    BlockedInHandler,
    BlockedBelowHandler,
    OrderEdge,
    UsedInHandler,
    ExchangeFailed,
    Lapsed,
    RacingSpawns,
    Caught,
    Static,
    Chose,
}

/// All of them, with what a reader calls them.
pub(super) const FEATURES: [(Feature, &str); 22] = [
    (Feature::Interrupt, "took an interrupt"),
    (Feature::NestedInterrupt, "nested interrupts"),
    (Feature::Ipi, "delivered an IPI"),
    (Feature::Coalesced, "raised a pending interrupt again"),
    (Feature::TryFailed, "failed to try a lock"),
    (Feature::Awaited, "waited for a condition"),
    (Feature::Woken, "were woken"),
    (Feature::TimedOut, "timed out"),
    (Feature::Retried, "went round a retry loop"),
    (Feature::Spawned, "spawned a task"),
    (Feature::Blocked, "left someone blocked for ever"),
    (Feature::BlockedOnLock, "left someone blocked on a lock"),
    (Feature::BlockedInHandler, "left a handler blocked"),
    (Feature::BlockedBelowHandler, "left an interrupted context below a blocked handler"),
    (Feature::OrderEdge, "took one lock under the other"),
    (Feature::UsedInHandler, "took a lock in a handler"),
    (Feature::ExchangeFailed, "failed to exchange a word"),
    (Feature::Lapsed, "gave up waiting"),
    (Feature::RacingSpawns, "spawned tasks of several tasks"),
    (Feature::Caught, "caught a panic"),
    (Feature::Static, "took a lock that is a static"),
    (Feature::Chose, "chose another value than the first"),
];

impl Feature {
    pub(super) fn bit(self) -> u32 {
        1 << self as u8
    }
}
