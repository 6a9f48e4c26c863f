//! A pool of workers for deferred work.
//!
//! ```text
//!   any context                       a worker
//!   lock: job := queued               lock: takes a job, and sees whether more are left
//!   wakes one worker                  wakes another one if so
//!                                     runs the job, without the lock
//!                                     lock: the job has settled; wakes who flushes or cancels it
//! ```
//!
//! A wake-up may hit a worker that was about to look anyway, while another one sleeps; so a worker
//! that leaves work behind passes the wake-up on. A job runs on one worker at a time: one that is
//! queued while it runs is queued again when its run ends, and the end wakes a worker for it, since
//! a panic may have ended this worker. Flushing waits for the runs that were asked for before, by
//! number, and not for those that came since.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::ParkWaitQueue;
use super::jobs::{Job, Jobs};
use crate::{Lock, LockClass, Platform, WaitQueue, WaitType, Work, WorkQueue};

pub(crate) static POOL: LockClass = LockClass::new("platform.pool", WaitType::Spin).leaf();

/// A work queue whose workers are tasks of the host: create it with
/// [`unmanned`](PoolQueue::unmanned), and let as many tasks as there shall be workers call
/// [`Worker::run`].
///
/// Queueing allocates nothing, takes one spin lock with interrupts off, and may be done in any
/// context. Creating work and [`spawn`](WorkQueue::spawn) allocate.
///
/// When the last handle (of the queue and of its work) is gone, the workers do what is queued and
/// return.
pub struct PoolQueue<P: Platform> {
    handle: Arc<Handle<P>>,
}

crate::opaque_debug!([P: Platform] PoolQueue<P>);

impl<P: Platform> Clone for PoolQueue<P> {
    fn clone(&self) -> Self {
        PoolQueue { handle: self.handle.clone() }
    }
}

/// What queues and work share; workers do not, so that they notice its end.
struct Handle<P: Platform> {
    pool: Arc<Pool<P>>,
}

impl<P: Platform> Drop for Handle<P> {
    fn drop(&mut self) {
        self.pool.jobs.lock_irqsave().close();
        self.pool.more.wake_all();
    }
}

struct Pool<P: Platform> {
    jobs: Lock<P, Jobs>,
    /// Workers wait here for something to do.
    more: ParkWaitQueue<P>,
    /// Those who flush and cancel wait here for the end of a run.
    settled: ParkWaitQueue<P>,
}

impl<P: Platform> PoolQueue<P> {
    /// Creates a pool without workers, and what makes a task one of them.
    pub fn unmanned() -> (Self, Worker<P>) {
        let pool = Arc::new(Pool {
            jobs: Lock::new(&POOL, Jobs::default()),
            more: ParkWaitQueue::EMPTY,
            settled: ParkWaitQueue::EMPTY,
        });
        (PoolQueue { handle: Arc::new(Handle { pool: pool.clone() }) }, Worker { pool })
    }
}

impl<P: Platform> WorkQueue for PoolQueue<P> {
    type Work = PoolWork<P>;

    #[track_caller]
    fn work(&self, _name: &'static str, f: impl Fn() + Send + Sync + 'static) -> PoolWork<P> {
        let job = Job::Often(Arc::new(f));
        let index = self.handle.pool.jobs.lock_irqsave().add(job);
        PoolWork { entry: Arc::new(Entry { handle: self.handle.clone(), index }) }
    }

    #[track_caller]
    fn spawn(&self, _name: &'static str, f: Box<dyn FnOnce() + Send + 'static>) {
        P::assert_no_leaf("queues work");
        let pool = &self.handle.pool;
        pool.jobs.lock_irqsave().add_queued(Job::Once(f));
        pool.more.wake_one();
    }
}

/// A piece of work of a [`PoolQueue`].
///
/// Neither [`flush`](Work::flush) nor [`cancel`](Work::cancel) may be called by the work itself:
/// they would wait for themselves. Work that is dropped while it is queued still runs.
pub struct PoolWork<P: Platform> {
    entry: Arc<Entry<P>>,
}

crate::opaque_debug!([P: Platform] PoolWork<P>);

impl<P: Platform> Clone for PoolWork<P> {
    fn clone(&self) -> Self {
        PoolWork { entry: self.entry.clone() }
    }
}

struct Entry<P: Platform> {
    handle: Arc<Handle<P>>,
    index: usize,
}

impl<P: Platform> Drop for Entry<P> {
    fn drop(&mut self) {
        let job = self.handle.pool.jobs.lock_irqsave().disown(self.index);
        drop(job); // without the lock: what a closure owns may do anything when dropped
    }
}

