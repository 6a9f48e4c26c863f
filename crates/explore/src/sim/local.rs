//! Data of a task.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::machine::cell::with;
use crate::machine::returned::at_end;
use crate::machine::world::Mode;
use crate::validate::CtxKind;

/// Data of which each task has its own: a `thread_local!` would be shared by all of them, since
/// they run on one OS thread, and by all executions. It belongs in a static.
///
/// What a task has of it is made when the task first uses it, and dropped at the task's end, the
/// last that was made first.
///
/// ```
/// use std::cell::Cell;
/// use doorbell_explore::{Explore, Machine, sim::TaskLocal};
///
/// static DEPTH: TaskLocal<Cell<u32>> = TaskLocal::new(|| Cell::new(0));
///
/// let report = Explore::new("depth").run(|m: &Machine| {
///     for name in ["one", "two"] {
///         m.task(name, || {
///             DEPTH.with(|depth| depth.set(depth.get() + 1));
///             assert_eq!(DEPTH.with(|depth| depth.get()), 1);
///         });
///     }
/// });
/// report.assert_exhausted();
/// ```
pub struct TaskLocal<T: 'static> {
    init: fn() -> T,
}

doorbell_platform::opaque_debug!([T] TaskLocal<T>);

/// What one task has: the address of each static, and the data.
type Locals = Rc<RefCell<Vec<(usize, Rc<dyn Any>)>>>;

impl<T: 'static> TaskLocal<T> {
    /// Creates data that `init` makes for each task.
    pub const fn new(init: fn() -> T) -> Self {
        TaskLocal { init }
    }

    /// Calls `f` with the data of the current task.
    ///
    /// # Panics
    /// In handlers, in the set-up and in conditions of quiescence, which are no tasks.
    ///
    /// # Context
    /// Any task, or hardware. It takes no steps but those of `init`.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        assert!(
            with(|w| matches!(w.mode, Mode::Running | Mode::Ending)
                && w.ctx(w.current).kind != CtxKind::Handler),
            "only tasks have data of their own: this is none"
        );
        let locals = locals();
        let key = std::ptr::from_ref(self).addr();
        let known =
            locals.borrow().iter().find(|(other, _)| *other == key).map(|(_, one)| Rc::clone(one));
        let data = known.unwrap_or_else(|| {
            let data: Rc<dyn Any> = Rc::new((self.init)());
            locals.borrow_mut().push((key, Rc::clone(&data)));
            data
        });
        f(data.downcast_ref::<T>().expect("a static has one type"))
    }
}

/// Returns the data of the current context.
fn locals() -> Locals {
    let known = with(|w| w.ctx(w.current).kept.get::<Locals>().cloned());
    known.unwrap_or_else(|| {
        let locals = Locals::default();
        let ours = Rc::clone(&locals);
        with(|w| {
            let me = w.current;
            w.ctx_mut(me).kept.put(ours);
        });
        let ours = Rc::clone(&locals);
        // A destructor may use others, and make them anew.
        at_end(move || {
            loop {
                let last = ours.borrow_mut().pop();
                let Some(last) = last else { return };
                drop(last);
            }
        });
        locals
    })
}
