//! `SeqWords`: a reader sees the words of one write.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{Atomic, CpuId, Lock, LockClass, Platform, SeqWords, Vector, WaitType};

use crate::host::{Host, Word};

static WRITERS: LockClass = LockClass::new("writers", WaitType::Spin);

trait Pair: 'static {
    fn new() -> Self;
    fn read(&self) -> [u64; 2];
    /// One writer at a time.
    fn write(&self, words: [u64; 2]);
}

struct Shipped {
    lock: Lock<Host, ()>,
    words: SeqWords<Host, 2>,
}

impl Pair for Shipped {
    fn new() -> Self {
        Shipped { lock: Lock::new(&WRITERS, ()), words: SeqWords::new([0, 0]) }
    }
    fn read(&self) -> [u64; 2] {
        self.words.read()
    }
    fn write(&self, words: [u64; 2]) {
        self.words.write(&self.lock.lock_irqsave(), words);
    }
}

/// Each of `writers` tasks writes `writes` pairs of its own; each of `readers` looks `looks` times.
fn never_torn<T: Pair>(writers: u64, writes: u64, readers: u64, looks: u64) -> Report {
    Explore::new("sequence").run(move |m: &Machine| {
        let pair = Arc::new(T::new());
        for writer in 0..writers {
            let pair = pair.clone();
            m.task("writes", move || {
                (1..=writes).for_each(|n| pair.write([writer * 10 + n, writer * 10 + n]))
            });
        }
        for _ in 0..readers {
            let pair = pair.clone();
            m.task("reads", move || {
                let mut last = 0;
                for _ in 0..looks {
                    let [first, second] = pair.read();
                    assert_eq!(first, second, "torn");
                    assert!(writers > 1 || last <= first, "it goes back from {last} to {first}");
                    last = first;
                }
            });
        }
    })
}

#[test]
fn a_reader_sees_the_words_of_one_write() {
    never_torn::<Shipped>(1, 2, 1, 1).assert_exhausted();
    never_torn::<Shipped>(1, 1, 1, 2).assert_exhausted();
    never_torn::<Shipped>(1, 1, 2, 1).assert_exhausted();
    never_torn::<Shipped>(2, 1, 1, 1).assert_exhausted();
}

/// As `SeqWords`, without one of its steps.
struct Without<const STEP: u8> {
    seq: Word,
    words: [Word; 2],
}

const ODD_NUMBER: u8 = 0;
const SECOND_LOOK: u8 = 1;
const WAIT_FOR_EVEN: u8 = 2;

impl<const STEP: u8> Pair for Without<STEP> {
    fn new() -> Self {
        Without { seq: Word::new(0), words: [Word::new(0), Word::new(0)] }
    }
    fn read(&self) -> [u64; 2] {
        loop {
            let before = self.seq.load(SeqCst);
            if STEP == WAIT_FOR_EVEN || before & 1 == 0 {
                let words = [self.words[0].load(SeqCst), self.words[1].load(SeqCst)];
                if STEP == SECOND_LOOK || self.seq.load(SeqCst) == before {
                    return words;
                }
            }
            Host::cpu_relax();
        }
    }
    fn write(&self, words: [u64; 2]) {
        let seq = self.seq.load(SeqCst);
        if STEP != ODD_NUMBER {
            self.seq.store(seq + 1, SeqCst);
        }
        self.words[0].store(words[0], SeqCst);
        self.words[1].store(words[1], SeqCst);
        self.seq.store(seq + 2, SeqCst);
    }
}

#[test]
fn without_any_one_of_the_steps_a_read_is_torn() {
    never_torn::<Without<ODD_NUMBER>>(1, 1, 1, 1).assert_found(FailureKind::Panic);
    never_torn::<Without<SECOND_LOOK>>(1, 1, 1, 1).assert_found(FailureKind::Panic);
    never_torn::<Without<WAIT_FOR_EVEN>>(1, 1, 1, 1).assert_found(FailureKind::Panic);
}

/// A handler reads what the task that it interrupts writes.
fn read_by_a_handler(write: impl Fn(&Shipped, [u64; 2]) + Copy + Send + Sync + 'static) -> Report {
    Explore::new("sequence and handler").run(move |m: &Machine| {
        let pair = Arc::new(Shipped::new());
        let reads = pair.clone();
        let handler = m.handler(CpuId(0), Vector(0x41), "reads", move || {
            let [first, second] = reads.words.read();
            assert_eq!(first, second, "torn");
        });
        m.task_on(CpuId(0), "writes", move || write(&pair, [1, 1]));
        m.hardware("device", move || handler.raise());
    })
}

#[test]
fn a_handler_may_read_if_writers_turn_interrupts_off() {
    read_by_a_handler(|pair, words| pair.write(words)).assert_exhausted();
    let interrupted = read_by_a_handler(|pair, words| pair.words.write(&pair.lock.lock(), words));
    interrupted.assert_found(FailureKind::Deadlock);
}
