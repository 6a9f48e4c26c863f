//! Condition variables, channels, parking, barriers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::Explore;
use doorbell_explore::sync::atomic::{AtomicBool, AtomicUsize};
use doorbell_explore::sync::mpsc::{channel, sync_channel};
use doorbell_explore::sync::{Barrier, Condvar, Mutex, Once, thread};
use doorbell_explore::trace::FailureKind;

use crate::{fails, passes};

type Flag = Arc<(Mutex<bool>, Condvar)>;

/// One task waits for a flag that another sets; `wait` waits, `set` sets.
fn flag(wait: fn(&Flag), set: fn(&Flag)) -> impl Fn() + Send + Sync {
    move || {
        let flag: Flag = Arc::new((Mutex::new(false), Condvar::new()));
        let other = Arc::clone(&flag);
        let task = thread::spawn(move || set(&other));
        wait(&flag);
        task.join().unwrap();
    }
}

fn set(flag: &Flag) {
    *flag.0.lock().unwrap() = true;
    flag.1.notify_one();
}

fn wait_in_a_loop(flag: &Flag) {
    let guard = flag.0.lock().unwrap();
    drop(flag.1.wait_while(guard, |set| !*set).unwrap());
}

fn wait_once(flag: &Flag) {
    let guard = flag.0.lock().unwrap();
    if !*guard {
        assert!(*flag.1.wait(guard).unwrap(), "woken, and the flag is not set");
    }
}

#[test]
fn who_waits_for_a_flag_in_a_loop_is_woken_also_if_it_wakes_up_for_nothing() {
    passes(flag(wait_in_a_loop, set));
    let spurious = Explore::new("spurious").spurious_wakes(1);
    thread::explore_as(&spurious, flag(wait_in_a_loop, set)).assert_exhausted();
}

#[test]
fn who_waits_for_a_flag_once_is_woken_for_nothing() {
    passes(flag(wait_once, set));
    let spurious = Explore::new("spurious").spurious_wakes(1);
    let report = thread::explore_as(&spurious, flag(wait_once, set));
    report.assert_found(FailureKind::Panic);
}

#[test]
fn a_notification_before_the_wait_is_lost() {
    fails(
        FailureKind::Deadlock,
        flag(|flag| drop(flag.1.wait(flag.0.lock().unwrap()).unwrap()), |flag| flag.1.notify_one()),
    );
}

#[test]
fn a_flag_that_is_looked_at_without_the_mutex_loses_the_wake_up() {
    let wait = |flag: &Flag| {
        if !*flag.0.lock().unwrap() {
            drop(flag.1.wait(flag.0.lock().unwrap()).unwrap());
        }
    };
    fails(FailureKind::Deadlock, flag(wait, set));
}

/// Two tasks take an item each out of a buffer that has room for one, and a third puts both in. All
/// three wait for one condition, and `notify` it.
fn buffer(notify: fn(&Condvar)) -> impl Fn() + Send + Sync {
    move || {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let tasks = [(1, 0), (1, 0), (0, 1)].map(|(from, to)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..2 - from {
                    let guard = shared.0.lock().unwrap();
                    let mut items = shared.1.wait_while(guard, |items| *items != from).unwrap();
                    *items = to;
                    notify(&shared.1);
                }
            })
        });
        tasks.into_iter().for_each(|task| task.join().unwrap());
    }
}

#[test]
fn a_bounded_buffer_with_one_condition_wakes_the_wrong_waiter() {
    fails(FailureKind::Deadlock, buffer(Condvar::notify_one));
    passes(buffer(Condvar::notify_all));
}

#[test]
fn a_channel_ends_when_the_last_sender_is_gone() {
    passes(|| {
        let (sender, receiver) = channel();
        let second = sender.clone();
        thread::spawn(move || sender.send(1).unwrap());
        thread::spawn(move || second.send(2).unwrap());
        let mut all: Vec<_> = receiver.iter().collect();
        all.sort();
        assert_eq!(all, [1, 2]);
    });
    fails(FailureKind::Deadlock, || {
        let (sender, receiver) = channel();
        let second = sender.clone();
        thread::spawn(move || second.send(1).unwrap());
        // The first sender is here, so nobody closes the channel.
        assert_eq!(receiver.iter().count(), 1);
        drop(sender);
    });
}

