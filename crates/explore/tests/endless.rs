//! Runs without an end are told by the loop that they are in.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Schedules, Sim, render};
use doorbell_platform::{Atomic, AtomicInt, Lock, LockClass, Platform, WaitType};

type Word = <Sim as Platform>::AtomicU64;

static SPIN: LockClass = LockClass::new("spin", WaitType::Spin);

/// The first line of what is shown of the run.
#[track_caller]
fn first_line(report: &Report) -> String {
    let failure = report.assert_found(FailureKind::TooLong);
    let text = render::text(&failure.trace, &render::Options { width: 200, ..Default::default() });
    text.lines().next().expect("there is one").to_owned()
}

/// The first line of this file with that in it.
fn line_of(part: &str) -> usize {
    include_str!("endless.rs")
        .lines()
        .position(|line| line.trim() == part)
        .expect("it is in this file")
        + 1
}

/// A task that looks at a flag which another one sets, without `cpu_relax`; before the loop it does
/// something else.
fn looks_for_ever(m: &Machine) {
    let flag = Arc::new(Word::new(0));
    let (sets, other) = (Arc::clone(&flag), Word::new(0));
    m.task("looker", move || {
        other.fetch_add(1, SeqCst);
        while flag.load(SeqCst) == 0 {}
    });
    m.task("setter", move || sets.store(1, SeqCst));
}

#[test]
fn a_loop_that_forgets_cpu_relax_is_named_with_its_line_in_the_first_line() {
    let line = line_of("while flag.load(SeqCst) == 0 {}");
    let report = Explore::new("endless").run(looks_for_ever);
    let said = format!(
        "a loop at crates/explore/tests/endless.rs:{line} takes steps for ever: does it call `cpu_relax`? (looker; the run \
         has not ended after 20000 steps)"
    );
    assert_eq!(first_line(&report), said);
    let again =
        Explore::new("endless").replay(&report.failure.expect("it fails").token, looks_for_ever);
    assert_eq!(again.expect("it fails again").trace.why, said);
}

#[test]
fn a_loop_with_steps_at_several_lines_is_told_by_the_first_of_them() {
    let line = line_of("let value = lock.lock();");
    let report = Explore::new("endless").run(|m: &Machine| {
        let (lock, other) = (Arc::new(Lock::<Sim, u64>::new(&SPIN, 0)), Word::new(0));
        m.task("polls", move || {
            let mut done = false;
            while !done {
                let value = lock.lock();
                done = *value == 1;
                drop(value);
                if other.load(SeqCst) == 1 {
                    break;
                }
            }
        });
    });
    let said = format!("a loop at crates/explore/tests/endless.rs:{line} ");
    assert!(first_line(&report).starts_with(&said), "{}", first_line(&report));
}

#[test]
fn a_loop_that_does_call_cpu_relax_is_asked_something_else() {
    let report = Explore::new("endless").run(|m: &Machine| {
        let word = Arc::new(Word::new(0));
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(name, move || {
                while word.fetch_add(2, SeqCst).is_multiple_of(2) {
                    Sim::cpu_relax();
                }
            });
        }
    });
    assert!(
        first_line(&report).contains(" takes steps for ever, though it calls `cpu_relax`: "),
        "{}",
        first_line(&report)
    );
}

#[test]
fn random_schedules_without_an_end_are_told_and_replayed() {
    for schedules in [Schedules::Uniform { seed: 3 }, Schedules::Priorities { seed: 3 }] {
        let explore = Explore::new("endless").schedules(schedules).max_steps(4_000);
        let program = |m: &Machine| {
            let flag = Arc::new(Word::new(0));
            for name in ["one", "two"] {
                let flag = Arc::clone(&flag);
                m.task(name, move || while flag.load(SeqCst) == 0 {});
            }
        };
        let report = explore.run(program);
        assert!(first_line(&report).starts_with("a loop at crates/explore/tests/endless.rs:"));
        let token = &report.failure.as_ref().expect("it fails").token;
        assert!(token.len() <= 80, "{token}");
        assert_eq!(
            explore.replay(token, program).expect("it fails again").kind,
            FailureKind::TooLong
        );
    }
}
