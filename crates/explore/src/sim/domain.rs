//! Simulated RCU and SRCU: read sections, and grace periods that need what they need on a real kernel.
//!
//! A grace period is either a matter of readers alone, or two pieces of work on a pool: one that processes all that are
//! asked for, and one that runs the callbacks of those that are over, the wake-ups of who waits among them, one after the
//! other. Each is queued when there is something to do for it and it is not queued already. Neither waits for readers:
//! the last of them queues the first work again.

use std::collections::VecDeque;
use std::sync::Arc;

use doorbell_platform::{ReadDomain, WorkQueue};

use crate::machine::Machine;
use crate::op::{Op, OpKind};
use crate::record::note;
use crate::sim::managed::Queue;
use crate::sim::model::{Model, wait};
use crate::sim::pool::Pool;
use crate::sim::wait::SimCompletion;
use crate::world::with;
use doorbell_platform::Completion;

/// What grace periods need in order to end. Set it up with [`Machine::grace_periods`] before domains are created.
#[derive(Clone, Debug, Default)]
pub enum GracePeriods {
    /// That the readers leave. Callbacks run in a task of the domain.
    #[default]
    Readers,
    /// That the readers leave, and then two pieces of work on a pool, one after the other.
    OnPool(Pool),
    /// The same on a workqueue of a managed pool.
    OnQueue(Queue),
}

/// Where a grace period's work is done.
#[derive(Clone)]
enum Workers {
    Pool(Pool),
    Queue(Queue),
}

impl Workers {
    #[track_caller]
    fn spawn(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        match self {
            Workers::Pool(pool) => pool.spawn(name, job),
            Workers::Queue(queue) => queue.spawn(name, job),
        }
    }

    /// [`spawn`](Workers::spawn) by a job of theirs that has nothing else left to do.
    #[track_caller]
    fn spawn_last(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        match self {
            Workers::Pool(pool) => pool.spawn_last(name, job),
            Workers::Queue(queue) => queue.spawn(name, job),
        }
    }

    /// A completion that only they can complete.
    #[track_caller]
    fn completion(&self, of: &'static str) -> SimCompletion {
        let done = SimCompletion::new("grace period");
        done.rename(|| format!("the grace period of {of}"));
        match self {
            Workers::Pool(pool) => done.released_by_work(pool.workers(), pool.why_not()),
            Workers::Queue(queue) => done.released_by_work(queue.workers(), queue.why_not()),
        }
        done
    }
}

/// A domain of read sections.
pub struct SimDomain<const READERS_SLEEP: bool>(Arc<Inner>);

struct Inner {
    /// Begins of read sections read it, begins of grace periods change it.
    gate: Model<State>,
    /// Ends of read sections read it, ends of grace periods take it.
    exit: Model<()>,
    /// Callbacks and the task that runs them.
    callbacks: Model<()>,
    /// What the two pieces of work have to do.
    work: Model<Work>,
    /// Who does a grace period's work; nobody if it is a matter of readers alone.
    workers: Option<Workers>,
    name: &'static str,
}

#[derive(Default)]
struct State {
    next: u64,
    readers: Vec<u64>,
    callbacks: VecDeque<Callback>,
    handed: u64,
    called: u64,
}

/// What there is to do for the workers.
#[derive(Default)]
struct Work {
    /// Grace periods that are not over, as far as is known.
    asked: Vec<Grace>,
    /// The work that looks at them is queued, or is about to be.
    processing: bool,
    /// Grace periods that are over.
    over: Vec<Grace>,
    /// The work that tells of them is queued or runs.
    calling: bool,
}

struct Callback {
    readers: Vec<u64>,
    f: Box<dyn FnOnce() + Send>,
}

