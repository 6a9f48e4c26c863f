//! Ways to search, and to run a failure again.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Schedules};
use doorbell_platform::{Atomic, AtomicInt};

use crate::{ends_with, word};

/// Two increments of which one may be lost.
pub fn careless(m: &Machine) {
    let word = word(0);
    for name in ["one", "two"] {
        let word = Arc::clone(&word);
        m.task(name, move || {
            let value = word.load(SeqCst);
            word.store(value + 1, SeqCst);
        });
    }
    ends_with(m, &word, 2);
}

#[test]
fn a_token_replays_the_same_trace_a_thousand_times_and_is_refused_elsewhere() {
    use doorbell_explore::ReplayError;
    let explore = Explore::new("careless");
    let report = explore.run(careless);
    let failure = report.assert_found(FailureKind::Quiescence);
    assert!(failure.token.len() <= 80);
    for _ in 0..1000 {
        let mut again = explore.replay(&failure.token, careless).expect("the same program");
        again.trace.minimal = failure.trace.minimal;
        assert_eq!(again.trace, failure.trace);
    }
    let elsewhere = Explore::new("other").replay(&failure.token, careless);
    assert_eq!(elsewhere.unwrap_err(), ReplayError::OtherProgram);
    let stale = explore.replay(&failure.token, |m: &Machine| {
        m.task("one", || ());
    });
    assert_eq!(stale.unwrap_err(), ReplayError::Stale);
    for broken in ["", "db1-", "db1-!!!!", "nonsense", "db1-AAAA"] {
        assert_eq!(
            explore.replay(broken, careless).unwrap_err(),
            ReplayError::Malformed,
            "{broken:?}"
        );
    }
}

#[test]
fn every_way_to_search_finds_a_lost_update() {
    for schedules in [
        Schedules::Reduced,
        Schedules::All,
        Schedules::Uniform { seed: 1 },
        Schedules::Priorities { seed: 1 },
    ] {
        for jobs in [1, 2] {
            let report = Explore::new("careless")
                .schedules(schedules)
                .jobs(jobs)
                .max_executions(1000)
                .run(careless);
            report.assert_found(FailureKind::Quiescence);
        }
    }
}

#[test]
fn a_search_that_ends_early_says_so() {
    let report = Explore::new("early").max_executions(10).run(|m: &Machine| {
        let word = word(0);
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(name, move || {
                for _ in 0..8 {
                    word.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(report.verdict, doorbell_explore::Verdict::BoundReached);
    assert_eq!(report.executions, 10);
}
