//! Pooled coroutines: one per context, used again by every execution of its OS thread.
//!
//! To map a stack costs more than a small program's executions. So the coroutines of an exploration
//! that has ended wait in an idle list of their OS thread for the next one. The list keeps at most
//! as many as one program can have contexts, with stacks of the size that was asked for last, and
//! is dropped with the thread: all in it are between jobs, so they end, and their stacks are
//! unmapped.
//!
//! A coroutine sits in its loop between jobs. It is dropped only there; one that is stuck in the
//! middle of a failing run is leaked with its stack, because unwinding it would run the program's
//! destructors in a state that the program was never meant to see.
//!
//! The memory of a leaked stack is neither used again nor given back, though nobody runs on it any
//! more. Others may point into it: a task that waits in a `ParkWaitQueue` is a node on its own
//! stack, and code under test may rely on `Pin` or on a scope in the same way. They rightly take
//! such a node to stay valid until its destructor has run. If what holds the pointer outlives the
//! run (a static, or an object that the program captured and did not create anew), the next run
//! follows it. So a failing run costs two mappings (the stack and its guard page) and a few touched
//! pages for each context that had not ended; `Executor` caps how many one search leaves.
//!
//! Coroutines resume one another: who suspends goes back to whoever resumed it. So two that take
//! turns need one switch for each turn, not two by way of the executor.

use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::ops::Range;
use std::rc::Rc;

use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult};

use crate::ids::CtxId;

/// Bytes of stack per context, beside the guard page, unless the exploration says something else.
pub(crate) const STACK_BYTES: usize = 256 * 1024;

/// The fewest of them: a panic needs some.
pub(crate) const LEAST_STACK_BYTES: usize = 64 * 1024;

/// The most contexts of one program.
pub(crate) const MOST: usize = 64;

type Job = Box<dyn FnOnce()>;
type Yielder = corosensei::Yielder<Option<Job>, bool>;

/// A coroutine that runs one job after another.
struct Runner {
    /// `None` once it is given up.
    coroutine: UnsafeCell<Option<Coroutine<Option<Job>, bool, ()>>>,
    yielder: *const Yielder,
    between_jobs: Cell<bool>,
    /// The coroutine runs, or another one that it resumed.
    entered: Cell<bool>,
    /// The addresses of its stack, guard page included.
    stack: Range<usize>,
    bytes: usize,
    /// The name of the context whose job it does. The name lives as long as the job.
    name: Cell<*const str>,
}

impl Runner {
    fn new(bytes: usize) -> Self {
        let stack = DefaultStack::new(bytes).unwrap_or_else(|error| {
            // Nothing can unwind from here: contexts may be in the middle of their code. And a
            // panic of this thread may be taken for one of explored code, and be silent.
            eprintln!(
                "there is no memory for the stack of another context, so this process ends: {error}"
            );
            std::process::abort();
        });
        let addresses = stack.limit().get()..stack.base().get();
        let place = Rc::new(Cell::new(std::ptr::null()));
        let told = Rc::clone(&place);
        let mut coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder, _first| {
            told.set(yielder as *const Yielder);
            drop(told);
            loop {
                // `true`: between jobs. The next resume brings a job, or `None` to end.
                match yielder.suspend(true) {
                    Some(job) => job(),
                    None => return,
                }
            }
        });
        let _ = coroutine.resume(None);
        Runner {
            coroutine: UnsafeCell::new(Some(coroutine)),
            yielder: place.get(),
            between_jobs: Cell::new(true),
            entered: Cell::new(false),
            stack: addresses,
            bytes,
            name: Cell::new(""),
        }
    }

    #[inline(always)]
    fn go(&self, job: Option<Job>) -> bool {
        assert!(!self.entered.replace(true), "a context is resumed while it runs");
        // SAFETY: the flag was down, so this is the only reference to the coroutine while it lives.
        // Nothing unwinds out of `resume`: jobs catch their panics.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        let between_jobs = match coroutine.as_mut().map(|coroutine| coroutine.resume(job)) {
            Some(CoroutineResult::Yield(between_jobs)) => between_jobs,
            Some(CoroutineResult::Return(())) | None => true,
        };
        self.entered.set(false);
        self.between_jobs.set(between_jobs);
        between_jobs
    }
}

