//! The false positive of the posted-interrupt wake-up lock, its annotation, and faults that the
//! annotation must not hide.
//!
//! The handler wakes vCPUs under the wake-up lock of its CPU; the wake-up takes the task's lock,
//! then the run queue's. Sched-out takes the wake-up lock under the run queue's lock, with
//! interrupts off. Sched-in, after that was dropped, takes the lock of the CPU where the vCPU ran
//! before.

use super::*;

static TASK: LockClass = LockClass::new("pi_lock", WaitType::Spin);
static QUEUE: LockClass = LockClass::new("rq", WaitType::Spin);
static WAKE: LockClass = LockClass::new("wakeup_lock", WaitType::Spin);

const TASK_LOCK: u32 = 50;

fn queue(cpu: u32) -> u32 {
    100 + cpu
}

fn wakeup(cpu: u32) -> u32 {
    200 + cpu
}

fn try_to_wake_up(mut ctx: Context, v: &mut Validator, cpu: u32) {
    assert_eq!(ctx.lock(v, &TASK, TASK_LOCK), None);
    assert_eq!(ctx.lock(v, &QUEUE, queue(cpu)), None);
}

/// Everything but sched-in, on `cpus` CPUs.
fn feed(v: &mut Validator, cpus: u32, sched_out_subclass: u8) {
    for cpu in 0..cpus {
        let mut wakes = handler(cpu as u8, cpu);
        wakes.lock(v, &WAKE, wakeup(cpu));
        for target in 0..cpus {
            try_to_wake_up(wakes.clone(), v, target);
        }
        try_to_wake_up(task(20).on(cpu).irqs_off(), v, 0);
        let mut out = task(10 + cpu as u8).on(cpu).irqs_off();
        out.lock(v, &QUEUE, queue(cpu));
        out.lock_nested(v, &WAKE, wakeup(cpu), sched_out_subclass);
    }
}

/// Task 15 resumes on CPU 1 after it ran on CPU 0.
fn sched_in(v: &mut Validator, both: bool) -> Context {
    let mut ctx = task(15).on(1).irqs_off();
    ctx.lock(v, &WAKE, wakeup(0));
    if both {
        assert_eq!(ctx.annotate(v, &WAKE, 1), None);
    }
    ctx
}

#[test]
fn without_subclasses_it_is_reported_and_explained() {
    let mut v = fresh();
    feed(&mut v, 1, 0);
    sched_in(&mut v, false);
    let inversion = Question::Inversion(vec![Node::of(&TASK), Node::of(&QUEUE), Node::of(&WAKE)]);
    assert!(v.questions().contains(&&inversion), "{v}");
    for question in v.questions() {
        assert_eq!(
            v.unreachable_reasons(question),
            [Reason::ExclusiveOnCpu { cpu: vec![CpuId(0)] }],
            "{question}"
        );
    }

    let mut v = fresh();
    feed(&mut v, 3, 0);
    sched_in(&mut v, false);
    let on_each = Reason::ExclusiveOnCpu { cpu: vec![CpuId(0), CpuId(1), CpuId(2)] };
    assert_eq!(v.unreachable_reasons(&inversion), [Reason::DifferentInstances, on_each]);
}

#[test]
fn with_subclasses_there_is_nothing_to_report() {
    let mut v = fresh();
    feed(&mut v, 2, 1);
    sched_in(&mut v, true);
    assert!(v.questions().is_empty(), "{v}");
    assert_eq!(v.violations().count(), 0);
}

#[test]
fn a_sched_in_that_wakes_up_under_the_lock_is_caught_because_it_names_the_sched_out_subclass() {
    let mut v = fresh();
    feed(&mut v, 2, 1);
    let ctx = sched_in(&mut v, true);
    try_to_wake_up(ctx.clone(), &mut v, 0);
    let inversion =
        Question::Inversion(vec![Node::of(&TASK), Node::of(&QUEUE), Node::nested(&WAKE, 1)]);
    assert!(v.questions().contains(&&inversion), "{v}");

    // The deadlock goes through the lock itself; the order was learned from the annotation.
    let mut wakes = task(20).on(2).irqs_off();
    wakes.lock(&mut v, &TASK, TASK_LOCK);
    let mut out = task(10).on(0).irqs_off();
    out.lock(&mut v, &QUEUE, queue(0));
    let members = [
        ctx.stuck(Some((&TASK, TASK_LOCK, 0)), None),
        wakes.stuck(Some((&QUEUE, queue(0), 0)), None),
        out.stuck(Some((&WAKE, wakeup(0), 1)), None),
    ];
    assert!(inversion.matches(&members));
    v.deadlock_seen(&members, "t");
    assert_eq!(v.answer(&inversion, true), Answer::Reachable { token: "t".into() });

    let mut v = fresh();
    feed(&mut v, 2, 1);
    try_to_wake_up(sched_in(&mut v, false), &mut v, 0);
    assert!(v.questions().is_empty(), "without the second name nobody would notice");
}

#[test]
fn an_annotation_stands_for_the_lock_of_its_class_that_is_held() {
    let mut v = fresh();
    let mut ctx = sched_in(&mut v, true);
    ctx.lock(&mut v, &TASK, TASK_LOCK);
    let mut other = task(10).on(0).irqs_off();
    other.lock(&mut v, &TASK, TASK_LOCK);
    other.lock_nested(&mut v, &WAKE, wakeup(3), 1);
    let inversion = Question::Inversion(vec![Node::of(&TASK), Node::nested(&WAKE, 1)]);
    assert!(v.questions().contains(&&inversion), "{v}");
    assert_eq!(v.unreachable_reasons(&inversion), [Reason::DifferentInstances]);
}

#[test]
fn a_sched_in_under_the_run_queue_is_caught_because_it_names_the_handlers_subclass() {
    let mut v = fresh();
    feed(&mut v, 2, 1);
    let mut ctx = task(15).on(1).irqs_off();
    ctx.lock(&mut v, &QUEUE, queue(1));
    ctx.lock(&mut v, &WAKE, wakeup(0));
    ctx.annotate(&mut v, &WAKE, 1);
    let inversion = Question::Inversion(vec![Node::of(&QUEUE), Node::of(&WAKE)]);
    assert!(v.questions().contains(&&inversion), "{v}");
    assert_eq!(
        v.unreachable_reasons(&inversion),
        [Reason::Search],
        "the handler on CPU0 may wake up for CPU1"
    );
}

#[test]
fn a_sched_in_with_interrupts_on_is_caught() {
    let mut v = fresh();
    feed(&mut v, 2, 1);
    let mut ctx = task(15).on(1);
    ctx.lock(&mut v, &WAKE, wakeup(0));
    assert!(v.questions().contains(&&Question::IrqUsage(Node::of(&WAKE))), "{v}");
}
