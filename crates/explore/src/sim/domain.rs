//! Simulated RCU and SRCU: read sections, and grace periods that need what they need on a real
//! kernel.
//!
//! A grace period is either a matter of readers alone, or two pieces of work on a pool: one that
//! processes all that are asked for, and one that runs the callbacks of those that are over, the
//! wake-ups of who waits among them, one after the other. Each is queued when there is something to
//! do for it and it is not queued already. Neither waits for readers: the last of them queues the
//! first work again.

use std::collections::VecDeque;
use std::panic::Location;
use std::sync::Arc;

use doorbell_platform::ReadDomain;

use crate::ids::{CtxId, ObjId};
use crate::machine::Machine;
use crate::machine::cell::with;
use crate::machine::leaf::acts;
use crate::machine::object::ObjKind;
use crate::machine::record::{machine_note, note};
use crate::machine::step::step;
use crate::op::{Access, Op, OpKind};
use crate::sim::managed::Queue;
use crate::sim::model::{Model, step_with, wait};
use crate::sim::pool::{Comes, Last, Pool, Then};
use crate::sim::wait::SimCompletion;
use doorbell_platform::Completion;

/// What grace periods need in order to end. Set it up with [`Machine::grace_periods`] before
/// domains are created.
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

impl Machine {
    /// Says what grace periods of domains that are created from here on need.
    pub fn grace_periods(&self, on: GracePeriods) {
        with(|w| w.kept.put(on));
    }
}

/// Where a grace period's work is done.
#[derive(Clone)]
enum Workers {
    Pool(Pool),
    Queue(Queue),
}

impl Workers {
    /// What steps change that queue.
    fn order(&self) -> ObjId {
        match self {
            Workers::Pool(pool) => pool.order(),
            Workers::Queue(queue) => queue.order(),
        }
    }

    /// Queues a job in the step that is being done, which has said that it changes
    /// [`order`](Workers::order).
    fn spawn_within(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) {
        match self {
            Workers::Pool(pool) => pool.spawn_within(name, job),
            Workers::Queue(queue) => queue.spawn_within(name, job),
        }
    }

