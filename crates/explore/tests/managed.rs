//! The concurrency-managed pool.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{
    GracePeriods, Managed, ManagedPool, Model, Preempted, PreemptionOff, Queue, SimCompletion,
};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_platform::{
    Atomic, AtomicInt, Completion, LockClass, Mutex, Platform, ReadDomain, WaitType,
};

static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

type Word = <Sim as Platform>::AtomicU32;
type Srcu = <Sim as Platform>::Srcu;

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("managed").run(program)
}

/// Two tasks queue two pieces of work each, which all sleep for a mutex.
fn four_items(m: &Machine, how: Managed) {
    let pool = ManagedPool::new(m, "pool", how);
    let queue = pool.queue(usize::MAX);
    let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
    let done = Arc::new(Word::new(0));
    for task in ["one", "two"] {
        let (queue, mutex, done) = (queue.clone(), Arc::clone(&mutex), Arc::clone(&done));
        m.task(task, move || {
            for _ in 0..2 {
                let (mutex, done) = (Arc::clone(&mutex), Arc::clone(&done));
                queue.spawn(
                    "work",
                    Box::new(move || {
                        let _held = mutex.lock();
                        done.fetch_add(1, SeqCst);
                    }),
                );
            }
        });
    }
    m.at_quiescence("all four are done", move || match done.load(SeqCst) {
        4 => Ok(()),
        other => Err(format!("{other} are")),
    });
}

#[test]
fn work_is_never_lost_however_many_workers_there_are() {
    for how in [
        Managed::new(2),
        Managed { creatable: 1, ..Managed::new(1) },
        Managed { creatable: 1, ..Managed::new(2) },
        Managed { counted: false, ..Managed::new(2) },
    ] {
        explore(move |m| four_items(m, how)).assert_exhausted();
    }
}

/// Two pieces of work count, one step to read and one to write.
fn careless_counting(m: &Machine, how: Managed) {
    let pool = ManagedPool::new(m, "pool", how);
    let queue = pool.queue(usize::MAX);
    let word = Arc::new(Word::new(0));
    for task in ["one", "two"] {
        let (queue, word) = (queue.clone(), Arc::clone(&word));
        m.task(task, move || {
            queue.spawn(
                "count",
                Box::new(move || {
                    let seen = word.load(SeqCst);
                    word.store(seen + 1, SeqCst);
                }),
            );
        });
    }
    m.at_quiescence("both have counted", move || match word.load(SeqCst) {
        2 => Ok(()),
        other => Err(format!("the count is {other}")),
    });
}

#[test]
fn work_that_never_sleeps_is_done_one_piece_after_the_other_by_counted_workers_only() {
    let how = Managed { creatable: 1, ..Managed::new(2) };
    explore(move |m| careless_counting(m, how)).assert_exhausted();
    let unbound = Managed { counted: false, ..how };
    explore(move |m| careless_counting(m, unbound)).assert_found(FailureKind::Quiescence);
}

/// One piece of work waits for another one, on a queue of its own.
fn waits_for_other(m: &Machine, how: Managed, first: usize, rescue: bool) {
    let pool = ManagedPool::new(m, "pool", how);
    let (waiting, released) = (pool.queue(first), pool.queue(usize::MAX));
    let released = if rescue { released.with_rescuer(m, "rescuer") } else { released };
    let done = Arc::new(SimCompletion::new("done"));
    done.released_by(released.workers());
    m.task("task", move || {
        let completes = Arc::clone(&done);
        waiting.spawn("waits", Box::new(move || done.wait()));
        released.spawn("completes", Box::new(move || completes.complete_all()));
    });
}

#[test]
fn a_worker_that_sleeps_is_replaced_as_long_as_workers_can_be_created() {
    explore(|m| waits_for_other(m, Managed { creatable: 1, ..Managed::new(2) }, 9, false))
        .assert_exhausted();
    explore(|m| waits_for_other(m, Managed { creatable: 2, ..Managed::new(1) }, 9, false))
        .assert_exhausted();
    explore(|m| waits_for_other(m, Managed::new(3), 9, false)).assert_exhausted();
}

#[test]
fn the_last_idle_worker_does_no_work_if_it_cannot_create_another() {
    for workers in [1, 2] {
        let report = explore(move |m| waits_for_other(m, Managed::new(workers), 9, false));
        report.assert_found(FailureKind::Deadlock);
    }
}

