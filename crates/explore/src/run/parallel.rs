//! One tree, several OS threads.
//!
//! Each thread walks its own path depth first. When another one is idle, it gives away the
//! shallowest branch that nobody has begun: the nodes down to there become common, and whoever
//! begins a branch sees the branches that were begun before as done. A race that a thread finds in
//! common ground adds its branch there; every thread takes what is open in the nodes of its own
//! path before it leaves them, so none is forgotten.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::ids::CtxSet;
use crate::limit::{Limit, Until};
use crate::machine::Machine;
use crate::run::executor::{Executor, RunEnd, no_room};
use crate::run::explore::{Explore, Schedules};
use crate::run::report::{Found, Progress};
use crate::search::{Branch, Sampler, Settings, Strategy};
use crate::validate::{Rules, Validator};

/// What the threads of one search have in common.
pub(crate) struct Shared {
    started: Instant,
    until: Until,
    halt: AtomicBool,
    /// What ended the search early, if anything did.
    limit: OnceLock<Limit>,
    executions: AtomicU64,
    cut: AtomicU64,
    steps: AtomicU64,
    idle: AtomicUsize,
    branches: Mutex<Vec<Branch>>,
    arrived: Condvar,
}

impl Shared {
    pub(crate) fn new(explore: &Explore, started: Instant) -> Self {
        Shared {
            started,
            until: Until {
                deadline: explore
                    .budget
                    .and_then(|budget| Some((started.checked_add(budget)?, budget))),
                stop: explore.stop.clone(),
            },
            halt: AtomicBool::new(false),
            limit: OnceLock::new(),
            executions: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            idle: AtomicUsize::new(0),
            branches: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
        }
    }

    fn halt(&self) {
        self.halt.store(true, Ordering::Relaxed);
        let _queue = self.branches.lock().expect("no panic while it is held");
        self.arrived.notify_all();
    }

    fn end_early(&self, limit: Limit) {
        // The first one ends the search.
        let _ = self.limit.set(limit);
        self.halt();
    }

    /// Waits for a branch; `None` when there will be none, because all threads wait.
    fn next_branch(&self, jobs: usize) -> Option<Branch> {
        let mut branches = self.branches.lock().expect("no panic while it is held");
        let idle = self.idle.fetch_add(1, Ordering::Relaxed) + 1;
        if idle == jobs && branches.is_empty() {
            self.halt.store(true, Ordering::Relaxed);
            self.arrived.notify_all();
        }
        loop {
            if self.halt.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(branch) = branches.pop() {
                self.idle.fetch_sub(1, Ordering::Relaxed);
                return Some(branch);
            }
            branches = self.arrived.wait(branches).expect("no panic while it is held");
        }
    }
}

/// How many executions a thread runs before it looks at the clock and tells the others.
const BATCH: u64 = 256;

/// Explores `program` with the threads that `explore` asks for.
pub(crate) fn explore(
    explore: &Explore,
    shared: &Shared,
    program: &(impl Fn(&Machine) + Send + Sync),
) -> Found {
    let jobs = explore.jobs.max(1);
    if jobs == 1 {
        return work(explore, shared, program, 0, jobs);
    }
    let mut all: Vec<Found> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs)
            .map(|job| scope.spawn(move || work(explore, shared, program, job, jobs)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|panic| {
                    shared.halt();
                    std::panic::resume_unwind(panic)
                })
            })
            .collect()
    });
    let mut sum = all.pop().expect("at least one job");
    for found in all {
        sum.executions += found.executions;
        sum.cut += found.cut;
        sum.steps += found.steps;
        sum.limit = sum.limit.or(found.limit);
        sum.failed = [sum.failed, found.failed]
            .into_iter()
            .flatten()
            .min_by_key(|failed| failed.schedule.len());
        sum.outcomes.extend(found.outcomes);
        sum.traces.extend(found.traces);
        sum.probes += found.probes;
        sum.unwound += found.unwound;
        if sum.users.len() < found.users.len() {
            sum.users.resize(found.users.len(), CtxSet::EMPTY);
        }
        sum.users.iter_mut().zip(found.users).for_each(|(all, by)| all.0 |= by.0);
        sum.validator.merge(found.validator);
        sum.abandoned += found.abandoned;
        if found.contexts.len() > sum.contexts.len() {
            sum.contexts = found.contexts;
        }
        sum.ran.0 |= found.ran.0;
        if found.expected_to_run.len() > sum.expected_to_run.len() {
            sum.expected_to_run = found.expected_to_run;
        }
    }
    if sum.unwound > 0 && sum.failed.is_none() && sum.limit.is_none() {
        // A context whose destructors take steps never sleeps; another thread may have learnt of
        // that too late.
        return work(explore, &Shared::new(explore, shared.started), program, 0, 1);
    }
    sum
}

fn strategy(explore: &Explore, job: usize, jobs: usize) -> Strategy {
    match explore.schedules {
        Schedules::Reduced => Strategy::Reduced,
        Schedules::All => Strategy::Brute,
        Schedules::Uniform { seed } => {
            Strategy::Sampled(Sampler::uniform(seed, job as u64, jobs as u64))
        }
        Schedules::Priorities { seed } => {
            Strategy::Sampled(Sampler::priorities(seed, job as u64, jobs as u64))
        }
    }
}

/// After how many executions the search ends, and by which limit. Random schedules have no end of
/// their own.
fn most_executions(explore: &Explore, sampled: bool) -> Option<(u64, Limit)> {
    let stated = explore.max_executions.map(|most| (most, Limit::Executions(most)));
    let unlimited = sampled && explore.budget.is_none() && explore.stop.is_none();
    stated
        .or(unlimited
            .then_some((Explore::DEFAULT_SAMPLES, Limit::Samples(Explore::DEFAULT_SAMPLES))))
}

