//! A plain pool: a fixed number of workers, and work that waits until one is free.
//!
//! Workers of a plain pool are alike, so work goes to the idle one with the lowest number: the other choices would be
//! the same runs with the names changed.

use std::collections::VecDeque;
use std::sync::Arc;

use doorbell_platform::{Work, WorkQueue};

use crate::ids::{CtxId, ObjId};
use crate::machine::Machine;
use crate::sim::model::Model;
use crate::world::{Ended, with};

/// A pool of workers of the simulated machine.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

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
}

#[derive(Default)]
struct Slot {
    idle: bool,
    job: Option<Job>,
}

enum Job {
    Once(Box<dyn FnOnce() + Send>),
    Work(SimWork),
}

impl Pool {
    /// A pool with `workers` workers, each a task on a CPU of its own. Set it up before anything runs.
    #[track_caller]
    pub fn new(machine: &Machine, name: &'static str, workers: usize) -> Pool {
        let slots = (0..workers).map(|_| Slot { idle: true, job: None }).collect();
        let pool = Pool(Arc::new(Inner {
            name,
            state: Model::new(name, State { slots, backlog: VecDeque::new() }),
            workers: (0..workers)
                .map(|_| Worker { ctx: std::sync::OnceLock::new(), slot: Model::new("job for a worker", ()) })
                .collect(),
        }));
        for index in 0..workers {
            let this = pool.clone();
            let task = machine.task(format!("{name}/{index}"), move || {
                let _ = this.work_for_ever(index);
            });
            let _ = pool.0.workers[index].ctx.set(task.id());
        }
        pool
    }

    /// The contexts of the workers: who alone can end a wait for this pool's work.
    pub fn workers(&self) -> Vec<CtxId> {
        self.0.workers.iter().filter_map(|worker| worker.ctx.get().copied()).collect()
    }

    /// Whether work waits for a worker, for conditions of quiescence.
    pub fn has_backlog(&self) -> bool {
        self.0.state.observe(|state| !state.backlog.is_empty())
    }

    fn work_for_ever(&self, index: usize) -> Result<(), Ended> {
        let worker = &self.0.workers[index];
        loop {
            let state = &self.0.state;
            let mut job = worker.slot.serve_when(
                || state.state().slots[index].job.is_some(),
                || state.state().slots[index].job.take(),
            )?;
            while let Some(next) = job.take() {
                match next {
                    Job::Once(f) => f(),
                    Job::Work(work) => work.run(),
                }
                job = state.change(|state| {
                    let next = state.backlog.pop_front();
                    state.slots[index].idle = next.is_none();
                    next
                });
            }
        }
    }

    /// Gives the job to an idle worker, or to the next that becomes idle. Part of a step that changes the pool.
    fn give(&self, state: &mut State, job: Job) {
        match state.slots.iter().position(|slot| slot.idle) {
            Some(index) => {
                state.slots[index].idle = false;
                state.slots[index].job = Some(job);
                also_changes(self.0.workers[index].slot.id());
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
        SimWork(Arc::new(WorkInner { pool: self.clone(), f: Box::new(f), life }))
    }

    #[track_caller]
    fn spawn(&self, _name: &'static str, f: Box<dyn FnOnce() + Send + 'static>) {
        self.0.state.change(|state| self.give(state, Job::Once(f)));
    }
}

/// A piece of work of a [`Pool`].
#[derive(Clone)]
pub struct SimWork(Arc<WorkInner>);

struct WorkInner {
    pool: Pool,
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
        if begins {
            (self.0.f)();
            self.0.life.change(|life| life.ended += 1);
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
        pool.0.state.change_with(life.id(), |state| {
            if std::mem::replace(&mut life.state().queued, true) {
                return false;
            }
            pool.give(state, Job::Work(self.clone()));
            true
        })
    }

    #[track_caller]
    fn flush(&self) {
        let due = self.0.life.observe(|life| life.begun + u64::from(life.queued));
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
        write!(f, "Pool({}, {} workers)", self.0.name, self.0.workers.len())
    }
}
