//! How many executions exhaust programs whose number of inequivalent interleavings is known.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_platform::{Atomic, AtomicInt, Lock, LockClass, Mutex, Platform, WaitType};

static A: LockClass = LockClass::new("A", WaitType::Spin);
static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

type Word = <Sim as Platform>::AtomicU64;

/// `threads` tasks, each doing `f` of a shared object and its own number.
fn tasks<T: 'static>(threads: usize, shared: fn() -> T, f: fn(&T, usize)) -> Report {
    Explore::new("optimum").run(move |m: &Machine| {
        let shared = Arc::new(shared());
        for thread in 0..threads {
            let shared = Arc::clone(&shared);
            m.task("task", move || f(&shared, thread));
        }
    })
}

fn exhausts(report: Report, executions: u64) {
    report.assert_exhausted();
    assert_eq!(report.executions, executions, "executions ({} cut)", report.cut);
}

fn word() -> Word {
    Word::new(0)
}

fn inc<const K: usize>(word: &Word, _: usize) {
    for _ in 0..K {
        word.fetch_add(1, SeqCst);
    }
}

fn racy<const K: usize>(word: &Word, _: usize) {
    for _ in 0..K {
        let value = word.load(SeqCst);
        word.store(value + 1, SeqCst);
    }
}

#[test]
fn atomic_increments_are_ordered_in_each_way_once() {
    exhausts(tasks(2, word, inc::<1>), 2);
    exhausts(tasks(2, word, inc::<2>), 6);
    exhausts(tasks(2, word, inc::<3>), 20);
    exhausts(tasks(2, word, inc::<4>), 70);
    exhausts(tasks(2, word, inc::<8>), 12_870);
    exhausts(tasks(3, word, inc::<1>), 6);
    exhausts(tasks(3, word, inc::<2>), 90);
}

#[test]
fn a_load_and_a_store_make_their_own_orders() {
    exhausts(tasks(2, word, racy::<1>), 4);
    exhausts(tasks(2, word, racy::<2>), 34);
    exhausts(tasks(2, word, racy::<3>), 328);
}

type Spin = Lock<Sim, u64>;

fn two_locks() -> (Spin, Spin) {
    (Lock::new(&A, 0), Lock::new(&A, 0))
}

#[test]
fn nested_locks_are_ordered_by_the_outer_one() {
    let nested = |(a, b): &(Spin, Spin), _: usize| {
        let _outer = a.lock();
        *b.lock() += 1;
    };
    exhausts(tasks(2, two_locks, nested), 2);
    exhausts(tasks(3, two_locks, nested), 6);
}

type Sleeping = Mutex<Sim, u64>;

fn mutexes() -> [Sleeping; 3] {
    std::array::from_fn(|_| Mutex::new(&MUTEX, 0))
}

#[test]
fn disjoint_mutexes_need_one_execution() {
    let own = |mutexes: &[Sleeping; 3], thread: usize| {
        for _ in 0..2 {
            *mutexes[thread].lock() += 1;
        }
    };
    exhausts(tasks(2, mutexes, own), 1);
    exhausts(tasks(3, mutexes, own), 1);
}

fn same<const R: usize>(mutexes: &[Sleeping; 3], _: usize) {
    for _ in 0..R {
        *mutexes[0].lock() += 1;
    }
}

#[test]
fn acquisitions_of_one_mutex_are_ordered_in_each_way_once() {
    exhausts(tasks(2, mutexes, same::<2>), 6);
    exhausts(tasks(3, mutexes, same::<1>), 6);
    exhausts(tasks(3, mutexes, same::<2>), 90);
    exhausts(tasks(3, mutexes, same::<3>), 1_680);
}

#[test]
fn ordered_philosophers_never_starve() {
    let eat = |forks: &[Sleeping; 3], seat: usize| {
        let (left, right) = (seat, (seat + 1) % 3);
        let _first = forks[left.min(right)].lock();
        let _second = forks[left.max(right)].lock();
    };
    exhausts(tasks(3, mutexes, eat), 6);
}

#[test]
fn four_philosophers_deadlock_within_fifteen_executions() {
    let report = Explore::new("philosophers").run(|m: &Machine| {
        let forks: Arc<[Sleeping; 4]> = Arc::new(std::array::from_fn(|_| Mutex::new(&MUTEX, 0)));
        for seat in 0..4 {
            let forks = Arc::clone(&forks);
            m.task("philosopher", move || {
                let _left = forks[seat].lock();
                let _right = forks[(seat + 1) % 4].lock();
            });
        }
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    println!("{}", doorbell_explore::render::text(&failure.trace, &Default::default()));
    assert!(report.executions <= 15, "{} executions", report.executions);
}
