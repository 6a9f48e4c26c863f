use super::*;

fn kind(violation: Option<Box<Violation>>) -> Option<ViolationKind> {
    violation.map(|violation| violation.kind)
}

#[test]
fn taking_a_lock_that_one_holds_is_recursion_whatever_the_subclass_and_each_time() {
    let mut v = fresh();
    for _ in 0..3 {
        let mut one = task(1);
        one.lock(&mut v, &A, 1);
        assert_eq!(kind(one.lock(&mut v, &A, 1)), Some(ViolationKind::Recursion));
    }
    let mut two = task(2);
    two.lock(&mut v, &MUTEX, 2);
    let again = Held { subclass: Subclass::new(1), ..two.held_lock(&MUTEX, Some(2)) };
    assert_eq!(kind(two.take(&mut v, again, None)), Some(ViolationKind::Recursion));
    assert_eq!(v.violations().count(), 2, "each place once");
    assert!(v.questions().is_empty(), "there is nothing to ask");
}

#[test]
fn a_sleeping_lock_has_no_place_in_atomic_context() {
    let mut v = fresh();
    assert_eq!(
        kind(task(1).irqs_off().lock(&mut v, &MUTEX, 1)),
        Some(ViolationKind::SleepInAtomic)
    );
    assert_eq!(kind(task(1).irqs_off().try_lock(&mut v, &MUTEX, 1)), None);
    let mut two = task(2);
    two.lock(&mut v, &A, 2);
    two.atomic = true;
    assert_eq!(kind(two.lock(&mut v, &MUTEX, 1)), Some(ViolationKind::WaitTypeInversion));
    assert_eq!(kind(handler(3, 0).lock(&mut v, &MUTEX, 1)), Some(ViolationKind::SleepInHandler));
    assert_eq!(
        kind(handler(3, 0).try_lock(&mut v, &MUTEX, 1)),
        Some(ViolationKind::SleepInHandler)
    );
    let mut four = task(4);
    four.lock(&mut v, &MUTEX, 1);
    assert_eq!(kind(four.lock(&mut v, &A, 2)), None, "a spin lock may be taken under a mutex");
}

#[test]
fn a_nesting_must_be_in_the_table_if_there_is_one() {
    let mut v =
        Validator::new(Rules { nestings: Some(vec![(&A, &B), (&B, &C)]), ..Rules::default() });
    let mut one = task(1);
    assert_eq!(one.lock(&mut v, &A, 1), None);
    assert_eq!(one.lock(&mut v, &B, 2), None);
    let violation = one.lock(&mut v, &C, 3).expect("a → c is not in the table");
    assert_eq!(violation.kind, ViolationKind::NestingNotAllowed);
    assert_eq!(violation.held.map(|held| held.0), Some(Node::of(&A)));
    assert!(violation.to_string().contains("; a was taken at "), "{violation}");

    let mut two = task(2);
    two.lock(&mut v, &A, 1);
    assert_eq!(two.annotate(&mut v, &A, 1), None, "another name for what is held is no nesting");
    assert_eq!(kind(two.try_lock(&mut v, &C, 3)), Some(ViolationKind::NestingNotAllowed));
}

#[test]
fn an_assertion_tells_the_lock_from_its_class() {
    let mut v = fresh();
    let mut one = task(1);
    one.lock(&mut v, &A, 1);
    assert_eq!(v.assert_held(CtxId(1), &one.held, Some(ObjId(1)), &A), None);
    assert_eq!(v.assert_held(CtxId(1), &one.held, None, &A), None);
    let other = v.assert_held(CtxId(1), &one.held, Some(ObjId(2)), &A);
    assert_eq!(kind(other), Some(ViolationKind::NotHeld));
    assert_eq!(kind(v.assert_held(CtxId(1), &one.held, None, &B)), Some(ViolationKind::NotHeld));
    assert_eq!(v.violations().count(), 2);
}
