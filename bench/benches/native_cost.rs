//! Shows that the abstraction costs nothing natively: each operation twice, through `Std` and by
//! hand, under callgrind's eyes. Counts instructions, so the result is the same each time; fails if
//! an operation through `Std` executes more of them than its counterpart by hand.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench native_cost
//! ```

use std::cell::UnsafeCell;
use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use doorbell_bench::callgrind;
use doorbell_platform::*;

static SPIN: LockClass = LockClass::new("cost.spin", WaitType::Spin);
static SLEEP: LockClass = LockClass::new("cost.sleep", WaitType::Sleep);

/// What a program without `doorbell-platform` would contain.
struct Hand {
    held: AtomicBool,
    state: AtomicU32,
    data: UnsafeCell<u64>,
    word: AtomicU64,
    seq: AtomicU32,
    words: [AtomicU64; 2],
    ptr: AtomicPtr<u64>,
    domain: Arc<u32>,
}

struct Through {
    spin: Lock<Std, u64>,
    mutex: Mutex<Std, u64>,
    word: <Std as Platform>::AtomicU64,
    words: SeqWords<Std, 2>,
    spin_for_words: Lock<Std, ()>,
    cell: RcuCell<Std, EpochSrcu<Std>, u64>,
}

#[cold]
#[inline(never)]
fn contended<T>(lock: &T) {
    black_box(lock);
}

/// One function for each operation: `callgrind` collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::*;

    #[inline(never)]
    pub fn lock_through(t: &Through) {
        *t.spin.lock() += 1;
    }

    #[inline(never)]
    pub fn lock_hand(h: &Hand) {
        if h.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            contended(&h.held);
        }
        // SAFETY: under the lock.
        unsafe { *h.data.get() += 1 };
        h.held.store(false, Ordering::Release);
    }

    #[inline(never)]
    pub fn mutex_through(t: &Through) {
        *t.mutex.lock() += 1;
    }

    #[inline(never)]
    pub fn mutex_hand(h: &Hand) {
        if h.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            contended(&h.state);
        }
        // SAFETY: under the lock.
        unsafe { *h.data.get() += 1 };
        if h.state.swap(0, Ordering::Release) == 2 {
            contended(&h.state);
        }
    }

    #[inline(never)]
    pub fn fetch_or_through(t: &Through) -> u64 {
        Atomic::fetch_or(&t.word, 0x10, Ordering::SeqCst)
    }

    #[inline(never)]
    pub fn fetch_or_hand(h: &Hand) -> u64 {
        h.word.fetch_or(0x10, Ordering::SeqCst)
    }

    #[inline(never)]
    pub fn seq_read_through(t: &Through) -> [u64; 2] {
        t.words.read()
    }

    #[inline(never)]
    pub fn seq_read_hand(h: &Hand) -> [u64; 2] {
        loop {
            let before = h.seq.load(Ordering::Acquire);
            if before & 1 == 0 {
                let words =
                    [h.words[0].load(Ordering::Relaxed), h.words[1].load(Ordering::Relaxed)];
                fence(Ordering::Acquire);
                if h.seq.load(Ordering::Relaxed) == before {
                    return words;
                }
            }
            std::hint::spin_loop();
        }
    }

    #[inline(never)]
    pub fn seq_write_through(t: &Through) {
        t.words.write(&t.spin_for_words.lock(), [1, 2]);
    }

    #[inline(never)]
    pub fn seq_write_hand(h: &Hand) {
        if h.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            contended(&h.held);
        }
        let seq = h.seq.load(Ordering::Relaxed);
        h.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        h.words[0].store(1, Ordering::Relaxed);
        h.words[1].store(2, Ordering::Relaxed);
        h.seq.store(seq.wrapping_add(2), Ordering::Release);
        h.held.store(false, Ordering::Release);
    }

    #[inline(never)]
    pub fn cell_get_through(t: &Through, section: &ReadGuard<'_, EpochSrcu<Std>>) -> u64 {
        *t.cell.get(section)
    }

    /// With a check that the section is of the right domain, as `RcuCell` has it.
    #[inline(never)]
    pub fn cell_get_hand(h: &Hand, section: &&u32) -> u64 {
        assert!(std::ptr::eq(*section, &*h.domain), "another domain");
        // SAFETY: it points to a value that is never freed.
        unsafe { *h.ptr.load(Ordering::SeqCst) }
    }

    #[inline(never)]
    pub fn srcu_section_through(t: &Through) -> u64 {
        *t.cell.read()
    }
}

