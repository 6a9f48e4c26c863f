//! Searches that leave the stacks of contexts behind which wait for ever. They have a process of
//! their own.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Explore, Limit, Machine, Sim, Verdict, sim};
use doorbell_platform::{Atomic, AtomicInt, Platform};

/// Six tasks, which wait for ever in the end.
fn six_wait(m: &Machine) {
    let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
    let flag = Arc::new(sim::Model::new("flag", false));
    for task in 0..6 {
        let (word, flag) = (Arc::clone(&word), Arc::clone(&flag));
        m.task(format!("task {task}"), move || {
            word.fetch_add(1, SeqCst);
            flag.wait(|flag| *flag, |_| ());
        });
    }
}

#[test]
fn forty_searches_that_each_leave_stuck_stacks_end_by_name_and_not_for_want_of_mappings() {
    let mut limits: Vec<Limit> = Vec::new();
    for _ in 0..40 {
        let report = Explore::new("six wait").collect_outcomes().run(six_wait);
        assert_eq!(report.verdict, Verdict::BoundReached);
        limits.extend(report.limit);
    }
    let of_one_search =
        limits.iter().filter(|limit| matches!(limit, Limit::AbandonedStacks(1024))).count();
    let of_all =
        limits.iter().filter(|limit| matches!(limit, Limit::AbandonedByProcess(16_384))).count();
    assert_eq!((of_one_search, of_all), (15, 25));
    // What fails can still be told, and explored as far as it need be.
    let report = Explore::new("six wait").run(six_wait);
    report.assert_found(doorbell_explore::trace::FailureKind::Deadlock);
}
