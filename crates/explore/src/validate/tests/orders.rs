use super::*;

#[test]
fn one_order_is_no_question() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&A, 1), (&B, 2)]);
    assert!(v.questions().is_empty());
    assert_eq!(v.order_edges().collect::<Vec<_>>(), [(Node::of(&A), Node::of(&B))]);
}

#[test]
fn two_contexts_with_opposite_orders_are_a_question_that_only_the_search_can_answer() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&B, 2), (&A, 1)]);
    let question = only_question(&v);
    assert_eq!(question, Question::Inversion(vec![Node::of(&A), Node::of(&B)]));
    assert_eq!(v.answer(&question, false), Answer::Unknown);
    assert_eq!(v.answer(&question, true), Answer::Unreachable { reasons: vec![Reason::Search] });
}

#[test]
fn a_deadlock_along_the_orders_answers_the_question() {
    let mut v = fresh();
    let (mut one, mut two) = (task(1), task(2));
    one.lock(&mut v, &A, 1);
    two.lock(&mut v, &B, 2);
    one.clone().lock(&mut v, &B, 2);
    two.clone().lock(&mut v, &A, 1);
    let question = only_question(&v);
    let other = [one.stuck(Some((&B, 9, 0)), None), two.stuck(Some((&A, 1, 0)), None)];
    assert!(!question.matches(&other), "lock 9 is held by nobody");
    let members = [two.stuck(Some((&A, 1, 0)), None), one.stuck(Some((&B, 2, 0)), None)];
    assert!(question.matches(&members));
    v.deadlock_seen(&members, "longer");
    v.deadlock_seen(&members, "t2");
    v.deadlock_seen(&members, "t1");
    assert_eq!(v.answer(&question, true), Answer::Reachable { token: "t1".into() });
}

#[test]
fn a_cycle_of_three_is_one_question_from_wherever_it_is_seen() {
    for first in 0..3 {
        let mut v = fresh();
        let locks: [(&'static LockClass, u32); 3] = [(&A, 1), (&B, 2), (&C, 3)];
        for at in 0..3 {
            let (one, two) = ((first + at) % 3, (first + at + 1) % 3);
            task(one as u8).nest(&mut v, &[locks[one], locks[two]]);
        }
        assert_eq!(question_texts(&v), ["possible circular locking dependency: a → b → c → a"]);
    }
}

#[test]
fn a_detour_that_one_context_makes_is_not_a_question_of_its_own() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&B, 2), (&C, 3)]);
    task(2).nest(&mut v, &[(&C, 3), (&A, 1)]);
    assert_eq!(question_texts(&v), ["possible circular locking dependency: a → c → a"]);
    // Another context that makes half of the detour makes it a deadlock of three.
    task(3).nest(&mut v, &[(&B, 2), (&C, 3)]);
    assert_eq!(v.questions().len(), 2);
}

#[test]
fn a_try_lock_waits_for_nobody_but_is_waited_for() {
    let mut v = fresh();
    let mut one = task(1);
    one.lock(&mut v, &A, 1);
    one.try_lock(&mut v, &B, 2);
    task(2).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert!(v.questions().is_empty(), "{v}");
    one.lock(&mut v, &C, 3);
    task(2).nest(&mut v, &[(&C, 3), (&B, 2)]);
    assert!(v.questions().contains(&&Question::Inversion(vec![Node::of(&B), Node::of(&C)])), "{v}");
}

#[test]
fn two_locks_of_one_class_are_a_question() {
    let mut v = fresh();
    task(1).nest(&mut v, &[(&A, 1), (&A, 2)]);
    assert_eq!(only_question(&v), Question::Nesting(Node::of(&A)));
    assert_eq!(only_reason(&v), Reason::SameContext { ctx: vec![CtxId(1)] });
    task(2).nest(&mut v, &[(&A, 1), (&A, 2)]);
    assert_eq!(only_reason(&v), Reason::DifferentInstances);
    task(3).nest(&mut v, &[(&A, 2), (&A, 1)]);
    assert_eq!(only_reason(&v), Reason::Search);
}

#[test]
fn a_deadlock_of_two_nestings_answers_the_question() {
    let mut v = fresh();
    let (mut one, mut two) = (task(1), task(2));
    one.lock(&mut v, &A, 1);
    two.lock(&mut v, &A, 2);
    one.clone().lock(&mut v, &A, 2);
    two.clone().lock(&mut v, &A, 1);
    let members = [one.stuck(Some((&A, 2, 0)), None), two.stuck(Some((&A, 1, 0)), None)];
    v.deadlock_seen(&members, "t");
    assert_eq!(v.answer(&only_question(&v), true), Answer::Reachable { token: "t".into() });
}

#[test]
fn a_subclass_declares_the_order_of_a_nesting() {
    let mut v = fresh();
    let mut one = task(1);
    one.lock(&mut v, &A, 1);
    one.lock_nested(&mut v, &A, 2, 1);
    assert!(v.questions().is_empty());
    let mut two = task(2);
    two.lock_nested(&mut v, &A, 2, 1);
    two.lock(&mut v, &A, 1);
    assert_eq!(question_texts(&v), ["possible circular locking dependency: a → a/1 → a"]);
}

#[test]
fn a_nest_lock_serialises_nestings_only_while_it_is_held() {
    let mut v = fresh();
    let mut one = task(1);
    one.lock(&mut v, &GATE, 0);
    assert_eq!(one.lock_under(&mut v, &A, 1, &GATE), None);
    assert_eq!(one.lock_under(&mut v, &A, 2, &GATE), None);
    assert_eq!(one.lock_under(&mut v, &A, 3, &GATE), None);
    assert!(v.questions().is_empty());
    // The orders between classes stay under watch.
    assert!(v.order_edges().any(|edge| edge == (Node::of(&GATE), Node::of(&A))));

    let mut two = task(2);
    two.lock(&mut v, &A, 1);
    let violation = two.lock_under(&mut v, &A, 2, &GATE).expect("the gate is not held");
    assert_eq!(violation.kind, ViolationKind::NestLockNotHeld);
    assert_eq!(only_question(&v), Question::Nesting(Node::of(&A)));
}

#[test]
fn annotations_take_part_as_locks_do() {
    let mut v = fresh();
    let mut one = task(1);
    one.annotate(&mut v, &C, 0);
    one.lock(&mut v, &A, 1);
    let mut two = task(2);
    two.lock(&mut v, &A, 1);
    two.annotate(&mut v, &C, 0);
    assert_eq!(question_texts(&v), ["possible circular locking dependency: a → c → a"]);
    assert_eq!(only_reason(&v), Reason::Search);

    let mut v = fresh();
    let mut one = task(1);
    one.annotate(&mut v, &C, 0);
    one.annotate(&mut v, &C, 0);
    assert_eq!(only_question(&v), Question::Nesting(Node::of(&C)));
    assert_eq!(only_reason(&v), Reason::Search, "it may well wait for itself");
}

#[test]
fn more_questions_than_are_kept_are_admitted() {
    let mut v = Validator::new(Rules { questions: 1, ..Rules::default() });
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&B, 2), (&A, 1)]);
    assert!(!v.has_more_questions());
    task(3).nest(&mut v, &[(&C, 3), (&A, 1)]);
    task(4).nest(&mut v, &[(&A, 1), (&C, 3)]);
    assert!(v.has_more_questions());
    assert_eq!(v.questions().len(), 1);
}
