//! What the outside cannot see: which grace periods there are, and which counters a reader uses.

use core::sync::atomic::Ordering::*;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::Std;

fn completed(domain: &EpochSrcu<Std>) -> u64 {
    (0..).find(|&n| !domain.control.grace.has_ended(n + 1)).unwrap()
}

#[test]
fn all_who_ask_while_a_grace_period_waits_share_the_next_one() {
    let domain = EpochSrcu::<Std>::new("test");
    let section = domain.read();
    let first = domain.control.request();
    assert_eq!(first, 1);
    let others: Vec<u64> = (0..20).map(|_| domain.control.request()).collect();
    assert!(
        others.iter().all(|&number| number == 2),
        "they came after the first had begun: {others:?}"
    );
    assert_eq!(completed(&domain), 0);
    drop(section);
    assert_eq!(
        completed(&domain),
        2,
        "the reader that ends takes both to their ends, nobody else is needed"
    );
}

#[test]
fn a_section_that_begins_during_a_grace_period_does_not_hold_it_up() {
    let domain = EpochSrcu::<Std>::new("test");
    let former = domain.read();
    let number = domain.control.request();
    let later = domain.read();
    assert!(!domain.control.grace.has_ended(number));
    drop(former);
    assert!(domain.control.grace.has_ended(number));
    drop(later);
}

#[test]
fn a_reader_that_took_its_index_before_the_flip_and_was_counted_after_it_is_waited_for() {
    let domain = EpochSrcu::<Std>::new("test");
    let stale = domain.control.signals.index.load(Relaxed);
    domain.synchronize();
    assert_ne!(
        domain.control.signals.index.load(Relaxed),
        stale,
        "the grace period flips the index"
    );
    // What `read_lock` does after it was held up for the whole grace period.
    domain.readers[0][stale as usize].fetch_add(1, SeqCst);
    let number = domain.control.request();
    assert!(!domain.control.grace.has_ended(number));
    // SAFETY: it ends the section that was begun above.
    unsafe { domain.read_unlock(EpochToken { cpu: 0, index: stale }) };
    assert!(domain.control.grace.has_ended(number));
}

#[test]
fn a_section_may_end_on_another_cpu_than_it_began_on() {
    let domain = EpochSrcu::<Std>::new("test");
    let token = domain.read_lock();
    let number = domain.control.request();
    thread::scope(|s| {
        s.spawn(|| {
            // Another thread, another shard. (That sections end in the context where they began is
            // for explorers; these counters do not mind.) SAFETY: it ends the section that was
            // begun above.
            unsafe { domain.read_unlock(token) };
        });
    });
    assert!(domain.control.grace.has_ended(number));
}

#[test]
fn a_reader_that_nobody_waits_for_takes_nothing_further() {
    let domain = EpochSrcu::<Std>::new("test");
    drop(domain.read());
    assert_eq!(completed(&domain), 0);
    assert_eq!(domain.control.signals.awaited.load(Relaxed), 0);
    domain.synchronize();
    assert_eq!(domain.control.signals.awaited.load(Relaxed), 0, "and none is awaited afterwards");
}

#[test]
fn a_callback_that_panics_does_not_take_the_others_along() {
    let domain = EpochSrcu::<Std>::new("test");
    let ran = Arc::new(core::sync::atomic::AtomicU32::new(0));
    let section = domain.read();
    for n in 0..4 {
        let ran = ran.clone();
        domain.call(Box::new(move || {
            if n == 1 {
                std::panic::resume_unwind(Box::new("a panic without a message"));
            }
            ran.fetch_add(1, SeqCst);
        }));
    }
    drop(section);
    domain.barrier();
    assert_eq!(ran.load(SeqCst), 3);
}

#[test]
fn callbacks_run_with_the_end_of_the_domain_if_a_section_was_forgotten() {
    let domain = EpochSrcu::<Std>::new("test");
    core::mem::forget(domain.read());
    let (ran, receiver) = std::sync::mpsc::channel();
    for n in 0..3 {
        let ran = ran.clone();
        // The first begins a grace period, which will not end; the others wait for the one after
        // it.
        domain.call(Box::new(move || ran.send(n).unwrap()));
    }
    drop((domain, ran));
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_section_is_waited_for_beside_any_number_that_were_forgotten() {
    let domain = EpochSrcu::<Std>::new("test");
    let section = domain.read();
    // What forgetting that many guards leaves, in a few seconds.
    domain.readers[section.token.cpu as usize][section.token.index as usize]
        .fetch_add(u64::from(u32::MAX), SeqCst);
    let number = domain.control.request();
    assert!(!domain.control.grace.has_ended(number));
    drop(section);
    assert!(!domain.control.grace.has_ended(number), "those that were forgotten never end");
}
