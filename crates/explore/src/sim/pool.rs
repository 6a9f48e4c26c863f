//! A plain pool: a fixed number of workers, and work that waits until one is free.
//!
//! Jobs begin in the order in which they are queued. Workers are alike, so which of them does a job
//! is a matter of names: it is the one that has been free for longest, or will be next. So the pool
//! has two orders, that of queueing and that in which workers become free, and no need for a third:
//! the nth job goes to the worker that became free as the nth, whichever of the two came first.
//! Steps that queue are ordered among each other, steps that free a worker are, and one of each is
//! not.

use std::collections::VecDeque;
use std::sync::Arc;

use doorbell_platform::{Work, WorkQueue};

use crate::count::count_of;
use crate::ids::{CtxId, ObjId};
use crate::machine::Machine;
use crate::machine::cell::with;
use crate::machine::leaf::acts;
use crate::machine::object::ObjKind;
use crate::machine::record::{machine_note, note};
use crate::machine::step::step;
use crate::machine::world::Ended;
use crate::op::{Access, Op, OpKind, Uses};
use crate::sim::model::{Model, step_with, try_wait};

/// A pool of workers of the simulated machine.
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::sim::Pool;
/// use doorbell_explore::{Explore, Machine, trace::FailureKind};
/// use doorbell_platform::{Work, WorkQueue};
///
/// // Work that waits for other work needs a worker more than that.
/// let waits = |workers: usize| {
///     Explore::new("work that waits").run(move |m: &Machine| {
///         let pool = Pool::new(m, "pool", workers);
///         let inner = Arc::new(pool.work("inner", || ()));
///         let outer = Arc::clone(&inner);
///         let outer = pool.work("outer", move || {
///             outer.queue();
///             outer.flush();
///         });
///         m.task("queues", move || _ = outer.queue());
///     })
/// };
/// waits(1).assert_found(FailureKind::Deadlock);
/// waits(2).assert_exhausted();
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
    /// The context that also does what is queued through this handle.
    rescuer: Option<CtxId>,
}

struct Inner {
    name: &'static str,
    /// Steps that queue change it.
    state: Model<State>,
    /// Steps with which a worker becomes free change it.
    free: Model<()>,
    workers: Vec<Worker>,
    /// Where the pool was made.
    site: &'static std::panic::Location<'static>,
}

struct Worker {
    ctx: std::sync::OnceLock<CtxId>,
    /// Changes when the worker, which is free, is given a job.
    slot: Model<()>,
}

struct State {
    /// What workers that were free have been given.
    given: Vec<Option<Job>>,
    /// Workers without a job; the first has been free for longest.
    idle: VecDeque<usize>,
    /// Jobs without a worker. There is only ever one of the two.
    backlog: VecDeque<Waiting>,
    /// The last steps of jobs that are being done, by whom, with the rescuer of what they queue.
    last: Vec<(CtxId, Last, Option<CtxId>)>,
}