fn work(
    explore: &Explore,
    shared: &Shared,
    program: &(impl Fn(&Machine) + Send + Sync),
    job: usize,
    jobs: usize,
) -> Found {
    let sampled =
        matches!(explore.schedules, Schedules::Uniform { .. } | Schedules::Priorities { .. });
    // A panic of the program's set-up must not leave the other threads waiting.
    let on_panic = HaltOnPanic(shared);
    let settings = Settings { until: shared.until.clone(), ..explore.settings.clone() };
    let mut executor = Executor::new(explore, strategy(explore, job, jobs), settings);
    let most = most_executions(explore, sampled);
    let mut found = Found {
        executions: 0,
        cut: 0,
        steps: 0,
        limit: None,
        failed: None,
        outcomes: BTreeSet::new(),
        traces: HashSet::new(),
        probes: 0,
        unwound: 0,
        users: Vec::new(),
        validator: Validator::new(Rules::default()),
        abandoned: 0,
        contexts: Vec::new(),
        ran: CtxSet::EMPTY,
        expected_to_run: Vec::new(),
    };
    let mut told = (0, 0, 0);
    let mut last_progress = shared.started;
    if let Some(limit) = no_room() {
        shared.end_early(limit);
    }
    let mut more = job == 0 || sampled || adopt(&mut executor, shared, jobs);
    while more && !shared.halt.load(Ordering::Relaxed) {
        let end = executor.execute(program);
        let (cut, all_cut, overdue) =
            executor.search(|search| (search.was_cut(), search.cut, search.overdue));
        if let RunEnd::Halted(limit) = end {
            shared.end_early(limit);
            break;
        }
        if !cut {
            found.executions += 1;
        }
        if let RunEnd::Failed(failed) = end {
            found.failed = Some(failed);
            shared.halt();
            break;
        }
        if let Some(limit) = executor.too_many_abandoned() {
            shared.end_early(limit);
            break;
        }
        let runs = found.executions + all_cut;
        if runs.is_multiple_of(BATCH) || most.is_some() || overdue.is_some() {
            let now = executor.search(|search| (found.executions, search.cut, search.steps));
            let executions =
                shared.executions.fetch_add(now.0 - told.0, Ordering::Relaxed) + now.0 - told.0;
            let cut = shared.cut.fetch_add(now.1 - told.1, Ordering::Relaxed) + now.1 - told.1;
            let steps = shared.steps.fetch_add(now.2 - told.2, Ordering::Relaxed) + now.2 - told.2;
            told = now;
            let spent = most.filter(|(most, _)| executions >= *most).map(|(_, limit)| limit);
            let batch = runs.is_multiple_of(BATCH);
            let limit =
                overdue.or(spent).or_else(|| if batch { shared.until.reached() } else { None });
            if let (0, Some(progress), true) = (job, &explore.progress, batch)
                && last_progress.elapsed() >= Duration::from_millis(100)
            {
                last_progress = Instant::now();
                let share = executor.search(|search| search.share());
                progress(Progress {
                    executions,
                    cut,
                    steps,
                    share,
                    elapsed: shared.started.elapsed(),
                });
            }
            if let Some(limit) = limit {
                // The last schedule may have been just the last one.
                if sampled || executor.search(|search| search.backtrack()) || jobs > 1 {
                    shared.end_early(limit);
                }
                break;
            }
        }
        if sampled {
            continue;
        }
        if jobs > 1 && shared.idle.load(Ordering::Relaxed) > 0 {
            give(&mut executor, shared);
        }
        more = executor.search(|search| search.backtrack())
            || jobs > 1 && adopt(&mut executor, shared, jobs);
    }
    std::mem::forget(on_panic);
    executor.search(|search| {
        found.cut = search.cut;
        found.steps = search.steps;
        found.limit = search.settings.bound.filter(|_| search.bounded).map(Limit::Preemptions);
        let lapses = search.limited.then_some(Limit::Lapses(search.settings.lapses));
        found.limit = found.limit.or(lapses);
        found.users = search.events.users().to_vec();
    });
    found.probes = executor.probes;
    found.unwound = executor.unwound;
    found.limit = shared.limit.get().copied().or(found.limit);
    found.outcomes = executor.take_outcomes();
    found.traces = executor.take_traces();
    found.validator = executor.take_validator();
    found.abandoned = executor.abandoned;
    found.contexts = executor.context_names();
    found.ran = executor.search(|search| search.ran);
    found.expected_to_run = executor.expected_to_run();
    found
}

/// Takes a branch that another thread has given away; `false` if there will be none.
fn adopt(executor: &mut Executor, shared: &Shared, jobs: usize) -> bool {
    match shared.next_branch(jobs) {
        Some(branch) => {
            executor.search(|search| search.adopt(branch));
            true
        }
        None => false,
    }
}

/// Gives away the shallowest open branch, if there is one.
fn give(executor: &mut Executor, shared: &Shared) {
    let mut branches = shared.branches.lock().expect("no panic while it is held");
    if branches.len() >= shared.idle.load(Ordering::Relaxed) {
        return;
    }
    if let Some(branch) = executor.search(|search| search.give()) {
        branches.push(branch);
        shared.arrived.notify_one();
    }
}

struct HaltOnPanic<'a>(&'a Shared);

impl Drop for HaltOnPanic<'_> {
    fn drop(&mut self) {
        self.0.halt();
    }
}
