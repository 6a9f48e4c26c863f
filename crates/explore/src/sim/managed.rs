//! A concurrency-managed pool, as Linux has one per CPU: it keeps as few workers running as will
//! do.
//!
//! The pool counts its running workers. As long as the count is not zero, work that is queued wakes
//! nobody; a worker that is about to sleep takes itself out of the count and, if it was the last
//! one, wakes an idle worker in its place; when it comes back, it counts itself again. A worker
//! that leaves idleness and finds no other idle one creates one before it works, so that there is
//! always one to be woken.
//!
//! What is faithful: the count, the two hooks around each sleep and the mark that ties them
//! together, who is woken when, when a worker goes on with the next piece of work, `max_active` of
//! each workqueue of the pool, the manager that creates workers and does no work until it has,
//! rescuers, and unbound pools, whose workers are not counted. See [`Preempted`] for what an
//! interrupt does to a worker in the middle of its bookkeeping.
//!
//! What is abstracted:
//! - A pool step (what is done under the pool's lock) is one visible step.
//! - Each worker has a virtual CPU of its own: workers that run at once interleave as freely as if
//!   each could be preempted anywhere, and a worker that is preempted gets its CPU back in the end.
//!   A task that never gets it back, because a busy one of higher priority has it, cannot be seen.
//! - Creating a worker succeeds at once, or never. A rescuer comes only if it never does (Linux:
//!   after a while).
//! - Idle workers stay; workers of several CPUs, and work that hogs the CPU, are left out.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::count::count_of;
use crate::ids::{CtxId, ObjId};
use crate::machine::Machine;
use crate::machine::cell::with;
use crate::machine::leaf::acts;
use crate::machine::record::note;
use crate::machine::world::Ended;
use crate::op::{Access, Op, OpKind};
use crate::sim::model::{Model, step_with, try_wait, wait_uncounted};
use crate::sim::pool::{Comes, Last, Then};
use crate::sim::preempted::{
    CountsRunning, Preempted, PreemptionOff, WorkerAccounting, interrupts,
};
use crate::sim::sleep::{Site, sleeps_by};

/// How a [`ManagedPool`] is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Managed {
    /// How many workers there are in the beginning, all of them idle. At least one.
    pub workers: usize,
    /// How many more can be created. From then on, creating one fails.
    pub creatable: usize,
    /// Whether workers are counted. Not in an unbound pool: there, all work that is queued wakes a
    /// worker.
    pub counted: bool,
    /// How many interrupts try to preempt a worker, in one execution; each may come at any moment.
    pub interrupts: u32,
    /// What a preemption does to a worker that is about to sleep.
    pub preempted: Preempted,
    /// Where workers cannot be preempted.
    pub preemption_off: PreemptionOff,
}

impl Managed {
    /// Creates a per-CPU pool by Linux's rules. No interrupts come, and creating workers fails.
    pub fn new(workers: usize) -> Self {
        Managed {
            workers,
            creatable: 0,
            counted: true,
            interrupts: 0,
            preempted: Preempted::StaysRunnable,
            preemption_off: PreemptionOff::Nowhere,
        }
    }
}

/// A concurrency-managed pool, on which any number of workqueues run their work.
#[derive(Clone)]
pub struct ManagedPool(Arc<Inner>);

doorbell_platform::opaque_debug!([] ManagedPool);

struct Inner {
    name: &'static str,
    how: Managed,
    state: Model<State>,
    /// What a worker waits for that has to create another one and cannot.
    creation: Model<()>,
    workers: Vec<Seat>,
    /// Where the pool was made.
    site: &'static std::panic::Location<'static>,
}

/// A worker's place, also of one that is still to be created; or a rescuer's.
struct Seat {
    ctx: std::sync::OnceLock<CtxId>,
    /// Changes when the worker is woken.
    slot: Model<()>,
    woken: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    running: u32,
    worklist: VecDeque<Item>,
    /// The one that is woken next is last.
    idle: Vec<usize>,
    /// How many workers exist.
    created: usize,
    /// A worker is creating another one.
    managed: bool,
    queues: Vec<QueueState>,
}

struct QueueState {
    max_active: usize,
    /// Items of it that are on the worklist or being worked on.
    active: usize,
    inactive: VecDeque<Item>,
    rescuer: Option<CtxId>,
}

