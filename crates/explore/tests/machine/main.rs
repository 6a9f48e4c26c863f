//! What the simulated machine does, and what it calls an error.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_platform::{Atomic, LockClass, Platform, Vector, WaitType};

mod abandoned;
mod cpus;
mod errors;
mod grace_periods;
mod interrupts;
mod panics;
mod polling;
mod searching;
mod shared;
mod unwinding;
mod waiting;
mod work;

type Word = <Sim as Platform>::AtomicU64;

static SPIN: LockClass = LockClass::new("spin", WaitType::Spin);
static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

const TIMER: Vector = Vector(0x20);
const IPI: Vector = Vector(0x30);

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("machine").run(program)
}

fn word(value: u64) -> Arc<Word> {
    Arc::new(Word::new(value))
}

/// Expects a word to hold a value in the end.
fn ends_with(m: &Machine, word: &Arc<Word>, value: u64) {
    let word = Arc::clone(word);
    m.at_quiescence("the word has its value", move || match word.load(SeqCst) {
        found if found == value => Ok(()),
        found => Err(format!("it is {found}, not {value}")),
    });
}
