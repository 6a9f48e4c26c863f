//! What `std::thread` has, for explored code.

use crate::machine::returned::{Panicked, may_panic};
use crate::machine::{Machine, TaskHandle};
use crate::run::{Explore, Report};
use crate::sim::{SimTask, current_task};
use crate::{Sim, spawn as spawn_task};
use doorbell_platform::Platform as _;
use std::sync::Arc;

pub use crate::sim::park_timeout;

/// Explores `f` as the body of one task, which spawns others: what `loom::model` does. The program
/// must be right in every interleaving; [`explore`] returns a report instead.
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::sync::{Mutex, thread};
///
/// thread::model(|| {
///     let count = Arc::new(Mutex::new(0));
///     let other = Arc::clone(&count);
///     let task = thread::spawn(move || *other.lock().unwrap() += 1);
///     *count.lock().unwrap() += 1;
///     task.join().unwrap();
///     assert_eq!(*count.lock().unwrap(), 2);
/// });
/// ```
///
/// # Panics
/// With the trace of a failing run, if there is one.
///
/// # Context
/// No context: whoever tests.
#[track_caller]
pub fn model(f: impl Fn() + Send + Sync + 'static) {
    explore(f).assert_exhausted();
}

/// Explores `f` as [`model`] does, and returns what came of it.
///
/// # Context
/// No context: whoever tests.
pub fn explore(f: impl Fn() + Send + Sync + 'static) -> Report {
    explore_as(&Explore::new("model"), f)
}

/// Explores `f` as [`model`] does, and as `explore` says.
///
/// # Context
/// No context: whoever tests.
pub fn explore_as(explore: &Explore, f: impl Fn() + Send + Sync + 'static) -> Report {
    let f = Arc::new(f);
    explore.run(|m: &Machine| {
        let f = Arc::clone(&f);
        m.task("main", move || f());
    })
}

/// Creates a task while the program runs. A panic of it is a failure of the run;
/// [`spawn_may_panic`] gives it to who joins.
///
/// # Context
/// Any task.
#[track_caller]
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    JoinHandle(spawn_task("thread", move || Ok(f())))
}

/// Creates a task that may panic.
///
/// # Context
/// Any task.
#[track_caller]
pub fn spawn_may_panic<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    JoinHandle(spawn_task("thread", may_panic(f)))
}

/// A task, to be waited for.
pub struct JoinHandle<T>(TaskHandle<Result<T, Panicked>>);

doorbell_platform::opaque_debug!([T] JoinHandle<T>);

impl<T: 'static> JoinHandle<T> {
    /// Waits until the task has ended, and returns its value.
    ///
    /// # Errors
    /// If it panicked, and may.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn join(self) -> Result<T, Panicked> {
        self.0.join()
    }

    /// Returns the task, to be woken.
    ///
    /// # Context
    /// Any task.
    pub fn thread(&self) -> Thread {
        Thread(SimTask::of(self.0.id()))
    }
}

/// A task, to be woken.
#[derive(Clone, Debug)]
pub struct Thread(SimTask);

impl Thread {
    /// Wakes the task out of its `park`, or out of the next one.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn unpark(&self) {
        self.0.wake();
    }
}

/// Returns the task that calls.
///
/// # Context
/// Any task.
pub fn current() -> Thread {
    Thread(current_task())
}

/// Sleeps until woken.
///
/// # Context
/// Any task. It sleeps.
#[track_caller]
pub fn park() {
    Sim::park();
}

/// Rests until somebody writes to what was read since the last call: what a loop that waits for
/// others has to call.
///
/// # Context
/// Any.
#[track_caller]
pub fn yield_now() {
    Sim::cpu_relax();
}
