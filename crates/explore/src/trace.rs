//! A failing run, as data. [`render`](crate::render) shows it to people.

use serde::Serialize;

/// What went wrong, or what was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A set of contexts none of which can ever be released.
    Deadlock,
    /// An interrupt handler waits for a lock that the context it interrupted holds.
    SelfDeadlock,
    /// Something that sleeps was called with interrupts or preemption off, in a handler, or under a
    /// spin lock.
    SleepInAtomic,
    /// A context that holds a leaf has done more than decide
    /// ([`LockClass::leaf`](doorbell_platform::LockClass::leaf)).
    UnderLeaf,
    /// Two contexts access plain memory, one of them writes it, and nothing orders the two
    /// ([`sim::RaceCell`](crate::sim::RaceCell)).
    DataRace,
    /// A freed object was touched.
    UseAfterFree,
    /// Something is left when all is over that must not be
    /// ([`Machine::assert_no_leaks`](crate::Machine::assert_no_leaks)).
    Leak,
    /// A reference count went below zero.
    RefUnderflow,
    /// The code panicked.
    Panic,
    /// The program says that something has happened which must not
    /// ([`sim::fail`](crate::sim::fail)).
    Invariant,
    /// The program says that what was looked for has happened, which it may
    /// ([`sim::witness`](crate::sim::witness)).
    Witness,
    /// Work was left that nobody will do.
    LostWork,
    /// An interrupt was left that nobody will deliver.
    LostInterrupt,
    /// A condition of the case does not hold when nothing more can happen.
    Quiescence,
    /// The lock validator's rules were broken (recursion, interrupt state restored out of order,
    /// lock not held, …).
    LockRule,
    /// The program did something else when the same schedule was run again.
    Nondeterministic,
    /// A run did not end within the limit of steps.
    TooLong,
    /// A run created more contexts than the machine has room for.
    TooManyContexts,
}

/// A column of a trace: one CPU, or one piece of hardware.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Column {
    /// What heads it, such as `CPU0` or `IOMMU`.
    pub title: String,
}

/// One visible step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// The step's number in the run, from 0.
    pub step: usize,
    /// The column it belongs to.
    pub column: usize,
    /// The context that did it, by name.
    pub context: String,
    /// What was done: `lock irq_desc#7`, `enter handler of vector 0x41`, `waits for mutex
    /// resampler_lock`.
    pub text: String,
    /// Where: `file:line`.
    pub site: String,
    /// Whether interrupts are on at that CPU after the step; `None` for hardware.
    pub irqs_on: Option<bool>,
    /// The locks that the context holds after the step, oldest first.
    pub holds: Vec<String>,
    /// The context was switched to although the one that ran before could have gone on.
    pub preempts: bool,
    /// The context never gets beyond this step.
    pub stuck: bool,
    /// Whether the step has something to do with the failure (others may be left out to stay within
    /// a page).
    pub matters: bool,
    /// Whether the text is the program's own, or a remark of it follows: what the case is about,
    /// which is not left out before everything else is.
    pub told: bool,
}

/// One of those who wait in a stuck set, and for what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Wait {
    /// The name of the one who waits.
    pub who: String,
    /// The CPU or hardware of the one who waits, by the column's title.
    pub place: String,
    /// The locks that the one who waits holds meanwhile, oldest first.
    pub holds: Vec<String>,
    /// For what: `mutex resampler_lock, held by worker-1`.
    pub what: String,
    /// Those of the stuck set without whom the wait does not end, as indices into
    /// [`Trace::waits`].
    pub on: Vec<usize>,
    /// `file:line`.
    pub site: String,
}

impl Wait {
    /// Returns what the one who waits does, as what follows its name: `holds a and b, and waits for
    /// c, held by worker-1`. Whoever holds what is so the subject of a verb of its own.
    pub fn says(&self) -> String {
        match &*self.holds {
            [] => format!("waits for {}", self.what),
            [only] => format!("holds {only}, and waits for {}", self.what),
            [first @ .., last] => {
                format!("holds {} and {last}, and waits for {}", first.join(", "), self.what)
            }
        }
    }
}

/// A failing run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Trace {
    /// What went wrong.
    pub kind: FailureKind,
    /// The columns, CPUs first.
    pub columns: Vec<Column>,
    /// The steps, in the order in which they happened.
    pub lines: Vec<Line>,
    /// The members of the stuck set; empty for failures of other kinds.
    pub waits: Vec<Wait>,
    /// One sentence that says why.
    pub why: String,
    /// How many preemptions the run has.
    pub preemptions: u32,
    /// Whether it is known that no failing run has fewer preemptions.
    pub minimal: bool,
}
