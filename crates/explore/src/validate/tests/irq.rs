use super::*;

#[test]
fn a_class_taken_in_a_handler_and_held_with_interrupts_on_is_a_question() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    assert!(v.questions().is_empty());
    task(2).on(0).nest(&mut v, &[(&A, 1)]);
    let question = only_question(&v);
    assert_eq!(question, Question::IrqUsage(Node::of(&A)));
    assert_eq!(only_reason(&v), Reason::Search);
    let uses: Vec<_> = v.usages().map(|usage| usage.to_string()).collect();
    assert_eq!(uses, ["a {?}"]);

    let (mut stopped, spinning) = (task(2).on(0), handler(1, 0));
    stopped.lock(&mut v, &A, 1);
    let elsewhere = [stopped.stuck(None, None), spinning.stuck(Some((&A, 1, 0)), None)];
    assert!(!question.matches(&elsewhere), "the handler interrupted another");
    let members = [stopped.stuck(None, None), spinning.stuck(Some((&A, 1, 0)), Some(2))];
    v.deadlock_seen(&members, "t");
    assert_eq!(v.answer(&question, false), Answer::Reachable { token: "t".into() });
}

#[test]
fn with_interrupts_off_around_it_a_lock_may_be_taken_in_a_handler() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    task(2).irqs_off().nest(&mut v, &[(&A, 1)]);
    assert!(v.questions().is_empty());
}

#[test]
fn a_handler_that_only_tries_makes_nothing_irq_safe() {
    let mut v = fresh();
    handler(1, 0).try_lock(&mut v, &A, 1);
    task(2).on(0).nest(&mut v, &[(&A, 1)]);
    assert!(v.questions().is_empty());
}

#[test]
fn a_lock_that_a_task_only_tried_is_irq_unsafe_nevertheless() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    task(2).on(0).try_lock(&mut v, &A, 1);
    assert_eq!(only_question(&v), Question::IrqUsage(Node::of(&A)));
}

#[test]
fn a_lock_that_is_still_held_when_interrupts_are_on_again_is_irq_unsafe() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    let mut two = task(2).on(0).irqs_off();
    two.lock(&mut v, &A, 1);
    two.irqs_on = true;
    two.lock(&mut v, &B, 2);
    assert!(v.questions().contains(&&Question::IrqUsage(Node::of(&A))), "{v}");
}

#[test]
fn a_handler_that_never_runs_where_interrupts_are_on_is_harmless() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    task(2).on(1).nest(&mut v, &[(&A, 1)]);
    task(3).on(0).irqs_off().nest(&mut v, &[(&A, 1)]);
    let reason = only_reason(&v);
    assert_eq!(reason, Reason::IrqsOff { cpu: vec![CpuId(0)], node: Node::of(&A) });
    assert_eq!(
        reason.sentence(&|ctx| ctx.to_string()),
        "The handler runs on CPU0, where a is never held with interrupts on."
    );
}

#[test]
fn the_task_and_the_handler_may_use_different_locks_of_the_class() {
    let mut v = fresh();
    handler(1, 0).nest(&mut v, &[(&A, 1)]);
    task(2).on(0).nest(&mut v, &[(&A, 2)]);
    assert_eq!(only_reason(&v), Reason::DifferentInstances);
}

/// Task 1 holds b with interrupts on; task 2 takes b under a, with interrupts off; the handler
/// takes a.
fn three_parties(v: &mut Validator, handler_cpu: u32) {
    task(1).on(0).nest(v, &[(&B, 2)]);
    task(2).on(1).irqs_off().nest(v, &[(&A, 1), (&B, 2)]);
    handler(3, handler_cpu).nest(v, &[(&A, 1)]);
}

#[test]
fn an_interrupt_inversion_takes_three_parties() {
    let mut v = fresh();
    three_parties(&mut v, 0);
    let question = only_question(&v);
    assert_eq!(question.to_string(), "irq-safe to irq-unsafe lock order: a → b");
    assert_eq!(only_reason(&v), Reason::Search);

    let (mut one, mut two, three) = (task(1).on(0), task(2).on(1).irqs_off(), handler(3, 0));
    one.lock(&mut v, &B, 2);
    two.lock(&mut v, &A, 1);
    let (waits_b, waits_a) = (Some((&B, 2, 0)), Some((&A, 1, 0)));
    let members = [one.stuck(None, None), two.stuck(waits_b, None), three.stuck(waits_a, Some(1))];
    assert!(question.matches(&members));
    let between = handler(4, 0);
    let through_another = [
        one.stuck(None, None),
        two.stuck(waits_b, None),
        between.stuck(None, Some(1)),
        three.stuck(waits_a, Some(4)),
    ];
    assert!(question.matches(&through_another), "a handler on top of another");
    let not_under =
        [one.stuck(None, None), two.stuck(waits_b, None), three.stuck(waits_a, Some(7))];
    assert!(!question.matches(&not_under));
}

#[test]
fn an_interrupt_inversion_needs_the_handler_on_the_cpu_of_the_holder() {
    let mut v = fresh();
    three_parties(&mut v, 1);
    assert_eq!(only_reason(&v), Reason::IrqsOff { cpu: vec![CpuId(1)], node: Node::of(&B) });
}

#[test]
fn a_holder_that_may_migrate_can_be_interrupted_on_any_cpu() {
    let mut v = fresh();
    task(1).on(1).nest(&mut v, &[(&MUTEX, 2)]);
    let mut two = task(2).on(2).irqs_off();
    two.lock(&mut v, &A, 1);
    two.lock(&mut v, &MUTEX, 2).expect("that is wrong anyway");
    handler(3, 0).nest(&mut v, &[(&A, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn an_interrupt_inversion_over_three_classes_is_found_in_any_order_of_events() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let mut v = fresh();
        for step in order {
            match step {
                0 => handler(1, 0).nest(&mut v, &[(&A, 1)]),
                1 => task(2).irqs_off().nest(&mut v, &[(&A, 1), (&B, 2)]),
                2 => task(3).irqs_off().nest(&mut v, &[(&B, 2), (&C, 3)]),
                _ => task(4).on(0).nest(&mut v, &[(&C, 3)]),
            }
        }
        assert_eq!(question_texts(&v), ["irq-safe to irq-unsafe lock order: a → b → c"]);
    }
}

#[test]
fn subclasses_have_usages_of_their_own() {
    let mut v = fresh();
    let mut one = handler(1, 0);
    one.lock_nested(&mut v, &A, 1, 1);
    task(2).on(0).nest(&mut v, &[(&A, 2)]);
    assert!(v.questions().is_empty());
    assert_eq!(v.usages().map(|usage| usage.to_string()).collect::<Vec<_>>(), ["a {+}", "a/1 {-}"]);
}
