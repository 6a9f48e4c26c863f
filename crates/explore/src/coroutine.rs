//! Pooled coroutines: one per context, used again by every execution of its OS thread.
//!
//! A coroutine sits in its loop between jobs. It is dropped only there; one that is stuck in the middle of a failing
//! run is leaked with its stack, because unwinding it would run the program's destructors in a state that the program
//! was never meant to see.
//!
//! The memory of a leaked stack is neither used again nor given back, though nobody runs on it any more. Others may point
//! into it: a task that waits in a `ParkWaitQueue` is a node on its own stack, and code under test may rely on `Pin` or on
//! a scope in the same way. They rightly take such a node to stay valid until its destructor has run. If what holds the
//! pointer outlives the run (a static, or an object that the program captured and did not create anew), the next run
//! follows it. So a failing run costs two mappings (the stack and its guard page) and a few touched pages for each
//! context that had not ended; `Executor` caps how many one search leaves.

use std::cell::Cell;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bytes of stack per context, beside the guard page.
pub(crate) const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce()>;

thread_local! {
    static YIELDER: Cell<*const Yielder<Option<Job>, bool>> = const { Cell::new(std::ptr::null()) };
}

/// A coroutine that runs one job after another.
pub(crate) struct Runner {
    coroutine: Coroutine<Option<Job>, bool, ()>,
    yielder: *const Yielder<Option<Job>, bool>,
    between_jobs: bool,
}

impl Runner {
    pub(crate) fn new() -> Self {
        let stack = DefaultStack::new(STACK_BYTES).unwrap_or_else(|error| {
            // A panic of this thread may be taken for one of explored code, and be silent.
            eprintln!("there is no memory for the stack of another context: {error}");
            panic!("there is no memory for the stack of another context: {error}")
        });
        let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<Option<Job>, bool>, _first| {
            YIELDER.set(yielder);
            loop {
                // `true`: between jobs. The next resume brings a job, or `None` to end.
                match yielder.suspend(true) {
                    Some(job) => job(),
                    None => return,
                }
            }
        });
        let _ = coroutine.resume(None);
        Runner { coroutine, yielder: YIELDER.get(), between_jobs: true }
    }

    /// Runs `job` until it suspends or ends; `true` if it ended.
    #[inline]
    pub(crate) fn start(&mut self, job: Job) -> bool {
        self.go(Some(job))
    }

    /// Goes on with the job that suspended; `true` if it ended.
    #[inline]
    pub(crate) fn resume(&mut self) -> bool {
        self.go(None)
    }

    #[inline]
    fn go(&mut self, job: Option<Job>) -> bool {
        YIELDER.set(self.yielder);
        self.between_jobs = match self.coroutine.resume(job) {
            CoroutineResult::Yield(between_jobs) => between_jobs,
            CoroutineResult::Return(()) => true,
        };
        self.between_jobs
    }

    /// Whether it is in the middle of a job.
    pub(crate) fn is_busy(&self) -> bool {
        !self.between_jobs
    }

    /// Gives up a coroutine in the middle of its job. Its stack and what lives on it are leaked.
    pub(crate) fn abandon(self) {
        std::mem::forget(self.coroutine);
    }

    /// Ends a coroutine that is between jobs; gives up one that is not.
    pub(crate) fn finish(mut self) {
        if self.between_jobs {
            let _ = self.coroutine.resume(None);
        } else {
            self.abandon();
        }
    }
}

/// Suspends the running job until its runner is resumed.
#[inline]
pub(crate) fn suspend() {
    let yielder = YIELDER.get();
    // SAFETY: only jobs call this, so a runner set the pointer to its own yielder before it switched to this stack;
    // the yielder lives on that stack as long as the coroutine does.
    unsafe { (*yielder).suspend(false) };
}
