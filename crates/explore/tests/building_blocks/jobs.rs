//! `PoolQueue`: every job that was queued runs once, one run at a time; `flush`, `cancel` and the
//! end of the pool keep what they promise.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{
    Atomic, AtomicInt, Completion, Lock, LockClass, ParkCompletion, ParkWaitQueue, PoolQueue,
    PoolWork, WaitQueue, WaitType, Work, WorkQueue,
};

use crate::host::{Host, Word, ends_with, word};

static JOBS: LockClass = LockClass::new("jobs", WaitType::Spin);

/// A piece of work on workers that return when its last handle is gone.
trait Job: Clone + 'static {
    fn set_up(m: &Machine, workers: usize, f: impl Fn() + Send + Sync + 'static) -> Self;
    fn queue(&self) -> bool;
    fn flush(&self);
    fn cancel(&self) -> bool;
}

/// A pool with workers.
fn pool(m: &Machine, workers: usize) -> PoolQueue<Host> {
    let (queue, worker) = PoolQueue::unmanned();
    for _ in 0..workers {
        let worker = worker.clone();
        m.task("worker", move || worker.run());
    }
    queue
}

impl Job for PoolWork<Host> {
    fn set_up(m: &Machine, workers: usize, f: impl Fn() + Send + Sync + 'static) -> Self {
        pool(m, workers).work("work", f)
    }
    fn queue(&self) -> bool {
        Work::queue(self)
    }
    fn flush(&self) {
        Work::flush(self);
    }
    fn cancel(&self) -> bool {
        Work::cancel(self)
    }
}

/// What a task does with the work.
#[derive(Clone, Copy)]
enum Does {
    Queue,
    QueueAndFlush,
    QueueAndCancel,
    Cancel,
}
use Does::*;

/// What is known of the runs.
struct Runs {
    begun: Word,
    ended: Word,
    queued: Word,
    cancelled: Word,
}

impl Runs {
    fn run(&self) {
        let begun = self.begun.fetch_add(1, SeqCst);
        assert_eq!(begun, self.ended.load(SeqCst), "two at once");
        self.ended.fetch_add(1, SeqCst);
    }
}

/// Each of `tasks` does that.
fn works<J: Job>(workers: usize, tasks: &'static [&'static [Does]]) -> Report {
    works_within::<J>(None, workers, tasks)
}

/// [`works`], under a bound on preemptions.
fn works_within<J: Job>(
    bound: Option<u32>,
    workers: usize,
    tasks: &'static [&'static [Does]],
) -> Report {
    Explore::new("work").bound(bound).run(move |m: &Machine| set_up::<J>(m, workers, tasks))
}

/// What takes the locks of a pool.
pub(crate) fn programs() -> Vec<Program> {
    vec![Program::new("work is queued", |m: &Machine| set_up::<PoolWork<Host>>(m, 1, &[&[Queue]]))]
}

fn set_up<J: Job>(m: &Machine, workers: usize, tasks: &'static [&'static [Does]]) {
    let runs = Runs {
        begun: Word::new(0),
        ended: Word::new(0),
        queued: Word::new(0),
        cancelled: Word::new(0),
    };
    let runs = Arc::new(runs);
    let inside = runs.clone();
    let job = J::set_up(m, workers, move || inside.run());
    // Then it knows what has to have run, and nobody queues anything behind its back.
    let alone = tasks.len() == 1;
    for &does in tasks {
        let (job, runs) = (job.clone(), runs.clone());
        m.task("user", move || {
            for does in does {
                let queues = !matches!(does, Cancel);
                if queues && job.queue() {
                    runs.queued.fetch_add(1, SeqCst);
                }
                match does {
                    Queue => {}
                    QueueAndFlush => {
                        job.flush();
                        if alone {
                            assert_eq!(
                                runs.ended.load(SeqCst),
                                runs.queued.load(SeqCst),
                                "flushed, not ended"
                            );
                        }
                    }
                    QueueAndCancel | Cancel => {
                        if job.cancel() {
                            runs.cancelled.fetch_add(1, SeqCst);
                        }
                        if alone {
                            assert_eq!(
                                runs.begun.load(SeqCst),
                                runs.ended.load(SeqCst),
                                "cancelled, and it runs"
                            );
                        }
                    }
                }
            }
        });
    }
    m.at_quiescence("what was queued and not cancelled has run once", move || {
        let [ended, queued, cancelled] =
            [&runs.ended, &runs.queued, &runs.cancelled].map(|word| word.load(SeqCst));
        if ended + cancelled == queued {
            Ok(())
        } else {
            Err(format!("{queued} times queued, {cancelled} times cancelled, {ended} runs"))
        }
    });
}

