//! What is known depends on what was fed, not on how.

use super::*;

/// Deterministic and good enough (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

static CLASSES: [&LockClass; 4] = [&A, &B, &C, &MUTEX];

/// Some context takes up to four locks.
fn deed(dice: &mut Dice, feed: &mut dyn FnMut(&AcquireEvent<'_>)) {
    let id = dice.roll(4) as u8;
    let mut ctx =
        if id == 3 { handler(3, dice.roll(2) as u32) } else { task(id).on(dice.roll(2) as u32) };
    if dice.roll(2) == 0 {
        ctx = ctx.irqs_off();
    }
    if id == 2 && dice.roll(3) == 0 {
        ctx = ctx.after(1);
    }
    for _ in 0..=dice.roll(3) {
        let class = CLASSES[dice.roll(4) as usize];
        let lock = (dice.roll(8) > 0).then(|| 1 + dice.roll(3) as u32);
        let subclass = Subclass::new((class == &A && dice.roll(3) == 0).into());
        let tried = dice.roll(6) == 0;
        let taken = Held { subclass, tried, ..ctx.held_lock(class, lock) };
        feed(&AcquireEvent {
            ctx: CtxId(ctx.id),
            kind: ctx.kind,
            cpu: Some(CpuId(ctx.cpu)),
            taken,
            under: (dice.roll(8) == 0).then_some(&A),
            atomic: ctx.atomic,
            held: &ctx.held,
            after: ctx.after,
        });
        ctx.held.push(taken);
    }
}

/// All that a validator knows, as text.
fn knowledge(v: &Validator) -> String {
    format!("{:#?}{:#?}{:#?}{:#?}", v.graph, v.questions, v.violations, v.deadlocks)
}

fn small() -> Validator {
    Validator::new(Rules { questions: 100_000, ..Rules::default() })
}

#[test]
fn the_fast_path_loses_nothing() {
    for seed in 1..4 {
        let (mut fast, mut slow) = (small(), small());
        let mut dice = Dice(seed);
        for _ in 0..2000 {
            deed(&mut dice, &mut |event| {
                let expected = slow.learn(event);
                assert_eq!(fast.acquire(event), expected);
            });
        }
        assert_eq!(knowledge(&fast), knowledge(&slow));
        assert!(!fast.questions().is_empty());
    }
}

#[test]
fn a_validator_can_be_sent_to_the_thread_that_merges_it() {
    fn sent<T: Send + 'static>(_: T) {}
    sent(fresh());
}

#[test]
fn merging_is_the_same_as_feeding_one_after_the_other() {
    for seed in 1..4 {
        let mut parts = [small(), small(), small()];
        let mut whole = small();
        let mut dice = Dice(seed * 77);
        for _ in 0..600 {
            let part = dice.roll(3) as usize;
            deed(&mut dice, &mut |event| {
                whole.acquire(event);
                parts[part].acquire(event);
            });
        }
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut merged = small();
            for part in order {
                merged.merge(parts[part].clone());
            }
            assert_eq!(knowledge(&merged), knowledge(&whole));
        }
    }
}

#[test]
fn a_cycle_with_one_order_from_each_thread_is_found_when_they_are_merged() {
    let (mut one, mut two) = (fresh(), fresh());
    task(1).nest(&mut one, &[(&A, 1), (&B, 2)]);
    let (mut first, mut second) = (task(1), task(2));
    first.lock(&mut one, &A, 1);
    second.lock(&mut two, &B, 2);
    // The deadlock was seen by a thread that had been told only half of the orders.
    let members = [first.stuck(Some((&B, 2, 0)), None), second.stuck(Some((&A, 1, 0)), None)];
    one.deadlock_seen(&members, "t");
    second.clone().lock(&mut two, &A, 1);
    assert!(one.questions().is_empty() && two.questions().is_empty());
    one.merge(two);
    assert_eq!(one.answer(&only_question(&one), false), Answer::Reachable { token: "t".into() });
}

#[test]
fn everything_that_matters_is_in_the_fingerprint() {
    let mut dice = Dice(5);
    let mut prints = std::collections::HashMap::new();
    for _ in 0..20_000 {
        deed(&mut dice, &mut |event| {
            let text = format!("{event:?}");
            let known = prints.entry(fingerprint(event)).or_insert_with(|| text.clone());
            assert_eq!(*known, text);
        });
    }
    assert!(prints.len() > 1000);
}

#[test]
fn a_full_table_of_the_fast_path_forgets_and_stays_within_bounds() {
    let mut v = fresh();
    for lock in 0..200_000 {
        assert_eq!(task(1).lock(&mut v, &A, lock), None);
    }
    task(1).nest(&mut v, &[(&A, 1), (&B, 2)]);
    task(2).nest(&mut v, &[(&B, 2), (&A, 1)]);
    only_question(&v);
}
