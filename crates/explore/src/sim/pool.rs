//! A plain pool: a fixed number of workers, and work that waits until one is free.
//!
//! Workers of a plain pool are alike, so work goes to the idle one with the lowest number: the other choices would be
//! the same runs with the names changed.

use std::collections::VecDeque;
use std::sync::Arc;

use doorbell_platform::{Work, WorkQueue};

use crate::ids::{CtxId, ObjId};
use crate::machine::Machine;
use crate::record::note;
use crate::sim::managed::count_of;
use crate::sim::model::Model;
use crate::world::{Ended, with};

/// A pool of workers of the simulated machine.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
    /// Who else does what is queued through this handle.
    rescuer: Option<CtxId>,
}

struct Inner {
    name: &'static str,
    state: Model<State>,
    workers: Vec<Worker>,
}

struct Worker {
    ctx: std::sync::OnceLock<CtxId>,
    /// Changes when the worker is given a job.
    slot: Model<()>,
}

struct State {
    slots: Vec<Slot>,
    backlog: VecDeque<Job>,
    /// What jobs that are still being done queue with their last step.
    last: Vec<(CtxId, Job)>,
}

#[derive(Default)]
struct Slot {
    idle: bool,
    job: Option<Job>,
}

struct Job {
    name: &'static str,
    what: What,
    /// The rescuer may do it.
    rescuer: Option<CtxId>,
}

impl State {
    /// What the current context's job queues with its last step.
    fn take_last(&mut self) -> Option<Job> {
        let me = with(|w| w.current);
        let place = self.last.iter().position(|(ctx, _)| *ctx == me)?;
        Some(self.last.swap_remove(place).1)
    }
}

enum What {
    Once(Box<dyn FnOnce() + Send>),
    Work(SimWork),
}

impl Job {
    fn run(self) {
        match self.what {
            What::Once(f) => f(),
            What::Work(work) => work.run(),
        }
    }
}

impl Pool {
    /// A pool with `workers` workers, each a task on a CPU of its own. Set it up before anything runs.
    #[track_caller]
    pub fn new(machine: &Machine, name: &'static str, workers: usize) -> Pool {
        let slots = (0..workers).map(|_| Slot { idle: true, job: None }).collect();
        let inner = Arc::new(Inner {
            name,
            state: Model::new(name, State { slots, backlog: VecDeque::new(), last: Vec::new() }),
            workers: (0..workers)
                .map(|_| Worker { ctx: std::sync::OnceLock::new(), slot: Model::new("job for a worker", ()) })
                .collect(),
        });
        let pool = Pool { inner, rescuer: None };
        for index in 0..workers {
            let this = pool.clone();
            let task = machine.task(format!("{name}/{index}"), move || {
                let _ = this.work_for_ever(index);
            });
            let _ = pool.inner.workers[index].ctx.set(task.id());
        }
        pool
    }

    /// The contexts of the workers (and of the rescuer): who alone can end a wait for this pool's work.
    pub fn workers(&self) -> Vec<CtxId> {
        self.inner.workers.iter().filter_map(|worker| worker.ctx.get().copied()).chain(self.rescuer).collect()
    }

    /// The same pool with a rescuer: a context of its own, which takes over what is queued through this handle, and
    /// nothing else, when no worker is free.
    #[track_caller]
    pub fn with_rescuer(&self, machine: &Machine, name: &'static str) -> Pool {
        let pool = self.clone();
        let inner = Arc::clone(&self.inner);
        let slot = Model::new("call for the rescuer", ());
        let me = Arc::new(std::sync::OnceLock::new());
        let this = Arc::clone(&me);
        let task = machine.task(name, move || {
            let mine = |state: &State| state.backlog.iter().position(|job| job.rescuer == me.get().copied());
            let state = &inner.state;
            while let Ok(Some(job)) = slot.serve_with_when(
                state.id(),
                || mine(&state.state()).is_some(),
                || {
                    let mut state = state.state();
                    mine(&state).and_then(|place| state.backlog.remove(place))
                },
            ) {
                note(|| format!("rescues {:?}", job.name));
                job.run();
                let last = state.state().take_last();
                if let Some(job) = last {
                    pool.queue(job);
                }
            }
        });
        let _ = this.set(task.id());
        Pool { inner: Arc::clone(&self.inner), rescuer: Some(task.id()) }
    }