/// A grace period that needs a pool.
struct Grace {
    readers: Vec<u64>,
    done: Arc<SimCompletion>,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl<const READERS_SLEEP: bool> SimDomain<READERS_SLEEP> {
    #[track_caller]
    fn create(name: &'static str) -> Self {
        let workers = match with(|w| w.grace_periods.clone()) {
            GracePeriods::Readers => None,
            GracePeriods::OnPool(pool) => Some(Workers::Pool(pool)),
            GracePeriods::OnQueue(queue) => Some(Workers::Queue(queue)),
        };
        let inner = Arc::new(Inner {
            gate: Model::new(name, State::default()),
            exit: Model::new("grace period", ()),
            callbacks: Model::new("callbacks", ()),
            work: Model::new("grace-period work", Work::default()),
            workers,
            name,
        });
        if inner.workers.is_none() {
            inner.exit.rename(|| format!("the grace period of {name}"));
        }
        if inner.workers.is_none() && with(|w| w.mode == crate::world::Mode::Alone) {
            let this = Arc::clone(&inner);
            let task = Machine::NEW.task(format!("{name} callbacks"), move || {
                while let Ok(callback) = this.next_callback() {
                    note(|| "begins a callback".to_owned());
                    callback();
                    this.callbacks.change(|()| this.gate.state().called += 1);
                    note(|| "ends the callback".to_owned());
                }
            });
            with(|w| w.ctx_mut(task.id()).aside = true);
        }
        SimDomain(inner)
    }

    #[track_caller]
    fn begin(&self) -> u64 {
        self.0.gate.observe(|_| ());
        note(|| format!("reads under {}", self.0.name));
        let mut state = self.0.gate.state();
        state.next += 1;
        let reader = state.next;
        state.readers.push(reader);
        reader
    }

    #[track_caller]
    fn end(&self, reader: u64) {
        self.0.exit.observe(|()| ());
        note(|| format!("reads no more under {}", self.0.name));
        self.0.gate.state().readers.retain(|other| *other != reader);
        let Some(workers) = &self.0.workers else { return };
        if self.0.work.state().asked.is_empty() {
            return;
        }
        // Who of several readers is the last one to leave matters now: it queues the work, unless somebody else does.
        for obj in [self.0.exit.id(), self.0.work.id()] {
            with(|w| w.also_changes(obj));
        }
        let again = {
            let mut work = self.0.work.state();
            let work = &mut *work;
            let ready = work.asked.iter().any(|grace| self.0.gone(&grace.readers));
            ready && !std::mem::replace(&mut work.processing, true)
        };
        if again {
            process(&self.0, workers);
        }
    }

    #[track_caller]
    fn synchronize_any(&self) {
        // While the program sets itself up there are neither readers nor workers that run.
        if with(|w| w.mode == crate::world::Mode::Alone) && self.0.gate.state().readers.is_empty() {
            return;
        }
        match &self.0.workers {
            None => {
                let readers = self.0.gate.change(|state| state.readers.clone());
                note(|| format!("begins a grace period of {}", self.0.name));
                let inner = &self.0;
                let gone = || inner.gone(&readers);
                wait(Op::new(OpKind::Take, inner.exit.id()), &gone);
            }
            Some(workers) => {
                self.start(workers, None).wait();
            }
        }
    }

    /// Asks for a grace period that needs workers.
    #[track_caller]
    fn start(&self, workers: &Workers, then: Option<Box<dyn FnOnce() + Send>>) -> Arc<SimCompletion> {
        let done = Arc::new(workers.completion(self.0.name));
        let first = self.0.gate.change_with(self.0.work.id(), |state| {
            state.handed += u64::from(then.is_some());
            let mut work = self.0.work.state();
            work.asked.push(Grace { readers: state.readers.clone(), done: Arc::clone(&done), then });
            !std::mem::replace(&mut work.processing, true)
        });
        note(|| format!("begins a grace period of {}", self.0.name));
        if first {
            process(&self.0, workers);
        }
        done
    }

    #[track_caller]
    fn call_any(&self, f: Box<dyn FnOnce() + Send>) {
        if with(|w| w.over) {
            // What is dropped with the program itself: nobody is left to call back, and what is queued is never freed.
            return;
        }
        match &self.0.workers {
            None => {
                self.0.gate.change_with(self.0.callbacks.id(), |state| {
                    state.handed += 1;
                    let readers = state.readers.clone();
                    state.callbacks.push_back(Callback { readers, f });
                });
                note(|| format!("leaves a callback to {}", self.0.name));
            }
            Some(workers) => {
                let inner = Arc::clone(&self.0);
                let counted = Box::new(move || {
                    f();
                    inner.callbacks.change(|()| inner.gate.state().called += 1);
                });
                self.start(workers, Some(counted));
            }
        }
    }

    #[track_caller]
    fn barrier_any(&self) {
        let inner = &self.0;
        let due = inner.gate.observe(|state| state.handed);
        let called = || inner.gate.state().called >= due;
        wait(Op::new(OpKind::Await, inner.callbacks.id()), &called);
    }
}

/// Queues the work that processes grace periods.
#[track_caller]
fn process(inner: &Arc<Inner>, workers: &Workers) {
    let inner = Arc::clone(inner);
    let next = workers.clone();
    workers.spawn(
        "process grace period",
        Box::new(move || {
            let some_over = inner.exit.change_with(inner.work.id(), |()| {
                let mut work = inner.work.state();
                let work = &mut *work;
                work.processing = false;
                work.over.extend(work.asked.extract_if(.., |grace| inner.gone(&grace.readers)));
                !work.over.is_empty() && !std::mem::replace(&mut work.calling, true)
            });
            note(|| format!("looks which grace periods of {} are over", inner.name));
            if some_over {
                next.spawn_last("grace-period callbacks", Box::new(move || call_back(&inner)));
            }
        }),
    );
}

/// Tells of the grace periods that are over, until there are no more.
fn call_back(inner: &Inner) {
    loop {
        let over = inner.work.change(|work| {
            work.calling = !work.over.is_empty();
            std::mem::take(&mut work.over)
        });
        note(|| match over.len() {
            0 => "finds no more that are over".to_owned(),
            some => format!("finds {some} that {} over", if some == 1 { "is" } else { "are" }),
        });
        if over.is_empty() {
            return;
        }
        for grace in over {
            if let Some(then) = grace.then {
                then();
            }
            grace.done.complete_all();
        }
    }
}

impl Inner {
    fn gone(&self, readers: &[u64]) -> bool {
        let state = self.gate.state();
        !readers.iter().any(|reader| state.readers.contains(reader))
    }

