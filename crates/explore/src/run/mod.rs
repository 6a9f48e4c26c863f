//! The front door: what to explore, how far, and what came of it.

pub(crate) mod executor;
pub(crate) mod minimise;
pub(crate) mod parallel;
pub(crate) mod token;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::limit::{Limit, Until};
use crate::machine::Machine;
use crate::machine::coroutine::{LEAST_STACK_BYTES, STACK_BYTES};
use crate::machine::lockdep::StuckLocks;
use crate::machine::record::Recorder;
use crate::machine::spin::{SpinLoop, Spins};
use crate::machine::watchdog::{Stall, Watchdog};
use crate::run::executor::{FailedRun, Replayed, calmly, no_room, replay};
use crate::run::token::Token;
use crate::search::{Fault, Settings};
use crate::trace::{FailureKind, Trace};
use crate::validate::{Rules, Validator};

/// How far a search got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A failing run was found.
    Found,
    /// Every interleaving that matters was run, and none fails.
    Exhausted,
    /// The search ended at its bound or budget, and no run so far fails.
    BoundReached,
}

/// A failing run.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// What [`Explore::replay`] takes to run it again. Empty if the program is not deterministic.
    pub token: String,
    /// The run.
    pub trace: Trace,
}

/// What came of an exploration.
#[derive(Debug)]
pub struct Report {
    /// How far the search got.
    pub verdict: Verdict,
    /// The failing run, if one was found.
    pub failure: Option<Failure>,
    /// How many executions were run to their end. With [`Schedules::Reduced`] on one OS thread and
    /// without a bound no two of them are equivalent.
    pub executions: u64,
    /// How many further executions were cut, because all that could follow was run elsewhere.
    pub cut: u64,
    /// How many visible steps were taken, those of replayed prefixes included.
    pub steps: u64,
    /// The bound on preemptions under which the search ran.
    pub bound: Option<u32>,
    /// What ended the search early. `None` if nothing did: it found a failing run, or ran all there
    /// are.
    pub limit: Option<Limit>,
    /// How long it took.
    pub elapsed: Duration,
    /// The outcomes, if they were collected.
    pub outcomes: BTreeSet<String>,
    /// How many of the executions are not equivalent to another one, if that was counted.
    pub traces: Option<u64>,
    /// The loops with `cpu_relax` that somebody came to rest in, each with what it does when nobody
    /// writes.
    pub spins: Vec<SpinLoop>,
    /// How many runs it took to find that out. They are no executions.
    pub probes: u64,
    /// How many executions there were in which destructors took steps while a panic unwound. Those
    /// steps were explored as one with the step before them: nobody else had a turn between.
    pub unwound: u64,
    /// What the lock validator has seen.
    pub locks: Validator,
    /// How many stacks of failing runs were left behind.
    pub abandoned: usize,
    /// What was set up and ran in no execution, though nothing says that it need not
    /// ([`HandlerHandle::may_not_run`](crate::HandlerHandle::may_not_run)): handlers that were
    /// never entered, tasks and hardware that never took a step. Of these, an exhausted search says
    /// nothing.
    pub never_ran: Vec<String>,
    /// The names of the contexts, by number, as the last execution had them.
    pub contexts: Vec<String>,
}

impl Report {
    /// Insists that every interleaving was run, none fails, and all that was set up ran in some.
    ///
    /// # Panics
    /// With the trace of the failing run, or what ended the search early, or [what never
    /// ran](Report::never_ran).
    #[track_caller]
    pub fn assert_exhausted(&self) {
        if let Some(failure) = &self.failure {
            let trace = crate::render::text(&failure.trace, &crate::render::Options::default());
            panic!("{trace}\n{}", failure.again());
        }
        if let Some(limit) = self.limit {
            panic!("not exhausted: {limit}; of {} executions none failed", self.executions);
        }
        assert!(
            self.never_ran.is_empty(),
            "never ran, in any of {} executions: {}; if that is meant, `may_not_run` on its handle says so",
            self.executions,
            self.never_ran.join(", "),
        );
    }

