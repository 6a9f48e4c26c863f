use super::*;

#[test]
fn a_context_that_takes_both_orders_one_after_the_other_does_not_wait_for_itself() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(1).nest(&mut v, &[(&B, 2), (&A, 1)]);
    let reason = only_reason(&v);
    assert_eq!(reason, Reason::SameContext { ctx: vec![CtxId(1)] });
    assert_eq!(
        reason.sentence(&|_| "the worker".into()),
        "Only the worker does both, one after the other."
    );
}

#[test]
fn a_gate_lock_around_both_orders_keeps_them_apart() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&GATE, 9), (&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&GATE, 9), (&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::GateLock { classes: vec!["gate"] });
}

#[test]
fn two_gate_locks_of_one_class_keep_nothing_apart() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&GATE, 8), (&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&GATE, 9), (&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn a_gate_between_the_two_locks_counts_too() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&GATE, 9), (&B, 2)]);
    let mut two = task(2);
    two.lock(&mut v, &GATE, 9);
    two.lock(&mut v, &B, 2);
    two.lock(&mut v, &A, 1);
    // a → gate → a is a question of its own, and no gate guards that.
    let inversion = Question::Inversion(vec![Node::of(&A), Node::of(&B)]);
    assert_eq!(v.unreachable_reasons(&inversion), [Reason::GateLock { classes: vec!["gate"] }]);
    let other = Question::Inversion(vec![Node::of(&A), Node::of(&GATE)]);
    assert!(v.questions().contains(&&other));
    assert_eq!(v.unreachable_reasons(&other), [Reason::Search]);
}

#[test]
fn one_path_without_the_gate_is_enough() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&GATE, 9), (&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&GATE, 9), (&B, 2), (&A, 1)]);
    task(3).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn a_thread_that_starts_after_the_other_was_joined_does_not_meet_it() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).after(1).nest(&mut v, &[(&B, 2), (&A, 1)]);
    let reason = only_reason(&v);
    assert_eq!(reason, Reason::Ordered { pairs: vec![(CtxId(1), CtxId(2))] });
    assert_eq!(
        reason.sentence(&|ctx| format!("task{}", ctx.0)),
        "They never overlap: task1 has ended before task2 gets there."
    );
}

#[test]
fn what_some_schedules_order_and_others_do_not_is_not_ordered() {
    for swap in [false, true] {
        let mut v = fresh();
        task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
        for ordered in [swap, !swap] {
            let two = if ordered { task(2).after(1) } else { task(2) };
            two.nest(&mut v, &[(&B, 2), (&A, 1)]);
        }
        assert_eq!(only_reason(&v), Reason::Search);
    }
}

#[test]
fn locks_that_only_share_a_class_do_not_wait_for_each_other() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&B, 3), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::DifferentInstances);
    task(2).nest(&mut v, &[(&B, 2), (&A, 4)]);
    assert_eq!(only_reason(&v), Reason::DifferentInstances);
    task(3).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn combinations_with_different_reasons_are_told_with_all_of_them() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).after(1).nest(&mut v, &[(&B, 2), (&A, 1)]);
    task(3).nest(&mut v, &[(&B, 3), (&A, 1)]);
    let reasons = v.unreachable_reasons(&only_question(&v));
    assert_eq!(
        reasons,
        [Reason::Ordered { pairs: vec![(CtxId(1), CtxId(2))] }, Reason::DifferentInstances]
    );
}

#[test]
fn witnesses_that_were_left_out_forbid_a_conclusion() {
    let mut v = Validator::new(Rules { witnesses: 2, ..Rules::default() });
    for lock in 10..12 {
        task(1).nest(&mut v, &[(&A, lock), (&B, 2)]);
    }
    task(1).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::SameContext { ctx: vec![CtxId(1)] });
    task(1).nest(&mut v, &[(&A, 12), (&B, 2)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn two_tasks_that_spin_on_one_cpu_are_not_there_at_once() {
    let mut v = fresh();
    task(1).on(0).irqs_off().nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).on(0).irqs_off().nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::ExclusiveOnCpu { cpu: vec![CpuId(0)] });
}

#[test]
fn two_tasks_that_sleep_on_one_cpu_may_both_be_there() {
    static OTHER: LockClass = LockClass::new("other", WaitType::Sleep);
    let mut v = fresh();
    task(1).on(0).nest(&mut v, &[(&MUTEX, 1), (&OTHER, 2)]);
    task(2).on(0).nest(&mut v, &[(&OTHER, 2), (&MUTEX, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn a_handler_may_run_over_a_task_that_waits_with_interrupts_on() {
    let mut v = fresh();
    task(1).on(0).nest(&mut v, &[(&A, 1), (&B, 2)]);
    handler(2, 0).nest(&mut v, &[(&B, 2), (&A, 1)]);
    let inversion = Question::Inversion(vec![Node::of(&A), Node::of(&B)]);
    assert_eq!(v.unreachable_reasons(&inversion), [Reason::Search]);
    let mut v = fresh();
    task(1).on(0).irqs_off().nest(&mut v, &[(&A, 1), (&B, 2)]);
    handler(2, 0).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert_eq!(v.unreachable_reasons(&inversion), [Reason::ExclusiveOnCpu { cpu: vec![CpuId(0)] }]);
}

#[test]
fn a_report_has_a_line_for_each_party_and_says_why() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&GATE, 9), (&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&GATE, 9), (&B, 2), (&A, 1)]);
    let question = only_question(&v);
    let text =
        v.describe(&question, Some(&v.answer(&question, true)), &|ctx| format!("'t{}'", ctx.0));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], "possible circular locking dependency: a → b → a");
    assert!(lines[1].starts_with("  a#1 → b#2 in task 't1' on CPU1 (irqs on) at "), "{text}");
    assert!(lines[1].ends_with(", under gate#9"), "{text}");
    assert_eq!(
        lines[3],
        "  UNREACHABLE within the scope. Both sides run under the same gate, so only one of them gets that far."
    );
    assert!(v.to_string().lines().count() <= 10);
}