    fn next_callback(&self) -> Result<Box<dyn FnOnce() + Send>, crate::world::Ended> {
        let ready = || {
            let state = self.gate.state();
            state
                .callbacks
                .front()
                .is_some_and(|first| !first.readers.iter().any(|reader| state.readers.contains(reader)))
        };
        let op = Op { idle: true, obj2: Some(self.exit.id()), ..Op::new(OpKind::Take, self.callbacks.id()) };
        crate::sim::model::try_wait(op, &ready)?;
        Ok(self.gate.state().callbacks.pop_front().expect("the condition says so").f)
    }
}

/// SRCU of the simulated machine: readers may sleep.
pub type SimSrcu = SimDomain<true>;

/// RCU of the simulated machine: readers must not sleep.
pub type SimRcu = SimDomain<false>;

// SAFETY: `synchronize` and callbacks wait until the condition `gone` holds for all readers that were in a section when
// the grace period began; sections register in the step that begins them.
unsafe impl<const READERS_SLEEP: bool> ReadDomain for SimDomain<READERS_SLEEP> {
    type Token = u64;

    #[track_caller]
    fn new(name: &'static str) -> Self {
        SimDomain::create(name)
    }

    #[track_caller]
    fn read_lock(&self) -> u64 {
        let reader = self.begin();
        if !READERS_SLEEP {
            crate::sim::cpu::preempt_disable();
        }
        reader
    }

    #[track_caller]
    unsafe fn read_unlock(&self, token: u64) {
        if !READERS_SLEEP {
            crate::sim::cpu::preempt_enable();
        }
        self.end(token);
    }

    #[track_caller]
    fn synchronize(&self) {
        self.synchronize_any();
    }

    #[track_caller]
    fn synchronize_expedited(&self) {
        self.synchronize_any();
    }

    #[track_caller]
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>) {
        self.call_any(f);
    }

    #[track_caller]
    fn barrier(&self) {
        self.barrier_any();
    }
}
