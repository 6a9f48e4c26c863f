//! Mutexes and reader-writer locks.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sync::atomic::AtomicUsize;
use doorbell_explore::sync::{Mutex, RwLock, Semaphore, thread};
use doorbell_explore::trace::FailureKind;

use crate::{fails, passes};

#[test]
fn two_mutexes_in_opposite_orders_deadlock_and_in_one_order_do_not() {
    let program = |crossed: bool| {
        move || {
            let (a, b) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
            let (c, d) = (Arc::clone(&a), Arc::clone(&b));
            let (first, second) = if crossed { (d, c) } else { (c, d) };
            let task = thread::spawn(move || {
                let guard = first.lock().unwrap();
                *second.lock().unwrap() += *guard;
            });
            let guard = a.lock().unwrap();
            *b.lock().unwrap() += *guard;
            drop(guard);
            task.join().unwrap();
        }
    };
    fails(FailureKind::Deadlock, program(true));
    passes(program(false));
}

#[test]
fn a_count_under_a_mutex_loses_nothing() {
    passes(|| {
        let count = Arc::new(Mutex::new(0));
        let tasks = [1, 2].map(|_| {
            let count = Arc::clone(&count);
            thread::spawn(move || *count.lock().unwrap() += 1)
        });
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(*count.lock().unwrap(), 2);
    });
}

#[test]
fn a_try_that_fails_means_that_somebody_holds_the_mutex() {
    passes(|| {
        let (lock, held) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let (other, holds) = (Arc::clone(&lock), Arc::clone(&held));
        let task = thread::spawn(move || {
            let guard = other.lock().unwrap();
            holds.store(1, SeqCst);
            drop(guard);
        });
        if lock.try_lock().is_err() {
            drop(lock.lock().unwrap());
            assert_eq!(held.load(SeqCst), 1);
        }
        task.join().unwrap();
    });
}

#[test]
fn a_mutex_whose_holder_panics_is_free_and_not_poisoned() {
    passes(|| {
        let lock = Arc::new(Mutex::new(1));
        let other = Arc::clone(&lock);
        let task = thread::spawn_may_panic(move || {
            let _guard = other.lock().unwrap();
            panic!("while it holds the mutex");
        });
        let panicked: Result<(), _> = task.join();
        assert_eq!(panicked.unwrap_err().message(), "while it holds the mutex");
        assert_eq!(*lock.lock().unwrap(), 1);
    });
}

#[test]
fn readers_share_a_lock_and_a_writer_has_it_alone() {
    let program = |writers: usize| {
        move || {
            let (lock, inside) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
            let tasks = [0, 1].map(|task| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                thread::spawn(move || {
                    let guards = if task < writers {
                        (Some(lock.write().unwrap()), None)
                    } else {
                        (None, Some(lock.read().unwrap()))
                    };
                    assert_eq!(inside.fetch_add(1, SeqCst), 0, "somebody else is there");
                    inside.fetch_sub(1, SeqCst);
                    drop(guards);
                })
            });
            tasks.into_iter().for_each(|task| task.join().unwrap());
        }
    };
    passes(program(2));
    passes(program(1));
    fails(FailureKind::Panic, program(0));
}

#[test]
fn two_readers_that_both_want_to_write_deadlock() {
    let program = |upgrades: bool| {
        move || {
            let lock = Arc::new(RwLock::new(0));
            let other = Arc::clone(&lock);
            let add = move |lock: &RwLock<i32>| {
                let read = lock.read().unwrap();
                let sum = *read + 1;
                let kept = upgrades.then_some(read);
                // Without the guard another one may write between, and nobody waits for ever.
                *lock.write().unwrap() = sum;
                drop(kept);
            };
            thread::spawn(move || add(&other));
            add(&lock);
        }
    };
    fails(FailureKind::Deadlock, program(true));
    passes(program(false));
}

#[test]
fn as_many_hold_a_semaphore_as_it_has_permits() {
    let program = |permits: usize| {
        move || {
            let shared = Arc::new((Semaphore::new(permits), AtomicUsize::new(0)));
            let tasks = [0, 1].map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let _permit = shared.0.acquire();
                    assert_eq!(shared.1.fetch_add(1, SeqCst), 0);
                    shared.1.fetch_sub(1, SeqCst);
                })
            });
            tasks.into_iter().for_each(|task| task.join().unwrap());
        }
    };
    passes(program(1));
    fails(FailureKind::Panic, program(2));
}