impl Drop for Runner {
    /// Ends a coroutine that is between jobs; gives up one that is not.
    fn drop(&mut self) {
        if self.between_jobs.get() {
            self.go(None);
        } else {
            std::mem::forget(self.coroutine.get_mut().take());
        }
    }
}

thread_local! {
    /// Runners between jobs that no exploration has.
    #[expect(clippy::vec_box, reason = "a runner moves between the list and its place, and is large")]
    static IDLE: RefCell<Vec<Box<Runner>>> = const { RefCell::new(Vec::new()) };
}

/// An idle runner of this OS thread with such a stack, or a new one.
fn runner(bytes: usize) -> Box<Runner> {
    let idle = IDLE.with_borrow_mut(|idle| {
        let last = idle.iter().rposition(|runner| runner.bytes == bytes)?;
        Some(idle.swap_remove(last))
    });
    idle.unwrap_or_else(|| Box::new(Runner::new(bytes)))
}

/// The coroutines of one exploration on one OS thread, by context.
pub(crate) struct Runners {
    runners: [OnceCell<Box<Runner>>; MOST],
    /// The yielder of the coroutine that runs now; null while none does.
    running: Cell<*const Yielder>,
    /// The size of each stack.
    bytes: usize,
}

impl Runners {
    pub(crate) fn new(bytes: usize) -> Self {
        Runners {
            runners: [const { OnceCell::new() }; MOST],
            running: Cell::new(std::ptr::null()),
            bytes,
        }
    }

    /// Runs `job` as `id` until it suspends or ends; `true` if it ended. The name must live until
    /// it ends.
    #[inline]
    pub(crate) fn start(&self, id: CtxId, name: *const str, job: Job) -> bool {
        let runner = self.runners[id.index()].get_or_init(|| runner(self.bytes));
        runner.name.set(name);
        self.go(runner, Some(job))
    }

    /// The context at whose stack the address is, and how large that is.
    pub(crate) fn owner(&self, address: usize) -> Option<(*const str, usize)> {
        let runner = self
            .runners
            .iter()
            .filter_map(OnceCell::get)
            .find(|runner| runner.stack.contains(&address))?;
        Some((runner.name.get(), runner.bytes))
    }

    /// Goes on with the job of `id`, which suspended; `true` if it ended.
    #[inline(always)]
    pub(crate) fn resume(&self, id: CtxId) -> bool {
        self.go(self.runners[id.index()].get().expect("it was started"), None)
    }

    #[inline(always)]
    fn go(&self, runner: &Runner, job: Option<Job>) -> bool {
        let outer = self.running.replace(runner.yielder);
        let ended = runner.go(job);
        self.running.set(outer);
        ended
    }

    /// Whether `id` runs, or waits for somebody whom it has resumed.
    #[inline]
    pub(crate) fn is_entered(&self, id: CtxId) -> bool {
        self.runners[id.index()].get().is_some_and(|runner| runner.entered.get())
    }

    /// Returns whether a job runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.get().is_null()
    }

    /// Suspends the job that runs: goes back to whoever resumed it, until it is resumed again.
    #[inline(always)]
    pub(crate) fn suspend(&self) {
        let yielder = self.running.get();
        assert!(!yielder.is_null(), "only contexts suspend");
        // SAFETY: `go` set the pointer to the yielder of the coroutine that it switched to, and
        // takes it back when that one is left; so this runs on that coroutine's stack, on which the
        // yielder lives.
        unsafe { (*yielder).suspend(false) };
    }

    /// Gives up `id` if it is in the middle of its job: its stack and what lives on it are leaked.
    /// Whether it was.
    pub(crate) fn abandon(&mut self, id: CtxId) -> bool {
        let runner = &mut self.runners[id.index()];
        let busy = runner.get().is_some_and(|runner| !runner.between_jobs.get());
        if busy {
            runner.take();
        }
        busy
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        let runners = self
            .runners
            .iter_mut()
            .rev()
            .filter_map(OnceCell::take)
            .filter(|runner| runner.between_jobs.get());
        // At the end of the OS thread the list may be gone; then they end here.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            idle.retain(|runner| runner.bytes == self.bytes);
            let room = MOST - idle.len();
            idle.extend(runners.take(room));
        });
    }
}
