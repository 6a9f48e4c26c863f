//! What to explore, and how far.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::limit::Until;
use crate::machine::coroutine::{LEAST_STACK_BYTES, STACK_BYTES};
use crate::machine::spin::Spins;
use crate::machine::watchdog::{Stall, Watchdog};
use crate::run::report::Progress;
use crate::search::{Fault, Settings};
use crate::validate::Rules;

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
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// use doorbell_explore::{Explore, Machine, trace::FailureKind};
///
/// let program = |m: &Machine| {
///     let word = Arc::new(AtomicU32::new(0));
///     for name in ["one", "two"] {
///         let word = Arc::clone(&word);
///         m.task(name, move || word.store(word.load(SeqCst) + 1, SeqCst));
///     }
///     m.at_quiescence("both have counted", move || match word.load(SeqCst) {
///         2 => Ok(()),
///         other => Err(format!("the word is {other}")),
///     });
/// };
/// let report = Explore::new("lost update").run(program);
/// let failure = report.assert_found(FailureKind::Quiescence);
/// // Without a preemption nothing is lost; and the same failure can be had again.
/// let bounded = Explore::new("lost update").bound(Some(0)).run(program);
/// assert!(bounded.failure.is_none());
/// assert!(Explore::new("lost update").replay(&failure.token, program).is_ok());
/// ```
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
                spurious: [0; 2],
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
    /// If that keeps the search from anything, it ends as
    /// [`Verdict::BoundReached`](crate::Verdict::BoundReached). 4 without this.
    pub fn lapses(mut self, most: u32) -> Self {
        self.settings.lapses = most;
        self
    }

    /// Lets each context's weak exchanges fail though the word holds what is expected, so many times
    /// in one execution: as processors do that have no compare-exchange of one instruction. None
    /// without this.
    ///
    /// ```
    /// use doorbell_explore::sync::atomic::{AtomicU32, Ordering::SeqCst};
    /// use doorbell_explore::{Explore, Machine, trace::FailureKind};
    ///
    /// let report = Explore::new("a weak exchange without a loop").spurious_exchanges(1).run(
    ///     |m: &Machine| {
    ///         let word = AtomicU32::new(0);
    ///         m.task("takes", move || {
    ///             word.compare_exchange_weak(0, 1, SeqCst, SeqCst).expect("nobody else is there");
    ///         });
    ///     },
    /// );
    /// report.assert_found(FailureKind::Panic);
    /// ```
    pub fn spurious_exchanges(mut self, times: u32) -> Self {
        self.settings.spurious[0] = times;
        self
    }

    /// Lets each task's `park` return though nobody has woken it, so many times in one execution,
    /// which its contract allows. None without this.
    pub fn spurious_wakes(mut self, times: u32) -> Self {
        self.settings.spurious[1] = times;
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

    /// Collects what [`Machine::outcome`](crate::Machine::outcome) says of each execution. Then
    /// contexts that wait for ever are an outcome, not a failure: they are named in it.
    pub fn collect_outcomes(mut self) -> Self {
        self.outcomes = true;
        self.settings.stop_at_stuck = false;
        self
    }

    /// Counts the executions no two of which are equivalent, to be told in
    /// [`Report::traces`](crate::Report::traces): two are equivalent if they differ only in the
    /// order of steps that do not depend on each other. With [`Schedules::All`] this is the number
    /// that the reduction has to get by with. Takes 8 bytes for each of them.
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

    /// Has `f` called now and then on one of the exploring threads. Without this, an exploration
    /// that takes longer than two seconds shows a line on stderr, if that is a terminal.
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
}
