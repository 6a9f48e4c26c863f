//! Simulated waiting: completions, wait queues, parked tasks.

use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_platform::{Completion, WaitQueue};

use crate::ids::CtxId;
use crate::machine::cell::with;
use crate::machine::flags::recording;
use crate::machine::leaf::acts;
use crate::machine::record::{machine_note, note};
use crate::op::{Op, OpKind};
use crate::sim::choice::{Spurious, spuriously};
use crate::sim::model::{Model, wait};
use crate::sim::timer::clock;
use crate::sim::waiters::Waiters;

/// A completion of the simulated machine.
pub struct SimCompletion(Model<bool>);

doorbell_platform::opaque_debug!([] SimCompletion);

impl SimCompletion {
    /// Says who alone can complete it.
    pub fn released_by(&self, ctxs: impl IntoIterator<Item = CtxId>) {
        self.0.released_by(ctxs);
    }

    /// [`released_by`](SimCompletion::released_by), and what those need in order to complete it.
    pub(crate) fn released_by_work(
        &self,
        ctxs: impl IntoIterator<Item = CtxId>,
        needs: impl Fn() -> String + 'static,
    ) {
        self.0.released_by(ctxs);
        self.0.needs(needs);
    }

    /// Gives it a longer name in traces.
    pub(crate) fn rename(&self, name: impl FnOnce() -> String) {
        self.0.rename(name);
    }

    /// Waits until it is done or a timeout strikes; `false` if it was the timeout. As many timeouts
    /// strike in one execution as [`Machine::timeouts`](crate::Machine::timeouts) allows, and each
    /// of them may at any moment.
    #[track_caller]
    pub fn wait_timeout(&self) -> bool {
        let clock = clock();
        let done = || *self.0.state() || *clock.state() > 0;
        wait(Op { obj2: Some(clock.id()), ..Op::new(OpKind::Take, self.0.id()) }, &done);
        if *self.0.state() {
            return true;
        }
        *clock.state() -= 1;
        false
    }
}

impl Completion for SimCompletion {
    #[track_caller]
    fn new(name: &'static str) -> Self {
        SimCompletion(Model::new(name, false))
    }

    #[track_caller]
    fn complete_all(&self) {
        acts(|| format!("completes {}", self.0.called()));
        self.0.change(|done| *done = true);
        if recording() {
            let id = self.0.id();
            let name = with(|w| w.name(id));
            note(|| format!("completes {name}"));
        }
    }

    #[track_caller]
    fn wait(&self) {
        self.0.wait(|done| *done, |_| ());
    }

    #[track_caller]
    fn is_done(&self) -> bool {
        self.0.observe(|done| *done)
    }
}

/// A wait queue of the simulated machine: counts its wake-ups, and a waiter waits for the next one.
pub struct SimWaitQueue(Model<Wakes>);

/// What a wait queue knows.
#[derive(Default)]
struct Wakes {
    /// How often all were woken.
    all: u64,
    /// Those of whom one is woken at a time.
    exclusive: Waiters,
}

doorbell_platform::opaque_debug!([] SimWaitQueue);

impl WaitQueue for SimWaitQueue {
    #[track_caller]
    fn new(name: &'static str) -> Self {
        SimWaitQueue(Model::new(name, Wakes::default()))
    }

    #[track_caller]
    fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let before = self.0.observe(|wakes| wakes.all);
            if condition() {
                return;
            }
            self.0.wait(|wakes| wakes.all != before, |_| ());
        }
    }

    #[track_caller]
    fn wake_all(&self) {
        acts(|| format!("wakes who waits for {}", self.0.called()));
        self.0.change(|wakes| {
            wakes.all += 1;
            wakes.exclusive.wake_all();
        });
        if recording() {
            let queue = self.0.called();
            note(|| format!("wakes who waits for {queue}"));
        }
    }
}

