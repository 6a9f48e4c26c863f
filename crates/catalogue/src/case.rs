//! What a case is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::validate::{Answer, ReasonKind};
use doorbell_explore::{Explore, Failure, Machine, Progress, ReplayError, Report, Verdict};

/// The hash of the sources, from `build.rs`.
const SOURCES: &str = env!("DOORBELL_SOURCES");

/// A system from a document.
pub struct Case {
    /// The name of the case on the command line, such as `irqfd-resampler`.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Where it is documented.
    pub document: &'static str,
    /// The code as reported, each way out, and what is shipped.
    pub variants: Vec<Variant>,
}

impl Case {
    /// A case of these variants.
    ///
    /// # Panics
    /// If two of them have the same name.
    pub fn new(
        name: &'static str,
        summary: &'static str,
        document: &'static str,
        mut variants: Vec<Variant>,
    ) -> Case {
        for (at, variant) in variants.iter().enumerate() {
            let twice = variants[..at].iter().any(|other| other.name == variant.name);
            assert!(!twice, "{name} has two variants {}", variant.name);
        }
        for variant in &mut variants {
            variant.case = name;
        }
        Case { name, summary, document, variants }
    }
}

/// The verdict that a variant must get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// A failure of this kind is found, or the witness that is looked for.
    Found(FailureKind),
    /// All interleavings are run, none fails, and all that was set up runs in some.
    Exhausted,
    /// The search ends at its bound, and none fails until then.
    BoundReached,
}

impl Expected {
    /// The verdict without the kind.
    pub fn verdict(self) -> Verdict {
        match self {
            Expected::Found(_) => Verdict::Found,
            Expected::Exhausted => Verdict::Exhausted,
            Expected::BoundReached => Verdict::BoundReached,
        }
    }

    /// The kind of failure, if one is expected.
    pub fn kind(self) -> Option<FailureKind> {
        match self {
            Expected::Found(kind) => Some(kind),
            Expected::Exhausted | Expected::BoundReached => None,
        }
    }

    /// Whether the report is what must come out.
    pub fn is(self, report: &Report) -> bool {
        report.verdict == self.verdict()
            && report.failure.as_ref().map(|failure| failure.kind) == self.kind()
    }
}

/// What comes of the lock orders that the validator questions, all of them taken together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inversions {
    /// The variant questions none.
    Silent,
    /// The deadlock that one of them asks for is the one that was found.
    Reachable,
    /// None of them can become a deadlock; these are the reasons that the search gives, in their
    /// order.
    Unreachable(Vec<ReasonKind>),
    /// The search did not get so far as to answer them.
    Unknown,
}

impl Inversions {
    /// What came of them in that exploration.
    pub fn of(report: &Report) -> Inversions {
        let mut reasons = BTreeSet::new();
        let mut unknown = false;
        let questions = report.lock_questions();
        if questions.is_empty() {
            return Inversions::Silent;
        }
        for (_, answer) in questions {
            match answer {
                Answer::Reachable { .. } => return Inversions::Reachable,
                Answer::Unreachable { reasons: these } => {
                    reasons.extend(these.iter().map(|reason| reason.kind()))
                }
                Answer::Unknown => unknown = true,
            }
        }
        if unknown {
            Inversions::Unknown
        } else {
            Inversions::Unreachable(reasons.into_iter().collect())
        }
    }

    /// In a word.
    pub fn answer(&self) -> &'static str {
        match self {
            Inversions::Silent => "silent",
            Inversions::Reachable => "reachable",
            Inversions::Unreachable(_) => "unreachable",
            Inversions::Unknown => "unanswered",
        }
    }

    /// Why they cannot become a deadlock, if that is the answer.
    pub fn reasons(&self) -> &[ReasonKind] {
        if let Inversions::Unreachable(reasons) = self { reasons } else { &[] }
    }
}

/// One form of a case.
pub struct Variant {
    /// The name of the variant within the case: `as-reported`, `shipped`, …
    pub name: &'static str,
    /// Why it gets the verdict that it gets, in one sentence.
    pub summary: &'static str,
    /// The verdict that it must get.
    pub expected: Expected,
    /// What must come of the lock orders that the validator questions, where that is what the
    /// variant is about.
    pub inversions: Option<Inversions>,
    /// Too large for the default run.
    pub full_only: bool,
    /// The parameters within which the verdict holds.
    pub scope: String,
    case: &'static str,
    bound: Option<u32>,
    tune: fn(Explore) -> Explore,
    program: Box<dyn Fn(&Machine) + Send + Sync>,
}