#[test]
fn a_rescuer_does_the_work_of_its_queue_when_no_worker_can_be_created() {
    explore(|m| waits_for_other(m, Managed::new(2), 9, true)).assert_exhausted();
}

#[test]
fn no_more_than_max_active_pieces_of_a_queue_are_under_way_and_all_are_done() {
    for most in [1, 2, 3] {
        let report = Explore::new("max active").collect_outcomes().run(move |m: &Machine| {
            let pool = ManagedPool::new(m, "pool", Managed { creatable: 3, ..Managed::new(2) });
            let queue = pool.queue(most);
            let go = Arc::new(SimCompletion::new("go"));
            let seen = Arc::new(Model::new("under way", (0, 0)));
            let told = Arc::clone(&seen);
            m.task("task", move || {
                for _ in 0..3 {
                    let (go, seen) = (Arc::clone(&go), Arc::clone(&seen));
                    queue.spawn(
                        "work",
                        Box::new(move || {
                            seen.change(|(now, most)| {
                                *now += 1;
                                *most = (*now).max(*most);
                            });
                            go.wait();
                            seen.change(|(now, _)| *now -= 1);
                        }),
                    );
                }
                go.complete_all();
            });
            m.outcome(move || told.observe(|(now, most)| format!("{now} left, {most} at once")));
        });
        report.assert_exhausted();
        let expected = format!("0 left, {most} at once");
        assert!(report.outcomes.contains(&expected), "{:?}", report.outcomes);
        for more in most + 1..4 {
            assert!(
                !report.outcomes.contains(&format!("0 left, {more} at once")),
                "{:?}",
                report.outcomes
            );
        }
    }
}

#[test]
fn work_that_waits_for_work_of_its_own_queue_can_use_up_max_active() {
    fn program(m: &Machine, most: usize) {
        let pool = ManagedPool::new(m, "pool", Managed { creatable: 2, ..Managed::new(2) });
        let queue: Queue = pool.queue(most);
        m.grace_periods(GracePeriods::OnQueue(queue.clone()));
        let domain = Arc::new(Srcu::new("domain"));
        m.task("task", move || queue.spawn("waits", Box::new(move || domain.synchronize())));
    }
    let report = explore(|m| program(m, 1));
    let why = &report.assert_found(FailureKind::Deadlock).trace.why;
    assert!(why.contains("max_active"), "{why}");
    explore(|m| program(m, 2)).assert_exhausted();
}

/// One piece of work waits for a grace period of the same pool, and one interrupt comes.
fn interrupted(preempted: Preempted, preemption_off: PreemptionOff) -> Report {
    explore(move |m| {
        let how =
            Managed { creatable: 1, interrupts: 1, preempted, preemption_off, ..Managed::new(2) };
        let pool = ManagedPool::new(m, "pool", how);
        m.grace_periods(GracePeriods::OnQueue(pool.queue(usize::MAX)));
        let domain = Arc::new(Srcu::new("domain"));
        let queue = pool.queue(usize::MAX);
        m.task("task", move || queue.spawn("waits", Box::new(move || domain.synchronize())));
    })
}

#[test]
fn a_preempted_worker_that_stays_runnable_finishes_its_bookkeeping() {
    interrupted(Preempted::StaysRunnable, PreemptionOff::Nowhere).assert_exhausted();
}

#[test]
fn hooks_that_run_on_preemption_leave_the_count_too_high_unless_preemption_is_off_until_the_worker_is_asleep()
 {
    for off in [PreemptionOff::Nowhere, PreemptionOff::InHooks, PreemptionOff::OutsideHooks] {
        let report = interrupted(Preempted::RunsHooks, off);
        let why = &report.assert_found(FailureKind::Deadlock).trace.why;
        assert!(why.contains("1 is counted as running, though nobody runs"), "{why}");
    }
    interrupted(Preempted::RunsHooks, PreemptionOff::UntilAsleep).assert_exhausted();
}

#[test]
fn a_sleeper_that_is_dequeued_before_it_is_uncounted_leaves_the_count_too_high() {
    for off in [PreemptionOff::Nowhere, PreemptionOff::InHooks] {
        interrupted(Preempted::IsDequeued, off).assert_found(FailureKind::Deadlock);
    }
    interrupted(Preempted::IsDequeued, PreemptionOff::UntilAsleep).assert_exhausted();
}
