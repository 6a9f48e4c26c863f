//! Work and workers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::Pool;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine};
use doorbell_platform::{Atomic, AtomicInt, Work, WorkQueue};

use crate::{explore, word};

#[test]
fn work_is_done_once_for_each_time_that_it_is_queued_while_it_is_not_queued() {
    let report = Explore::new("work").collect_outcomes().run(|m: &Machine| {
        let pool = Pool::new(m, "pool", 2);
        let word = word(0);
        let counts = Arc::clone(&word);
        let work = pool.work("work", move || {
            counts.fetch_add(1, SeqCst);
        });
        for name in ["one", "two"] {
            let work = work.clone();
            m.task(name, move || {
                work.queue();
            });
        }
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn flushed_work_has_run_and_cancelled_work_does_not_run_any_more() {
    let report = explore(|m| {
        let pool = Pool::new(m, "pool", 1);
        let word = word(0);
        let counts = Arc::clone(&word);
        let work = pool.work("work", move || {
            counts.fetch_add(1, SeqCst);
        });
        m.task("task", move || {
            work.queue();
            work.flush();
            assert_eq!(word.load(SeqCst), 1);
            work.queue();
            let cancelled = work.cancel();
            let runs = word.load(SeqCst);
            assert_eq!(runs, if cancelled { 1 } else { 2 });
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_worker_that_waits_for_work_of_its_own_pool_exhausts_it() {
    let report = explore(|m| {
        let pool = Pool::new(m, "pool", 1);
        let inner = pool.work("inner", || ());
        let outer = pool.work("outer", move || {
            inner.queue();
            inner.flush();
        });
        m.task("task", move || {
            outer.queue();
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.why.contains("pool/0"), "{}", failure.trace.why);
}