impl Variant {
    /// A variant whose executions are each set up by `program`.
    pub fn new(
        name: &'static str,
        expected: Expected,
        summary: &'static str,
        scope: impl Into<String>,
        program: impl Fn(&Machine) + Send + Sync + 'static,
    ) -> Variant {
        Variant {
            name,
            summary,
            expected,
            inversions: None,
            full_only: false,
            scope: scope.into(),
            case: "",
            bound: None,
            tune: |explore| explore,
            program: Box::new(program),
        }
    }

    /// States what must come of the lock orders that the validator questions.
    pub fn inversions(self, inversions: Inversions) -> Variant {
        Variant { inversions: Some(inversions), ..self }
    }

    /// Whether the report is all that the variant states.
    pub fn agrees(&self, report: &Report) -> bool {
        let inversions = match &self.inversions {
            Some(stated) => *stated == Inversions::of(report),
            // A question of the validator's that nobody states is a surprise.
            None => {
                self.expected != Expected::Exhausted || Inversions::of(report) == Inversions::Silent
            }
        };
        let all_ran = self.expected != Expected::Exhausted || report.never_ran.is_empty();
        self.expected.is(report) && inversions && all_ran
    }

    /// Too large for the default run.
    pub fn full_only(self) -> Variant {
        Variant { full_only: true, ..self }
    }

    /// Explored within that bound on preemptions, unless the caller states another. The scope
    /// should mention it.
    pub fn bound(self, preemptions: u32) -> Variant {
        Variant { bound: Some(preemptions), ..self }
    }

    /// What else the exploration needs: lock rules, limits.
    pub fn tune(self, tune: fn(Explore) -> Explore) -> Variant {
        Variant { tune, ..self }
    }

    /// `case/variant`, to which replay tokens are tied.
    pub fn path(&self) -> String {
        format!("{}/{}", self.case, self.name)
    }

    /// Explores it. Progress is told on the thread that calls.
    pub fn run(&self, options: &RunOptions<'_>) -> Report {
        let mut explore = self
            .explore()
            .jobs(options.jobs)
            .bound(options.bound.or(self.bound))
            .budget(options.budget);
        if let Some(stop) = &options.stop {
            explore = explore.stop_when(Arc::clone(stop));
        }
        let program = |machine: &Machine| (self.program)(machine);
        let Some(show) = options.progress else { return explore.run(program) };
        let (tell, told) = mpsc::channel();
        // Moved into the search, so that the channel closes with it.
        let explore = explore.on_progress(move |progress| {
            // Nobody listens any more only if the caller panicked.
            let _ = tell.send(progress);
        });
        std::thread::scope(|scope| {
            let search = scope.spawn(move || {
                let report = explore.run(program);
                drop(explore);
                report
            });
            told.iter().for_each(show);
            search.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets one execution up, for who explores it in another way.
    pub fn set_up(&self, machine: &Machine) {
        (self.program)(machine);
    }

    /// Runs the failing run of a token once more.
    ///
    /// # Errors
    /// See [`Explore::replay`].
    pub fn replay(&self, token: &str) -> Result<Failure, ReplayError> {
        self.explore().replay(token, |machine| (self.program)(machine))
    }

    fn explore(&self) -> Explore {
        let sources = SOURCES.parse().expect("the build script prints a number");
        (self.tune)(Explore::new(self.path()).source(sources))
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Variant({}, {:?}, {:?}, {})",
            self.path(),
            self.expected,
            self.inversions,
            self.scope
        )
    }
}

/// How a variant is run.
#[derive(Default)]
pub struct RunOptions<'a> {
    /// OS threads that explore; 0 means as many as the machine has CPUs.
    pub jobs: usize,
    /// Only schedules with at most so many preemptions; `None` for what the variant states, which
    /// is all of them unless its scope says otherwise.
    pub bound: Option<u32>,
    /// The longest time that it may take.
    pub budget: Option<Duration>,
    /// Told now and then how far it is.
    pub progress: Option<&'a dyn Fn(Progress)>,
    /// Set from outside to end it early.
    pub stop: Option<Arc<AtomicBool>>,
}

/// What distinguishes the variants of a case, and what they are with it.
pub(crate) trait Scope: Copy + Send + Sync + 'static {
    /// Returns how many of what take part.
    fn text(self) -> String;

    /// Sets up one execution.
    fn program(self, m: &Machine);
}

/// Returns the variant of a scope.
pub(crate) fn variant(
    name: &'static str,
    expected: Expected,
    summary: &'static str,
    scope: impl Scope,
) -> Variant {
    Variant::new(name, expected, summary, scope.text(), move |m| scope.program(m))
}
