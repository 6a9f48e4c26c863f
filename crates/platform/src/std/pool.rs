//! Worker threads.

use std::panic::{self, AssertUnwindSafe};
use std::sync::OnceLock;
use std::thread;

use super::Std;
use crate::{Platform, PoolQueue};

/// A work queue on a fixed number of threads, which end when its last handle (of the queue and of
/// its work) is gone and all that was queued is done. A panic in a piece of work is reported as
/// usual and costs no worker.
///
/// ```
/// use doorbell_platform::{StdWorkQueue, Work, WorkQueue};
/// use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// static RUNS: AtomicU32 = AtomicU32::new(0);
///
/// let queue = StdWorkQueue::new("doorbell", 2);
/// let work = queue.work("count", || {
///     RUNS.fetch_add(1, SeqCst);
/// });
/// work.queue();
/// work.flush();
/// assert_eq!(RUNS.load(SeqCst), 1);
/// ```
pub type StdWorkQueue = PoolQueue<Std>;

impl PoolQueue<Std> {
    /// Creates a queue with its own `workers` threads, which are called `name`.
    ///
    /// # Panics
    /// If `workers` is 0, or the system refuses a thread.
    pub fn new(name: &str, workers: usize) -> Self {
        assert!(workers > 0, "a work queue without workers does nothing");
        let (queue, worker) = PoolQueue::unmanned();
        for _ in 0..workers {
            let worker = worker.clone();
            // `run` returns when the pool is closed, and leaves the pool in order when work panics.
            let run =
                move || while panic::catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {};
            thread::Builder::new()
                .name(String::from(name))
                .spawn(run)
                .expect("the system refuses a thread");
        }
        queue
    }
}

/// How many workers the system queue has at most.
const SYSTEM_WORKERS: usize = 4;

pub(super) fn system() -> PoolQueue<Std> {
    static SYSTEM: OnceLock<PoolQueue<Std>> = OnceLock::new();
    SYSTEM
        .get_or_init(|| {
            PoolQueue::new("doorbell-system", (Std::cpu_count() as usize).clamp(2, SYSTEM_WORKERS))
        })
        .clone()
}
