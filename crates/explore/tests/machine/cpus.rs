//! The CPUs that there are, and who is given which.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Schedules, Sim, spawn};
use doorbell_platform::{AtomicInt, CpuId, PerCpu, Platform};

use crate::*;

/// Two tasks each create one, which says where it runs.
fn racing_spawns(m: &Machine) {
    let said = Arc::new(Mutex::new([0; 2]));
    for task in 0..2 {
        let said = Arc::clone(&said);
        m.task(format!("parent {task}"), move || {
            let spawned = spawn("child", move || said.lock().unwrap()[task] = Sim::current_cpu().0);
            assert!(spawned.id().0 >= 2);
        });
    }
    m.outcome(move || format!("{:?}", said.lock().unwrap()));
}

#[test]
fn which_of_two_racing_spawns_gets_which_cpu_and_number_is_run_both_ways() {
    let report = Explore::new("spawns").collect_outcomes().run(racing_spawns);
    assert_eq!(report.outcomes, BTreeSet::from(["[2, 3]".to_owned(), "[3, 2]".to_owned()]));
    assert_eq!(report.executions, 2);
    let all =
        Explore::new("spawns").schedules(Schedules::All).collect_outcomes().run(racing_spawns);
    assert_eq!(report.outcomes, all.outcomes);
}

#[test]
fn spawns_that_do_not_race_cost_no_execution() {
    let report = explore(|m| {
        m.task("parent", || {
            let first = spawn("first", || assert_eq!(Sim::current_cpu(), CpuId(1)));
            spawn("second", || assert_eq!(Sim::current_cpu(), CpuId(2))).join();
            first.join();
            spawn("third", || assert_eq!(Sim::current_cpu(), CpuId(3))).join();
        });
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 1);
}

/// Each of three tasks, two of them spawned while the program runs, counts on its own CPU.
fn counts_on_each(m: &Machine) {
    let counts = Arc::new(PerCpu::<Sim, Word>::new(|_| Word::new(0)));
    let seen = Arc::clone(&counts);
    m.task("parent", move || {
        let count = move |counts: &PerCpu<Sim, Word>| {
            counts.of(Sim::current_cpu()).fetch_add(1, SeqCst);
        };
        let children = [(); 2].map(|()| {
            let counts = Arc::clone(&counts);
            spawn("child", move || count(&counts))
        });
        count(&counts);
        children.into_iter().for_each(|child| child.join());
    });
    m.at_quiescence("each has counted to one", move || {
        if seen.iter().all(|(_, count)| count.load(SeqCst) == 1) {
            Ok(())
        } else {
            Err("they have not".into())
        }
    });
}

#[test]
fn data_of_each_cpu_is_there_for_all_that_the_machine_was_said_to_have() {
    let report = explore(|m| {
        m.cpus(3);
        counts_on_each(m);
        assert_eq!(Sim::cpu_count(), 3);
    });
    report.assert_exhausted();
}

#[test]
fn a_task_on_a_cpu_of_which_somebody_was_told_that_it_is_not_there_is_refused() {
    let in_a_context = explore(counts_on_each);
    let why = &in_a_context.assert_found(FailureKind::Panic).trace.why;
    assert!(why.contains("CPU1 is needed") && why.contains("`Machine::cpus`"), "{why}");
    for needs in 0..4 {
        let refused = catch_unwind(AssertUnwindSafe(|| {
            explore(move |m| {
                m.task("first", || ());
                assert_eq!(Sim::cpu_count(), 1);
                match needs {
                    0 => _ = m.task("second", || ()),
                    1 => _ = m.task_on(CpuId(1), "on CPU1", || ()),
                    2 => _ = m.handler(CpuId(1), TIMER, "tick", || ()),
                    _ => m.cpus(2),
                }
            })
        }));
        let said = *refused.expect_err("it is refused").downcast::<String>().unwrap();
        assert!(said.contains("CPU1 is needed") && said.contains("`Machine::cpus`"), "{said}");
    }
}

#[test]
fn a_spawn_is_refused_whether_it_comes_before_the_question_how_many_cpus_there_are_or_after_it() {
    for asks_first in [false, true] {
        let report = explore(move |m| {
            m.task("parent", move || {
                if asks_first {
                    assert_eq!(Sim::cpu_count(), 1);
                }
                spawn("child", || ());
                Sim::cpu_count();
            });
        });
        let why = &report.assert_found(FailureKind::Panic).trace.why;
        assert!(why.contains("`Machine::cpus`"), "{why}");
    }
}

#[test]
fn a_machine_has_no_more_tasks_than_cpus_and_a_handler_does_not_take_the_place_of_one() {
    let report = explore(|m| {
        m.cpus(2);
        let handler = m.handler(CpuId(1), TIMER, "tick", || ());
        m.task("parent", move || {
            handler.raise();
            let child = spawn("child", || assert_eq!(Sim::current_cpu(), CpuId(1)));
            child.join();
            spawn("too many", || ());
        });
    });
    let why = &report.assert_found(FailureKind::Panic).trace.why;
    assert!(why.contains("CPU2 is needed"), "{why}");
}