struct Item {
    queue: usize,
    name: &'static str,
    job: Box<dyn FnOnce() + Send>,
}

/// What a worker does that was woken.
enum Next {
    Idle,
    Manage,
    Work(Item),
}

/// A workqueue of a [`ManagedPool`].
#[derive(Clone)]
pub struct Queue {
    pool: ManagedPool,
    index: usize,
}

impl ManagedPool {
    /// Creates a pool. Set it up before anything runs.
    #[track_caller]
    pub fn new(machine: &Machine, name: &'static str, how: Managed) -> ManagedPool {
        assert!(how.workers > 0, "a pool has at least one worker");
        let places = how.workers + how.creatable;
        let state = State {
            idle: (0..how.workers).rev().collect(),
            created: how.workers,
            ..State::default()
        };
        let pool = ManagedPool(Arc::new(Inner {
            name,
            how,
            state: Model::new(name, state),
            creation: Model::new("memory for a new worker", ()),
            workers: (0..places).map(|_| Seat::new()).collect(),
            site: std::panic::Location::caller(),
        }));
        let mut books = Vec::new();
        for index in 0..places {
            let this = pool.clone();
            let task = machine.task(format!("{name}/{index}"), move || {
                let _ = this.work_for_ever(index);
            });
            let _ = pool.0.workers[index].ctx.set(task.may_not_run().id());
            if how.counted {
                let counted: Weak<dyn CountsRunning> = Arc::downgrade(&pool.0) as _;
                let own = Rc::new(WorkerAccounting::new(
                    counted,
                    how.interrupts > 0,
                    how.preempted,
                    how.preemption_off,
                ));
                sleeps_by(task.id(), Rc::clone(&own) as _);
                books.push((task.id(), own));
            }
        }
        interrupts(machine, how.interrupts, books);
        let this = pool.clone();
        machine.at_quiescence(format!("{name} has no work left"), move || {
            let left = this.left();
            if left.is_empty() { Ok(()) } else { Err(format!("nobody does {}", left.join(", "))) }
        });
        pool
    }

    /// Creates a workqueue of this pool that has at most `max_active` pieces of work on it at once;
    /// the others wait.
    pub fn queue(&self, max_active: usize) -> Queue {
        let mut state = self.0.state.state();
        state.queues.push(QueueState {
            max_active,
            active: 0,
            inactive: VecDeque::new(),
            rescuer: None,
        });
        Queue { pool: self.clone(), index: state.queues.len() - 1 }
    }

    /// The contexts of the workers, also of those that are still to be created.
    fn workers(&self) -> impl Iterator<Item = CtxId> {
        self.0.workers.iter().filter_map(|seat| seat.ctx.get().copied())
    }

    /// The work that waits for a worker.
    fn left(&self) -> Vec<String> {
        let state = self.0.state.state();
        let inactive = state.queues.iter().flat_map(|queue| &queue.inactive);
        state.worklist.iter().chain(inactive).map(|item| item.name.to_owned()).collect()
    }

    fn work_for_ever(&self, index: usize) -> Result<(), Ended> {
        let &Inner { ref state, ref creation, ref workers, site, .. } = &*self.0;
        let seat = &workers[index];
        loop {
            let slot = Op::new(OpKind::Take, seat.slot.id());
            let waits = Op { idle: true, obj2: Some(state.id()), site, ..slot };
            try_wait(waits, &|| seat.is_woken())?;
            seat.set_woken(false);
            let mut next = self.woken(index);
            if let Next::Manage = next {
                let memory = Op::new(OpKind::Take, creation.id());
                let waits = Op { obj2: Some(state.id()), site, ..memory };
                wait_uncounted(waits, &|| !state.state().must_create(&self.0.how));
                next = self.created(index);
            }
            while let Next::Work(item) = next {
                (item.job)();
                next = state.change_at(site, |state| self.done(state, index, item.queue));
            }
        }
    }

    /// A worker was woken and leaves idleness, if there is something to do for it.
    fn woken(&self, index: usize) -> Next {
        let mut state = self.0.state.state();
        let state = &mut *state;
        state.idle.retain(|&other| other != index);
        if !state.needs_worker() {
            note(|| "finds nothing to do".to_owned());
            return state.goes_idle(index);
        }
        if state.idle.is_empty() && !state.managed {
            state.managed = true;
            note(|| "must create a worker first".to_owned());
            return Next::Manage;
        }
        self.begin(state)
    }

