//! Simulated words and pointers: they do what those of `std` do, each operation in one step.

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sync::atomic::{AtomicPtr, AtomicUsize};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, sync};

#[expect(dead_code, reason = "the example's `main` and what it prints")]
#[path = "../examples/michael_scott.rs"]
mod michael_scott;
#[path = "../examples/treiber.rs"]
mod treiber;

/// Values that wrap, have all bits or some, and are negative where there is a sign.
const VALUES: [i64; 7] = [0, 1, 2, 0x55, -1, i64::MIN, i64::MAX];

/// Compares each operation of an explored word with that of `std`, for all pairs of values.
macro_rules! agrees {
    ($word:ident, $value:ty: $($op:ident),*) => {
        for (old, new) in VALUES.iter().flat_map(|&old| VALUES.map(|new| (old, new))) {
            let (old, new) = (old as $value, new as $value);
            $({
                let ours = sync::atomic::$word::new(old);
                let theirs = std::sync::atomic::$word::new(old);
                let op = stringify!($op);
                assert_eq!(ours.$op(new, SeqCst), theirs.$op(new, SeqCst), "{op} {old} {new}");
                assert_eq!(ours.load(SeqCst), theirs.load(SeqCst), "after {op} {old} {new}");
            })*
            let ours = sync::atomic::$word::new(old);
            assert_eq!(ours.compare_exchange(new, 7, SeqCst, SeqCst).is_ok(), old == new);
            assert_eq!(ours.load(SeqCst), if old == new { 7 } else { old });
            let twice = |word: $value| word.checked_mul(2);
            let updated = sync::atomic::$word::new(old).fetch_update(SeqCst, SeqCst, twice);
            assert_eq!(updated.is_ok(), twice(old).is_some());
        }
    };
}

#[test]
fn every_operation_of_every_width_does_what_that_of_std_does() {
    let report = Explore::new("operations").run(|m| {
        macro_rules! all {
            ($($word:ident: $value:ty),*) => {$(
                agrees!($word, $value: swap, fetch_add, fetch_sub, fetch_and, fetch_or, fetch_xor,
                    fetch_nand, fetch_max, fetch_min);
            )*};
        }
        all!(AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
        all!(AtomicI8: i8, AtomicI16: i16, AtomicI32: i32, AtomicI64: i64, AtomicIsize: isize);
        for (old, new) in [(false, false), (false, true), (true, false), (true, true)] {
            let word = || sync::atomic::AtomicBool::new(old);
            let theirs = || std::sync::atomic::AtomicBool::new(old);
            let (ours, std) = (word(), theirs());
            assert_eq!(ours.fetch_xor(new, SeqCst), std.fetch_xor(new, SeqCst));
            assert_eq!(ours.load(SeqCst), std.load(SeqCst));
            let (ours, std) = (word(), theirs());
            assert_eq!(ours.fetch_nand(new, SeqCst), std.fetch_nand(new, SeqCst));
            assert_eq!(ours.load(SeqCst), std.load(SeqCst));
        }
        m.task("nothing", || ());
    });
    report.assert_exhausted();
}

/// Two tasks put a node each in front of a list by `link`; whether both are there in the end.
fn two_push(link: fn(&AtomicPtr<usize>, *mut usize, *mut usize) -> bool) -> impl Fn(&Machine) {
    move |m: &Machine| {
        let head = Arc::new(AtomicPtr::new(null_mut::<usize>()).named("head"));
        let pushed = Arc::new(AtomicUsize::new(0));
        for task in 0..2 {
            let (head, pushed) = (Arc::clone(&head), Arc::clone(&pushed));
            let node: *mut usize = Box::leak(Box::new(task));
            m.task(format!("push {task}"), move || {
                let before = head.load(SeqCst);
                if link(&head, before, node) && before.is_null() {
                    pushed.fetch_add(1, SeqCst);
                }
            });
        }
        m.at_quiescence("one task found the list empty", move || match pushed.load(SeqCst) {
            1 => Ok(()),
            other => Err(format!("{other} tasks did")),
        });
    }
}

#[test]
fn a_pointer_is_compared_and_exchanged_in_one_step() {
    let report = Explore::new("exchange")
        .run(two_push(|head, old, new| head.compare_exchange(old, new, SeqCst, SeqCst).is_ok()));
    report.assert_exhausted();
    let report = Explore::new("look, then store").run(two_push(|head, old, new| {
        let empty = head.load(SeqCst) == old;
        head.store(new, SeqCst);
        empty
    }));
    report.assert_found(FailureKind::Quiescence);
}

#[test]
fn an_exchange_of_pointers_that_fails_only_reads() {
    let report = Explore::new("fails").run(|m| {
        let here: *mut u8 = Box::leak(Box::new(0));
        let word = Arc::new(AtomicPtr::new(here));
        for task in 0..2 {
            let word = Arc::clone(&word);
            m.task(format!("{task}"), move || {
                let failed = word.compare_exchange(null_mut(), null_mut(), SeqCst, SeqCst);
                assert_eq!(failed, Err(here));
            });
        }
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 1, "two steps that only read come in any order");
}

#[test]
fn a_stack_of_bare_pointers_has_an_aba_and_one_of_counted_places_has_none() {
    treiber::main();
}

#[test]
fn a_queue_loses_a_node_that_is_linked_by_a_store_and_none_by_an_exchange() {
    let report = Explore::new("linked by a store")
        .run(|m| michael_scott::queue(m, michael_scott::Link::Store));
    report.assert_found(FailureKind::Quiescence);
    let report = Explore::new("linked by an exchange")
        .run(|m| michael_scott::queue(m, michael_scott::Link::Exchange));
    report.assert_exhausted();
}