/// Insists that nothing fails within the bound.
#[track_caller]
fn assert_none_found(report: &Report) {
    if report.failure.is_some() {
        report.assert_exhausted();
    }
    assert!(
        report.bound.is_some() && report.executions > 500,
        "{} executions are too few",
        report.executions
    );
}

#[test]
fn a_worker_does_what_is_queued_once_and_flush_and_cancel_wait_for_it() {
    works::<PoolWork<Host>>(1, &[&[Queue]]).assert_exhausted();
    works::<PoolWork<Host>>(1, &[&[QueueAndFlush]]).assert_exhausted();
    works::<PoolWork<Host>>(1, &[&[QueueAndCancel]]).assert_exhausted();
    works::<PoolWork<Host>>(1, &[&[Queue], &[Cancel]]).assert_exhausted();
    works::<PoolWork<Host>>(1, &[&[Queue], &[Queue]]).assert_exhausted();
}

/// Too large to be exhausted.
#[test]
fn a_cancelled_run_is_not_flushed_for_ever_within_two_preemptions() {
    assert_none_found(&works_within::<PoolWork<Host>>(Some(2), 1, &[&[QueueAndFlush], &[Cancel]]));
}

/// Too large to be exhausted.
#[test]
fn two_workers_do_what_is_queued_once_within_two_preemptions() {
    assert_none_found(&works_within::<PoolWork<Host>>(Some(2), 2, &[&[Queue, Queue]]));
    assert_none_found(&works_within::<PoolWork<Host>>(Some(2), 2, &[&[QueueAndFlush]]));
    assert_none_found(&works_within::<PoolWork<Host>>(Some(2), 2, &[&[QueueAndCancel]]));
    assert_none_found(&works_within::<PoolWork<Host>>(Some(1), 2, &[&[Queue], &[Queue]]));
}

/// The first of two jobs waits for the second: a wake-up for the second must not end at the worker
/// of the first.
#[test]
fn a_second_job_wakes_a_second_worker_within_two_preemptions() {
    let report = Explore::new("two jobs").bound(Some(2)).run(|m: &Machine| {
        let queue = pool(m, 2);
        let (second, both) = (Arc::new(ParkCompletion::<Host>::new("second job")), word());
        ends_with(m, &both, 2);
        m.task("user", move || {
            let (waits, first) = (second.clone(), both.clone());
            queue.spawn(
                "first",
                Box::new(move || {
                    waits.wait();
                    first.fetch_add(1, SeqCst);
                }),
            );
            queue.spawn(
                "second",
                Box::new(move || {
                    both.fetch_add(1, SeqCst);
                    second.complete_all();
                }),
            );
        });
    });
    assert_none_found(&report);
}

/// As `PoolQueue`, of one piece of work.
struct Local<const FAULT: u8> {
    shared: Arc<Shared>,
}

struct Shared {
    job: Lock<Host, State>,
    more: ParkWaitQueue<Host>,
    settled: ParkWaitQueue<Host>,
}

#[derive(Clone, Copy)]
struct State {
    queued: bool,
    running: u32,
    handles: usize,
}

const NO_FAULT: u8 = 0;
/// Wakes, and then queues.
const WAKES_FIRST: u8 = 1;
/// Begins a run of what is running.
const RUNS_TWO_AT_ONCE: u8 = 2;
/// Waits until the work is not queued any more.
const WAITS_FOR_THE_BEGIN: u8 = 3;
/// Finds that it has to wake nobody, and then ends the run.
const ENDS_UNHEARD: u8 = 4;