    /// A worker had to create another one; it has, or need not any more.
    fn created(&self, index: usize) -> Next {
        let mut state = self.0.state.state();
        let state = &mut *state;
        state.managed = false;
        if state.created < self.0.workers.len() && state.idle.is_empty() && state.needs_worker() {
            let new = state.created;
            state.created += 1;
            state.idle.push(new);
        }
        if !state.needs_worker() {
            return state.goes_idle(index);
        }
        self.begin(state)
    }

    /// A worker that was idle begins to work.
    fn begin(&self, state: &mut State) -> Next {
        if self.0.how.counted {
            state.running += 1;
        }
        self.take_work(state)
    }

    fn take_work(&self, state: &mut State) -> Next {
        let Some(item) = state.worklist.pop_front() else { return Next::Idle };
        note(|| format!("begins {:?} ({} running)", item.name, state.running));
        // Without a count, one worker calls the next.
        self.0.kick(state);
        Next::Work(item)
    }

    /// A worker has done an item of a queue.
    fn done(&self, state: &mut State, index: usize, queue: usize) -> Next {
        state.retire(queue);
        if !state.worklist.is_empty() && state.running <= 1 {
            return self.take_work(state);
        }
        if self.0.how.counted {
            state.running -= 1;
        }
        note(|| format!("is idle ({} running)", state.running));
        state.goes_idle(index)
    }
}

impl Inner {
    /// Wakes an idle worker if work waits and nobody counts as running.
    fn kick(&self, state: &State) {
        if let Some(&index) = state.idle.last()
            && state.needs_worker()
        {
            let seat = &self.workers[index];
            // One that has been woken, and has not come yet, need not be woken again: it is first
            // in line.
            if !seat.is_woken() {
                seat.set_woken(true);
                let slot = seat.slot.id();
                with(|w| w.also_changes(slot));
            }
        }
    }

    /// Says why nobody does what a queue has to do, for a sentence that begins with that.
    fn why_not(&self, queue: usize) -> String {
        let name = self.name;
        let state = self.state.state();
        let workers = count_of(state.created, "worker");
        if !state.queues[queue].inactive.is_empty() {
            let most = state.queues[queue].max_active;
            return format!(
                "needs a place on its workqueue, whose max_active of {most} is used up by work that waits"
            );
        }
        if state.managed {
            return format!(
                "needs a worker of {name}: of {workers}, the last one that was idle has to create another before it \
                 works, and cannot"
            );
        }
        if state.running > 0 && !state.idle.is_empty() {
            return format!(
                "needs a worker of {name}: of {workers}, {} idle, but {} counted as running, though nobody runs, and so \
                 none is woken",
                is_or_are(state.idle.len()),
                is_or_are(state.running as usize),
            );
        }
        format!("needs a worker of {name}: all {workers} of it wait")
    }
}

impl CountsRunning for Inner {
    fn stops_running(&self, site: Site) {
        self.state.change_at(site, |state| {
            state.running = state.running.saturating_sub(1);
            self.kick(state);
            note(|| format!("sleeps ({} running)", state.running));
        });
    }

    fn runs_again(&self, site: Site) {
        self.state.change_at(site, |state| {
            state.running += 1;
            note(|| format!("runs again ({} running)", state.running));
        });
    }
}

