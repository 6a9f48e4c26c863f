//! Faults that tests plant into the search.

/// A fault that is planted into the search, to see that the tests find it.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Interrupt entries do not race for the interrupt token.
    NoToken,
    /// A handler is brought forward without what raises its interrupt.
    EntryWithoutRaise,
    /// Contexts stay asleep whatever happens.
    StaleSleep,
    /// A bound on preemptions is combined with the reduction as if they had nothing to do with each
    /// other.
    NaiveBound,
    /// An exchange that has failed once counts as one that only reads, whatever the word holds.
    BlindExchange,
    /// Loops that count their looks wait for ever.
    NeverLapses,
    /// A context that has panicked goes on alone to its end, though the panic is caught.
    PanicStays,
    /// Tasks that several tasks spawn are numbered in the order in which they happen to come.
    UnorderedSpawns,
    /// Objects that appear while the program runs do not race.
    LateObjects,
    /// The first value of each choice is all there is.
    FirstChoice,
}
