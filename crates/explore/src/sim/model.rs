//! Modelled objects: any state, changed and waited for in single visible steps.

use std::panic::Location;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::cell::{exploring, with};
use crate::machine::leaf::acts_at;
use crate::machine::object::ObjKind;
use crate::machine::stamp::Stamp;
use crate::machine::step::{step, try_step};
use crate::machine::world::{Ended, Mode};
use crate::op::{Condition, MoreUses, Op, OpKind, Uses};
use crate::sim::sleep::sleep;
use crate::trace::FailureKind;

/// An object of a model: hardware registers, a queue, a scheduler's run queue. Each method is one
/// visible step, in which nobody else can be.
pub struct Model<T> {
    stamp: Stamp,
    name: &'static str,
    created: &'static Location<'static>,
    state: Mutex<T>,
}

doorbell_platform::opaque_debug!([T] Model<T>; name);

impl<T> Model<T> {
    /// Creates an object of that name, as traces show it.
    #[track_caller]
    pub fn new(name: &'static str, state: T) -> Self {
        let this = Model {
            stamp: Stamp::new(),
            name,
            created: Location::caller(),
            state: Mutex::new(state),
        };
        if exploring() {
            this.id();
        }
        this
    }

    #[inline]
    pub(crate) fn id(&self) -> ObjId {
        with(|w| self.stamp.get(w))
            .unwrap_or_else(|| self.stamp.register(ObjKind::Model, self.name, self.created))
    }

    /// What traces call it.
    pub(crate) fn called(&self) -> String {
        let id = self.id();
        with(|w| w.name(id))
    }

    /// The state, outside of any step: for what only this context can be doing.
    #[inline]
    pub(crate) fn state(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The state, which changes.
    #[inline]
    fn changed(&self) -> MutexGuard<'_, T> {
        self.stamp.change();
        self.state()
    }

