//! The validator asks, the search answers.

use std::sync::Arc;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::validate::{Answer, Reason};
use doorbell_explore::{Explore, Machine, Report, Sim, spawn};
use doorbell_platform::{CpuId, Lock, LockClass, Mutex, Vector, WaitType};

static A: LockClass = LockClass::new("A", WaitType::Spin);
static B: LockClass = LockClass::new("B", WaitType::Spin);
static C: LockClass = LockClass::new("C", WaitType::Spin);
static GATE: LockClass = LockClass::new("gate", WaitType::Sleep);

type Spin = Lock<Sim, ()>;

struct Locks {
    a: Spin,
    b: Spin,
    gate: Mutex<Sim, ()>,
}

impl Locks {
    fn new() -> Arc<Self> {
        Arc::new(Locks { a: Lock::new(&A, ()), b: Lock::new(&B, ()), gate: Mutex::new(&GATE, ()) })
    }

    fn ab(&self) {
        let _a = self.a.lock();
        let _b = self.b.lock();
    }

    fn ba(&self) {
        let _b = self.b.lock();
        let _a = self.a.lock();
    }
}

#[track_caller]
fn unreachable(report: &Report) -> Vec<Reason> {
    report.assert_exhausted();
    let questions = report.lock_questions();
    assert_eq!(questions.len(), 1, "{}", report.lock_report());
    match &questions[0].1 {
        Answer::Unreachable { reasons } => reasons.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn reachable(report: &Report, kind: FailureKind) {
    let failure = report.assert_found(kind);
    let questions = report.lock_questions();
    assert!(
        questions.iter().any(
            |(_, answer)| matches!(answer, Answer::Reachable { token } if *token == failure.token)
        ),
        "{}\n{}",
        report.lock_report(),
        doorbell_explore::render::text(&failure.trace, &Default::default()),
    );
}

#[test]
fn opposite_orders_in_two_tasks_are_reachable() {
    let report = Explore::new("abba").run(|m: &Machine| {
        let locks = Locks::new();
        let other = Arc::clone(&locks);
        m.task("one", move || locks.ab());
        m.task("two", move || other.ba());
    });
    reachable(&report, FailureKind::Deadlock);
}

#[test]
fn opposite_orders_one_after_the_other_in_one_task_are_unreachable() {
    let report = Explore::new("abba in one").run(|m: &Machine| {
        let locks = Locks::new();
        m.task("one", move || {
            locks.ab();
            locks.ba();
        });
    });
    assert!(
        matches!(unreachable(&report)[..], [Reason::SameContext { .. }]),
        "{}",
        report.lock_report()
    );
}

#[test]
fn opposite_orders_under_a_gate_lock_are_unreachable() {
    let report = Explore::new("gate").run(|m: &Machine| {
        let locks = Locks::new();
        let other = Arc::clone(&locks);
        m.task("one", move || {
            let _gate = locks.gate.lock();
            locks.ab();
        });
        m.task("two", move || {
            let _gate = other.gate.lock();
            other.ba();
        });
    });
    assert!(
        matches!(unreachable(&report)[..], [Reason::GateLock { .. }]),
        "{}",
        report.lock_report()
    );
}

#[test]
fn opposite_orders_where_the_second_task_starts_after_the_first_was_joined_are_unreachable() {
    let report = Explore::new("joined").run(|m: &Machine| {
        let locks = Locks::new();
        m.task("main", move || {
            let first = Arc::clone(&locks);
            spawn("one", move || first.ab()).join();
            spawn("two", move || locks.ba()).join();
        });
    });
    assert!(
        matches!(unreachable(&report)[..], [Reason::Ordered { .. }]),
        "{}",
        report.lock_report()
    );
}

#[test]
fn opposite_orders_of_locks_that_are_others_of_the_same_classes_are_unreachable() {
    let report = Explore::new("instances").run(|m: &Machine| {
        let spin = |class| Arc::new(Spin::new(class, ()));
        let (a, b, other_a) = (spin(&A), spin(&B), spin(&A));
        let gate = Arc::new(Mutex::<Sim, _>::new(&GATE, ()));
        let (other_b, other_gate) = (Arc::clone(&b), Arc::clone(&gate));
        // Whoever comes first through the gate takes the first of the others: which lock that is
        // must not matter.
        m.task("one", move || {
            drop(gate.lock());
            let _a = a.lock();
            let _b = b.lock();
        });
        m.task("two", move || {
            drop(other_gate.lock());
            let _b = other_b.lock();
            let _a = other_a.lock();
        });
    });
    assert!(
        matches!(unreachable(&report)[..], [Reason::DifferentInstances]),
        "{}",
        report.lock_report()
    );
}

#[test]
fn opposite_orders_with_locks_that_each_task_creates_for_itself_are_unreachable() {
    let report = Explore::new("created later").run(|m: &Machine| {
        let b = Arc::new(Spin::new(&B, ()));
        let gate = Arc::new(Mutex::<Sim, _>::new(&GATE, ()));
        let (other_b, other_gate) = (Arc::clone(&b), Arc::clone(&gate));
        // Whoever comes first through the gate creates the first lock.
        m.task("one", move || {
            drop(gate.lock());
            let a = Spin::new(&A, ());
            let _a = a.lock();
            let _b = b.lock();
        });
        m.task("two", move || {
            drop(other_gate.lock());
            let a = Spin::new(&A, ());
            let _b = other_b.lock();
            let _a = a.lock();
        });
    });
    assert!(
        matches!(unreachable(&report)[..], [Reason::DifferentInstances]),
        "{}",
        report.lock_report()
    );
}

#[test]
fn a_lock_taken_in_a_handler_and_with_interrupts_on_in_a_task_of_the_same_cpu_is_reachable() {
    let report = Explore::new("irq").run(|m: &Machine| {
        let locks = Locks::new();
        let other = Arc::clone(&locks);
        let handler = m.handler(CpuId(0), Vector(0x40), "handler", move || drop(other.a.lock()));
        m.task_on(CpuId(0), "task", move || drop(locks.a.lock()));
        m.hardware("device", move || handler.raise());
    });
    reachable(&report, FailureKind::SelfDeadlock);
    println!(
        "{}",
        doorbell_explore::render::text(
            &report.failure.as_ref().unwrap().trace,
            &Default::default()
        )
    );
}

#[test]
fn a_lock_taken_in_a_handler_and_with_interrupts_off_in_a_task_raises_no_question() {
    let report = Explore::new("irqsave").run(|m: &Machine| {
        let locks = Locks::new();
        let other = Arc::clone(&locks);
        let handler = m.handler(CpuId(0), Vector(0x40), "handler", move || drop(other.a.lock()));
        m.task_on(CpuId(0), "task", move || drop(locks.a.lock_irqsave()));
        m.hardware("device", move || handler.raise());
    });
    report.assert_exhausted();
    assert!(report.lock_questions().is_empty(), "{}", report.lock_report());
}

#[test]
fn the_three_party_interrupt_cycle_in_which_handler_and_task_share_nothing_is_reachable() {
    let report = Explore::new("three parties").run(|m: &Machine| {
        let locks = Locks::new();
        let (holder, handled) = (Arc::clone(&locks), Arc::clone(&locks));
        let handler = m.handler(CpuId(0), Vector(0x40), "handler", move || drop(handled.b.lock()));
        m.task_on(CpuId(0), "holder of A", move || drop(holder.a.lock()));
        m.task_on(CpuId(1), "taker of both", move || {
            let _b = locks.b.lock_irqsave();
            let _a = locks.a.lock();
        });
        m.hardware("device", move || handler.raise());
    });
    reachable(&report, FailureKind::Deadlock);
    println!(
        "{}",
        doorbell_explore::render::text(
            &report.failure.as_ref().unwrap().trace,
            &Default::default()
        )
    );
}

#[test]
fn questions_that_the_run_which_was_found_does_not_answer_are_only_counted() {
    let report = Explore::new("two questions").run(|m: &Machine| {
        let (locks, c) = (Locks::new(), Lock::<Sim, ()>::new(&C, ()));
        let other = Arc::clone(&locks);
        m.task("one", move || {
            for c_first in [true, false] {
                let outer = if c_first { c.lock() } else { locks.a.lock() };
                drop(if c_first { locks.a.lock() } else { c.lock() });
                drop(outer);
            }
            locks.ab();
        });
        m.task("two", move || other.ba());
    });
    reachable(&report, FailureKind::Deadlock);
    assert_eq!(report.lock_questions().len(), 2);
    let text = report.lock_report();
    assert!(text.contains("REACHABLE") && !text.contains("UNKNOWN"), "{text}");
    assert!(text.ends_with("(1 more questioned, and not answered by this run)"), "{text}");
}
