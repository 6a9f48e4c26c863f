//! What queueing, flushing and cancelling mean, step by step, on threads that the test holds in its
//! hands.
#![cfg(feature = "std")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use doorbell_platform::{PoolQueue, PoolWork, Std, StdWorkQueue, Work, WorkQueue};

fn pool(workers: usize) -> (PoolQueue<Std>, Vec<JoinHandle<()>>) {
    let (queue, worker) = PoolQueue::unmanned();
    let start = || {
        let worker = worker.clone();
        thread::spawn(move || worker.run())
    };
    (queue, (0..workers).map(|_| start()).collect())
}

/// Work whose runs begin and end when the test says so.
struct Gated {
    work: PoolWork<Std>,
    begun: mpsc::Receiver<()>,
    gate: mpsc::Sender<()>,
    runs: Arc<AtomicUsize>,
}

fn gated(queue: &PoolQueue<Std>) -> Gated {
    let (begin, begun) = mpsc::channel();
    let (gate, opened) = mpsc::channel();
    let opened = std::sync::Mutex::new(opened);
    let runs = Arc::new(AtomicUsize::new(0));
    let ended = runs.clone();
    let work = queue.work("gated", move || {
        begin.send(()).unwrap();
        opened.lock().unwrap().recv().unwrap();
        ended.fetch_add(1, SeqCst);
    });
    Gated { work, begun, gate, runs }
}

#[test]
fn work_that_is_queued_twice_before_it_begins_runs_once() {
    let (queue, _workers) = pool(1);
    let blocker = gated(&queue);
    blocker.work.queue();
    blocker.begun.recv().unwrap();

    let runs = Arc::new(AtomicUsize::new(0));
    let work = queue.work("test", {
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, SeqCst);
        }
    });
    assert!(work.queue());
    assert!(!work.queue());
    blocker.gate.send(()).unwrap();
    work.flush();
    assert_eq!(runs.load(SeqCst), 1);
}

#[test]
fn work_that_is_queued_while_it_runs_runs_again_but_not_at_once() {
    let (queue, _workers) = pool(2);
    let it = gated(&queue);
    assert!(it.work.queue());
    it.begun.recv().unwrap();
    assert!(it.work.queue());
    assert!(!it.work.queue());
    // The other worker is idle, yet the second run does not begin.
    queue.work("other", || ()).flush();
    assert!(it.begun.try_recv().is_err());
    it.gate.send(()).unwrap();
    it.begun.recv().unwrap();
    it.gate.send(()).unwrap();
    it.work.flush();
    assert_eq!(it.runs.load(SeqCst), 2);
}

#[test]
fn cancel_takes_work_off_the_queue_and_it_can_be_queued_again() {
    let (queue, _workers) = pool(1);
    let blocker = gated(&queue);
    blocker.work.queue();
    blocker.begun.recv().unwrap();

    let it = gated(&queue);
    assert!(!it.work.cancel());
    it.work.queue();
    assert!(it.work.cancel());
    assert!(!it.work.cancel());
    it.work.flush(); // nothing is left to wait for, although the worker is busy
    blocker.gate.send(()).unwrap();
    blocker.work.flush();
    assert_eq!(it.runs.load(SeqCst), 0);

    assert!(it.work.queue());
    it.begun.recv().unwrap();
    it.gate.send(()).unwrap();
    it.work.flush();
    assert_eq!(it.runs.load(SeqCst), 1);
}

#[test]
fn cancel_waits_for_the_run_that_has_begun_and_drops_the_one_that_has_not() {
    let (queue, _workers) = pool(1);
    let it = gated(&queue);
    it.work.queue();
    it.begun.recv().unwrap();
    it.work.queue();
    thread::scope(|s| {
        let cancel = s.spawn(|| {
            let was_queued = it.work.cancel();
            (was_queued, it.runs.load(SeqCst) >= 1)
        });
        // It can be queued again as soon as `cancel` has taken it off the queue. That third run is
        // not waited for.
        while !it.work.queue() {
            thread::yield_now();
        }
        it.gate.send(()).unwrap();
        assert_eq!(
            cancel.join().unwrap(),
            (true, true),
            "it was queued, and the first run had ended"
        );
    });
    it.begun.recv().unwrap();
    it.gate.send(()).unwrap();
    it.work.flush();
    assert_eq!(it.runs.load(SeqCst), 2);
}

