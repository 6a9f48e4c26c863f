//! What must hold on every platform that is made of this crate's building blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use std::thread;

use doorbell_platform::*;

static SPIN: LockClass = LockClass::new("test.spin", WaitType::Spin);
static SLEEP: LockClass = LockClass::new("test.sleep", WaitType::Sleep);

/// Miri is some hundred times slower.
pub const fn rounds(n: usize) -> usize {
    if cfg!(miri) { n / 100 + 1 } else { n }
}

/// An object that notices being freed: its magic is gone then, and its owner's count is lower.
pub struct Witness {
    magic: AtomicU32,
    alive: Arc<AtomicUsize>,
}

const ALIVE: u32 = 0x600d_600d;

impl Witness {
    pub fn new(alive: &Arc<AtomicUsize>) -> Box<Self> {
        alive.fetch_add(1, SeqCst);
        Box::new(Witness { magic: AtomicU32::new(ALIVE), alive: alive.clone() })
    }

    pub fn check(&self) {
        assert_eq!(self.magic.load(Relaxed), ALIVE, "a reader sees a freed object");
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.check();
        self.magic.store(0xdead, Relaxed);
        self.alive.fetch_sub(1, SeqCst);
    }
}

pub fn a_reader_never_sees_a_freed_value<P: SystemQueue, D: ReadDomain>() {
    let alive = Arc::new(AtomicUsize::new(0));
    let domain = Arc::new(D::new("test"));
    let cell = RcuCell::<P, D, Witness>::new(&domain, Witness::new(&alive));
    let writers = Mutex::<P, ()>::new(&SLEEP, ());
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    let outer = cell.read();
                    outer.check();
                    cell.get(outer.section()).check();
                    let nested = domain.read();
                    cell.get(&nested).check();
                    thread::yield_now();
                    outer.check();
                }
            });
        }
        let writing: Vec<_> = (0..3)
            .map(|writer| {
                let (cell, alive, writers) = (&cell, &alive, &writers);
                s.spawn(move || {
                    for round in 0..rounds(2000) {
                        let guard = writers.lock();
                        let retired = cell.replace(Witness::new(alive));
                        drop(guard);
                        match (writer + round) % 3 {
                            0 => retired.reclaim_later(),
                            1 => drop(retired.synchronize()),
                            _ => drop(retired.synchronize_expedited()),
                        }
                    }
                })
            })
            .collect();
        writing.into_iter().for_each(|w| w.join().unwrap());
        stop.store(true, Relaxed);
    });
    domain.barrier();
    assert_eq!(alive.load(SeqCst), 1, "all but the current value are freed");
    drop(cell);
    assert_eq!(alive.load(SeqCst), 0);
}

pub fn synchronize_returns_after_the_readers_that_it_found<D: ReadDomain>(expedited: bool) {
    let domain = D::new("test");
    for _ in 0..rounds(300) {
        let (entered, leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|s| {
            s.spawn(|| {
                let section = domain.read();
                entered.store(true, SeqCst);
                for _ in 0..20 {
                    thread::yield_now();
                }
                leaving.store(true, SeqCst);
                drop(section);
            });
            while !entered.load(SeqCst) {
                thread::yield_now();
            }
            match expedited {
                true => domain.synchronize_expedited(),
                false => domain.synchronize(),
            }
            assert!(leaving.load(SeqCst), "the reader was inside");
        });
    }
}

pub fn a_stream_of_new_readers_does_not_hold_a_grace_period_up<D: ReadDomain>() {
    let domain = D::new("test");
    let stop = AtomicBool::new(false);
    let inside = AtomicUsize::new(0);
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !stop.load(SeqCst) {
                    let section = domain.read();
                    // There is always somebody inside: nobody leaves alone.
                    inside.fetch_add(1, SeqCst);
                    while inside.load(SeqCst) < 2 && !stop.load(SeqCst) {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, SeqCst);
                    drop(section);
                }
            });
        }
        for _ in 0..rounds(200) {
            domain.synchronize();
        }
        stop.store(true, SeqCst);
    });
}

