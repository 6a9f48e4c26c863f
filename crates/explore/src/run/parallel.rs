//! One tree, several OS threads.
//!
//! Each thread walks its own path depth first. When another one is idle, it gives away the
//! shallowest branch that nobody has begun: the nodes down to there become common, and whoever
//! begins a branch sees the branches that were begun before as done. A race that a thread finds in
//! common ground adds its branch there; every thread takes what is open in the nodes of its own
//! path before it leaves them, so none is forgotten.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::limit::{Limit, Until};
use crate::machine::Machine;
use crate::run::executor::{Executor, RunEnd, no_room};
use crate::run::explore::{Explore, Schedules};
use crate::run::report::{Found, Progress};
use crate::search::{Branch, Sampler, Settings, Strategy};

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
    all.into_iter().for_each(|found| sum.add(found));
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
    // A panic of the program's set-up must not leave the other threads waiting.
    let on_panic = HaltOnPanic(shared);
    let mut worker = Worker::new(explore, shared, job, jobs);
    worker.run(program);
    std::mem::forget(on_panic);
    worker.found()
}

/// One thread of a search.
struct Worker<'a> {
    explore: &'a Explore,
    shared: &'a Shared,
    job: usize,
    jobs: usize,
    sampled: bool,
    /// After how many executions the search ends, and by which limit.
    most: Option<(u64, Limit)>,
    executor: Executor,
    found: Found,
    /// The executions, those that were cut, and the steps that the others have been told of.
    told: (u64, u64, u64),
    last_progress: Instant,
}

impl<'a> Worker<'a> {
    fn new(explore: &'a Explore, shared: &'a Shared, job: usize, jobs: usize) -> Self {
        let sampled =
            matches!(explore.schedules, Schedules::Uniform { .. } | Schedules::Priorities { .. });
        let settings = Settings { until: shared.until.clone(), ..explore.settings.clone() };
        Worker {
            explore,
            shared,
            job,
            jobs,
            sampled,
            most: most_executions(explore, sampled),
            executor: Executor::new(explore, strategy(explore, job, jobs), settings),
            found: Found::new(),
            told: (0, 0, 0),
            last_progress: shared.started,
        }
    }

    fn run(&mut self, program: &(impl Fn(&Machine) + Send + Sync)) {
        if let Some(limit) = no_room() {
            self.shared.end_early(limit);
        }
        let mut more = self.job == 0 || self.sampled || self.adopt();
        while more && !self.shared.halt.load(Ordering::Relaxed) {
            let end = self.executor.execute(program);
            if !self.goes_on_after(end) {
                break;
            }
            if self.sampled {
                continue;
            }
            if self.jobs > 1 && self.shared.idle.load(Ordering::Relaxed) > 0 {
                self.give();
            }
            more =
                self.executor.search(|search| search.backtrack()) || self.jobs > 1 && self.adopt();
        }
    }

    /// Counts a run that has ended. Returns whether this thread goes on.
    fn goes_on_after(&mut self, end: RunEnd) -> bool {
        let (cut, all_cut, overdue) =
            self.executor.search(|search| (search.was_cut(), search.cut, search.overdue));
        if let RunEnd::Halted(limit) = end {
            self.shared.end_early(limit);
            return false;
        }
        if !cut {
            self.found.executions += 1;
        }
        if let RunEnd::Failed(failed) = end {
            self.found.failed = Some(failed);
            self.shared.halt();
            return false;
        }
        if let Some(limit) = self.executor.too_many_abandoned() {
            self.shared.end_early(limit);
            return false;
        }
        let batch = (self.found.executions + all_cut).is_multiple_of(BATCH);
        if !batch && self.most.is_none() && overdue.is_none() {
            return true;
        }
        let all = self.tell();
        let spent = self.most.filter(|(most, _)| all.0 >= *most).map(|(_, limit)| limit);
        let limit =
            overdue.or(spent).or_else(|| if batch { self.shared.until.reached() } else { None });
        if batch {
            self.show_progress(all);
        }
        let Some(limit) = limit else { return true };
        // The last schedule may have been just the last one.
        if self.sampled || self.executor.search(|search| search.backtrack()) || self.jobs > 1 {
            self.shared.end_early(limit);
        }
        false
    }

    /// Tells the others what this thread has done since it told them last. Returns how many
    /// executions, cut ones and steps that makes for all threads.
    fn tell(&mut self) -> (u64, u64, u64) {
        let executions = self.found.executions;
        let now = self.executor.search(|search| (executions, search.cut, search.steps));
        let told = std::mem::replace(&mut self.told, now);
        let add = |sum: &AtomicU64, more: u64| sum.fetch_add(more, Ordering::Relaxed) + more;
        (
            add(&self.shared.executions, now.0 - told.0),
            add(&self.shared.cut, now.1 - told.1),
            add(&self.shared.steps, now.2 - told.2),
        )
    }

    /// Shows now and then how far all threads have got, if this is the one that does.
    fn show_progress(&mut self, (executions, cut, steps): (u64, u64, u64)) {
        if let (0, Some(progress)) = (self.job, &self.explore.progress)
            && self.last_progress.elapsed() >= Duration::from_millis(100)
        {
            self.last_progress = Instant::now();
            let share = self.executor.search(|search| search.share());
            let elapsed = self.shared.started.elapsed();
            progress(Progress { executions, cut, steps, share, elapsed });
        }
    }

    /// Takes a branch that another thread has given away; `false` if there will be none.
    fn adopt(&mut self) -> bool {
        let Some(branch) = self.shared.next_branch(self.jobs) else { return false };
        self.executor.search(|search| search.adopt(branch));
        true
    }

    /// Gives away the shallowest open branch, if there is one.
    fn give(&mut self) {
        let mut branches = self.shared.branches.lock().expect("no panic while it is held");
        if branches.len() >= self.shared.idle.load(Ordering::Relaxed) {
            return;
        }
        if let Some(branch) = self.executor.search(|search| search.give()) {
            branches.push(branch);
            self.shared.arrived.notify_one();
        }
    }

    /// What this thread has found.
    fn found(self) -> Found {
        let Worker { shared, mut executor, mut found, .. } = self;
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
}

struct HaltOnPanic<'a>(&'a Shared);

impl Drop for HaltOnPanic<'_> {
    fn drop(&mut self) {
        self.0.halt();
    }
}