/// The last step of a job, which frees its worker, too: what others could do between the two, they
/// can do as well after both, since a job that is over only takes a worker from them.
pub(crate) struct Last {
    /// Changed by it.
    pub obj: ObjId,
    /// Tells what it uses besides, and what it will come to, if it is done in the state in which
    /// this is called.
    pub more: Box<dyn Fn(&mut Uses<'_>) -> Comes + Send>,
    pub f: Box<dyn FnOnce() -> Then + Send>,
}

/// The kind of the [`Then`] that a job will come to.
#[derive(Clone, Copy)]
pub(crate) enum Comes {
    Done,
    Queue,
    GoOn,
}

/// What comes after the [`Last`] step of a job.
pub(crate) enum Then {
    /// Nothing.
    Done,
    /// The job has queued another one.
    Queue(&'static str, Box<dyn FnOnce() + Send>),
    /// The step was not the job's last one: there is more to do, and its worker is not free.
    GoOn(Box<dyn FnOnce() + Send>),
}

/// A job that no worker was free for.
struct Waiting {
    job: Job,
    /// Changed by the step that queued it, which the step that begins it comes after.
    queued: ObjId,
}

struct Job {
    name: &'static str,
    what: What,
    /// The job ends with a step of its own, a [`Last`].
    names_last: bool,
    /// The rescuer may do it.
    rescuer: Option<CtxId>,
}

impl Job {
    /// Says what the last step has done with the job: in the program's words, unless a domain has
    /// queued the job, for its grace periods.
    fn note(&self, text: impl FnOnce() -> String) {
        if self.names_last { machine_note(text) } else { note(text) }
    }
}

impl State {
    /// The last step of what the current context does.
    fn take_last(&mut self) -> Option<(Last, Option<CtxId>)> {
        let me = with(|w| w.current);
        let place = self.last.iter().position(|(ctx, ..)| *ctx == me)?;
        let (_, last, rescuer) = self.last.swap_remove(place);
        Some((last, rescuer))
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
    /// Creates a pool with `workers` workers, each a task on a CPU of its own. Set it up before
    /// anything runs.
    #[track_caller]
    pub fn new(machine: &Machine, name: &'static str, workers: usize) -> Pool {
        let state = State {
            given: (0..workers).map(|_| None).collect(),
            idle: (0..workers).collect(),
            backlog: VecDeque::new(),
            last: Vec::new(),
        };
        let inner = Arc::new(Inner {
            name,
            state: Model::new(name, state),
            free: Model::new("free workers", ()),
            workers: (0..workers)
                .map(|_| Worker {
                    ctx: std::sync::OnceLock::new(),
                    slot: Model::new("job for a worker", ()),
                })
                .collect(),
            site: std::panic::Location::caller(),
        });
        let pool = Pool { inner, rescuer: None };
        for index in 0..workers {
            let this = pool.clone();
            let task = machine.task(format!("{name}/{index}"), move || {
                let _ = this.work_for_ever(index);
            });
            let _ = pool.inner.workers[index].ctx.set(task.may_not_run().id());
        }
        pool
    }

    /// Returns the contexts of the workers (and of the rescuer), which alone can end a wait for
    /// this pool's work.
    pub fn workers(&self) -> Vec<CtxId> {
        self.inner
            .workers
            .iter()
            .filter_map(|worker| worker.ctx.get().copied())
            .chain(self.rescuer)
            .collect()
    }

    /// Returns the same pool with a rescuer: a context of its own, which takes over what is queued
    /// through this handle, and nothing else, when no worker is free.
    #[track_caller]
    pub fn with_rescuer(&self, machine: &Machine, name: &'static str) -> Pool {
        let pool = self.clone();
        let inner = Arc::clone(&self.inner);
        let me = Arc::new(std::sync::OnceLock::new());
        let this = Arc::clone(&me);
        let task = machine.task(name, move || {
            let mine = |state: &State| {
                state.backlog.iter().position(|waiting| waiting.job.rescuer == me.get().copied())
            };
            let state = &inner.state;
            // What it takes no worker that becomes free can take, nor is it there before it is
            // queued.
            let takes =
                Op { idle: true, obj2: Some(inner.free.id()), ..Op::new(OpKind::Take, state.id()) };
            while try_wait(takes, &|| mine(&state.state()).is_some()).is_ok() {
                let job = {
                    let mut state = state.state();
                    mine(&state).and_then(|place| state.backlog.remove(place))
                };
                let Some(Waiting { job, .. }) = job else { return };
                job.note(|| format!("rescues {:?}", job.name));
                job.run();
                while let Some(job) = pool.rescued() {
                    job();
                }
            }
        });
        let _ = this.set(task.may_not_run().id());
        Pool { inner: Arc::clone(&self.inner), rescuer: Some(task.id()) }
    }

    /// Says why nobody does what is queued, for a sentence that begins with it. Takes no visible
    /// step.
    pub(crate) fn why_not(&self) -> impl Fn() -> String + 'static {
        // Weak, because objects of the machine are dropped where jobs must not be.
        let inner = Arc::downgrade(&self.inner);
        move || {
            let Some(inner) = inner.upgrade() else { return String::new() };
            let state = inner.state.state();
            let all = count_of(state.given.len(), "worker");
            match state.backlog.front() {
                Some(first) => format!(
                    "needs a worker of {}: all {all} of it wait, with {:?} queued behind them",
                    inner.name, first.job.name
                ),
                None => format!("needs a worker of {}, which has {all}", inner.name),
            }
        }
    }

    /// Returns whether work waits for a worker, for conditions of quiescence.
    pub fn has_backlog(&self) -> bool {
        self.inner.free.observe(|()| ());
        self.inner.state.observe(|state| !state.backlog.is_empty())
    }

    fn work_for_ever(&self, index: usize) -> Result<(), Ended> {
        let Inner { state, workers, site, .. } = &*self.inner;
        let slot = &workers[index].slot;
        loop {
            let given = || state.state().given[index].is_some();
            let mut job = slot.serve_when(site, given, || state.state().given[index].take())?;
            while let Some(now) = job {
                now.note(|| format!("begins {:?}", now.name));
                now.run();
                job = self.done(index).map(|next| {
                    self.may_free(index, &next.job);
                    step(Op::new(OpKind::Observe, next.queued));
                    next.job
                });
            }
        }
    }

    /// The step with which a worker ends a job, and turns to the next that waits.
    fn done(&self, index: usize) -> Option<Waiting> {
        let Inner { state, free, .. } = &*self.inner;
        let (order, free) = (state.id(), free.id());
        loop {
            let last = state.state().take_last();
            let Some((Last { obj, more, f }, rescuer)) = last else {
                also_changes(free);
                break;
            };
            step_with(Op::new(OpKind::Change, obj), &|uses| match more(uses) {
                Comes::Done => uses(free, Access::Write),
                Comes::Queue => {
                    uses(free, Access::Write);
                    uses(order, Access::Write);
                }
                Comes::GoOn => {}
            });
            match f() {
                Then::Done => {
                    machine_note(|| "is done".to_owned());
                    break;
                }
                Then::Queue(name, f) => {
                    machine_note(|| format!("queues {name:?}, and is done"));
                    self.give(
                        &mut state.state(),
                        Job { name, what: What::Once(f), names_last: true, rescuer },
                    );
                    break;
                }
                Then::GoOn(f) => {
                    machine_note(|| "goes on".to_owned());
                    f();
                }
            }
        }
        let mut state = state.state();
        let next = state.backlog.pop_front();
        if next.is_none() {
            state.idle.push_back(index);
        }
        next
    }

