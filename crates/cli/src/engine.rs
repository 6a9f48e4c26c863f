//! What the command needs from the catalogue and the explorer. The real ones stand behind it in
//! [`cases`](crate::cases), and scripted ones in the tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use doorbell_catalogue::Expected;
pub use doorbell_explore::bench::Row as BenchRow;
pub use doorbell_explore::trace::{FailureKind, Trace};
pub use doorbell_explore::{Limit, Verdict};

/// A system from a document.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of the case on the command line.
    pub name: String,
    /// What it is, in one line.
    pub summary: String,
    /// Where it is documented.
    pub document: String,
    /// The code as reported, each way out that was proposed, and what is shipped.
    pub variants: Vec<Variant>,
}

/// One form of a case.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The name of the variant within the case.
    pub name: String,
    /// Why its verdict is what it is, in one sentence.
    pub summary: String,
    /// The verdict that it must get.
    pub expected: Expected,
    /// What must come of the lock orders that the validator questions, if that is stated.
    pub inversions: Option<Inversions>,
    /// Too large for the default run; `--full` runs it.
    pub full_only: bool,
    /// The parameters within which the verdict holds.
    pub scope: String,
}

/// What comes of the lock orders that the validator questions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inversions {
    /// In a word: `silent`, `reachable`, `unreachable`, `unanswered`.
    pub answer: String,
    /// Why not, if they are unreachable.
    pub reasons: Vec<String>,
}

impl Inversions {
    /// Whether the validator questions no lock order.
    pub fn is_silent(&self) -> bool {
        self.answer == "silent"
    }
}

impl fmt::Display for Inversions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer)?;
        if self.reasons.is_empty() { Ok(()) } else { write!(f, " ({})", self.reasons.join(", ")) }
    }
}

/// How a variant is to be run.
pub struct Settings<'a> {
    /// Threads of the search, at least 1.
    pub jobs: usize,
    /// At most so many preemptions per run; `None` for all interleavings.
    pub bound: Option<u32>,
    /// At most so long for this variant.
    pub budget: Option<Duration>,
    /// Told now and then how far the search is.
    pub progress: Option<&'a dyn Fn(Progress)>,
    /// Set from outside to end the search early; it then reports what it knows.
    pub stop: Arc<AtomicBool>,
}

/// How far a search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub executions: u64,
    /// The part of the tree that is done, from 0 to 1, estimated.
    pub share: f64,
    /// Since the search began.
    pub elapsed: Duration,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it says.
    pub verdict: Verdict,
    /// The failing run, if the verdict is `Found`.
    pub failure: Option<Failure>,
    /// What came of the lock orders that the validator questioned.
    pub inversions: Inversions,
    /// The validator's report of each of them, with the search's answer; empty if there is none.
    pub lock_report: String,
    /// What was set up and ran nowhere, though the variant does not say that it need not.
    pub never_ran: Vec<String>,
    /// Runs that count.
    pub executions: u64,
    /// The preemption bound that the verdict holds within, if any.
    pub bound: Option<u32>,
    /// What ended the search early, if the verdict is `BoundReached`.
    pub limit: Option<Limit>,
    /// How long it took.
    pub elapsed: Duration,
}

/// A failing run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Replays the run.
    pub token: String,
    /// The run.
    pub trace: Trace,
}

/// A run that was replayed from its token.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The case that the token names.
    pub case: String,
    /// The variant that the token names.
    pub variant: String,
    /// The run.
    pub trace: Trace,
}

/// The random programs of a `selftest`.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// How many.
    pub count: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// The number of the first of them.
    pub first: u64,
}

/// What `selftest` did, all of it in agreement.
#[derive(Clone, Copy, Debug)]
pub struct SelftestSummary {
    /// Random programs that were compared.
    pub programs: u64,
    /// Runs of the search, over all programs.
    pub executions: u64,
    /// Runs of brute force, over all programs.
    pub brute_force: u64,
}

/// The catalogue and the explorer, as the command sees them.
pub trait Engine {
    /// All cases, in the order in which they are shown.
    fn cases(&self) -> &[Case];

    /// Explores a variant. The names come from [`Engine::cases`].
    fn run(&self, case: &str, variant: &str, settings: &Settings<'_>) -> Outcome;

    /// Runs once more what a token stands for.
    ///
    /// # Errors
    /// Says in a sentence why the token is refused: malformed, unknown, or from other sources.
    fn replay(&self, token: &str) -> Result<Replayed, String>;

    /// Measures the explorer, and hands over each row as soon as it is known. Ends early when
    /// `stop` is set.
    fn bench_explore(&self, stop: &Arc<AtomicBool>, row: &mut dyn FnMut(BenchRow));

    /// Compares the search with brute force on random programs; `done` is told how many are
    /// through. When `stop` is set it ends early and the summary says how far it came.
    ///
    /// # Errors
    /// Describes the first program on which the two differ.
    fn selftest(
        &self,
        programs: Programs,
        stop: &AtomicBool,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<SelftestSummary, String>;
}

/// Whether somebody asked to stop.
pub fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
