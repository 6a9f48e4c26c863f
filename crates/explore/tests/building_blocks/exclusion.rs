//! Locks: one holder at a time, and everyone who waits gets its turn.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Model, SimTask};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{
    Atomic, AtomicInt, Lock, LockClass, ParkMutex, Platform, RawLock, SpinLock, TicketLock,
    WaitType,
};

use crate::host::{Host, Word, add_one, ends_with, word};

static CLASS: LockClass = LockClass::new("lock", WaitType::Sleep);

trait Excludes: 'static {
    fn free() -> Self;
    fn hold(&self, f: impl FnOnce());
}

impl<R: RawLock> Excludes for Lock<Host, (), R> {
    fn free() -> Self {
        Lock::new(&CLASS, ())
    }
    fn hold(&self, f: impl FnOnce()) {
        let _held = self.lock();
        f();
    }
}

type Spin = Lock<Host, (), SpinLock<Host>>;
type Tickets = Lock<Host, (), TicketLock<Host>>;
type Sleeping = Lock<Host, (), ParkMutex<Host>>;

/// `tasks` tasks hold the lock `times` times each.
fn all_count<L: Excludes>(tasks: u64, times: u64) -> Report {
    Explore::new("exclusion").run(move |m: &Machine| {
        let (lock, count) = (Arc::new(L::free()), word());
        for _ in 0..tasks {
            let (lock, count) = (lock.clone(), count.clone());
            m.task("task", move || {
                for _ in 0..times {
                    lock.hold(|| add_one(&count));
                }
            });
        }
        ends_with(m, &count, tasks * times);
    })
}

/// One task waits for the lock, the other takes it only if it is free.
fn one_tries<R: RawLock>() -> Report {
    Explore::new("try").run(|m: &Machine| {
        let lock = Arc::new(Lock::<Host, (), R>::new(&CLASS, ()));
        let (count, wanted) = (word(), word());
        let patient = (lock.clone(), count.clone(), wanted.clone());
        m.task("waits", move || {
            for _ in 0..2 {
                patient.0.hold(|| add_one(&patient.1));
                patient.2.fetch_add(1, SeqCst);
            }
        });
        let hasty = (lock, count.clone(), wanted.clone());
        m.task("tries", move || {
            for _ in 0..2 {
                if let Some(_held) = hasty.0.try_lock() {
                    add_one(&hasty.1);
                    hasty.2.fetch_add(1, SeqCst);
                }
            }
        });
        m.at_quiescence("whoever got the lock has counted", move || {
            match (count.load(SeqCst), wanted.load(SeqCst)) {
                (count, holders) if count == holders => Ok(()),
                (count, holders) => Err(format!("{holders} have held it, and {count} are counted")),
            }
        });
    })
}

#[test]
fn a_spin_lock_has_one_holder_at_a_time_and_lets_everyone_in() {
    all_count::<Spin>(2, 2).assert_exhausted();
    all_count::<Spin>(3, 1).assert_exhausted();
    one_tries::<SpinLock<Host>>().assert_exhausted();
}

#[test]
fn a_ticket_lock_has_one_holder_at_a_time_and_lets_everyone_in() {
    all_count::<Tickets>(2, 2).assert_exhausted();
    all_count::<Tickets>(3, 1).assert_exhausted();
    one_tries::<TicketLock<Host>>().assert_exhausted();
}

#[test]
fn a_park_mutex_has_one_holder_at_a_time_and_lets_everyone_in() {
    all_count::<Sleeping>(2, 2).assert_exhausted();
    all_count::<Sleeping>(3, 1).assert_exhausted();
    one_tries::<ParkMutex<Host>>().assert_exhausted();
}

/// A flag that is tested and set in two steps.
struct TestsThenSets(Word);

impl Excludes for TestsThenSets {
    fn free() -> Self {
        TestsThenSets(Word::new(0))
    }
    fn hold(&self, f: impl FnOnce()) {
        while self.0.load(SeqCst) == 1 {
            Host::cpu_relax();
        }
        self.0.store(1, SeqCst);
        f();
        self.0.store(0, SeqCst);
    }
}

#[test]
fn a_flag_that_is_tested_and_set_in_two_steps_lets_two_in() {
    all_count::<TestsThenSets>(2, 1).assert_found(FailureKind::Quiescence);
}

/// Tickets as in `TicketLock`, of which the next one is served by writing the whole word.
struct ServesByWriting(Word);

impl Excludes for ServesByWriting {
    fn free() -> Self {
        ServesByWriting(Word::new(0))
    }
    fn hold(&self, f: impl FnOnce()) {
        let mut tickets = self.0.fetch_add(1 << 32, SeqCst);
        let mine = tickets >> 32;
        while tickets as u32 != mine as u32 {
            Host::cpu_relax();
            tickets = self.0.load(SeqCst);
        }
        f();
        let tickets = self.0.load(SeqCst);
        self.0.store(tickets + 1, SeqCst);
    }
}

#[test]
fn a_ticket_that_is_taken_while_the_next_is_served_is_forgotten_if_the_word_is_written() {
    all_count::<ServesByWriting>(3, 1).assert_found(FailureKind::Deadlock);
}

/// As `ParkMutex`: 0 is free, 1 held, 2 held and awaited. The sleepers are a model, of which one is
/// woken at a time.
struct Sleepers<const FAULT: u8> {
    state: Word,
    asleep: Model<Vec<SimTask>>,
}

const NO_FAULT: u8 = 0;
/// Says that it waits in another step than the one that finds the lock held.
const SAYS_IT_LATER: u8 = 1;
/// Takes the lock after it has slept as if nobody else slept.
const FORGETS_THE_OTHERS: u8 = 2;

impl<const FAULT: u8> Sleepers<FAULT> {
    fn try_again(&self) -> bool {
        match FAULT {
            SAYS_IT_LATER => match self.state.load(SeqCst) {
                0 => self.state.compare_exchange(0, 2, SeqCst, SeqCst).is_ok(),
                _ => {
                    self.state.store(2, SeqCst);
                    false
                }
            },
            FORGETS_THE_OTHERS => {
                self.state.compare_exchange(0, 1, SeqCst, SeqCst).is_ok()
                    || self.state.swap(2, SeqCst) == 0
            }
            _ => self.state.swap(2, SeqCst) == 0,
        }
    }
}

impl<const FAULT: u8> Excludes for Sleepers<FAULT> {
    fn free() -> Self {
        Sleepers { state: Word::new(0), asleep: Model::new("sleepers", Vec::new()) }
    }
    fn hold(&self, f: impl FnOnce()) {
        if self.state.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            loop {
                self.asleep.change(|asleep| asleep.push(Host::current_task()));
                if self.try_again() {
                    break;
                }
                Host::park();
            }
        }
        f();
        if self.state.swap(0, SeqCst) == 2
            && let Some(first) =
                self.asleep.change(|asleep| (!asleep.is_empty()).then(|| asleep.remove(0)))
        {
            first.wake();
        }
    }
}

#[test]
fn a_sleeper_that_says_so_too_late_or_is_forgotten_by_the_next_sleeps_for_ever() {
    all_count::<Sleepers<SAYS_IT_LATER>>(2, 1).assert_found(FailureKind::Deadlock);
    all_count::<Sleepers<FORGETS_THE_OTHERS>>(3, 1).assert_found(FailureKind::Deadlock);
    all_count::<Sleepers<NO_FAULT>>(2, 1).assert_exhausted();
}
