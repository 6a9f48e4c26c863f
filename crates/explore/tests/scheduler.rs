//! Tasks that share CPUs.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Hooks, PI_LOCK, Placement, RQ_LOCK, SchedTask, Scheduler, yield_now};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Lock, LockClass, Platform, WaitType};

type Word = <Sim as Platform>::AtomicU64;

#[test]
fn tasks_of_one_cpu_run_one_after_the_other_without_preemption() {
    let report = Explore::new("cooperative").run(|m: &Machine| {
        let word = Arc::new(Word::new(0));
        let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            scheduler.task(m, CpuId(0), name, move || {
                let value = word.load(SeqCst);
                word.store(value + 1, SeqCst);
            });
        }
        m.at_quiescence("both have counted", move || match word.load(SeqCst) {
            2 => Ok(()),
            other => Err(format!("the count is {other}")),
        });
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 1);
}

/// One task sleeps until another, on another CPU, has set a flag.
fn sleeper(m: &Machine, placement: Placement, careful: bool) {
    let flag = Arc::new(Word::new(0));
    let scheduler = Scheduler::new(m, 2, placement, true, ());
    let seen = Arc::clone(&flag);
    let task = scheduler.task(m, CpuId(0), "sleeper", move || {
        while seen.load(SeqCst) == 0 {
            Sim::park();
        }
    });
    let wakes = scheduler.clone();
    scheduler.task(m, CpuId(1), "waker", move || {
        if careful {
            flag.store(1, SeqCst);
            wakes.wake(task);
        } else {
            wakes.wake(task);
            flag.store(1, SeqCst);
        }
    });
}

#[test]
fn a_wake_up_after_the_flag_is_never_lost_wherever_the_task_goes() {
    for placement in [Placement::Previous, Placement::Waker] {
        Explore::new("sleeper")
            .run(move |m: &Machine| sleeper(m, placement, true))
            .assert_exhausted();
    }
}

#[test]
fn a_wake_up_before_the_flag_is_lost() {
    let report = Explore::new("careless").run(|m: &Machine| sleeper(m, Placement::Previous, false));
    report.assert_found(FailureKind::Deadlock);
}

#[test]
fn a_woken_task_preempts_the_one_that_runs_between_any_two_steps() {
    let report = Explore::new("preempted").run(|m: &Machine| {
        let word = Arc::new(Word::new(0));
        let scheduler = Scheduler::new(m, 2, Placement::Previous, true, ());
        let counted = Arc::clone(&word);
        let sleeper = scheduler.task(m, CpuId(0), "sleeper", move || {
            Sim::park();
            counted.fetch_add(1, SeqCst);
        });
        let other = Arc::clone(&word);
        scheduler.task(m, CpuId(0), "runner", move || {
            let value = other.load(SeqCst);
            other.store(value + 1, SeqCst);
        });
        let wakes = scheduler.clone();
        scheduler.task(m, CpuId(1), "waker", move || wakes.wake(sleeper));
        m.at_quiescence("both have counted", move || match word.load(SeqCst) {
            2 => Ok(()),
            other => Err(format!("the count is {other}")),
        });
    });
    // Between the load and the store of the runner.
    report.assert_found(FailureKind::Quiescence);
}

#[test]
fn a_service_runs_once_for_each_wake_up_and_may_sleep_when_the_run_is_over() {
    for wakes in 0..=2 {
        let report = Explore::new("service").collect_outcomes().run(move |m: &Machine| {
            let runs = Arc::new(Word::new(0));
            let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
            let counted = Arc::clone(&runs);
            let service = scheduler.service(m, CpuId(0), "service", move || {
                counted.fetch_add(1, SeqCst);
            });
            if wakes == 0 {
                scheduler.may_not_run(service);
            }
            m.task("waker", move || (0..wakes).for_each(|_| scheduler.wake(service)));
            m.outcome(move || runs.load(SeqCst).to_string());
        });
        report.assert_exhausted();
        assert_eq!(report.outcomes.iter().collect::<Vec<_>>(), [&wakes.to_string()]);
    }
}