    /// Insists that a failing run of that kind was found, and returns it.
    ///
    /// # Panics
    /// If there is none, or it fails in another way.
    #[track_caller]
    pub fn assert_found(&self, kind: FailureKind) -> &Failure {
        match &self.failure {
            Some(failure) if failure.kind == kind => failure,
            Some(failure) => {
                let trace = crate::render::text(&failure.trace, &crate::render::Options::default());
                panic!("expected {kind:?}, found {:?}:\n{trace}\n{}", failure.kind, failure.again())
            }
            None => {
                let limit = self.limit.map(|limit| format!(", then {limit}")).unwrap_or_default();
                panic!("expected {kind:?}, but {} executions passed{limit}", self.executions)
            }
        }
    }
}

/// How far a running search has got.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Executions so far.
    pub executions: u64,
    /// Executions cut so far.
    pub cut: u64,
    /// Steps so far.
    pub steps: u64,
    /// The explored share of the tree, from 0 to 1, if what is known of its breadth now is all
    /// there is.
    pub share: f64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// The schedules that are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Schedules {
    /// All that are not equivalent to one that was run.
    Reduced,
    /// All there are.
    All,
    /// Random ones; at each step each context is as likely as the others.
    Uniform {
        /// What they are drawn from.
        seed: u64,
    },
    /// Random ones, by priorities with a few change points (PCT).
    Priorities {
        /// What they are drawn from.
        seed: u64,
    },
}

/// How often a context may lapse, if nothing else is said.
const LAPSES: u32 = 4;

/// An exploration, to be configured and run.
#[derive(Clone)]
pub struct Explore {
    pub(crate) name: String,
    pub(crate) source: u64,
    pub(crate) cpus: u32,
    pub(crate) stack_bytes: usize,
    pub(crate) jobs: usize,
    pub(crate) schedules: Schedules,
    pub(crate) max_executions: Option<u64>,
    pub(crate) budget: Option<Duration>,
    pub(crate) settings: Settings,
    pub(crate) minimise: bool,
    pub(crate) outcomes: bool,
    pub(crate) count_traces: bool,
    /// Those of the program that is explored.
    pub(crate) spins: Spins,
    pub(crate) rules: Rules,
    pub(crate) stop: Option<Arc<AtomicBool>>,
    pub(crate) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    pub(crate) watchdog: Watchdog,
}

doorbell_platform::opaque_debug!([] Explore; name, source, cpus, stack_bytes, jobs, minimise, outcomes, count_traces);

impl Explore {
    /// How many random schedules are run if nothing else limits them.
    pub const DEFAULT_SAMPLES: u64 = 10_000;

    /// Creates an exhaustive exploration on one OS thread. `name` says what is explored; replay
    /// tokens are tied to it.
    pub fn new(name: impl Into<String>) -> Self {
        Explore {
            name: name.into(),
            source: 0,
            cpus: 0,
            stack_bytes: STACK_BYTES,
            jobs: 1,
            schedules: Schedules::Reduced,
            max_executions: None,
            budget: None,
            settings: Settings {
                bound: None,
                max_steps: 20_000,
                stop_at_stuck: true,
                validate: true,
                lapses: LAPSES,
                record: false,
                contexts_return: false,
                fault: None,
                removal: None,
                until: Until::default(),
            },
            minimise: true,
            outcomes: false,
            count_traces: false,
            spins: Spins::default(),
            rules: Rules::default(),
            stop: None,
            progress: None,
            watchdog: Watchdog::default(),
        }
    }

    /// Takes a hash of the source that is explored: tokens of another source are refused.
    pub fn source(mut self, hash: u64) -> Self {
        self.source = hash;
        self
    }

