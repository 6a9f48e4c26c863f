//! What was set up and never ran is listed, and no exhausted search is taken for a proof about it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Placement, Pool, SchedTask, Scheduler, Timer};
use doorbell_explore::{Explore, Machine, Report, Sim, Verdict};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Platform, ReadDomain, Vector};

const TIMER: Vector = Vector(0x20);
const IPI: Vector = Vector(0x30);

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    let one = Explore::new("never ran").run(&program);
    let two = Explore::new("never ran").jobs(2).run(&program);
    assert_eq!(
        (one.verdict, &one.never_ran),
        (Verdict::Exhausted, &two.never_ran),
        "with two threads"
    );
    one
}

/// Two tasks that are busy with one word.
fn busy(m: &Machine) {
    let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
    for name in ["one", "two"] {
        let word = Arc::clone(&word);
        m.task(name, move || {
            for _ in 0..3 {
                word.fetch_add(1, SeqCst);
            }
        });
    }
}

#[test]
fn a_handler_that_nobody_raises_is_listed_and_refused() {
    let report = explore(|m| {
        busy(m);
        m.handler(CpuId(0), TIMER, "tick", || ());
        m.ipi_handler(CpuId(1), IPI, "call", || ());
    });
    assert_eq!(report.never_ran, ["handler tick", "handler call"]);
    let panic =
        catch_unwind(AssertUnwindSafe(|| report.assert_exhausted())).expect_err("it is refused");
    let said = "never ran, in any of 20 executions: handler tick, handler call; if that is meant, `may_not_run` on its \
                handle says so";
    assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(said));
}

#[test]
fn a_handler_that_need_not_come_is_not_asked_for() {
    let report = explore(|m| {
        busy(m);
        m.handler(CpuId(0), TIMER, "tick", || ()).may_not_run();
        m.ipi_handler(CpuId(1), IPI, "call", || ()).may_not_run();
    });
    report.assert_exhausted();
    assert!(report.never_ran.is_empty());
}

#[test]
fn a_handler_that_comes_in_one_execution_of_many_has_run() {
    let report = explore(|m| {
        busy(m);
        let flag = Arc::new(<Sim as Platform>::AtomicU64::new(0));
        let handler = m.handler(CpuId(0), TIMER, "tick", || ());
        let sets = Arc::clone(&flag);
        m.task("sets", move || sets.store(1, SeqCst));
        m.task("looks", move || {
            if flag.load(SeqCst) == 1 {
                handler.raise();
            }
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_service_and_a_timer_that_never_come_are_listed_unless_they_need_not() {
    let program = |need_not: bool| {
        move |m: &Machine| {
            let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
            let service: SchedTask = scheduler.service(m, CpuId(0), "thread", || ());
            scheduler.task(m, CpuId(0), "task", || ());
            let timer = Timer::new(m, "watch", 1, || ());
            if need_not {
                scheduler.may_not_run(service);
                timer.may_not_run();
            }
        }
    };
    assert_eq!(explore(program(false)).never_ran, ["task thread", "hardware watch"]);
    explore(program(true)).assert_exhausted();
}

#[test]
fn tasks_without_a_step_have_run_and_what_the_machine_itself_adds_is_not_asked_for() {
    let report = explore(|m| {
        m.task("nothing", || ());
        m.hardware("no more", || ());
        Pool::new(m, "pool", 2).with_rescuer(m, "rescuer");
        let _domain = <Sim as Platform>::Srcu::new("domain");
    });
    report.assert_exhausted();
}