pub fn callbacks_run_once_in_order_and_barrier_waits_for_them<D: ReadDomain>() {
    let domain = D::new("test");
    let ran = Arc::new(AtomicUsize::new(0));
    let mut asked = 0;
    for _ in 0..rounds(200) {
        let section = domain.read();
        for _ in 0..5 {
            let (ran, number) = (ran.clone(), asked);
            asked += 1;
            domain.call(Box::new(move || assert_eq!(ran.fetch_add(1, SeqCst), number)));
        }
        assert!(ran.load(SeqCst) <= asked - 5, "a callback ran before the section ended");
        drop(section);
        domain.barrier();
        assert_eq!(ran.load(SeqCst), asked);
    }
}

pub fn callbacks_of_a_domain_that_is_dropped_still_run<P: SystemQueue, D: ReadDomain>() {
    let done = Arc::new(P::Completion::new("test"));
    let domain = D::new("test");
    let section = domain.read();
    let callback = done.clone();
    domain.call(Box::new(move || callback.complete_all()));
    drop(section);
    drop(domain);
    done.wait();
}

/// Many threads increment two numbers that must stay equal.
fn excludes<P: Platform, R: RawLock>(lock: Lock<P, [usize; 2], R>) {
    const THREADS: usize = 4;
    let each = rounds(20_000);
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for round in 0..each {
                    let mut guard = match round % 5 {
                        0 => loop {
                            match lock.try_lock() {
                                Some(guard) => break guard,
                                None => thread::yield_now(),
                            }
                        },
                        _ => lock.lock(),
                    };
                    guard[0] += 1;
                    if round % 1000 == 0 {
                        thread::yield_now();
                    }
                    assert_eq!(guard[0], guard[1] + 1);
                    guard[1] += 1;
                }
            });
        }
    });
    assert_eq!(lock.into_inner(), [THREADS * each; 2]);
}

pub fn a_spin_lock_excludes<P: Platform>() {
    excludes(Lock::<P, _>::new(&SPIN, [0; 2]));
}

pub fn a_mutex_excludes_and_forgets_no_waiter<P: Platform>() {
    excludes(Mutex::<P, _>::new(&SLEEP, [0; 2]));
}

pub fn every_raw_lock_excludes<P: Platform>() {
    excludes(Lock::<P, _, SpinLock<P>>::new(&SPIN, [0; 2]));
    excludes(Lock::<P, _, TicketLock<P>>::new(&SPIN, [0; 2]));
    excludes(Lock::<P, _, ParkMutex<P>>::new(&SLEEP, [0; 2]));
}

pub fn words_are_never_torn<P: Platform>() {
    let words = SeqWords::<P, 4>::new([0; 4]);
    let lock = Lock::<P, u64>::new(&SPIN, 0);
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut last = 0;
                while !stop.load(Relaxed) {
                    let [a, b, c, d] = words.read();
                    assert_eq!([b, c, d], [a * 3, a * 5, a * 7], "words of different writes");
                    assert!(a >= last, "an older write after a newer one");
                    last = a;
                }
            });
        }
        let writing: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    for _ in 0..rounds(20_000) {
                        let mut next = lock.lock_irqsave();
                        *next += 1;
                        let a = *next;
                        words.write(&next, [a, a * 3, a * 5, a * 7]);
                    }
                })
            })
            .collect();
        writing.into_iter().for_each(|w| w.join().unwrap());
        stop.store(true, Relaxed);
    });
    assert_eq!(words.read()[0], 2 * rounds(20_000) as u64);
}

pub fn a_wake_up_that_follows_its_condition_is_never_missed<P: Platform>() {
    let turn = AtomicUsize::new(0);
    let queue = P::WaitQueue::new("test");
    const PLAYERS: usize = 3;
    thread::scope(|s| {
        for player in 0..PLAYERS {
            let (turn, queue) = (&turn, &queue);
            s.spawn(move || {
                for round in 0..rounds(3000) {
                    // Relaxed: it is the queue that promises that the change is not missed.
                    queue.wait_until(|| turn.load(Relaxed) == round * PLAYERS + player);
                    turn.fetch_add(1, Relaxed);
                    queue.wake_all();
                }
            });
        }
    });
    assert_eq!(turn.load(Relaxed), PLAYERS * rounds(3000));
}