    /// Says how many CPUs there are before tasks are placed; a task that is not pinned gets a free
    /// one, or a new one.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Says how large the stack of each context is, in bytes: 256 KiB if nothing is said, and never
    /// less than 64 KiB. Memory is used for as much of it as is touched. A debug build needs more
    /// than a release build: large values are copied there.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes.max(LEAST_STACK_BYTES);
        self
    }

    /// Says how many OS threads explore; 0 means as many as the machine has CPUs.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = if jobs == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            jobs
        };
        self
    }

    /// Says which schedules are run. Random ones have no end of their own: without a limit of
    /// executions, a budget or a flag to stop, there are
    /// [`DEFAULT_SAMPLES`](Explore::DEFAULT_SAMPLES) of them.
    pub fn schedules(mut self, schedules: Schedules) -> Self {
        self.schedules = schedules;
        self
    }

    /// Runs only schedules with at most so many preemptions.
    pub fn bound(mut self, preemptions: Option<u32>) -> Self {
        self.settings.bound = preemptions;
        self
    }

    /// Ends the search after so many executions.
    pub fn max_executions(mut self, executions: u64) -> Self {
        self.max_executions = Some(executions);
        self
    }

    /// Ends the search after that time, also in the middle of a long execution.
    pub fn budget(mut self, time: Option<Duration>) -> Self {
        self.budget = time;
        self
    }

    /// Says how many steps one run may have; a longer one is a failure.
    pub fn max_steps(mut self, steps: usize) -> Self {
        self.settings.max_steps = steps;
        self
    }

    /// Says how often a context may lapse in one execution while others can go on: give up a wait,
    /// in a loop with `cpu_relax` that counts its looks, though what it waits for may still come.
    /// If that keeps the search from anything, it ends as [`Verdict::BoundReached`]. 4 without
    /// this.
    pub fn lapses(mut self, most: u32) -> Self {
        self.settings.lapses = most;
        self
    }

    /// Says whether a failing run is made minimal in preemptions before it is told (the default).
    pub fn minimise(mut self, minimise: bool) -> Self {
        self.minimise = minimise;
        self
    }

    /// Says whether the lock validator looks on (the default).
    pub fn validate(mut self, validate: bool) -> Self {
        self.settings.validate = validate;
        self
    }

    /// Tells the validator of lock nestings and other rules.
    pub fn lock_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Collects what [`Machine::outcome`] says of each execution. Then contexts that wait for ever
    /// are an outcome, not a failure: they are named in it.
    pub fn collect_outcomes(mut self) -> Self {
        self.outcomes = true;
        self.settings.stop_at_stuck = false;
        self
    }

    /// Counts the executions no two of which are equivalent, to be told in [`Report::traces`]: two
    /// are equivalent if they differ only in the order of steps that do not depend on each other.
    /// With [`Schedules::All`] this is the number that the reduction has to get by with. Takes 8
    /// bytes for each of them.
    pub fn count_traces(mut self) -> Self {
        self.count_traces = true;
        self
    }

    /// Ends the search soon after the flag is set, also in the middle of a long execution.
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Says for how long explored code may run on, or sleep, without a visible step: 10 seconds if
    /// nothing is said, for ever with `None`. Code that goes on for longer hangs: it waits for
    /// something that the machine does not see, or goes round without a step. It is named on
    /// stderr, with the place of its last step, and the process ends, because nothing else can end
    /// it.
    ///
    /// Time in which the process is suspended, or the thread gets no CPU, does not count (the
    /// latter on Linux only).
    pub fn watchdog(mut self, patience: Option<Duration>) -> Self {
        self.watchdog.patience = patience;
        self
    }

    /// Calls `f`, on a thread of its own, when explored code hangs
    /// ([`watchdog`](Explore::watchdog)), in place of what is done otherwise. If it returns, the
    /// exploration goes on hanging.
    pub fn on_stall(mut self, f: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.watchdog.then = Arc::new(f);
        self
    }

    /// Has `f` called now and then on one of the exploring threads.
    pub fn on_progress(mut self, f: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(f));
        self
    }

    /// Plants a fault into the search.
    #[doc(hidden)]
    pub fn plant(mut self, fault: Fault) -> Self {
        self.settings.fault = Some(fault);
        self
    }

    /// Explores `program`, which sets up one execution: it creates objects and adds tasks,
    /// handlers, hardware and conditions to the machine. It must do the same each time it is
    /// called.
    pub fn run(&self, program: impl Fn(&Machine) + Send + Sync) -> Report {
        let this = Explore { spins: Spins::default(), ..self.clone() };
        calmly(|| this.run_this(program))
    }

    fn run_this(&self, program: impl Fn(&Machine) + Send + Sync) -> Report {
        let started = Instant::now();
        let shared = parallel::Shared::new(self, started);
        let mut found = parallel::explore(self, &shared, &program);
        let mistaken = self.spins.mistaken(&found.users).map(|_| Limit::MistakenLoop);
        found.limit = found.limit.or(mistaken);
        let failure = found.failed.take().map(|failed| {
            let locks: Vec<_> = failed.locks.clone();
            let members: Vec<_> = locks.iter().map(StuckLocks::view).collect();
            let failure = self.tell(&program, failed);
            if !members.is_empty() {
                found.validator.deadlock_seen(&members, &failure.token);
            }
            failure
        });
        let limit = found.limit.filter(|_| failure.is_none());
        let ran = found.ran;
        let idle = found.expected_to_run.into_iter().filter(|(ctx, _)| !ran.contains(*ctx));
        let never_ran: Vec<String> = idle.map(|(_, what)| what).collect();
        let verdict = match (&failure, limit) {
            (Some(_), _) => Verdict::Found,
            (None, None) => Verdict::Exhausted,
            (None, Some(_)) => Verdict::BoundReached,
        };
        Report {
            verdict,
            failure,
            executions: found.executions,
            cut: found.cut,
            steps: found.steps,
            bound: self.settings.bound,
            limit,
            elapsed: started.elapsed(),
            outcomes: found.outcomes,
            traces: self.count_traces.then_some(found.traces.len() as u64),
            spins: self.spins.told(),
            probes: found.probes,
            unwound: found.unwound,
            locks: found.validator,
            abandoned: found.abandoned,
            never_ran,
            contexts: found.contexts,
        }
    }

    /// Runs the schedule of a token again.
    ///
    /// # Errors
    /// If it is not a token, or one of another program or another state of its source, or if
    /// failing runs have left so many stacks in this process that there is no room for more.
    pub fn replay(
        &self,
        token: &str,
        program: impl Fn(&Machine) + Send + Sync,
    ) -> Result<Failure, ReplayError> {
        let parsed = Token::parse(token)?;
        parsed.check(self)?;
        let this = Explore { spins: Spins::default(), ..self.clone() };
        let replayed = replay(&this, &program, parsed.replay());
        let Replayed { failed, recorder, .. } = replayed.map_err(ReplayError::NoRoom)?;
        match failed {
            Some(failed) if parsed.fits(&failed, &recorder) => Ok(Failure {
                kind: failed.kind,
                token: token.to_owned(),
                trace: recorder.trace(failed, None),
            }),
            _ => Err(ReplayError::Stale),
        }
    }

    /// Makes a failing run fit for people.
    fn tell(&self, program: &(impl Fn(&Machine) + Send + Sync), failed: FailedRun) -> Failure {
        if failed.kind == FailureKind::Nondeterministic {
            return Failure::unrepeatable(failed);
        }
        let (mut failed, minimal) = crate::run::minimise::minimise(self, program, failed);
        if let Some(token) = Token::of(self, program, &failed)
            && let Ok(Replayed { failed: Some(again), recorder, .. }) =
                replay(self, program, token.replay())
        {
            let trace = recorder.trace(again, Some(minimal));
            return Failure { kind: trace.kind, token: token.to_string(), trace };
        }
        if let Some(limit) = no_room() {
            failed.message = format!("{} The run cannot be shown: {limit}.", failed.message);
            return Failure::unrepeatable(failed);
        }
        failed.message = format!(
            "The program is not deterministic: a run failed once and not again when the same schedule was run. {}",
            failed.message
        );
        failed.kind = FailureKind::Nondeterministic;
        Failure::unrepeatable(failed)
    }
}