#[test]
fn a_service_that_was_woken_and_never_gets_its_cpu_is_stuck() {
    let report = Explore::new("starved").run(|m: &Machine| {
        let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
        let service = scheduler.service(m, CpuId(0), "service", || ());
        let never = doorbell_explore::sim::Model::new("what never comes", false);
        let wakes = scheduler.clone();
        scheduler.task(m, CpuId(0), "hog", move || {
            wakes.wake(service);
            never.wait(|come| *come, |_| ());
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.why.contains("hog"), "{}", failure.trace.why);
}

/// Whether each task that left its CPU was preempted.
#[derive(Clone, Default)]
struct Seen(std::rc::Rc<std::cell::RefCell<Vec<bool>>>);

impl Hooks for Seen {
    fn sched_out(&self, _task: SchedTask, _cpu: CpuId, preempted: bool) {
        self.0.borrow_mut().push(preempted);
    }
}

#[test]
fn a_task_that_yields_is_preempted_if_and_only_if_another_one_waits() {
    for others in 0..=1 {
        let report = Explore::new("yield").collect_outcomes().run(move |m: &Machine| {
            let seen = Seen::default();
            let scheduler = Scheduler::new(m, 1, Placement::Previous, false, seen.clone());
            scheduler.task(m, CpuId(0), "yields", yield_now);
            for _ in 0..others {
                scheduler.task(m, CpuId(0), "other", || ());
            }
            m.outcome(move || format!("{:?}", seen.0.borrow()));
        });
        report.assert_exhausted();
        let expected = if others > 0 { "[true]" } else { "[]" };
        assert_eq!(report.outcomes.iter().collect::<Vec<_>>(), [expected]);
    }
}

static LIST: LockClass = LockClass::new("list", WaitType::Spin);

/// The sched-out hook takes a lock under that of the run queue; a waker that holds that lock takes
/// both in the other order.
struct Lists(Arc<Lock<Sim, ()>>);

impl Hooks for Lists {
    fn sched_out(&self, _task: SchedTask, _cpu: CpuId, _preempted: bool) {
        drop(self.0.lock());
    }
}

#[test]
fn a_lock_of_the_sched_out_hook_that_is_held_around_a_wake_up_deadlocks() {
    let report = Explore::new("hook").run(|m: &Machine| {
        let list = Arc::new(Lock::new(&LIST, ()));
        let scheduler = Scheduler::new(m, 2, Placement::Previous, false, Lists(Arc::clone(&list)));
        let sleeper = scheduler.task(m, CpuId(0), "sleeper", Sim::park);
        let wakes = scheduler.clone();
        scheduler.task(m, CpuId(1), "waker", move || {
            let _list = list.lock_irqsave();
            wakes.wake(sleeper);
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    let text = doorbell_explore::render::text(&failure.trace, &Default::default());
    println!("{text}");
    assert!(text.contains(RQ_LOCK.name()) && text.contains("list"), "{text}");
    let nested = report.locks.order_edges().any(|(from, to)| {
        from == doorbell_explore::validate::Node::of(&PI_LOCK)
            && to == doorbell_explore::validate::Node::of(&RQ_LOCK)
    });
    assert!(nested, "waking takes the task's lock, then the run queue's");
}

#[test]
fn who_holds_the_lock_of_a_task_around_a_wake_up_of_it_waits_for_himself() {
    let wakes = |twice: bool| {
        Explore::new("task lock").run(move |m: &Machine| {
            let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
            let sleeper = scheduler.task(m, CpuId(0), "sleeper", Sim::park);
            let wakes = scheduler.clone();
            m.task_on(CpuId(1), "waker", move || {
                let lock = wakes.pi_lock(sleeper);
                let held = lock.lock_irqsave();
                if !twice {
                    drop(held);
                }
                wakes.wake(sleeper);
            });
        })
    };
    wakes(true).assert_found(FailureKind::LockRule);
    wakes(false).assert_exhausted();
}
