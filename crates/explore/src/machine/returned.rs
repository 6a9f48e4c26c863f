//! What is done at the end of a task, and what the task returns to who joins it.

use std::any::{Any, TypeId};
use std::panic::AssertUnwindSafe;

use crate::ids::CtxId;
use crate::machine::cell::with;
use crate::machine::flags::{a_task_ends, do_tasks_end};

/// Has `f` called at the end of the current task, before what was asked for earlier.
pub(crate) fn at_end(f: impl FnOnce() + 'static) {
    with(|w| {
        let me = w.current;
        w.extras().at_end.push((me, Box::new(f)));
    });
    a_task_ends();
}

/// The current task has returned from its function: does what was asked for its end.
#[inline]
pub(crate) fn ends() {
    if do_tasks_end() {
        end();
    }
}

#[cold]
fn end() {
    while let Some((_, f)) = with(|w| {
        let all = &mut w.extras.at_end;
        let place = all.iter().rposition(|(of, _)| *of == w.current)?;
        Some(all.remove(place))
    }) {
        f();
    }
}

/// Keeps what the current task returns.
#[inline]
pub(crate) fn keep<T: 'static>(value: T) {
    if TypeId::of::<T>() != TypeId::of::<()>() {
        with(|w| {
            let me = w.current;
            w.extras().returned.push((me, Box::new(value)));
        });
    }
}

/// Returns what the task `ctx` has returned.
#[track_caller]
pub(crate) fn take<T: 'static>(ctx: CtxId) -> T {
    let unit: Box<dyn Any> = Box::new(());
    let value = unit.downcast::<T>().ok().or_else(|| {
        let place = with(|w| {
            let place = w.extras.returned.iter().position(|(of, _)| *of == ctx)?;
            Some(w.extras.returned.swap_remove(place))
        });
        place.and_then(|(_, value)| value.downcast().ok())
    });
    let Some(value) = value else {
        let name = with(|w| w.ctx(ctx).name.clone());
        panic!("somebody has joined {name} before, and has its value");
    };
    *value
}

/// What a task that may panic panicked with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panicked(String);

impl Panicked {
    /// Returns the text of the panic.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl core::fmt::Display for Panicked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the task panicked: {}", self.0)
    }
}

impl core::error::Error for Panicked {}

/// Makes a function of a task of one that may panic: then it is a value that the run goes on with,
/// for whoever joins the task, and no failure. What its destructors do while it unwinds belongs to
/// the step in which it panicked.
///
/// ```
/// use doorbell_explore::{Explore, Machine, may_panic, spawn};
///
/// let report = Explore::new("a worker that panics").run(|m: &Machine| {
///     m.task("supervisor", || {
///         let worker = spawn("worker", may_panic(|| panic!("out of paper")));
///         let end: Result<(), _> = worker.join();
///         assert_eq!(end.unwrap_err().message(), "out of paper");
///     });
/// });
/// report.assert_exhausted();
/// ```
///
/// # Context
/// Any.
pub fn may_panic<T>(f: impl FnOnce() -> T) -> impl FnOnce() -> Result<T, Panicked> {
    move || {
        let result = std::panic::catch_unwind(AssertUnwindSafe(f));
        result.map_err(|payload| Panicked(crate::machine::lent::told(&*payload)))
    }
}
