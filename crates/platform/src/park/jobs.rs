//! The bookkeeping of a pool: which jobs there are, are queued, run. Plain data, behind the pool's
//! lock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a run calls.
pub(super) enum Job {
    Often(Arc<dyn Fn() + Send + Sync>),
    Once(Box<dyn FnOnce() + Send>),
}

impl Job {
    pub(super) fn run(self) {
        match self {
            Job::Often(f) => f(),
            Job::Once(f) => f(),
        }
    }
}

/// A job and where it stands. `queued` and `running` hold the number of the run; runs of a job are
/// numbered from 1.
struct Slot {
    job: Option<Job>,
    queued: Option<u64>,
    running: Option<u64>,
    issued: u64,
    /// Somebody may still queue it.
    owned: bool,
    prev: Option<usize>,
    next: Option<usize>,
}

/// The jobs of a pool. The queue is a list of indices into `slots`, so that queueing and cancelling
/// neither search nor allocate. A job that runs is not in the list, also when it is queued again:
/// it is appended when the run ends, hence never runs twice at once.
#[derive(Default)]
pub(super) struct Jobs {
    slots: Vec<Slot>,
    free: Vec<usize>,
    head: Option<usize>,
    tail: Option<usize>,
    closed: bool,
}

impl Jobs {
    /// A job that is not queued.
    pub(super) fn add(&mut self, job: Job) -> usize {
        let slot = Slot {
            job: Some(job),
            queued: None,
            running: None,
            issued: 0,
            owned: true,
            prev: None,
            next: None,
        };
        match self.free.pop() {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                // Room for all of them, so that freeing one never allocates.
                self.free.reserve(self.slots.len());
                self.slots.len() - 1
            }
        }
    }

    /// A job that nobody will queue again.
    pub(super) fn add_queued(&mut self, job: Job) {
        let index = self.add(job);
        self.queue(index);
        self.slots[index].owned = false;
    }

    /// Queues a job unless it is queued.
    pub(super) fn queue(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        if slot.queued.is_some() {
            return false;
        }
        slot.issued += 1;
        slot.queued = Some(slot.issued);
        if slot.running.is_none() {
            self.link(index);
        }
        true
    }

    /// Takes a job off the queue; `false` if it was not there.
    pub(super) fn cancel(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let queued = slot.queued.take().is_some();
        if queued && slot.running.is_none() {
            self.unlink(index);
        }
        queued
    }

    /// The number of the run that was queued last.
    pub(super) fn issued(&self, index: usize) -> u64 {
        self.slots[index].issued
    }

    /// Whether the runs up to number `upto` have ended or will never begin.
    pub(super) fn is_settled(&self, index: usize, upto: u64) -> bool {
        let slot = &self.slots[index];
        ![slot.queued, slot.running].into_iter().flatten().any(|run| run <= upto)
    }

    /// Begins a run of the first job in the queue.
    pub(super) fn begin(&mut self) -> Option<(usize, Job)> {
        let index = self.head?;
        self.unlink(index);
        let slot = &mut self.slots[index];
        slot.running = slot.queued.take();
        let job = match slot.job.take()? {
            Job::Often(f) => {
                slot.job = Some(Job::Often(f.clone()));
                Job::Often(f)
            }
            once => once,
        };
        Some((index, job))
    }

    /// Ends the run of a job. Returns what is to be dropped when the lock is gone.
    pub(super) fn end(&mut self, index: usize) -> Option<Job> {
        let slot = &mut self.slots[index];
        slot.running = None;
        if slot.queued.is_some() {
            self.link(index);
        }
        self.reap(index)
    }

    /// Says that nobody will queue the job again. Returns what is to be dropped when the lock is
    /// gone.
    pub(super) fn disown(&mut self, index: usize) -> Option<Job> {
        self.slots[index].owned = false;
        self.reap(index)
    }

    fn reap(&mut self, index: usize) -> Option<Job> {
        let slot = &mut self.slots[index];
        if slot.owned || slot.queued.is_some() || slot.running.is_some() {
            return None;
        }
        self.free.push(index);
        slot.job.take()
    }

    /// Whether a run could begin.
    pub(super) fn has_queued(&self) -> bool {
        self.head.is_some()
    }

    /// Says that nothing will be added or queued any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether the pool is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    fn link(&mut self, index: usize) {
        self.slots[index].prev = self.tail;
        self.slots[index].next = None;
        match self.tail {
            Some(tail) => self.slots[tail].next = Some(index),
            None => self.head = Some(index),
        }
        self.tail = Some(index);
    }

    fn unlink(&mut self, index: usize) {
        let (prev, next) = (self.slots[index].prev, self.slots[index].next);
        match prev {
            Some(prev) => self.slots[prev].next = next,
            None => self.head = next,
        }
        match next {
            Some(next) => self.slots[next].prev = prev,
            None => self.tail = prev,
        }
    }
}