    /// Reads the state.
    #[track_caller]
    pub fn observe<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        step(Op::new(OpKind::Observe, self.id()));
        f(&self.state())
    }

    /// Changes the state.
    #[track_caller]
    pub fn change<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        step(Op::new(OpKind::Change, self.id()));
        f(&mut self.changed())
    }

    /// Changes the state, or finds that there is nothing to change: `f` says whether it has changed
    /// anything. If not, the step has only read.
    #[track_caller]
    pub fn change_if(&self, f: impl FnOnce(&mut T) -> bool) {
        let id = self.id();
        step(Op::new(OpKind::Change, id));
        if f(&mut self.state()) {
            self.stamp.change();
        } else {
            with(|w| w.only_read(id));
        }
    }

    /// Changes the state, at a place that is not the caller's.
    pub(crate) fn change_at<R>(
        &self,
        site: &'static Location<'static>,
        f: impl FnOnce(&mut T) -> R,
    ) -> R {
        step(Op { site, ..Op::new(OpKind::Change, self.id()) });
        f(&mut self.changed())
    }

    /// Changes the state, and in the same step that of another object.
    #[track_caller]
    pub(crate) fn change_with<R>(&self, other: ObjId, f: impl FnOnce(&mut T) -> R) -> R {
        step(Op { obj2: Some(other), ..Op::new(OpKind::Change, self.id()) });
        f(&mut self.changed())
    }

    /// Sleeps until `condition` holds, then reads the state.
    #[track_caller]
    pub fn wait<R>(&self, condition: impl Fn(&T) -> bool, f: impl FnOnce(&T) -> R) -> R {
        let ready = || condition(&self.state());
        wait(Op::new(OpKind::Await, self.id()), &ready);
        f(&self.state())
    }

    /// Sleeps until `condition` holds, then changes the state, in one step.
    #[track_caller]
    pub fn take<R>(&self, condition: impl Fn(&T) -> bool, f: impl FnOnce(&mut T) -> R) -> R {
        let ready = || condition(&self.state());
        wait(Op::new(OpKind::Take, self.id()), &ready);
        f(&mut self.changed())
    }

    /// Takes as [`take`](Model::take) does, for a service, which has nothing to do when the run is
    /// over.
    ///
    /// # Errors
    /// When the run is over; the service returns then.
    #[track_caller]
    pub fn serve<R>(
        &self,
        condition: impl Fn(&T) -> bool,
        f: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Ended> {
        let ready = || condition(&self.state());
        try_wait(Op { idle: true, ..Op::new(OpKind::Take, self.id()) }, &ready)?;
        Ok(f(&mut self.changed()))
    }

    /// [`serve`](Model::serve) that changes another object in the same step, at a place that is not
    /// the caller's.
    pub(crate) fn serve_with<R>(
        &self,
        site: &'static Location<'static>,
        other: ObjId,
        condition: impl Fn(&T) -> bool,
        f: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Ended> {
        let ready = || condition(&self.state());
        let op = Op::new(OpKind::Take, self.id());
        try_wait(Op { idle: true, obj2: Some(other), site, ..op }, &ready)?;
        Ok(f(&mut self.changed()))
    }

    /// [`serve`](Model::serve) with a condition and a change of something that belongs to this
    /// object, at a place that is not the caller's.
    pub(crate) fn serve_when<R>(
        &self,
        site: &'static Location<'static>,
        ready: impl Fn() -> bool,
        f: impl FnOnce() -> R,
    ) -> Result<R, Ended> {
        try_wait(Op { idle: true, site, ..Op::new(OpKind::Take, self.id()) }, &ready)?;
        Ok(f())
    }

    /// Says who alone can end a wait for this object. Without it, anybody who still runs might.
    pub fn released_by(&self, ctxs: impl IntoIterator<Item = CtxId>) {
        let id = self.id();
        let mut set = CtxSet::EMPTY;
        for ctx in ctxs {
            set.insert(ctx);
        }
        with(|w| w.obj_mut(id).releasers = set);
    }

    /// Says what those who can end a wait for this object need in order to do so. It must not take
    /// visible steps.
    pub(crate) fn needs(&self, needs: impl Fn() -> String + 'static) {
        let id = self.id();
        with(|w| w.obj_mut(id).needs = Some(Rc::new(needs)));
    }

    /// Gives it a longer name, if the run is written down.
    pub(crate) fn rename(&self, name: impl FnOnce() -> String) {
        if crate::machine::flags::recording() {
            let id = self.id();
            let name = name();
            with(|w| w.obj_mut(id).name = name.into());
        }
    }
}

/// Ends the run as failed: something has happened that must not. `why` says what, in a sentence
/// without a full stop.
///
/// This is to the invariants of a case what a panic is to mistakes of the code: the context does
/// not unwind, but goes on as far as its next visible step and stays there.
///
/// ```
/// use doorbell_explore::{Explore, Machine, sim, trace::FailureKind};
///
/// let report = Explore::new("a line").run(|m: &Machine| {
///     let line = std::sync::Arc::new(sim::Model::new("line", false));
///     let device = line.clone();
///     m.task("device", move || device.change(|level| *level = true));
///     m.task("guest", move || {
///         if line.observe(|level| *level) {
///             sim::fail("the line is up before the guest has asked for it");
///         }
///     });
/// });
/// report.assert_found(FailureKind::Invariant);
/// ```
///
/// # Panics
/// Outside of explorations, with what `why` says.
pub fn fail(why: impl std::fmt::Display) {
    assert!(exploring(), "{why}");
    let why = why.to_string();
    with(|w| {
        let who = if w.mode == Mode::Running {
            format!("{}: ", w.ctx(w.current).name)
        } else {
            String::new()
        };
        w.fail_here(FailureKind::Invariant, format!("{who}{why}"));
    });
}

/// Fails as [`fail`] does, as a failure of another kind: the model has seen something that must not
/// be, and knows its name.
pub fn fail_as(kind: FailureKind, message: impl Into<String>) {
    with(|w| w.fail_here(kind, message.into()));
}

/// Ends the run as the witness of something that may happen: where the question is whether it does.
/// Part of the last visible step, as [`fail`] is.
///
/// ```
/// use doorbell_explore::{Explore, Sim, sim};
/// use doorbell_explore::trace::FailureKind;
/// use doorbell_platform::{Atomic, AtomicInt, Platform};
/// use std::sync::{Arc, atomic::Ordering::SeqCst};
///
/// let report = Explore::new("which comes first?").run(|m| {
///     let word = Arc::new(<Sim as Platform>::AtomicU32::new(0));
///     let second = Arc::clone(&word);
///     m.task("writes", move || word.store(1, SeqCst));
///     m.task("reads", move || {
///         if second.load(SeqCst) == 1 {
///             sim::witness("the one that reads can come second");
///         }
///     });
/// });
/// report.assert_found(FailureKind::Witness);
/// ```
pub fn witness(what: impl Into<String>) {
    fail_as(FailureKind::Witness, what);
}

/// Waits for `condition` in one step.
#[track_caller]
pub(crate) fn wait(op: Op, condition: &(dyn Fn() -> bool + '_)) {
    waits(op);
    sleep(op.site, || happens_at_once(op, condition), || wait_uncounted(op, condition));
}

/// The current context may sleep now.
#[inline]
fn waits(op: Op) {
    acts_at(op.site, || format!("waits for {}", with(|w| w.name(op.obj))));
}

/// [`wait`], by who is not counted by a managed pool, or just now is not.
pub(crate) fn wait_uncounted(op: Op, condition: &(dyn Fn() -> bool + '_)) {
    step(with_condition(op, condition));
    forget_condition();
}

/// Does the waiting step if there is nothing to wait for; if there is, only looks.
fn happens_at_once(op: Op, condition: &(dyn Fn() -> bool + '_)) -> bool {
    let looks = if op.kind == OpKind::Await { OpKind::Observe } else { OpKind::Change };
    step(Op { kind: looks, ..op });
    let holds = condition();
    if looks == OpKind::Change && !holds {
        with(|w| w.only_read(op.obj));
    }
    holds
}

/// Announces a step that uses more than `op` names: `more` says what, whenever it is asked before
/// the step is done. It must not enter the machine.
pub(crate) fn step_with(op: Op, more: &(dyn Fn(&mut Uses<'_>) + '_)) {
    let more: *const (dyn Fn(&mut Uses<'_>) + '_) = more;
    // SAFETY: only the lifetime changes. The machine calls it while the step is announced and
    // forgets it when it does the step, after which `step` returns, and in `World::panics` if that
    // unwinds; the caller holds the reference until then. A context that never returns from the
    // step keeps it alive for ever.
    let more: MoreUses = unsafe { std::mem::transmute(more) };
    with(|w| {
        if w.mode == Mode::Running {
            let me = w.current;
            w.ctx_mut(me).more = Some(more);
        }
    });
    step(op);
}

/// [`wait`], unless the run ends first.
#[track_caller]
pub(crate) fn try_wait(op: Op, condition: &(dyn Fn() -> bool + '_)) -> Result<(), Ended> {
    waits(op);
    let result = try_step(with_condition(op, condition));
    forget_condition();
    result
}

/// Announces a step that may leave its object as it is: `changes` says whether it would change it.
#[inline(always)]
pub(crate) fn step_that(op: Op, changes: &(dyn Fn() -> bool + '_)) {
    step(with_condition(op, changes));
}

/// [`step_that`], unless the run ends first.
pub(crate) fn try_step_that(op: Op, changes: &(dyn Fn() -> bool + '_)) -> Result<(), Ended> {
    try_step(with_condition(op, changes))
}

/// [`step_that`] and [`step_with`] in one.
pub(crate) fn step_that_with(
    op: Op,
    changes: &(dyn Fn() -> bool + '_),
    more: &(dyn Fn(&mut Uses<'_>) + '_),
) {
    step_with(with_condition(op, changes), more);
}

/// The step with its condition, which must outlive it: callers announce it before they return.
#[inline(always)]
pub(crate) fn with_condition(op: Op, condition: &(dyn Fn() -> bool + '_)) -> Op {
    let condition: *const (dyn Fn() -> bool + '_) = condition;
    // SAFETY: only the lifetime changes. The machine calls it while the step is announced, that is,
    // until `step` returns or unwinds; the callers hold the reference until then. A waiting step
    // takes the pointer back right after; that of another is not looked at again before the context
    // announces its next step. If the step unwinds, for a panic of the machine, `World::panics`
    // takes it back. A context that never returns from the step keeps it alive for ever.
    let condition: Condition = unsafe { std::mem::transmute(condition) };
    Op { condition: Some(condition), ..op }
}

fn forget_condition() {
    with(|w| {
        let me = w.current;
        if let Some(ctx) = w.ctxs.get_mut(me.index()) {
            ctx.pending.condition = None;
        }
    });
}