    /// Has the job of theirs that calls this end with `last`.
    #[track_caller]
    fn end_with(&self, last: Last) {
        match self {
            Workers::Pool(pool) => pool.end_with(last),
            Workers::Queue(queue) => queue.end_with(last),
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

doorbell_platform::opaque_debug!([const READERS_SLEEP: bool] SimDomain<READERS_SLEEP>);

struct Inner {
    /// Begins of read sections read it, begins of grace periods change it.
    gate: Model<State>,
    /// Without workers: ends of read sections read it, ends of grace periods take it.
    exit: Model<()>,
    /// Callbacks and the task that runs them.
    callbacks: Model<()>,
    /// What the first piece of work has to do.
    asked: Model<Asked>,
    /// What the second has to do.
    over: Model<Over>,
    /// The workers that do a grace period's work; none if it is a matter of readers alone.
    workers: Option<Workers>,
    name: &'static str,
}

#[derive(Default)]
struct State {
    next: u64,
    readers: Vec<Reader>,
    callbacks: VecDeque<Callback>,
    handed: u64,
    called: u64,
}

/// A read section.
struct Reader {
    /// With workers, its end as an object: the end changes it, and who looks whether it has ended
    /// reads it.
    id: u64,
    ctx: CtxId,
    /// Where the section begins.
    site: &'static Location<'static>,
    /// The section has not ended. One that has is kept until its context begins another: a grace
    /// period that begins now might have begun before that end, and been waiting for it.
    reads: bool,
}

#[derive(Default)]
struct Asked {
    /// Grace periods that are not over, as far as is known.
    graces: Vec<Grace>,
    /// The work that looks at them is queued.
    processing: bool,
}

#[derive(Default)]
struct Over {
    /// Grace periods that are over, which that work does not know of yet.
    graces: Vec<Grace>,
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
    then: After,
}

/// What is told that a grace period is over.
enum After {
    Wakes(Arc<SimCompletion>),
    Calls(Box<dyn FnOnce() + Send>),
}

impl<const READERS_SLEEP: bool> SimDomain<READERS_SLEEP> {
    #[track_caller]
    fn create(name: &'static str) -> Self {
        let workers = match with(|w| w.kept.get::<GracePeriods>().cloned()) {
            None | Some(GracePeriods::Readers) => None,
            Some(GracePeriods::OnPool(pool)) => Some(Workers::Pool(pool)),
            Some(GracePeriods::OnQueue(queue)) => Some(Workers::Queue(queue)),
        };
        let inner = Arc::new(Inner {
            gate: Model::new(name, State::default()),
            exit: Model::new("grace period", ()),
            callbacks: Model::new("callbacks", ()),
            asked: Model::new("grace periods asked for", Asked::default()),
            over: Model::new("grace periods that are over", Over::default()),
            workers,
            name,
        });
        if inner.workers.is_none() {
            inner.exit.rename(|| format!("the grace period of {name}"));
        }
        if inner.workers.is_none() && with(|w| w.mode == crate::machine::world::Mode::Alone) {
            let this = Arc::clone(&inner);
            let task = Machine::NEW.task(format!("{name} callbacks"), move || {
                while let Ok(callback) = this.next_callback() {
                    machine_note(|| "begins a callback".to_owned());
                    callback();
                    this.callbacks.change(|()| this.gate.state().called += 1);
                    machine_note(|| "ends the callback".to_owned());
                }
            });
            let callbacks = task.may_not_run().id();
            with(|w| w.ctx_mut(callbacks).aside = true);
        }
        SimDomain(inner)
    }

    #[track_caller]
    fn begin(&self) -> u64 {
        self.0.gate.observe(|_| ());
        machine_note(|| format!("begins a read section of {}", self.0.name));
        let site = Location::caller();
        let (ctx, end) = with(|w| {
            let end =
                self.0.workers.is_some().then(|| w.add_obj(ObjKind::Model, "read section", site));
            (w.current, end)
        });
        let mut state = self.0.gate.state();
        state.next += 1;
        let id = end.map_or(state.next, |end| end.0.into());
        state.readers.retain(|reader| reader.reads || reader.ctx != ctx);
        state.readers.push(Reader { id, ctx, site, reads: true });
        id
    }

    #[track_caller]
    fn end(&self, reader: u64) {
        let inner = &self.0;
        // A guard's drop has no caller: the line that begins the section says more.
        let begun =
            inner.gate.state().readers.iter().find(|other| other.id == reader).map(|of| of.site);
        let site = begun.unwrap_or(Location::caller());
        let ends = || {
            machine_note(|| format!("ends the read section of {}", inner.name));
            let mut state = inner.gate.state();
            state
                .readers
                .iter_mut()
                .filter(|other| other.id == reader)
                .for_each(|ended| ended.reads = false);
        };
        let Some(workers) = &inner.workers else {
            step(Op { site, ..Op::new(OpKind::Observe, inner.exit.id()) });
            return ends();
        };
        let (queue, order) = (inner.asked.id(), workers.order());
        // Nobody is going to look at the grace periods that wait for it: who of several readers is
        // the last one to leave matters, because it queues the work.
        let awaited = |asked: &Asked| {
            !asked.processing && asked.graces.iter().any(|grace| grace.readers.contains(&reader))
        };
        step_with(Op { site, ..Op::new(OpKind::Change, ObjId(reader as u32)) }, &|uses| {
            if awaited(&inner.asked.state()) {
                uses(queue, Access::Write);
                uses(order, Access::Write);
            }
        });
        ends();
        let again = {
            let mut asked = inner.asked.state();
            let ready =
                awaited(&asked) && asked.graces.iter().any(|grace| inner.gone(&grace.readers));
            ready && !std::mem::replace(&mut asked.processing, true)
        };
        if again {
            process(inner, workers);
        }
    }

    #[track_caller]
    fn synchronize_any(&self) {
        acts(|| format!("waits for a grace period of {}", self.0.name));
        // While the program sets itself up there are neither readers nor workers that run.
        if with(|w| w.mode == crate::machine::world::Mode::Alone)
            && self.0.gate.state().reading().next().is_none()
        {
            return;
        }
        match &self.0.workers {
            None => {
                let readers: Vec<u64> = self.0.gate.change(|state| state.reading().collect());
                note(|| format!("begins a grace period of {}", self.0.name));
                let inner = &self.0;
                let gone = || inner.gone(&readers);
                wait(Op::new(OpKind::Take, inner.exit.id()), &gone);
            }
            Some(workers) => {
                let done = Arc::new(workers.completion(self.0.name));
                self.start(workers, After::Wakes(Arc::clone(&done)));
                done.wait();
            }
        }
    }

    /// Asks for a grace period that needs workers. Who is the first to ask queues the work, in the
    /// same step: a domain does both under its lock.
    #[track_caller]
    fn start(&self, workers: &Workers, then: After) {
        let inner = &self.0;
        let (gate, asked, order) = (inner.gate.id(), inner.asked.id(), workers.order());
        step_with(Op { obj2: Some(asked), ..Op::new(OpKind::Change, gate) }, &|uses| {
            if !inner.asked.state().processing {
                uses(order, Access::Write);
            }
        });
        note(|| format!("begins a grace period of {}", inner.name));
        let first = {
            let mut state = inner.gate.state();
            state.handed += u64::from(matches!(then, After::Calls(_)));
            let mut asked = inner.asked.state();
            asked.graces.push(Grace {
                readers: state.readers.iter().map(|reader| reader.id).collect(),
                then,
            });
            !std::mem::replace(&mut asked.processing, true)
        };
        if first {
            process(inner, workers);
        }
    }

    #[track_caller]
    fn call_any(&self, f: Box<dyn FnOnce() + Send>) {
        acts(|| format!("asks for a grace period of {}", self.0.name));
        if with(|w| w.over) {
            // What is dropped with the program itself: nobody is left to call back, and what is
            // queued is never freed.
            return;
        }
        match &self.0.workers {
            None => {
                self.0.gate.change_with(self.0.callbacks.id(), |state| {
                    state.handed += 1;
                    let readers = state.reading().collect();
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
                self.start(workers, After::Calls(counted));
            }
        }
    }

    #[track_caller]
    fn barrier_any(&self) {
        acts(|| format!("waits for callbacks of {}", self.0.name));
        let inner = &self.0;
        let due = inner.gate.observe(|state| state.handed);
        let called = || inner.gate.state().called >= due;
        wait(Op::new(OpKind::Await, inner.callbacks.id()), &called);
    }
}

impl State {
    /// The read sections that have not ended.
    fn reading(&self) -> impl Iterator<Item = u64> {
        self.readers.iter().filter(|reader| reader.reads).map(|reader| reader.id)
    }
}

/// Queues the work that processes grace periods, in the step that is being done.
fn process(inner: &Arc<Inner>, workers: &Workers) {
    let inner = Arc::clone(inner);
    let on = workers.clone();
    workers.spawn_within(
        "process grace period",
        Box::new(move || {
            let (sees, looks) = (Arc::clone(&inner), Arc::clone(&inner));
            let (next, over) = (on.clone(), inner.over.id());
            on.end_with(Last {
                obj: inner.asked.id(),
                more: Box::new(move |uses| {
                    let asked = sees.asked.state();
                    let readers = asked.graces.iter().flat_map(|grace| &grace.readers);
                    readers.for_each(|&reader| uses(ObjId(reader as u32), Access::Read));
                    if !asked.graces.iter().any(|grace| sees.gone(&grace.readers)) {
                        return Comes::Done;
                    }
                    uses(over, Access::Write);
                    if sees.over.state().calling { Comes::Done } else { Comes::Queue }
                }),
                f: Box::new(move || {
                    let (mut asked, mut over) = (looks.asked.state(), looks.over.state());
                    asked.processing = false;
                    let gone: Vec<Grace> =
                        asked.graces.extract_if(.., |grace| looks.gone(&grace.readers)).collect();
                    if gone.is_empty() {
                        return Then::Done;
                    }
                    if std::mem::replace(&mut over.calling, true) {
                        over.graces.extend(gone);
                        return Then::Done;
                    }
                    let inner = Arc::clone(&looks);
                    Then::Queue(
                        "grace-period callbacks",
                        Box::new(move || call_back(&inner, &next, gone)),
                    )
                }),
            });
        }),
    );
}

/// Tells of the grace periods that are over, until there are no more.
fn call_back(inner: &Arc<Inner>, on: &Workers, over: Vec<Grace>) {
    for grace in over {
        match grace.then {
            After::Wakes(done) => done.complete_all(),
            After::Calls(f) => f(),
        }
    }
    let (sees, inner, next) = (Arc::clone(inner), Arc::clone(inner), on.clone());
    on.end_with(Last {
        obj: inner.over.id(),
        more: Box::new(
            move |_| if sees.over.state().graces.is_empty() { Comes::Done } else { Comes::GoOn },
        ),
        f: Box::new(move || {
            let mut over = inner.over.state();
            over.calling = !over.graces.is_empty();
            if !over.calling {
                return Then::Done;
            }
            let more = std::mem::take(&mut over.graces);
            drop(over);
            Then::GoOn(Box::new(move || call_back(&inner, &next, more)))
        }),
    });
}

impl Inner {
    fn gone(&self, readers: &[u64]) -> bool {
        let state = self.gate.state();
        !readers.iter().any(|reader| state.reading().any(|other| other == *reader))
    }

    fn next_callback(&self) -> Result<Box<dyn FnOnce() + Send>, crate::machine::world::Ended> {
        let ready = || {
            let state = self.gate.state();
            let waits = |first: &Callback| {
                first.readers.iter().any(|reader| state.reading().any(|other| other == *reader))
            };
            state.callbacks.front().is_some_and(|first| !waits(first))
        };
        let op = Op {
            idle: true,
            obj2: Some(self.exit.id()),
            ..Op::new(OpKind::Take, self.callbacks.id())
        };
        crate::sim::model::try_wait(op, &ready)?;
        Ok(self.gate.state().callbacks.pop_front().expect("the condition says so").f)
    }
}

/// SRCU of the simulated machine: readers may sleep.
pub type SimSrcu = SimDomain<true>;

/// RCU of the simulated machine: readers must not sleep.
pub type SimRcu = SimDomain<false>;

// SAFETY: `synchronize` and callbacks wait until the condition `gone` holds for all readers that
// were in a section when the grace period began; sections register in the step that begins them.
// Both are of one execution: a section that another one had begun is over, or never goes on, and
// while that one runs its domain is refused (see `Stamp`).
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
        acts(|| format!("ends a read section of {}", self.0.name));
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
