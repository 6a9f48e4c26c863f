//! Waiting: retry loops, sequence counters, timeouts, wait queues, joins, modelled objects.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Model, SimCompletion};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim, spawn};
use doorbell_platform::{
    Atomic, AtomicInt, Completion, Lock, Mutex, Platform, SeqWords, WaitQueue,
};

use crate::{MUTEX, SPIN, explore, word};

#[test]
fn a_retry_loop_waits_for_a_write_to_what_it_reads() {
    let report = explore(|m| {
        let flag = word(0);
        let other = Arc::clone(&flag);
        m.task("spins", move || {
            while flag.load(SeqCst) == 0 {
                Sim::cpu_relax();
            }
        });
        m.task("sets", move || other.store(1, SeqCst));
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 2, "the flag is set before the first look, or after it");
}

#[test]
fn a_retry_loop_for_a_write_that_never_comes_is_a_deadlock() {
    let report = explore(|m| {
        let flag = word(0);
        m.task("spins", move || {
            while flag.load(SeqCst) == 0 {
                Sim::cpu_relax();
            }
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.why.contains("nobody is left"), "{}", failure.trace.why);
}

#[test]
fn a_retry_loop_waits_for_what_its_first_attempt_changed_and_saw() {
    let report = explore(|m| {
        let (turn, unrelated) = (word(0), word(0));
        let mine = Arc::clone(&turn);
        m.task("waits", move || {
            unrelated.load(SeqCst);
            // The attempt writes, and what it has seen is all that the loop has read so far.
            let mut seen = mine.fetch_add(0x100, SeqCst);
            while seen & 0xff == 0 {
                Sim::cpu_relax();
                seen = mine.load(SeqCst);
            }
        });
        m.task("lets it go on", move || {
            turn.fetch_add(1, SeqCst);
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_retry_loop_that_looks_under_a_lock_waits_for_others_to_take_it() {
    let report = explore(|m| {
        let (done, unrelated) = (Arc::new(Lock::<Sim, bool>::new(&SPIN, false)), word(0));
        let looks = Arc::clone(&done);
        m.task("spins", move || {
            unrelated.load(SeqCst);
            while !*looks.lock() {
                Sim::cpu_relax();
            }
        });
        m.task("sets", move || *done.lock() = true);
    });
    report.assert_exhausted();
}

#[test]
fn words_under_a_sequence_counter_are_never_torn() {
    let report = explore(|m| {
        let words = Arc::new(SeqWords::<Sim, 2>::new([0, 0]));
        let lock = Lock::<Sim, ()>::new(&SPIN, ());
        let writes = Arc::clone(&words);
        m.task("writer", move || {
            let guard = lock.lock_irqsave();
            writes.write(&guard, [1, 1]);
        });
        m.task("reader", move || {
            let [first, second] = words.read();
            assert_eq!(first, second);
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_timeout_strikes_only_where_the_scope_allows_it() {
    for timeouts in [0, 1] {
        let report = Explore::new("timeout").collect_outcomes().run(move |m: &Machine| {
            m.timeouts(timeouts);
            let done = Arc::new(SimCompletion::new("done"));
            let completes = Arc::clone(&done);
            let word = word(0);
            let outcome = Arc::clone(&word);
            m.task("waits", move || word.store(1 + u64::from(done.wait_timeout()), SeqCst));
            m.task("completes", move || completes.complete_all());
            m.outcome(move || outcome.load(SeqCst).to_string());
        });
        let expected: &[&str] = if timeouts == 0 { &["2"] } else { &["1", "2"] };
        assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_wait_queue_misses_no_change_that_is_followed_by_a_wake_up() {
    let report = explore(|m| {
        let flag = word(0);
        let queue = Arc::new(<Sim as Platform>::WaitQueue::new("queue"));
        let (sets, wakes) = (Arc::clone(&flag), Arc::clone(&queue));
        m.task("waits", move || queue.wait_until(|| flag.load(SeqCst) == 1));
        m.task("wakes", move || {
            sets.store(1, SeqCst);
            wakes.wake_all();
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_stuck_set_ends_the_run_though_others_could_go_on() {
    let report = explore(|m| {
        let locks: Arc<[Mutex<Sim, ()>; 2]> =
            Arc::new(std::array::from_fn(|_| Mutex::new(&MUTEX, ())));
        for seat in 0..2 {
            let locks = Arc::clone(&locks);
            m.task("stuck", move || {
                let _first = locks[seat].lock();
                let _second = locks[1 - seat].lock();
            });
        }
        let word = word(0);
        m.task("goes on", move || {
            for _ in 0..1000 {
                word.fetch_add(1, SeqCst);
            }
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.lines.len() < 10, "{} lines", failure.trace.lines.len());
}

#[test]
fn a_join_comes_after_everything_that_the_task_did() {
    let report = explore(|m| {
        let word = word(0);
        m.task("parent", move || {
            let child = Arc::clone(&word);
            let task = spawn("child", move || child.store(1, SeqCst));
            task.join();
            assert_eq!(word.load(SeqCst), 1);
        });
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 1);
}

#[test]
fn a_modelled_object_is_used_in_single_steps() {
    let report = explore(|m| {
        let queue = Arc::new(Model::new("queue", Vec::new()));
        let takes = Arc::clone(&queue);
        m.task("producer", move || {
            for item in 0..3 {
                queue.change(|queue| queue.push(item));
            }
        });
        m.task("consumer", move || {
            for item in 0..3 {
                assert_eq!(takes.take(|queue| !queue.is_empty(), |queue| queue.remove(0)), item);
            }
        });
    });
    report.assert_exhausted();
}