    /// Any step of a job may turn out to be its last, unless it names one.
    fn may_free(&self, index: usize, job: &Job) {
        let free = self.inner.free.id();
        let ctx = self.inner.workers[index].ctx.get().copied();
        with(|w| {
            if let Some(ctx) = ctx {
                w.ctx_mut(ctx).may_change = (!job.names_last).then_some(free);
            }
        });
    }

    /// The last step of a job that the rescuer does; what it still has to do.
    fn rescued(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let state = &self.inner.state;
        let order = state.id();
        let (Last { obj, more, f }, rescuer) = state.state().take_last()?;
        step_with(Op::new(OpKind::Change, obj), &|uses| {
            if let Comes::Queue = more(uses) {
                uses(order, Access::Write);
            }
        });
        match f() {
            Then::Done => None,
            Then::Queue(name, f) => {
                machine_note(|| format!("queues {name:?}"));
                self.give(
                    &mut state.state(),
                    Job { name, what: What::Once(f), names_last: true, rescuer },
                );
                None
            }
            Then::GoOn(f) => Some(f),
        }
    }

    #[track_caller]
    fn queue(&self, job: Job) {
        self.inner.state.change(|state| {
            job.note(|| format!("queues {:?}", job.name));
            self.give(state, job);
        });
    }

    /// What steps change that queue.
    pub(crate) fn order(&self) -> ObjId {
        self.inner.state.id()
    }

    /// Queues `f` in the step that is being done, which has said that it changes
    /// [`order`](Pool::order).
    pub(crate) fn spawn_within(&self, name: &'static str, f: Box<dyn FnOnce() + Send>) {
        self.give(
            &mut self.inner.state.state(),
            Job { name, what: What::Once(f), names_last: true, rescuer: self.rescuer },
        );
    }

    /// Has the job that calls this end with that step. It does nothing else any more.
    pub(crate) fn end_with(&self, last: Last) {
        let me = with(|w| w.current);
        self.inner.state.state().last.push((me, last, self.rescuer));
    }

    /// Gives the job to the next worker that is free, or will be. Part of a step that changes the
    /// pool.
    fn give(&self, state: &mut State, job: Job) {
        match state.idle.pop_front() {
            Some(index) => {
                self.may_free(index, &job);
                state.given[index] = Some(job);
                also_changes(self.inner.workers[index].slot.id());
            }
            None => {
                let site = std::panic::Location::caller();
                let queued = with(|w| w.add_obj(ObjKind::Model, job.name, site));
                also_changes(queued);
                state.backlog.push_back(Waiting { job, queued });
            }
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
        acts(|| format!("queues {name:?}"));
        self.queue(Job { name, what: What::Once(f), names_last: false, rescuer: self.rescuer });
    }
}

/// A piece of work of a [`Pool`].
#[derive(Clone)]
pub struct SimWork(Arc<WorkInner>);

doorbell_platform::opaque_debug!([] SimWork);

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
        let begins = self
            .0
            .life
            .change(|life| std::mem::take(&mut life.queued).then(|| life.begun += 1).is_some());
        machine_note(|| format!("lets {:?} be queued again", self.0.name));
        if begins {
            (self.0.f)();
            self.0.life.change(|life| life.ended += 1);
            note(|| format!("ends {:?}", self.0.name));
        }
    }

    /// Returns how often the work has run, for conditions of quiescence.
    pub fn runs(&self) -> u64 {
        self.0.life.observe(|life| life.ended)
    }
}

impl Work for SimWork {
    #[track_caller]
    fn queue(&self) -> bool {
        acts(|| format!("queues {:?}", self.0.name));
        let pool = &self.0.pool;
        let life = &self.0.life;
        pool.inner.state.change_with(life.id(), |state| {
            if std::mem::replace(&mut life.state().queued, true) {
                return false;
            }
            let name = self.0.name;
            pool.give(
                state,
                Job {
                    name,
                    what: What::Work(self.clone()),
                    names_last: false,
                    rescuer: pool.rescuer,
                },
            );
            note(|| format!("queues {name:?}"));
            true
        })
    }

    #[track_caller]
    fn flush(&self) {
        let due = self.0.life.observe(|life| life.begun + u64::from(life.queued));
        machine_note(|| format!("begins to wait for {:?}", self.0.name));
        self.0
            .life
            .wait(|life| life.ended >= due || life.begun == life.ended && !life.queued, |_| ());
        machine_note(|| format!("has waited for {:?}", self.0.name));
    }

    #[track_caller]
    fn cancel(&self) -> bool {
        acts(|| format!("cancels {:?}", self.0.name));
        let (was_queued, due) =
            self.0.life.change(|life| (std::mem::take(&mut life.queued), life.begun));
        self.0.life.wait(|life| life.ended >= due, |_| ());
        was_queued
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, {} workers)", self.inner.name, self.inner.workers.len())
    }
}
