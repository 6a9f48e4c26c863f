//! Loops with `cpu_relax` that give up, and those that never do.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, LOOKS, Machine, Report, Schedules, Sim, Verdict};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Lock, Platform};

use crate::{SPIN, TIMER, Word, explore, word};

/// Looks so often at a word, until it is not 0; whether it was.
fn poll(flag: &Word, looks: u32) -> bool {
    for _ in 0..looks {
        if flag.load(SeqCst) != 0 {
            return true;
        }
        Sim::cpu_relax();
    }
    false
}

/// What can come of it if a device answers, or does not before the driver loses patience.
fn driver(looks: u32, schedules: Schedules) -> Report {
    Explore::new("driver").schedules(schedules).collect_outcomes().run(move |m: &Machine| {
        let (answer, reset) = (word(0), word(0));
        let (answers, is_reset) = (Arc::clone(&answer), Arc::clone(&reset));
        m.hardware("device", move || answers.store(1, SeqCst));
        let seen = Arc::clone(&reset);
        m.task("driver", move || {
            if !poll(&answer, looks) {
                is_reset.store(1, SeqCst);
            }
        });
        m.outcome(move || seen.load(SeqCst).to_string())
    })
}

fn outcomes(report: &Report) -> Vec<&str> {
    report.outcomes.iter().map(String::as_str).collect()
}

#[test]
fn a_poll_succeeds_or_gives_up_and_how_long_it_is_does_not_matter() {
    let reports = [1, 2, 3, 17, 1_000].map(|looks| driver(looks, Schedules::Reduced));
    for report in &reports {
        report.assert_exhausted();
        assert_eq!(outcomes(report), ["0", "1"]);
    }
    let executions = reports.each_ref().map(|report| report.executions);
    assert!(executions[1..].iter().all(|&others| others == executions[1]), "{executions:?}");
    let all = driver(17, Schedules::All);
    assert_eq!(outcomes(&all), ["0", "1"]);
}

#[test]
fn a_loop_that_gives_up_on_what_never_comes_ends() {
    for looks in [2, 17, 1_000] {
        let report = explore(|m| {
            let flag = word(0);
            m.task("polls", move || assert!(!poll(&flag, looks)));
        });
        report.assert_exhausted();
        assert_eq!(report.executions, 1);
        assert_eq!(report.probes, 1);
        assert!(report.spins[0].gives_up);
        assert!(report.spins[0].site.contains("polling.rs"));
    }
}

/// A lock that spins for a while, and then does something else that is wrong.
fn adaptive(spins: u32) -> Report {
    explore(move |m| {
        let (held, inside) = (word(0), word(0));
        for name in ["one", "two"] {
            let (held, inside) = (Arc::clone(&held), Arc::clone(&inside));
            m.task(name, move || {
                let takes = || held.compare_exchange(0, 1, SeqCst, SeqCst).is_ok();
                let mut got = takes();
                for _ in 0..spins {
                    if got {
                        break;
                    }
                    Sim::cpu_relax();
                    got = takes();
                }
                // The slow path takes it whoever has it.
                held.store(1, SeqCst);
                assert_eq!(inside.fetch_add(1, SeqCst), 0, "two are inside");
                inside.fetch_sub(1, SeqCst);
                held.store(0, SeqCst);
            });
        }
    })
}

#[test]
fn the_slow_path_of_an_adaptive_lock_is_found_however_long_it_spins() {
    for spins in [0, 1, 2, 3, 100] {
        let report = adaptive(spins);
        let failure = report.assert_found(FailureKind::Panic);
        assert!(failure.trace.why.contains("two are inside"), "{}", failure.trace.why);
    }
}

#[test]
fn a_poll_under_a_lock_and_a_nested_one_give_up() {
    for looks in [2, 17, 1_000] {
        let report = Explore::new("nested").collect_outcomes().run(move |m: &Machine| {
            let (lock, flag, gone) = (Arc::new(Lock::<Sim, ()>::new(&SPIN, ())), word(0), word(0));
            let (sets, others, is_gone) = (Arc::clone(&flag), Arc::clone(&lock), Arc::clone(&gone));
            m.task("polls", move || {
                let _held = lock.lock();
                for _ in 0..looks.min(10) {
                    if poll(&flag, looks) {
                        return;
                    }
                }
                is_gone.store(1, SeqCst);
            });
            m.task("sets", move || {
                sets.store(1, SeqCst);
                drop(others.lock());
            });
            m.outcome(move || gone.load(SeqCst).to_string());
        });
        report.assert_exhausted();
        assert_eq!(outcomes(&report), ["0", "1"], "{looks} looks");
    }
}

