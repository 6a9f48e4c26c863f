//! Values that the search chooses, exchanges that fail and tasks that wake up for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_explore::sim::choose;
use doorbell_explore::sync::atomic::{AtomicPtr, AtomicU32};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Schedules, Sim, Verdict, render, spawn};
use doorbell_platform::Platform;

/// Two tasks choose and add; what comes out is both choices and the order of the first.
fn chooses_twice(m: &Machine) {
    let word = Arc::new(AtomicU32::new(0));
    for task in 0..2 {
        let word = Arc::clone(&word);
        m.task(format!("{task}"), move || {
            let first = choose(2) as u32;
            word.fetch_add(1 + first, SeqCst);
            let second = choose(3) as u32;
            if second > 0 {
                word.fetch_update(SeqCst, SeqCst, |word| Some(word * 10 + second)).expect("some");
            }
        });
    }
    m.outcome(move || word.load(SeqCst).to_string());
}

fn outcomes(explore: Explore) -> BTreeSet<String> {
    let report = explore.collect_outcomes().run(chooses_twice);
    assert_eq!(report.verdict, Verdict::Exhausted);
    report.outcomes
}

#[test]
fn each_value_is_chosen_once() {
    let report = Explore::new("values").collect_outcomes().run(|m| {
        let word = Arc::new(AtomicU32::new(0));
        let chosen = Arc::clone(&word);
        m.task("chooses", move || {
            let value = choose(64) as u32;
            chosen.store(value, SeqCst);
        });
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!((report.executions, report.outcomes.len()), (64, 64));
}

#[test]
fn the_reduction_a_bound_and_several_threads_find_what_all_schedules_find() {
    let all = outcomes(Explore::new("all").schedules(Schedules::All));
    assert!(all.len() > 20, "{all:?}");
    assert_eq!(outcomes(Explore::new("reduced")), all);
    assert_eq!(outcomes(Explore::new("jobs").jobs(2)), all);
    for bound in 0..3 {
        let explore = |schedules| {
            let explore = Explore::new("bound").schedules(schedules).bound(Some(bound));
            explore.collect_outcomes().run(chooses_twice).outcomes
        };
        assert_eq!(explore(Schedules::Reduced), explore(Schedules::All), "bound {bound}");
    }
}

#[test]
fn as_many_executions_are_run_as_are_not_equivalent() {
    let explore = Explore::new("traces").collect_outcomes().count_traces();
    let reduced = explore.clone().run(chooses_twice);
    let all = explore.schedules(Schedules::All).run(chooses_twice);
    assert_eq!(Some(reduced.executions), all.traces);
    assert!(all.executions > reduced.executions);
}

#[test]
fn samples_choose_too() {
    let seen = Arc::new(AtomicU64::new(0));
    for schedules in [Schedules::Uniform { seed: 1 }, Schedules::Priorities { seed: 1 }] {
        let all = Arc::clone(&seen);
        Explore::new("samples").schedules(schedules).max_executions(200).run(move |m| {
            let seen = Arc::clone(&all);
            m.task("chooses", move || _ = seen.fetch_or(1 << choose(3), Relaxed));
        });
        assert_eq!(seen.swap(0, Relaxed), 0b111, "{schedules:?}");
    }
}

#[test]
fn a_failing_choice_is_told_minimised_and_replayed_by_its_token() {
    let program = |m: &Machine| {
        let word = Arc::new(AtomicU32::new(0));
        let other = Arc::clone(&word);
        m.task("chooses", move || {
            for _ in 0..3 {
                if choose(5) == 3 {
                    word.fetch_add(1, SeqCst);
                }
            }
            word.store(9, SeqCst);
        });
        m.task("looks", move || assert_ne!(other.load(SeqCst), 2, "it was twice"));
    };
    let explore = Explore::new("token");
    let report = explore.run(program);
    let failure = report.assert_found(FailureKind::Panic);
    let page = render::text(&failure.trace, &render::Options::default());
    assert_eq!(page.matches("gets 3 of 0 to 4").count(), 2, "{page}");
    assert!(failure.trace.preemptions == 1 && failure.trace.minimal, "{page}");
    let again = explore.replay(&failure.token, program).expect("it fails again");
    assert_eq!(again.trace.lines, failure.trace.lines);
}

#[test]
fn a_context_may_choose_before_its_first_step_and_after_its_last() {
    let report = Explore::new("ends").collect_outcomes().run(|m| {
        let log = Arc::new(AtomicU32::new(0));
        let all = Arc::clone(&log);
        m.task("parent", move || {
            let child = spawn("child", || choose(2) as u32 * 10 + choose(2) as u32);
            let first = choose(2) as u32;
            all.store(first * 100 + child.join(), SeqCst);
        });
        m.outcome(move || log.load(SeqCst).to_string());
    });
    let expected = ["0", "1", "10", "11", "100", "101", "110", "111"];
    assert_eq!(report.outcomes, expected.map(str::to_owned).into());
    assert_eq!(report.executions, 8);
}

#[test]
fn a_context_that_chooses_for_ever_is_a_failure() {
    let report = Explore::new("for ever").max_steps(100).run(|m| {
        m.task("chooses", || while choose(2) == 0 {});
    });
    report.assert_found(FailureKind::TooLong);
}

#[test]
fn the_set_up_chooses_nothing() {
    let explored = std::panic::catch_unwind(|| Explore::new("set-up").run(|_| _ = choose(2)));
    assert!(explored.is_err());
}

/// A task takes a word, or a pointer, by one weak exchange.
fn takes_weakly(m: &Machine) {
    let here: *mut u8 = Box::leak(Box::new(0));
    let (word, pointer) = (AtomicU32::new(0), AtomicPtr::new(here));
    m.task("takes", move || {
        let word = word.compare_exchange_weak(0, 1, SeqCst, SeqCst);
        let pointer = pointer.compare_exchange_weak(here, here, SeqCst, SeqCst);
        assert_eq!((word, pointer), (Ok(0), Ok(here)));
    });
}

#[test]
fn a_weak_exchange_fails_for_nothing_only_if_that_is_asked_for() {
    let report = Explore::new("strong").run(takes_weakly);
    report.assert_exhausted();
    assert_eq!(report.executions, 1);
    let report = Explore::new("weak").spurious_exchanges(1).run(takes_weakly);
    let failure = report.assert_found(FailureKind::Panic);
    let page = render::text(&failure.trace, &render::Options::default());
    assert!(page.contains("exchanges nothing, for nothing"), "{page}");
}

#[test]
fn a_loop_over_a_weak_exchange_is_right_however_often_it_fails() {
    let program = |m: &Machine| {
        let word = Arc::new(AtomicU32::new(0));
        for task in 0..2 {
            let word = Arc::clone(&word);
            m.task(format!("{task}"), move || {
                word.fetch_update(SeqCst, SeqCst, |word| Some(word + 1)).expect("always");
            });
        }
        m.at_quiescence("both have counted", move || match word.load(SeqCst) {
            2 => Ok(()),
            other => Err(format!("it is {other}")),
        });
    };
    let strong = Explore::new("strong").run(program);
    strong.assert_exhausted();
    let weak = Explore::new("weak").spurious_exchanges(2).run(program);
    weak.assert_exhausted();
    assert!(weak.executions > strong.executions);
}

/// One task parks until a word is set; `looks`: it looks at the word again when it is back.
fn parks(looks: bool) -> impl Fn(&Machine) {
    move |m: &Machine| {
        let ready = Arc::new(AtomicU32::new(0));
        let is_ready = Arc::clone(&ready);
        m.task("parent", move || {
            let me = Sim::current_task();
            spawn("wakes", move || {
                ready.store(1, SeqCst);
                Sim::wake(&me);
            });
            match looks {
                true => {
                    while is_ready.load(SeqCst) == 0 {
                        Sim::park();
                    }
                }
                false => Sim::park(),
            }
            assert_eq!(is_ready.load(SeqCst), 1);
        });
    }
}

#[test]
fn who_parks_without_a_loop_is_caught_by_a_wake_up_for_nothing() {
    Explore::new("no loop").run(parks(false)).assert_exhausted();
    let report = Explore::new("no loop").spurious_wakes(1).run(parks(false));
    let failure = report.assert_found(FailureKind::Panic);
    let page = render::text(&failure.trace, &render::Options::default());
    assert!(page.contains("wakes up for nothing"), "{page}");
    Explore::new("a loop").spurious_wakes(2).run(parks(true)).assert_exhausted();
}