impl Failure {
    /// How to run it again, in a sentence.
    fn again(&self) -> String {
        if self.token.is_empty() {
            let why = match self.kind {
                FailureKind::Nondeterministic => "the program is not deterministic",
                _ => "this process has left too many stacks behind",
            };
            return format!("it cannot be run again: {why}");
        }
        format!(
            "run it again with `Explore::replay(\"{}\", …)` in place of `Explore::run`",
            self.token
        )
    }

    /// A run that cannot be run again has neither token nor steps.
    fn unrepeatable(failed: FailedRun) -> Failure {
        Failure {
            kind: failed.kind,
            token: String::new(),
            trace: Recorder::default().trace(failed, None),
        }
    }
}

/// Why a token cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The text is not a token.
    Malformed,
    /// The token belongs to another program.
    OtherProgram,
    /// The program or the explorer has changed since.
    Stale,
    /// Failing runs leave the stacks of contexts behind that wait for ever: the process has as many
    /// of them as it can have.
    NoRoom(Limit),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReplayError::NoRoom(limit) => {
                return write!(f, "no run can be replayed in this process any more: {limit}");
            }
            ReplayError::Malformed => "this is not a replay token",
            ReplayError::OtherProgram => "the token belongs to another program",
            ReplayError::Stale => {
                "the token is stale: the code has changed since it was made; run the check again"
            }
        })
    }
}

impl std::error::Error for ReplayError {}