const ROUNDS: u64 = 1000;
const OPERATIONS: [&str; 6] = ["lock", "mutex", "fetch_or", "seq_read", "seq_write", "cell_get"];

/// Does one operation, some rounds long; this is what runs under callgrind.
fn run(operation: &str, side: &str) {
    let srcu = Arc::new(EpochSrcu::new("cost"));
    let t = Through {
        spin: Lock::new(&SPIN, 0),
        mutex: Mutex::<Std, _>::new(&SLEEP, 0),
        word: AtomicU64::new(0),
        words: SeqWords::new([0; 2]),
        spin_for_words: Lock::new(&SPIN, ()),
        cell: RcuCell::new(&srcu, Box::new(7)),
    };
    let h = Hand {
        held: AtomicBool::new(false),
        state: AtomicU32::new(0),
        data: UnsafeCell::new(0),
        word: AtomicU64::new(0),
        seq: AtomicU32::new(0),
        words: [const { AtomicU64::new(0) }; 2],
        ptr: AtomicPtr::new(Box::leak(Box::new(7))),
        domain: Arc::new(0),
    };
    let (t, h) = (black_box(&t), black_box(&h));
    let section = srcu.read();
    for _ in 0..ROUNDS {
        match (operation, side) {
            ("lock", "through") => measured::lock_through(t),
            ("lock", "hand") => measured::lock_hand(h),
            ("mutex", "through") => measured::mutex_through(t),
            ("mutex", "hand") => measured::mutex_hand(h),
            ("fetch_or", "through") => consume(measured::fetch_or_through(t)),
            ("fetch_or", "hand") => consume(measured::fetch_or_hand(h)),
            ("seq_read", "through") => consume(measured::seq_read_through(t)),
            ("seq_read", "hand") => consume(measured::seq_read_hand(h)),
            ("seq_write", "through") => measured::seq_write_through(t),
            ("seq_write", "hand") => measured::seq_write_hand(h),
            ("cell_get", "through") => consume(measured::cell_get_through(t, &section)),
            ("cell_get", "hand") => consume(measured::cell_get_hand(h, &&*h.domain)),
            ("srcu_section", "through") => consume(measured::srcu_section_through(t)),
            other => panic!("no such measurement: {other:?}"),
        }
    }
}

fn consume<T>(value: T) {
    black_box(value);
}

/// Instructions per operation, or `None` without callgrind.
fn instructions(operation: &str, side: &str) -> Option<u64> {
    callgrind::instructions("native_cost::measured", &[operation, side], ROUNDS)
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, command, operation, side] = &args[..] {
        assert_eq!(command, "run");
        return run(operation, side);
    }
    if cfg!(debug_assertions) {
        return println!("native_cost: only an optimised build says anything");
    }
    println!("{:14}{:>10}{:>10}  instructions per operation", "", "Std", "by hand");
    let mut dearer = Vec::new();
    for operation in OPERATIONS {
        let (Some(through), Some(hand)) =
            (instructions(operation, "through"), instructions(operation, "hand"))
        else {
            return println!("native_cost: valgrind is not installed");
        };
        println!("{operation:14}{through:>10}{hand:>10}");
        if through > hand {
            dearer.push(operation);
        }
    }
    if let Some(section) = instructions("srcu_section", "through") {
        println!("{:14}{section:>10}{:>10}", "srcu_section", "-");
    }
    assert!(dearer.is_empty(), "dearer through `Std` than by hand: {dearer:?}");
}