#[test]
fn a_poll_that_takes_a_lock_for_each_look_gives_up() {
    for looks in [2, 17] {
        let report =
            Explore::new("looks under a lock").collect_outcomes().run(move |m: &Machine| {
                let (done, gone) = (Arc::new(Lock::<Sim, bool>::new(&SPIN, false)), word(0));
                let (sets, is_gone) = (Arc::clone(&done), Arc::clone(&gone));
                m.task("polls", move || {
                    for _ in 0..looks {
                        if *done.lock() {
                            return;
                        }
                        Sim::cpu_relax();
                    }
                    is_gone.store(1, SeqCst);
                });
                m.task("sets", move || *sets.lock() = true);
                m.outcome(move || gone.load(SeqCst).to_string());
            });
        report.assert_exhausted();
        assert_eq!(outcomes(&report), ["0", "1"], "{looks} looks");
    }
}

#[test]
fn one_function_waits_for_ever_for_one_caller_and_gives_up_for_another() {
    fn wait(flag: &Word, most: Option<u32>) -> bool {
        let mut looks = 0;
        while flag.load(SeqCst) == 0 {
            looks += 1;
            if Some(looks) == most {
                return false;
            }
            Sim::cpu_relax();
        }
        true
    }
    let report = Explore::new("both").collect_outcomes().run(|m: &Machine| {
        let (flag, gone) = (word(0), word(0));
        let (sets, twice, is_gone) = (Arc::clone(&flag), Arc::clone(&flag), Arc::clone(&gone));
        m.task("waits for ever", move || assert!(wait(&flag, None)));
        m.task("gives up, then waits", move || {
            is_gone.store(u64::from(!wait(&twice, Some(3))), SeqCst);
            assert!(wait(&twice, None));
        });
        m.task("sets", move || sets.store(1, SeqCst));
        m.outcome(move || gone.load(SeqCst).to_string());
    });
    report.assert_exhausted();
    assert_eq!(outcomes(&report), ["0", "1"]);
    let told: Vec<_> =
        report.spins.iter().map(|spin| (spin.context.as_str(), spin.gives_up)).collect();
    assert_eq!(
        told,
        [
            ("gives up, then waits", false),
            ("gives up, then waits", true),
            ("waits for ever", false)
        ]
    );
}

#[test]
fn a_wait_that_counts_its_looks_in_a_word_of_its_own_still_waits() {
    let program = |comes: bool| {
        explore(move |m| {
            let (flag, statistics) = (word(0), word(0));
            let sets = Arc::clone(&flag);
            m.task("waits", move || {
                while flag.load(SeqCst) == 0 {
                    statistics.fetch_add(1, SeqCst);
                    Sim::cpu_relax();
                }
            });
            m.task("sets", move || sets.store(u64::from(comes), SeqCst));
        })
    };
    let report = program(true);
    report.assert_exhausted();
    // The flag is set before the first look, the second, or after that: to have counted may have
    // been progress once.
    assert_eq!(report.executions, 3);
    assert!(!report.spins[0].gives_up);
    program(false).assert_found(FailureKind::Deadlock);
}

#[test]
fn a_wait_that_does_something_for_others_each_time_is_no_deadlock() {
    let report = explore(|m| {
        let (flag, rounds) = (word(0), word(0));
        let (sets, seen) = (Arc::clone(&flag), Arc::clone(&rounds));
        m.task("kicks", move || {
            while flag.load(SeqCst) == 0 {
                rounds.fetch_add(1, SeqCst);
                Sim::cpu_relax();
            }
        });
        m.task("needs some kicks", move || {
            while seen.load(SeqCst) < 3 {
                Sim::cpu_relax();
            }
            sets.store(1, SeqCst);
        });
    });
    // There is no end to how often it may kick.
    assert_eq!(report.verdict, Verdict::BoundReached);
}

