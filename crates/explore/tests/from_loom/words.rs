//! Atomic words.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_explore::sync::atomic::AtomicUsize;
use doorbell_explore::sync::thread;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine};

use crate::{fails, passes};

#[expect(dead_code, reason = "the example's `main`, and the stack that counts")]
#[path = "../../examples/treiber.rs"]
mod treiber;

/// Two tasks count in one word.
fn counter(add: fn(&AtomicUsize)) -> impl Fn() + Send + Sync {
    move || {
        let count = Arc::new(AtomicUsize::new(0));
        let other = Arc::clone(&count);
        let task = thread::spawn(move || add(&other));
        add(&count);
        task.join().unwrap();
        assert_eq!(count.load(SeqCst), 2);
    }
}

#[test]
fn a_count_by_a_load_and_a_store_loses_one() {
    fails(FailureKind::Panic, counter(|word| word.store(word.load(SeqCst) + 1, SeqCst)));
}

#[test]
fn a_count_by_an_exchange_loses_none_also_if_it_fails_for_nothing() {
    let add = |word: &AtomicUsize| {
        let mut held = word.load(Relaxed);
        while let Err(other) = word.compare_exchange_weak(held, held + 1, SeqCst, Relaxed) {
            held = other;
        }
    };
    passes(counter(add));
    let spurious = Explore::new("spurious").spurious_exchanges(1);
    thread::explore_as(&spurious, counter(add)).assert_exhausted();
}

#[test]
fn a_stack_of_bare_pointers_has_an_aba() {
    let report = Explore::new("a stack").run(|m: &Machine| treiber::bare(m));
    report.assert_found(FailureKind::UseAfterFree);
}

#[test]
fn of_two_that_store_and_look_one_sees_the_other() {
    // On a machine with store buffers that needs a fence, which this one does not miss.
    passes(|| {
        let words = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let other = Arc::clone(&words);
        let task = thread::spawn(move || {
            other[0].store(1, SeqCst);
            other[1].load(SeqCst)
        });
        words[1].store(1, SeqCst);
        let seen = words[0].load(SeqCst);
        assert!(seen + task.join().unwrap() > 0, "neither has seen the other");
    });
}