pub fn a_completion_releases_all_who_wait_and_will_wait<P: Platform>() {
    for _ in 0..rounds(300) {
        let done = P::Completion::new("test");
        let data = AtomicUsize::new(0);
        assert!(!done.is_done());
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    done.wait();
                    assert_eq!(data.load(Relaxed), 7);
                });
            }
            data.store(7, Relaxed);
            done.complete_all();
        });
        done.wait();
        assert!(done.is_done());
    }
}

pub fn queued_work_is_never_lost_and_never_runs_twice_at_once<P: SystemQueue>() {
    let queue = P::system_queue();
    let (running, news, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let work = {
        let (running, news, seen) = (running.clone(), news.clone(), seen.clone());
        queue.work("test", move || {
            assert!(!running.swap(true, SeqCst), "two runs at once");
            seen.store(news.load(SeqCst), SeqCst);
            thread::yield_now();
            running.store(false, SeqCst);
        })
    };
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..rounds(2000) {
                    let mine = news.fetch_add(1, SeqCst) + 1;
                    work.queue();
                    if mine % 3 == 0 {
                        work.flush();
                        assert!(
                            seen.load(SeqCst) >= mine,
                            "a run that was queued before the flush has ended"
                        );
                    }
                }
            });
        }
    });
    work.flush();
    assert_eq!(seen.load(SeqCst), 3 * rounds(2000));
    assert!(!work.cancel(), "nothing is queued");
}

/// All of the above as tests of platform `$p`.
#[macro_export]
macro_rules! platform_tests {
    ($p:ty) => {
        type Rcu = <$p as Platform>::Rcu;
        type Srcu = <$p as Platform>::Srcu;

        #[test]
        fn an_srcu_reader_never_sees_a_freed_value() {
            common::a_reader_never_sees_a_freed_value::<$p, Srcu>();
        }
        #[test]
        fn an_rcu_reader_never_sees_a_freed_value() {
            common::a_reader_never_sees_a_freed_value::<$p, Rcu>();
        }
        #[test]
        fn synchronize_returns_after_the_readers_that_it_found() {
            common::synchronize_returns_after_the_readers_that_it_found::<Srcu>(false);
            common::synchronize_returns_after_the_readers_that_it_found::<Rcu>(false);
        }
        #[test]
        fn synchronize_expedited_returns_after_the_readers_that_it_found() {
            common::synchronize_returns_after_the_readers_that_it_found::<Srcu>(true);
        }
        #[test]
        fn a_stream_of_new_readers_does_not_hold_a_grace_period_up() {
            common::a_stream_of_new_readers_does_not_hold_a_grace_period_up::<Srcu>();
        }
        #[test]
        fn callbacks_run_once_in_order_and_barrier_waits_for_them() {
            common::callbacks_run_once_in_order_and_barrier_waits_for_them::<Srcu>();
        }
        #[test]
        fn callbacks_of_a_domain_that_is_dropped_still_run() {
            common::callbacks_of_a_domain_that_is_dropped_still_run::<$p, Srcu>();
        }
        #[test]
        fn a_spin_lock_excludes() {
            common::a_spin_lock_excludes::<$p>();
        }
        #[test]
        fn a_mutex_excludes_and_forgets_no_waiter() {
            common::a_mutex_excludes_and_forgets_no_waiter::<$p>();
        }
        #[test]
        fn every_raw_lock_excludes() {
            common::every_raw_lock_excludes::<$p>();
        }
        #[test]
        fn words_are_never_torn() {
            common::words_are_never_torn::<$p>();
        }
        #[test]
        fn a_wake_up_that_follows_its_condition_is_never_missed() {
            common::a_wake_up_that_follows_its_condition_is_never_missed::<$p>();
        }
        #[test]
        fn a_completion_releases_all_who_wait_and_will_wait() {
            common::a_completion_releases_all_who_wait_and_will_wait::<$p>();
        }
        #[test]
        fn queued_work_is_never_lost_and_never_runs_twice_at_once() {
            common::queued_work_is_never_lost_and_never_runs_twice_at_once::<$p>();
        }
    };
}
