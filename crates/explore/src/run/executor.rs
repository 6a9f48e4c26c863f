//! Running a program once: its contexts, from their first step to the end, and what the end says.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ids::{CtxId, CtxSet};
use crate::limit::{Limit, Until};
use crate::machine::Machine;
use crate::machine::cell::WorldCell;
use crate::machine::failed::FailedRun;
use crate::machine::lent::told;
use crate::machine::live::Entry;
#[cfg(unix)]
use crate::machine::overflow;
use crate::machine::panics;
use crate::machine::recorder::Recorder;
use crate::machine::strays;
use crate::machine::watchdog::Watch;
use crate::machine::world::{self, Mode, World};
use crate::run::explore::Explore;
use crate::search::{self, Replay, Sampler, Search, Settings, Strategy};
use crate::trace::FailureKind;
use crate::validate::{Rules, Validator};

/// How many stacks one search leaves behind before it gives up,
const MOST_ABANDONED: usize = 1024;
/// and how many all searches of the process do. Each costs two mappings, of which Linux allows a
/// process 65,530: half of them stay for failing runs, of which each leaves a few, and for the
/// program.
const MOST_ABANDONED_BY_PROCESS: usize = 16_384;
/// A search that has left no more than these goes on all the same: what others have left is no
/// fault of its own.
const FEW_ABANDONED: usize = 128;
/// How many the process may leave behind at all, failing runs and their replays included. What is
/// left of the mappings is for contexts that run, and for the program.
const MOST_ABANDONED_EVER: usize = 30_000;
/// How many leave a failing run room to be told: it is not made any smaller after that.
const MOST_ABANDONED_BY_TRIES: usize = 28_000;
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// Returns whether runs that fail may still be tried in order to make a failure smaller.
pub(crate) fn room_for_tries() -> bool {
    ABANDONED.load(Ordering::Relaxed) < MOST_ABANDONED_BY_TRIES
}

/// Returns what forbids another run, which may leave stacks behind.
pub(crate) fn no_room() -> Option<Limit> {
    let full = ABANDONED.load(Ordering::Relaxed) >= MOST_ABANDONED_EVER;
    full.then_some(Limit::AbandonedByProcess(MOST_ABANDONED_EVER))
}

/// How one execution ended.
pub(crate) enum RunEnd {
    Ended,
    Failed(FailedRun),
    /// In the middle: what limits the search was reached.
    Halted(Limit),
}

/// Every execution of every OS thread has its own number. Each thread takes a block of them at a
/// time.
static EPOCH: AtomicU64 = AtomicU64::new(1);
const EPOCHS: u64 = 1 << 12;

/// Runs executions, one after another, on one OS thread.
pub(crate) struct Executor {
    cell: Rc<WorldCell>,
    cpus: u32,
    outcomes: Option<BTreeSet<String>>,
    traces: Option<HashSet<u64>>,
    /// The numbers of the next executions.
    epochs: std::ops::Range<u64>,
    pub abandoned: usize,
    /// Runs that were not executions: something was probed in them.
    pub probes: u64,
    /// Executions in which destructors took steps while a panic unwound.
    pub unwound: u64,
    watch: Watch,
    /// How many real threads had used simulated objects before.
    strays: u64,
    live: Entry,
}

impl Executor {
    pub(crate) fn new(explore: &Explore, strategy: Strategy, settings: Settings) -> Self {
        panics::install();
        #[cfg(unix)]
        overflow::install();
        let watch = Watch::new(&explore.name, &explore.watchdog);
        let Memory { world, search } = Memory::idle();
        let search = Search::new(strategy, settings, explore.rules.clone(), search);
        Executor {
            cell: WorldCell::new(
                World::new(search, explore.spins.clone(), Arc::clone(&watch.0), world),
                explore.stack_bytes,
            ),
            cpus: explore.cpus,
            outcomes: explore.outcomes.then(BTreeSet::new),
            traces: explore.count_traces.then(HashSet::new),
            epochs: 0..0,
            abandoned: 0,
            probes: 0,
            unwound: 0,
            watch,
            strays: strays::count(),
            live: Entry::new(),
        }
    }

    #[inline]
    pub(crate) fn search<R>(&self, f: impl FnOnce(&mut Search) -> R) -> R {
        self.cell.with(|w| f(&mut w.search))
    }

    /// Runs the program once, by the plan of the search and then as it chooses. Before that, finds
    /// out what has to be known of its loops.
    pub(crate) fn execute(&mut self, program: &(impl Fn(&Machine) + Send + Sync)) -> RunEnd {
        loop {
            let end = self.run(program);
            self.live.end();
            if let Some(why) = self.cell.with(|w| w.refused.take()) {
                panic!("{why}");
            }
            if let Some(end) = end {
                return end;
            }
            self.probes += 1;
        }
    }