impl SimWaitQueue {
    /// Sleeps until `condition` holds, as [`wait_until`](WaitQueue::wait_until) does, among those of
    /// whom [`wake_one`](SimWaitQueue::wake_one) wakes one.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn wait_exclusive_until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let place = self.0.change(|wakes| wakes.exclusive.come());
            let goes = condition();
            if goes {
                self.0.change(|wakes| wakes.exclusive.go(place));
                return;
            }
            let woken = |wakes: &Wakes| wakes.exclusive.is_woken(place);
            self.0.take(woken, |wakes| wakes.exclusive.go(place));
        }
    }

    /// Makes one of those that wait exclusively check its condition again, and all others. Which
    /// one, of those that wait already, is explored.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn wake_one(&self) {
        acts(|| format!("wakes one that waits for {}", self.0.called()));
        self.0.change(|wakes| {
            wakes.all += 1;
            wakes.exclusive.wake_one();
        });
        if recording() {
            let queue = self.0.called();
            note(|| format!("wakes one that waits for {queue}"));
        }
    }
}

/// How a task of a scheduler sleeps and is woken.
pub(crate) trait Park {
    /// Sleeps until woken.
    fn park(&self);

    /// Wakes the task, or lets its next sleep return at once.
    fn wake(&self);
}

/// Has the task `ctx` sleep by its scheduler.
pub(crate) fn parks_by(ctx: CtxId, scheduler: Rc<dyn Park>) {
    with(|w| w.ctx_mut(ctx).kept.put(scheduler));
}

fn parker(ctx: CtxId) -> Option<Rc<dyn Park>> {
    with(|w| w.ctx(ctx).kept.get::<Rc<dyn Park>>().cloned())
}

/// A task of the simulated machine, to be woken.
#[derive(Clone)]
pub struct SimTask {
    ctx: CtxId,
    woken: Arc<Model<bool>>,
}

doorbell_platform::opaque_debug!([] SimTask; ctx);

impl SimTask {
    /// That of a context.
    pub(crate) fn of(ctx: CtxId) -> Self {
        let known = with(|w| w.ctx(ctx).kept.get::<SimTask>().cloned());
        known.unwrap_or_else(|| {
            let task = SimTask { ctx, woken: Arc::new(Model::new("wake-up", false)) };
            task.woken.rename(|| format!("the wake-up of {}", called(ctx)));
            with(|w| w.ctx_mut(ctx).kept.put(task.clone()));
            task
        })
    }

    /// Wakes it out of its `park`, or out of the next one.
    #[track_caller]
    pub fn wake(&self) {
        acts(|| format!("wakes {}", called(self.ctx)));
        match parker(self.ctx) {
            Some(parker) => parker.wake(),
            None => {
                self.woken.change(|woken| *woken = true);
                if recording() {
                    let name = called(self.ctx);
                    note(|| format!("wakes {name}"));
                }
            }
        }
    }
}

/// What traces call a context.
fn called(ctx: CtxId) -> String {
    with(|w| w.ctx(ctx).name.to_string())
}

pub(crate) fn current_task() -> SimTask {
    SimTask::of(with(|w| w.current))
}

#[track_caller]
pub(crate) fn park() {
    acts(|| "sleeps".to_owned());
    if spuriously(Spurious::Wake, Location::caller()) {
        return;
    }
    let task = current_task();
    match parker(task.ctx) {
        Some(parker) => parker.park(),
        None => {
            task.woken.take(|woken| *woken, |woken| *woken = false);
            machine_note(|| "was woken".to_owned());
        }
    }
}

/// Sleeps until woken or a timeout strikes; `false` if it was the timeout. As many timeouts strike
/// in one execution as [`Machine::timeouts`](crate::Machine::timeouts) allows, each of them at any
/// moment.
///
/// # Panics
/// If the task is one of a scheduler, which has no timeouts.
///
/// # Context
/// Any task. It sleeps.
#[track_caller]
pub fn park_timeout() -> bool {
    acts(|| "sleeps".to_owned());
    let task = current_task();
    assert!(parker(task.ctx).is_none(), "a task of a scheduler sleeps without a timeout");
    let clock = clock();
    let woken = &task.woken;
    let done = || *woken.state() || *clock.state() > 0;
    wait(Op { obj2: Some(clock.id()), ..Op::new(OpKind::Take, woken.id()) }, &done);
    let was_woken = std::mem::replace(&mut *woken.state(), false);
    *clock.state() -= u32::from(!was_woken);
    machine_note(|| if was_woken { "was woken" } else { "sleeps no longer" }.to_owned());
    was_woken
}
