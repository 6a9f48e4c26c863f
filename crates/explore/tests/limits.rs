//! What ends a search early is named: in the report, and by `assert_exhausted`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Limit, Machine, Report, Schedules, Sim, Verdict};
use doorbell_platform::{Atomic, AtomicInt, Platform};

type Word = <Sim as Platform>::AtomicU64;

/// Tasks that each add to one word so many times.
fn adding(tasks: u32, times: u32) -> impl Fn(&Machine) + Send + Sync {
    move |m: &Machine| {
        let word = Arc::new(Word::new(0));
        for task in 0..tasks {
            let word = Arc::clone(&word);
            m.task(format!("task {task}"), move || {
                for _ in 0..times {
                    word.fetch_add(1, SeqCst);
                }
            });
        }
    }
}

/// What `assert_exhausted` says.
fn complaint(report: &Report) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| report.assert_exhausted()))
        .expect_err("it was not exhausted");
    panic.downcast_ref::<String>().expect("it has a text").clone()
}

#[track_caller]
fn ends_by(report: &Report, limit: Limit) {
    assert_eq!((report.verdict, report.limit), (Verdict::BoundReached, Some(limit)));
    assert!(
        complaint(report).starts_with(&format!("not exhausted: {limit}; ")),
        "{}",
        complaint(report)
    );
}

#[test]
fn each_limit_of_a_search_is_named_in_the_report_and_in_words() {
    for jobs in [1, 2] {
        let explore = Explore::new("adding").jobs(jobs);
        ends_by(&explore.clone().max_executions(10).run(adding(2, 8)), Limit::Executions(10));
        ends_by(&explore.clone().bound(Some(1)).run(adding(2, 3)), Limit::Preemptions(1));
        let budget = Duration::from_nanos(1);
        ends_by(&explore.clone().budget(Some(budget)).run(adding(2, 12)), Limit::Budget(budget));
        let stop = Arc::new(AtomicBool::new(true));
        ends_by(&explore.stop_when(stop).run(adding(2, 12)), Limit::Stopped);
    }
    let report = Explore::new("adding").max_executions(10).run(adding(2, 8));
    assert_eq!(
        complaint(&report),
        "not exhausted: the limit of 10 executions was reached; of 10 executions none failed"
    );
}

#[test]
fn a_search_that_runs_all_there_are_has_no_limit() {
    let report = Explore::new("adding").max_executions(20).bound(Some(9)).run(adding(2, 3));
    assert_eq!((report.verdict, report.limit, report.executions), (Verdict::Exhausted, None, 20));
}

#[test]
fn random_schedules_without_a_limit_end_at_one_that_is_stated_and_named() {
    for schedules in [Schedules::Uniform { seed: 1 }, Schedules::Priorities { seed: 1 }] {
        let report = Explore::new("adding").schedules(schedules).run(adding(1, 1));
        ends_by(&report, Limit::Samples(Explore::DEFAULT_SAMPLES));
        assert_eq!(report.executions, Explore::DEFAULT_SAMPLES);
    }
}

#[test]
fn random_schedules_with_a_limit_of_their_own_have_no_other() {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, runs) = (Arc::clone(&stop), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let explore = Explore::new("adding").schedules(Schedules::Uniform { seed: 1 }).stop_when(stop);
    let report = explore.run(move |m| {
        adding(1, 1)(m);
        flag.store(runs.fetch_add(1, Relaxed) > Explore::DEFAULT_SAMPLES, Relaxed);
    });
    ends_by(&report, Limit::Stopped);
    assert!(report.executions > Explore::DEFAULT_SAMPLES);
}

#[test]
fn a_budget_and_a_flag_hold_inside_of_one_long_execution() {
    let endless = || Explore::new("endless").max_steps(3_000_000);
    let budget = Duration::from_nanos(1);
    let report = endless().budget(Some(budget)).run(adding(1, u32::MAX));
    ends_by(&report, Limit::Budget(budget));
    assert!(report.steps < 100_000, "{} steps", report.steps);
    let stop = Arc::new(AtomicBool::new(false));
    let report = endless().stop_when(Arc::clone(&stop)).run(move |m: &Machine| {
        let stop = Arc::clone(&stop);
        let word = Word::new(0);
        m.task("task", move || {
            for times in 0u32.. {
                word.store(1, SeqCst);
                stop.store(times > 10_000, Relaxed);
            }
        });
    });
    ends_by(&report, Limit::Stopped);
    assert_eq!(report.executions, 0, "it did not come to its end");
    assert!(report.steps < 100_000, "{} steps", report.steps);
}

#[test]
fn a_run_that_is_short_is_finished_though_the_budget_is_spent() {
    let budget = Duration::from_nanos(1);
    let report = Explore::new("short").budget(Some(budget)).run(adding(1, 5_000));
    report.assert_exhausted();
}

#[test]
fn a_failing_run_is_told_though_the_budget_is_spent_by_then() {
    let report = Explore::new("fails").budget(Some(Duration::from_nanos(1))).run(|m: &Machine| {
        adding(1, 6_000)(m);
        m.at_quiescence("nothing", || Err("it never holds".to_owned()));
    });
    let failure = report.assert_found(FailureKind::Quiescence);
    assert_eq!((failure.trace.lines.len(), report.limit), (6_000, None));
}

#[test]
fn a_failing_run_says_how_it_is_run_again_from_a_test() {
    let report = Explore::new("fails").run(|m: &Machine| {
        m.task("task", || panic!("this is not to be"));
    });
    let token = &report.failure.as_ref().expect("it fails").token;
    let complaint = complaint(&report);
    assert!(
        complaint.contains(&format!("run it again with `Explore::replay(\"{token}\", …)`")),
        "{complaint}"
    );
    assert!(!complaint.contains("doorbell replay"), "{complaint}");
}