    /// Says why nobody does what is queued, for a sentence that begins with it. Takes no visible step.
    pub(crate) fn why_not(&self) -> impl Fn() -> String + 'static {
        // Weak, because objects of the machine are dropped where jobs must not be.
        let inner = Arc::downgrade(&self.inner);
        move || {
            let Some(inner) = inner.upgrade() else { return String::new() };
            let state = inner.state.state();
            let idle = state.slots.iter().filter(|slot| slot.idle).count();
            let all = count_of(state.slots.len(), "worker");
            match state.backlog.front() {
                Some(first) if idle == 0 => {
                    format!(
                        "needs a worker of {}: all {all} of it wait, with {:?} queued behind them",
                        inner.name, first.name
                    )
                }
                _ => format!("needs a worker of {}, which has {all}", inner.name),
            }
        }
    }

    /// Whether work waits for a worker, for conditions of quiescence.
    pub fn has_backlog(&self) -> bool {
        self.inner.state.observe(|state| !state.backlog.is_empty())
    }

    fn work_for_ever(&self, index: usize) -> Result<(), Ended> {
        let worker = &self.inner.workers[index];
        loop {
            let state = &self.inner.state;
            let mut job = worker
                .slot
                .serve_when(|| state.state().slots[index].job.is_some(), || state.state().slots[index].job.take())?;
            while let Some(next) = job.take() {
                note(|| format!("begins {:?}", next.name));
                next.run();
                job = self.done(index);
            }
        }
    }

    /// The step with which a worker ends a job, and turns to the next that waits.
    fn done(&self, index: usize) -> Option<Job> {
        let model = &self.inner.state;
        let mut nothing_waits = false;
        let next = model.change(|state| {
            let last = state.take_last();
            let queued = last.as_ref().map(|job| job.name);
            let next = match (last, state.backlog.pop_front()) {
                // Nothing waits: who queued the job does it as well as any other.
                (Some(job), None) => {
                    nothing_waits = true;
                    Some(job)
                }
                (Some(job), Some(first)) => {
                    state.backlog.push_back(job);
                    Some(first)
                }
                (None, first) => first,
            };
            state.slots[index].idle = next.is_none();
            note(|| queued.map_or_else(|| "is idle".to_owned(), |name| format!("queues {name:?}, and is done")));
            next
        });
        if nothing_waits {
            let obj = model.id();
            with(|w| w.unchanged(obj, true));
        }
        next
    }

    #[track_caller]
    fn queue(&self, job: Job) {
        let name = job.name;
        self.inner.state.change(|state| {
            self.give(state, job);
            note(|| format!("queues {name:?}"));
        });
    }

    /// Queues `f` in the step in which the job that calls this ends: as if it queued it right before.
    ///
    /// Whatever another could do between the two steps, it can do as well after both: the job has nothing left to do.
    pub(crate) fn spawn_last(&self, name: &'static str, f: Box<dyn FnOnce() + Send + 'static>) {
        let job = Job { name, what: What::Once(f), rescuer: self.rescuer };
        let me = with(|w| w.current);
        self.inner.state.state().last.push((me, job));
    }

    /// Gives the job to an idle worker, or to the next that becomes idle. Part of a step that changes the pool.
    fn give(&self, state: &mut State, job: Job) {
        match state.slots.iter().position(|slot| slot.idle) {
            Some(index) => {
                state.slots[index].idle = false;
                state.slots[index].job = Some(job);
                also_changes(self.inner.workers[index].slot.id());
            }
            None => state.backlog.push_back(job),
        }
    }
}

/// The step that is being done changes another object, too.
fn also_changes(obj: ObjId) {
    with(|w| w.also_changes(obj));
}

impl WorkQueue for Pool {
    type Work = SimWork;

    #[track_caller]
    fn work(&self, name: &'static str, f: impl Fn() + Send + Sync + 'static) -> SimWork {
        let life = Model::new(name, Life { queued: false, begun: 0, ended: 0 });
        life.released_by(self.workers());
        life.needs(self.why_not());
        SimWork(Arc::new(WorkInner { pool: self.clone(), name, f: Box::new(f), life }))
    }

    #[track_caller]
    fn spawn(&self, name: &'static str, f: Box<dyn FnOnce() + Send + 'static>) {
        self.queue(Job { name, what: What::Once(f), rescuer: self.rescuer });
    }
}

/// A piece of work of a [`Pool`].
#[derive(Clone)]
pub struct SimWork(Arc<WorkInner>);

struct WorkInner {
    pool: Pool,
    name: &'static str,
    f: Box<dyn Fn() + Send + Sync>,
    life: Model<Life>,
}

struct Life {
    /// Queued, and not begun.
    queued: bool,
    begun: u64,
    ended: u64,
}

impl SimWork {
    fn run(&self) {
        // It may be queued again from here on.
        let begins = self.0.life.change(|life| std::mem::take(&mut life.queued).then(|| life.begun += 1).is_some());
        note(|| format!("lets {:?} be queued again", self.0.name));
        if begins {
            (self.0.f)();
            self.0.life.change(|life| life.ended += 1);
            note(|| format!("ends {:?}", self.0.name));
        }
    }

    /// How often it has run, for conditions of quiescence.
    pub fn runs(&self) -> u64 {
        self.0.life.observe(|life| life.ended)
    }
}

impl Work for SimWork {
    #[track_caller]
    fn queue(&self) -> bool {
        let pool = &self.0.pool;
        let life = &self.0.life;
        pool.inner.state.change_with(life.id(), |state| {
            if std::mem::replace(&mut life.state().queued, true) {
                return false;
            }
            let name = self.0.name;
            pool.give(state, Job { name, what: What::Work(self.clone()), rescuer: pool.rescuer });
            note(|| format!("queues {name:?}"));
            true
        })
    }

    #[track_caller]
    fn flush(&self) {
        let due = self.0.life.observe(|life| life.begun + u64::from(life.queued));
        note(|| format!("begins to wait for {:?}", self.0.name));
        self.0.life.wait(|life| life.ended >= due || life.begun == life.ended && !life.queued, |_| ());
    }

    #[track_caller]
    fn cancel(&self) -> bool {
        let (was_queued, due) = self.0.life.change(|life| (std::mem::take(&mut life.queued), life.begun));
        self.0.life.wait(|life| life.ended >= due, |_| ());
        was_queued
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, {} workers)", self.inner.name, self.inner.workers.len())
    }
}