    /// Runs the program once; `None` if the run was not an execution.
    fn run(&mut self, program: &(impl Fn(&Machine) + Send + Sync)) -> Option<RunEnd> {
        let epoch = self.next_epoch();
        let cpus = self.cpus;
        let cell = Rc::clone(&self.cell);
        let entered = cell.enter();
        self.live.begin(epoch);
        cell.with(|w| {
            w.reset(epoch, cpus);
            w.turn_to(Mode::Alone);
        });
        self.watch.0.set_up();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| program(&Machine::NEW))) {
            drop(entered);
            drop(cell);
            self.set_up_panicked(payload);
        }
        cell.with(|w| {
            w.turn_to(Mode::Running);
            w.set_up = w.versions.len();
            w.set_up_ctxs = w.ctxs.len();
        });
        cell.run(None);
        let (halted, probing) = cell.with(|w| (w.search.take_halted(), w.probing));
        if probing {
            drop(entered);
            drop(cell);
            self.end_probe();
            return halted.map(RunEnd::Halted);
        }
        let (failed, some_wait, has_checks) =
            cell.with(|w| (w.conclude(halted.is_some()), w.some_wait(), w.has_checks()));
        if some_wait
            && (failed.is_none() && halted.is_none()
                || self.search(|search| search.settings.contexts_return))
        {
            self.end_services();
        }
        let failed =
            failed.or_else(|| if halted.is_none() && has_checks { self.check() } else { None });
        if self.traces.is_some() && failed.is_none() && halted.is_none() {
            self.count_trace();
        }
        let failed = if cell.with(|w| w.has_extras) {
            self.end_extras(failed, halted.is_some())
        } else {
            failed
        };
        let failed =
            if strays::count() == self.strays { failed } else { Some(self.with_strays(failed)) };
        self.watch.0.rest();
        let stuck = if some_wait { self.stuck_ones() } else { Vec::new() };
        self.unwound += cell.with(|w| {
            w.turn_to(Mode::Outside);
            w.unwound as u64
        });
        drop(entered);
        drop(cell);
        if failed.is_some() || !stuck.is_empty() {
            self.abandon();
        }
        Some(match failed {
            Some(failed) => RunEnd::Failed(failed),
            None => halted.map_or(RunEnd::Ended, RunEnd::Halted),
        })
    }

    /// The set-up is the caller's own code, on the caller's own stack: the panic is the caller's.
    #[cold]
    fn set_up_panicked(&mut self, payload: Box<dyn Any + Send>) -> ! {
        self.watch.0.rest();
        self.abandon();
        std::panic::resume_unwind(payload);
    }

    /// Drops what tasks have returned and nobody has asked for, and looks what is left then. What is
    /// left of a run that failed stays, as its contexts do.
    #[cold]
    fn end_extras(&mut self, failed: Option<FailedRun>, halted: bool) -> Option<FailedRun> {
        if failed.is_some() || halted {
            return failed;
        }
        let (returned, left) = self.cell.with(|w| {
            w.turn_to(Mode::Alone);
            w.over = true;
            (
                std::mem::take(&mut w.extras.returned),
                w.extras.left.take().filter(|_| !w.some_wait()),
            )
        });
        drop(returned);
        self.leaked(left?())
    }

    /// A run that has left something which must not be left.
    fn leaked(&self, left: Vec<String>) -> Option<FailedRun> {
        let message = format!("When all is over, there is still {}.", left.join(" and "));
        (!left.is_empty()).then(|| self.failed(FailureKind::Leak, message))
    }

    #[cold]
    fn count_trace(&mut self) {
        let trace =
            self.cell.with(|w| (!w.search.was_cut()).then(|| w.search.events.equivalence()));
        self.traces.as_mut().into_iter().for_each(|traces| traces.extend(trace));
    }

    /// Brings a run to its end that was not an execution: nothing that it does is told.
    #[cold]
    fn end_probe(&mut self) {
        let cell = Rc::clone(&self.cell);
        let entered = cell.enter();
        if cell.with(|w| w.failed.is_none() || w.search.settings.contexts_return) {
            self.end_services();
        }
        let left = self.stuck_ones();
        let returned = cell.with(|w| std::mem::take(&mut w.extras.returned));
        if left.is_empty() {
            let unused = cell.with(|w| {
                w.turn_to(Mode::Alone);
                w.over = true;
                (std::mem::take(&mut w.checks), w.outcome.take())
            });
            drop((unused, returned));
        } else {
            std::mem::forget(returned);
        }
        cell.with(|w| {
            w.end_probe();
            w.turn_to(Mode::Outside);
        });
        self.watch.0.rest();
        drop(entered);
        drop(cell);
        if !left.is_empty() {
            self.abandon();
        }
    }

    /// A run in which a real thread has used simulated objects is no run of the machine alone.
    #[cold]
    fn with_strays(&self, failed: Option<FailedRun>) -> FailedRun {
        match failed {
            Some(failed) => FailedRun {
                message: format!("{} {}", failed.message, strays::sentence()),
                ..failed
            },
            None => self.failed(FailureKind::Panic, strays::sentence()),
        }
    }

    /// A run that failed by no context's fault.
    fn failed(&self, kind: FailureKind, message: String) -> FailedRun {
        let schedule = self.cell.with(|w| w.search.plan().to_vec());
        FailedRun { kind, message, members: CtxSet::EMPTY, schedule, locks: Vec::new() }
    }

    fn next_epoch(&mut self) -> u64 {
        self.epochs.next().unwrap_or_else(|| {
            let first = EPOCH.fetch_add(EPOCHS, Ordering::Relaxed);
            self.epochs = first + 1..first + EPOCHS;
            first
        })
    }

    /// Tells the contexts that still wait that the run is over.
    #[inline(never)]
    fn end_services(&mut self) {
        self.cell.with(|w| w.turn_to(Mode::Ending));
        let count = self.cell.with(|w| w.ctxs.len());
        for index in 0..count {
            let id = CtxId(index as u8);
            let waits = self.cell.with(|w| {
                w.current = id;
                w.watched.at(id, w.search.depth(), w.ctx(id).pending.site);
                !w.ctx(id).finished
            });
            if waits && self.cell.runners.resume(id) {
                self.cell.with(|w| w.ctx_mut(id).finished = true);
            }
        }
    }

    fn stuck_ones(&self) -> Vec<usize> {
        self.cell.with(|w| (0..w.ctxs.len()).filter(|&index| !w.ctxs[index].finished).collect())
    }

    /// Checks the conditions of quiescence, and collects the outcome.
    #[inline(never)]
    fn check(&mut self) -> Option<FailedRun> {
        let (checks, outcome) = self.cell.with(|w| {
            w.turn_to(Mode::Alone);
            w.over = true;
            (std::mem::take(&mut w.checks), w.outcome.take())
        });
        let mut failed = None;
        for (what, check) in checks {
            self.watch.0.condition(what.clone());
            let result = catch_unwind(AssertUnwindSafe(check))
                .unwrap_or_else(|payload| Err(self.panicked(&*payload)));
            if let Err(why) = result
                && failed.is_none()
            {
                failed = Some((
                    FailureKind::Quiescence,
                    format!("When nothing more can happen, \"{what}\" does not hold: {why}."),
                ));
            }
        }
        let failed = failed.or_else(|| {
            self.cell.with(|w| w.failed.take()).map(|failed| (failed.kind, failed.message))
        });
        let mut panicked = None;
        // What a run that was cut comes to is what another one came to; if it is not, that must not
        // stay hidden.
        let cut = self.search(|search| search.was_cut());
        if let (Some(outcomes), Some(outcome), false) = (&mut self.outcomes, outcome, cut) {
            let waiting = self.cell.with(|w| w.waiting_outcome.take()).unwrap_or_default();
            self.watch.0.outcome();
            match catch_unwind(AssertUnwindSafe(outcome)) {
                Ok(outcome) => _ = outcomes.insert(format!("{outcome}{waiting}")),
                Err(payload) => panicked = Some(payload),
            }
        }
        let failed = failed.or_else(|| {
            let panicked = panicked.map(|payload| self.panicked(&*payload))?;
            Some((
                FailureKind::Panic,
                format!("What tells the executions apart cannot be told: {panicked}."),
            ))
        });
        failed.map(|(kind, message)| self.failed(kind, message))
    }

    /// What came of a condition or an outcome that panicked.
    fn panicked(&self, payload: &(dyn Any + Send)) -> String {
        let site = self.cell.with(|w| w.panic_site.take());
        format!(
            "it panicked{}: {}",
            site.map(|site| format!(" at {site}")).unwrap_or_default(),
            told(payload)
        )
    }

    /// Leaves the stacks of a failed run behind, and what it would still have done: destructors of
    /// the program expect a machine that runs.
    #[cold]
    fn abandon(&mut self) {
        self.cell.with(|w| {
            std::mem::forget((std::mem::take(&mut w.checks), w.outcome.take()));
            std::mem::forget(std::mem::take(&mut w.extras));
            for ctx in &mut w.ctxs {
                std::mem::forget(ctx.job.take());
            }
        });
        let unfinished: Vec<_> = self.stuck_ones();
        if !unfinished.is_empty() {
            // Nothing runs in it now.
            let cell = Rc::get_mut(&mut self.cell).expect("nobody else has it");
            for index in unfinished.into_iter().rev() {
                let left = cell.runners.abandon(CtxId(index as u8)) as usize;
                self.abandoned += left;
                ABANDONED.fetch_add(left, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn too_many_abandoned(&self) -> Option<Limit> {
        if self.abandoned >= MOST_ABANDONED {
            Some(Limit::AbandonedStacks(MOST_ABANDONED))
        } else if self.abandoned > FEW_ABANDONED
            && ABANDONED.load(Ordering::Relaxed) >= MOST_ABANDONED_BY_PROCESS
        {
            Some(Limit::AbandonedByProcess(MOST_ABANDONED_BY_PROCESS))
        } else {
            None
        }
    }

    pub(crate) fn take_outcomes(&mut self) -> BTreeSet<String> {
        self.outcomes.take().unwrap_or_default()
    }

    pub(crate) fn take_traces(&mut self) -> HashSet<u64> {
        self.traces.take().unwrap_or_default()
    }

    pub(crate) fn context_names(&self) -> Vec<String> {
        self.cell.with(|w| w.ctxs.iter().map(|ctx| ctx.name.to_string()).collect())
    }

    /// What was set up and is expected to run, in words.
    pub(crate) fn expected_to_run(&self) -> Vec<(CtxId, String)> {
        self.cell.with(|w| {
            let all = w.ctxs.iter().take(w.set_up_ctxs).enumerate();
            let expected = all.filter(|(_, ctx)| !ctx.may_not_run);
            expected
                .map(|(index, ctx)| {
                    (CtxId(index as u8), format!("{} {}", ctx.kind.noun(), ctx.name))
                })
                .collect()
        })
    }

    pub(crate) fn take_validator(&mut self) -> Validator {
        self.search(|search| {
            std::mem::replace(&mut search.validator, Validator::new(Rules::default()))
        })
    }
}

/// The memory of an executor that is gone, which the next one of its OS thread uses again: the
/// executions of a small program cost less than to allocate it.
#[derive(Default)]
struct Memory {
    world: world::Memory,
    search: search::Memory,
}

thread_local! {
    static IDLE: Cell<Option<Box<Memory>>> = const { Cell::new(None) };
}

impl Memory {
    fn idle() -> Memory {
        IDLE.take().map(|memory| *memory).unwrap_or_default()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Otherwise the thread unwinds out of an execution, whose contexts go as they are.
        if let Some(cell) = Rc::get_mut(&mut self.cell) {
            let world = cell.world();
            let memory = Memory { search: world.search.take_memory(), world: world.take_memory() };
            // At the end of the OS thread the place may be gone.
            let _ = IDLE.try_with(|idle| idle.set(Some(Box::new(memory))));
        }
    }
}

/// What came of one schedule.
pub(crate) struct Replayed {
    pub failed: Option<FailedRun>,
    /// Where the run differed from the default schedule.
    pub deviations: Vec<(usize, CtxId)>,
    pub recorder: Recorder,
}

/// Runs one schedule of `program`, then the default, and writes it down.
///
/// # Errors
/// Says what forbids another run that may fail.
pub(crate) fn replay(
    explore: &Explore,
    program: &(impl Fn(&Machine) + Send + Sync),
    replay: Replay,
) -> Result<Replayed, Limit> {
    calmly(|| {
        let settings = Settings {
            bound: None,
            record: true,
            stop_at_stuck: true,
            until: Until::default(),
            ..explore.settings.clone()
        };
        if let Some(limit) = no_room() {
            return Err(limit);
        }
        let mut executor =
            Executor::new(explore, Strategy::Sampled(Sampler::Replay(replay)), settings);
        let failed = match executor.execute(program) {
            RunEnd::Failed(failed) => Some(failed),
            RunEnd::Ended | RunEnd::Halted(_) => None,
        };
        let deviations = executor.search(|search| search.deviations());
        let recorder = executor.cell.with(|w| std::mem::take(&mut w.recorder));
        Ok(Replayed { failed, deviations, recorder })
    })
}

/// Calls `f` on a thread that does not panic. A run that fails while a context unwinds leaves that
/// context, and its thread counts as one that panics for good: what is explored there next could
/// not tell when a panic is caught.
pub(crate) fn calmly<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if !std::thread::panicking() {
        return f();
    }
    let result = std::thread::scope(|scope| scope.spawn(f).join());
    result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}