impl Seat {
    fn new() -> Seat {
        Seat {
            ctx: std::sync::OnceLock::new(),
            slot: Model::new("wake-up of a worker", ()),
            woken: false.into(),
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn set_woken(&self, woken: bool) {
        self.woken.store(woken, std::sync::atomic::Ordering::Relaxed);
    }
}

impl State {
    /// Work waits, and nobody counts as running.
    fn needs_worker(&self) -> bool {
        !self.worklist.is_empty() && self.running == 0
    }

    /// Whether the manager has to go on trying, in vain.
    fn must_create(&self, how: &Managed) -> bool {
        self.needs_worker() && self.idle.is_empty() && self.created == how.workers + how.creatable
    }

    fn goes_idle(&mut self, index: usize) -> Next {
        self.idle.push(index);
        Next::Idle
    }

    /// An item of a queue is done, so another one may become active.
    fn retire(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        match queue.inactive.pop_front() {
            Some(item) => self.worklist.push_back(item),
            None => queue.active -= 1,
        }
    }
}

impl Queue {
    /// Gives this queue a rescuer: a context of its own, which takes over its work when the pool
    /// cannot create workers.
    #[track_caller]
    pub fn with_rescuer(self, machine: &Machine, name: &'static str) -> Queue {
        let this = self.clone();
        let seat = Seat::new();
        let rescuer = machine.task(name, move || {
            let pool = &this.pool;
            let state = &pool.0.state;
            loop {
                let waits = Op {
                    idle: true,
                    obj2: Some(state.id()),
                    ..Op::new(OpKind::Take, seat.slot.id())
                };
                if try_wait(waits, &|| this.place_in_distress(&state.state()).is_some()).is_err() {
                    return;
                }
                let item = {
                    let mut state = state.state();
                    let place = this.place_in_distress(&state);
                    place.and_then(|place| state.worklist.remove(place))
                };
                let Some(item) = item else { return };
                note(|| format!("rescues {:?}", item.name));
                (item.job)();
                state.change(|state| {
                    state.retire(this.index);
                    pool.0.kick(state);
                });
            }
        });
        self.pool.0.state.state().queues[self.index].rescuer = Some(rescuer.may_not_run().id());
        self
    }

    /// Where on the worklist an item of this queue is that the pool cannot get done.
    fn place_in_distress(&self, state: &State) -> Option<usize> {
        let distress = state.managed && state.must_create(&self.pool.0.how);
        distress.then(|| state.worklist.iter().position(|item| item.queue == self.index)).flatten()
    }

    /// Queues `job`, to be done once.
    #[track_caller]
    pub fn spawn(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        acts(|| format!("queues {name:?}"));
        self.pool.0.state.change(|state| {
            self.give(state, name, job);
            note(|| format!("queues {name:?} ({} running)", state.running));
        });
    }

    /// What steps change that queue.
    pub(crate) fn order(&self) -> ObjId {
        self.pool.0.state.id()
    }

    /// Queues `job` in the step that is being done, which has said that it changes
    /// [`order`](Queue::order).
    pub(crate) fn spawn_within(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        self.give(&mut self.pool.0.state.state(), name, job);
    }

    /// Has the job that calls this end with that step. It does nothing else any more.
    #[track_caller]
    pub(crate) fn end_with(&self, last: Last) {
        let Last { obj, more, f } = last;
        let order = self.order();
        step_with(Op::new(OpKind::Change, obj), &|uses| {
            if let Comes::Queue = more(uses) {
                uses(order, Access::Write);
            }
        });
        match f() {
            Then::Done => {}
            Then::Queue(name, job) => {
                note(|| format!("queues {name:?}"));
                self.spawn_within(name, job);
            }
            Then::GoOn(job) => job(),
        }
    }

    fn give(&self, state: &mut State, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        let item = Item { queue: self.index, name, job };
        let queue = &mut state.queues[self.index];
        if queue.active < queue.max_active {
            queue.active += 1;
            state.worklist.push_back(item);
        } else {
            queue.inactive.push_back(item);
        }
        self.pool.0.kick(state);
    }

    /// Returns the contexts that alone can do the queue's work.
    pub fn workers(&self) -> Vec<CtxId> {
        let rescuer = self.pool.0.state.state().queues[self.index].rescuer;
        self.pool.workers().chain(rescuer).collect()
    }

    /// Says why nobody does the work of this queue, for a sentence that begins with that work.
    /// Takes no visible step.
    pub(crate) fn why_not(&self) -> impl Fn() -> String + 'static {
        // Weak, because objects of the machine are dropped where jobs must not be.
        let pool = Arc::downgrade(&self.pool.0);
        let index = self.index;
        move || pool.upgrade().map_or_else(String::new, |pool| pool.why_not(index))
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} of {}, {:?})", self.index, self.pool.0.name, self.pool.0.how)
    }
}

/// `1 is`, `2 are`.
fn is_or_are(count: usize) -> String {
    if count == 1 { "1 is".to_owned() } else { format!("{count} are") }
}
