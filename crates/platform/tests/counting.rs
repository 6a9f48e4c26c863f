//! `Counting` counts exactly: whatever is done, in whatever order, by however many threads.
#![cfg(feature = "std")]

use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::thread;

use doorbell_platform::*;

type P = Counting<Std>;

static SPIN: LockClass = LockClass::new("test.spin", WaitType::Spin);
static SLEEP: LockClass = LockClass::new("test.sleep", WaitType::Sleep);

/// A sequence of numbers that is the same each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct World {
    word: <P as Platform>::AtomicU64,
    wide: <P as Platform>::AtomicU128,
    flag: <P as Platform>::AtomicBool,
    spin: Lock<P, u64>,
    mutex: Mutex<P, u64>,
    cell: RcuCell<P, <P as Platform>::Srcu, u64>,
    words: SeqWords<P, 2>,
    work: <<P as Platform>::WorkQueue as WorkQueue>::Work,
}

impl World {
    fn new() -> World {
        World {
            word: Atomic::new(0),
            wide: Atomic::new(0),
            flag: Atomic::new(false),
            spin: Lock::new(&SPIN, 0),
            mutex: Mutex::<P, _>::new(&SLEEP, 0),
            cell: RcuCell::new(&Arc::new(ReadDomain::new("test")), Box::new(0)),
            words: SeqWords::new([0; 2]),
            work: P::system_queue().work("test", || ()),
        }
    }

    /// Does one thing and says what it consists of.
    fn step(&self, which: u64) -> Counts {
        let none = Counts::default();
        match which {
            0 => {
                self.word.load(Acquire);
                Counts { loads: 1, ..none }
            }
            1 => {
                self.word.store(1, Release);
                Counts { stores: 1, ..none }
            }
            2 => {
                self.word.fetch_add(1, AcqRel);
                self.word.fetch_sub(1, AcqRel);
                self.flag.fetch_and(false, AcqRel);
                Counts { rmws: 3, ..none }
            }
            3 => {
                let _ = self.word.compare_exchange(u64::MAX, 0, AcqRel, Relaxed).unwrap_err();
                Counts { rmws: 1, ..none }
            }
            4 => {
                self.wide.fetch_or(1 << 100, SeqCst);
                self.wide.swap(0, SeqCst);
                Counts { rmws: 2, ..none }
            }
            5 => {
                P::fence(SeqCst);
                Counts { fences: 1, ..none }
            }
            6 => {
                *self.spin.lock() += 1;
                Counts { spins: 1, ..none }
            }
            7 => {
                let guard = self.spin.lock_irqsave();
                assert!(self.spin.try_lock().is_none(), "an attempt that fails takes no lock");
                drop(guard);
                Counts { spins: 1, irq_saves: 1, ..none }
            }
            8 => {
                *self.mutex.lock() += 1;
                Counts { mutexes: 1, ..none }
            }
            9 => {
                // Counted in and out; the current index, whether anybody waits, and the cell's
                // pointer are loaded.
                let _ = *self.cell.read();
                Counts { read_sections: 1, rmws: 2, loads: 3, ..none }
            }
            10 => {
                self.words.write(&self.spin.lock(), [1, 2]);
                self.words.read();
                Counts { spins: 1, loads: 5, stores: 4, fences: 2, ..none }
            }
            11 => {
                P::wake(&P::current_task());
                P::park();
                Counts { wakes: 1, parks: 1, ..none }
            }
            12 => {
                P::send_ipi(CpuId(0), Vector(0x20));
                Counts { ipis: 1, ..none }
            }
            13 => {
                self.work.queue();
                Counts { queued: 1, ..none }
            }
            _ => {
                drop((IrqGuard::<P>::new(), PreemptGuard::<P>::new()));
                Counts { irq_saves: 1, preempt_disables: 1, ..none }
            }
        }
    }
}

#[test]
fn any_sequence_of_steps_counts_as_the_sum_of_its_steps_on_each_thread() {
    thread::scope(|s| {
        for seed in 1..=8u64 {
            s.spawn(move || {
                let world = World::new();
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
                for _ in 0..200 {
                    let length = random.below(30);
                    let (expected, counted) = P::measure(|| {
                        (0..length).fold(Counts::default(), |total, _| {
                            total + world.step(random.below(15))
                        })
                    });
                    assert_eq!(counted, expected);
                }
            });
        }
    });
}

#[test]
fn measurements_nest() {
    let world = World::new();
    let ((_, inner), outer) = P::measure(|| {
        world.step(0);
        P::measure(|| world.step(5))
    });
    assert_eq!(inner, Counts { fences: 1, ..Counts::default() });
    assert_eq!(outer, Counts { fences: 1, loads: 1, ..Counts::default() });
}

#[test]
fn a_grace_period_without_readers_wakes_nobody_and_takes_one_lock() {
    let domain = <P as Platform>::Srcu::new("test");
    let (_, counts) = P::measure(|| domain.synchronize());
    assert_eq!((counts.spins, counts.wakes, counts.parks, counts.rmws), (1, 0, 0, 0));
}

#[test]
fn a_completion_that_nobody_waits_for_takes_no_lock() {
    let done = <P as Platform>::Completion::new("test");
    let (_, counts) = P::measure(|| {
        done.complete_all();
        done.wait();
    });
    assert_eq!(counts, Counts { stores: 1, fences: 1, loads: 2, ..Counts::default() });
}