#[test]
fn a_bounded_channel_makes_the_sender_wait_and_tells_it_when_nobody_receives() {
    let sent = |bound: usize| {
        move || {
            let (sender, receiver) = sync_channel(bound);
            let (count, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (counts, received) = (Arc::clone(&count), Arc::clone(&sent));
            let task = thread::spawn(move || {
                while sender.send(()).is_ok() {
                    counts.fetch_add(1, SeqCst);
                }
            });
            receiver.recv().unwrap();
            received.store(1, SeqCst);
            assert!(count.load(SeqCst) < 3, "nobody has taken so many out");
            drop(receiver);
            task.join().unwrap();
        }
    };
    passes(sent(1));
    fails(FailureKind::Panic, sent(2));
}

#[test]
fn a_parked_task_needs_its_token_whenever_it_comes() {
    passes(|| {
        let main = thread::current();
        let task = thread::spawn(move || main.unpark());
        thread::park();
        task.join().unwrap();
    });
    fails(FailureKind::Deadlock, || {
        let main = thread::current();
        thread::spawn(move || {
            main.unpark();
            main.unpark();
        });
        // Two tokens are one.
        thread::park();
        thread::park();
    });
}

#[test]
fn who_parks_without_looking_again_goes_on_for_nothing() {
    let program = || {
        let (main, ready) = (thread::current(), Arc::new(AtomicBool::new(false)));
        let sets = Arc::clone(&ready);
        thread::spawn(move || {
            sets.store(true, SeqCst);
            main.unpark();
        });
        thread::park();
        assert!(ready.load(SeqCst));
    };
    passes(program);
    let spurious = Explore::new("spurious").spurious_wakes(1);
    thread::explore_as(&spurious, program).assert_found(FailureKind::Panic);
}

#[test]
fn a_loop_that_yields_waits_for_the_other_and_one_for_nobody_is_a_deadlock() {
    let program = |sets: bool| {
        move || {
            let flag = Arc::new(AtomicBool::new(false));
            let other = Arc::clone(&flag);
            thread::spawn(move || other.store(sets, SeqCst));
            while !flag.load(SeqCst) {
                thread::yield_now();
            }
        }
    };
    passes(program(true));
    fails(FailureKind::Deadlock, program(false));
}

#[test]
fn a_barrier_lets_all_go_on_together_and_has_one_leader() {
    passes(|| {
        let shared = Arc::new((Barrier::new(2), AtomicUsize::new(0)));
        let tasks = [0, 1].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.fetch_add(1, SeqCst);
                let leads = shared.0.wait().is_leader();
                assert_eq!(shared.1.load(SeqCst), 2, "somebody has not arrived");
                leads
            })
        });
        let leaders = tasks.map(|task| task.join().unwrap());
        assert!(leaders[0] != leaders[1]);
    });
}

#[test]
fn what_is_done_once_is_done_before_anybody_goes_on() {
    passes(|| {
        let shared = Arc::new((Once::new(), AtomicUsize::new(0)));
        let tasks = [0, 1].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.0.call_once(|| _ = shared.1.fetch_add(1, SeqCst));
                assert_eq!(shared.1.load(SeqCst), 1);
            })
        });
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_task_that_is_joined_by_a_destructor_has_ended_behind_it() {
    struct Joins(Option<thread::JoinHandle<()>>);
    impl Drop for Joins {
        fn drop(&mut self) {
            self.0.take().expect("once").join().unwrap();
        }
    }
    passes(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let other = Arc::clone(&count);
        let joins = Joins(Some(thread::spawn(move || other.store(1, SeqCst))));
        drop(joins);
        assert_eq!(count.load(SeqCst), 1);
    });
}