#[test]
fn a_wait_that_reads_now_this_and_now_that_waits_for_both() {
    for late in [0, 1] {
        let report = explore(move |m| {
            let words = [word(0), word(0)];
            let sets = Arc::clone(&words[late]);
            m.task("waits", move || {
                let mut looks = 0;
                while words[looks % 2].load(SeqCst) == 0 {
                    looks += 1;
                    Sim::cpu_relax();
                }
            });
            m.task("sets", move || sets.store(1, SeqCst));
        });
        report.assert_exhausted();
    }
}

#[test]
fn a_driver_that_resets_its_device_until_it_answers_is_explored_as_far_as_it_may_lapse() {
    let program = |looks: u32, lapses: u32, most: u64| {
        Explore::new("resets").lapses(lapses).run(move |m: &Machine| {
            let (answer, resets) = (word(0), word(0));
            let (answers, seen) = (Arc::clone(&answer), Arc::clone(&resets));
            m.task("driver", move || {
                while !poll(&answer, looks) {
                    resets.fetch_add(1, SeqCst);
                }
            });
            m.hardware("device", move || {
                assert!(seen.load(SeqCst) < most, "reset too often");
                answers.store(1, SeqCst);
            });
        })
    };
    for looks in [1, 2, 5] {
        program(looks, 4, 2).assert_found(FailureKind::Panic);
        assert_eq!(program(looks, 1, 4).verdict, Verdict::BoundReached);
    }
}

#[test]
fn a_poll_that_an_interrupt_ends_is_ended_or_gives_up() {
    let report = Explore::new("interrupted").collect_outcomes().run(|m: &Machine| {
        let (flag, gone) = (word(0), word(0));
        let (sets, is_gone) = (Arc::clone(&flag), Arc::clone(&gone));
        let handler = m.handler(CpuId(0), TIMER, "timer", move || sets.store(1, SeqCst));
        m.task_on(CpuId(0), "polls", move || is_gone.store(u64::from(!poll(&flag, 9)), SeqCst));
        m.hardware("device", move || handler.raise());
        m.outcome(move || gone.load(SeqCst).to_string());
    });
    report.assert_exhausted();
    assert_eq!(outcomes(&report), ["0", "1"]);
}

#[test]
fn a_run_in_which_somebody_gave_up_is_replayed() {
    let program = |m: &Machine| {
        let flag = word(0);
        let sets = Arc::clone(&flag);
        m.task("sets", move || sets.store(1, SeqCst));
        m.task("polls", move || assert!(poll(&flag, 5), "gave up"));
    };
    let explore = Explore::new("gave up");
    let report = explore.run(program);
    let failure = report.assert_found(FailureKind::Panic);
    let again = explore.replay(&failure.token, program).expect("the same program");
    assert_eq!(again.trace, failure.trace);
    let gives_up = failure
        .trace
        .lines
        .iter()
        .find(|line| line.text.contains("waits no longer"))
        .expect("a line");
    assert!(gives_up.text.contains("4 times"), "{}", gives_up.text);
}

#[test]
fn several_threads_agree_on_who_gives_up() {
    for jobs in [1, 2, 3] {
        let report = Explore::new("polls").jobs(jobs).collect_outcomes().run(|m: &Machine| {
            let (flag, gone) = (word(0), word(0));
            for name in ["one", "two"] {
                let (flag, gone) = (Arc::clone(&flag), Arc::clone(&gone));
                m.task(name, move || {
                    if !poll(&flag, 3) {
                        gone.fetch_add(1, SeqCst);
                    }
                });
            }
            m.task("sets", move || flag.store(1, SeqCst));
            m.outcome(move || gone.load(SeqCst).to_string());
        });
        report.assert_exhausted();
        assert_eq!(outcomes(&report), ["0", "1", "2"]);
    }
}

#[test]
fn a_loop_is_not_waited_for_any_longer_than_stated() {
    let report = explore(|m| {
        let flag = word(0);
        m.task("polls", move || {
            poll(&flag, LOOKS + 10);
        });
    });
    // Beyond that it counts as one that waits for ever, and is named.
    report.assert_found(FailureKind::Deadlock);
    assert!(!report.spins[0].gives_up);
}