impl<const FAULT: u8> Local<FAULT> {
    fn work(shared: &Shared, f: &dyn Fn()) {
        loop {
            let begins =
                |job: &State| job.queued && (job.running == 0 || FAULT == RUNS_TWO_AT_ONCE);
            let ends = |job: &State| job.handles == 0 && !job.queued;
            shared.more.wait_until(|| {
                let job = shared.job.lock_irqsave();
                begins(&job) || ends(&job)
            });
            let mut job = shared.job.lock_irqsave();
            if !begins(&job) {
                if ends(&job) {
                    return;
                }
                continue;
            }
            job.queued = false;
            job.running += 1;
            drop(job);
            f();
            if FAULT == ENDS_UNHEARD {
                shared.settled.wake_all();
            }
            shared.job.lock_irqsave().running -= 1;
            if FAULT != ENDS_UNHEARD {
                shared.settled.wake_all();
            }
            shared.more.wake_all();
        }
    }
}

impl<const FAULT: u8> Clone for Local<FAULT> {
    fn clone(&self) -> Self {
        self.shared.job.lock_irqsave().handles += 1;
        Local { shared: self.shared.clone() }
    }
}

impl<const FAULT: u8> Drop for Local<FAULT> {
    fn drop(&mut self) {
        self.shared.job.lock_irqsave().handles -= 1;
        self.shared.more.wake_all();
    }
}

impl<const FAULT: u8> Job for Local<FAULT> {
    fn set_up(m: &Machine, workers: usize, f: impl Fn() + Send + Sync + 'static) -> Self {
        let job = Lock::new(&JOBS, State { queued: false, running: 0, handles: 1 });
        let shared =
            Arc::new(Shared { job, more: ParkWaitQueue::EMPTY, settled: ParkWaitQueue::EMPTY });
        let f = Arc::new(f);
        for _ in 0..workers {
            let (shared, f) = (shared.clone(), f.clone());
            m.task("worker", move || Self::work(&shared, &*f));
        }
        Local { shared }
    }
    fn queue(&self) -> bool {
        if FAULT == WAKES_FIRST {
            self.shared.more.wake_all();
        }
        let queues = !std::mem::replace(&mut self.shared.job.lock_irqsave().queued, true);
        if FAULT != WAKES_FIRST {
            self.shared.more.wake_all();
        }
        queues
    }
    fn flush(&self) {
        self.shared.settled.wait_until(|| {
            let job = *self.shared.job.lock_irqsave();
            !job.queued && (job.running == 0 || FAULT == WAITS_FOR_THE_BEGIN)
        });
    }
    fn cancel(&self) -> bool {
        let cancelled = std::mem::take(&mut self.shared.job.lock_irqsave().queued);
        self.flush();
        cancelled
    }
}

#[test]
fn a_pool_that_wakes_ends_or_begins_out_of_order_breaks_its_promises() {
    works::<Local<NO_FAULT>>(1, &[&[QueueAndCancel]]).assert_exhausted();
    // Who flushes keeps its handle until then, so the end of the handle wakes nobody by chance.
    works::<Local<WAKES_FIRST>>(1, &[&[QueueAndFlush]]).assert_found(FailureKind::Deadlock);
    works::<Local<ENDS_UNHEARD>>(1, &[&[QueueAndFlush]]).assert_found(FailureKind::Deadlock);
    works::<Local<WAITS_FOR_THE_BEGIN>>(1, &[&[QueueAndFlush]]).assert_found(FailureKind::Panic);
    works::<Local<WAITS_FOR_THE_BEGIN>>(1, &[&[QueueAndCancel]]).assert_found(FailureKind::Panic);
    works_within::<Local<RUNS_TWO_AT_ONCE>>(Some(2), 2, &[&[Queue, Queue]])
        .assert_found(FailureKind::Panic);
}