impl<P: Platform> Work for PoolWork<P> {
    #[track_caller]
    fn queue(&self) -> bool {
        P::assert_no_leaf("queues work");
        let Entry { handle, index } = &*self.entry;
        let queued = handle.pool.jobs.lock_irqsave().queue(*index);
        if queued {
            handle.pool.more.wake_one();
        }
        queued
    }

    #[track_caller]
    fn flush(&self) {
        let Entry { handle, index } = &*self.entry;
        let Pool { jobs, settled, .. } = &*handle.pool;
        let upto = jobs.lock_irqsave().issued(*index);
        settled.wait_until(|| jobs.lock_irqsave().is_settled(*index, upto));
    }

    #[track_caller]
    fn cancel(&self) -> bool {
        let Entry { handle, index } = &*self.entry;
        let Pool { jobs, settled, .. } = &*handle.pool;
        let mut guard = jobs.lock_irqsave();
        let upto = guard.issued(*index);
        let cancelled = guard.cancel(*index);
        drop(guard);
        if cancelled {
            settled.wake_all(); // who flushes it need not wait any more
        }
        settled.wait_until(|| jobs.lock_irqsave().is_settled(*index, upto));
        cancelled
    }
}

/// Makes a task a worker of a [`PoolQueue`].
pub struct Worker<P: Platform> {
    pool: Arc<Pool<P>>,
}

crate::opaque_debug!([P: Platform] Worker<P>);

impl<P: Platform> Clone for Worker<P> {
    fn clone(&self) -> Self {
        Worker { pool: self.pool.clone() }
    }
}

impl<P: Platform> Worker<P> {
    /// Does the pool's work until its last handle is gone and nothing is queued.
    ///
    /// If a piece of work panics and the host unwinds, the panic leaves this call; the pool stays
    /// in order, and `run` may be called again.
    pub fn run(&self) {
        let Pool { jobs, more, .. } = &*self.pool;
        loop {
            let next = self.next();
            if let Some(begun) = next.begun {
                self.run_one(begun, next.left);
            } else if next.closed {
                return;
            } else {
                more.wait_until(|| {
                    let jobs = jobs.lock_irqsave();
                    jobs.has_queued() || jobs.is_closed()
                });
            }
        }
    }

    /// Does one piece of the pool's work, if any is queued. Returns whether there was one.
    ///
    /// An idle loop that is no task, and so cannot [`run`](Worker::run), calls this until nothing
    /// is left, turns interrupts off, and waits for an interrupt only if
    /// [`has_work`](Worker::has_work) says no: whatever an interrupt of this CPU queues is seen so.
    /// Nobody wakes an idle loop for work that another CPU queues, as a worker that sleeps is woken;
    /// a host that has only such loops sends that CPU an IPI after it has queued something.
    ///
    /// # Context
    /// Any task, or an idle loop; sleeps if the work does.
    pub fn try_run(&self) -> bool {
        let next = self.next();
        let Some(begun) = next.begun else { return false };
        self.run_one(begun, next.left);
        true
    }

    /// Says whether anything is queued that no worker has begun.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn has_work(&self) -> bool {
        self.pool.jobs.lock_irqsave().has_queued()
    }

    /// Begins the work that is next.
    fn next(&self) -> Next {
        let mut guard = self.pool.jobs.lock_irqsave();
        let begun = guard.begin();
        Next { begun, closed: guard.is_closed(), left: guard.has_queued() }
    }

    /// Runs work that has begun. If more is left, another worker is woken for it first.
    fn run_one(&self, (index, job): (usize, Job), left: bool) {
        if left {
            // The wake-up for it may have hit this worker, which was about to look anyway.
            self.pool.more.wake_one();
        }
        let end = End { pool: &self.pool, index };
        job.run();
        drop(end);
    }
}

/// What a worker finds.
struct Next {
    begun: Option<(usize, Job)>,
    closed: bool,
    /// More is queued.
    left: bool,
}

/// Ends a run, also one that panics.
struct End<'a, P: Platform> {
    pool: &'a Pool<P>,
    index: usize,
}

impl<P: Platform> Drop for End<'_, P> {
    fn drop(&mut self) {
        let job = self.pool.jobs.lock_irqsave().end(self.index);
        drop(job);
        self.pool.settled.wake_all();
        // Work that was queued again while it ran is in the queue only now. This worker would come
        // to it, but it may be on its way out with a panic.
        self.pool.more.wake_one();
    }
}