#[test]
fn flush_waits_for_the_runs_queued_before_it_and_not_for_later_ones() {
    let (queue, _workers) = pool(1);
    let it = gated(&queue);
    it.work.queue();
    it.begun.recv().unwrap();
    thread::scope(|s| {
        let flush = s.spawn(|| it.work.flush());
        it.gate.send(()).unwrap();
        flush.join().unwrap();
    });
    it.work.queue();
    it.begun.recv().unwrap();
    it.gate.send(()).unwrap();
    it.work.flush();
    assert_eq!(it.runs.load(SeqCst), 2);
}

#[test]
fn who_flushes_work_that_is_cancelled_need_not_wait_for_a_worker() {
    let (queue, _workers) = pool(1);
    let blocker = gated(&queue);
    blocker.work.queue();
    blocker.begun.recv().unwrap();
    let work = queue.work("test", || ());
    work.queue();
    thread::scope(|s| {
        let flush = s.spawn(|| work.flush());
        for _ in 0..1000 {
            thread::yield_now(); // lets it fall asleep, most of the time
        }
        assert!(work.cancel());
        flush.join().unwrap();
    });
    blocker.gate.send(()).unwrap();
}

#[test]
fn idle_workers_end_with_the_last_handle() {
    let (queue, workers) = pool(3);
    for _ in 0..1000 {
        thread::yield_now(); // lets them fall asleep, most of the time
    }
    drop(queue);
    workers.into_iter().for_each(|w| w.join().unwrap());
}

#[test]
fn queues_run_what_was_queued_first_in_order_on_one_worker() {
    let (queue, workers) = pool(1);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for n in 0..10 {
        let order = order.clone();
        queue.spawn("test", Box::new(move || order.lock().unwrap().push(n)));
    }
    drop(queue);
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[test]
fn workers_end_with_the_last_handle_and_not_before_the_queue_is_empty() {
    let (queue, workers) = pool(3);
    let runs = Arc::new(AtomicUsize::new(0));
    let work = queue.work("test", {
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, SeqCst);
        }
    });
    for _ in 0..100 {
        let runs = runs.clone();
        queue.spawn(
            "test",
            Box::new(move || {
                runs.fetch_add(1, SeqCst);
            }),
        );
    }
    drop(queue);
    assert!(work.queue(), "work is a handle too");
    drop(work);
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(runs.load(SeqCst), 101);
}

#[test]
fn what_work_owns_is_dropped_with_its_last_handle() {
    let (queue, _workers) = pool(1);
    let owned = Arc::new(());
    let work = queue.work("test", {
        let owned = owned.clone();
        move || drop(owned.clone())
    });
    let other = work.clone();
    work.queue();
    work.flush();
    drop(work);
    assert_eq!(Arc::strong_count(&owned), 2);
    drop(other);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn a_panic_in_work_costs_no_worker_and_ends_its_run() {
    let queue = StdWorkQueue::new("panics", 1);
    let panics = AtomicBool::new(true);
    let work = queue.work("test", move || {
        if panics.swap(false, SeqCst) {
            std::panic::resume_unwind(Box::new("a panic without a message"));
        }
    });
    work.queue();
    work.flush();
    assert!(work.queue(), "the first run has ended");
    work.flush();
}

#[test]
fn an_idle_loop_does_what_is_queued_and_knows_when_nothing_is_left() {
    let (queue, worker) = PoolQueue::<Std>::unmanned();
    let runs = Arc::new(AtomicUsize::new(0));
    let work: Vec<_> = [1, 10, 100]
        .map(|number| {
            let runs = Arc::clone(&runs);
            queue.work("idle", move || {
                runs.fetch_add(number, SeqCst);
            })
        })
        .into();
    assert!(!worker.has_work() && !worker.try_run(), "nothing is queued");
    work[2].queue();
    work[0].queue();
    assert!(worker.has_work() && worker.try_run());
    assert_eq!(runs.load(SeqCst), 100, "one at a time, in the order in which they were queued");
    assert!(worker.has_work() && worker.try_run());
    assert_eq!(runs.load(SeqCst), 101);
    assert!(!worker.has_work() && !worker.try_run());
    work[1].queue();
    assert!(work[1].cancel(), "what nobody has begun is cancelled");
    assert!(!worker.try_run());
    queue.spawn(
        "once",
        Box::new({
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(1_000, SeqCst);
            }
        }),
    );
    drop((queue, work));
    assert!(worker.try_run(), "what is queued runs also when the last handle is gone");
    assert_eq!(runs.load(SeqCst), 1_101);
}

#[test]
fn work_that_panics_leaves_try_run_and_the_pool_in_order() {
    let (queue, worker) = PoolQueue::<Std>::unmanned();
    let work = queue.work("panics", || panic!("as it must"));
    work.queue();
    let run = || worker.try_run();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    work.flush();
    assert!(!worker.try_run() && work.queue() && worker.has_work());
}
