//! The executions that run now, on all OS threads.
//!
//! What is simulated belongs to the execution that uses it. If it is used in another one, it is
//! anew what it is there, and free if it is a lock: so it must not be used in two that run at once.
//! Two executions overlap where tests that share a static run in parallel, where a context explores
//! something itself, and where several threads explore one program.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::machine::cell::{here, with};
use crate::machine::world::Mode;
use crate::trace::FailureKind;

/// The number of no execution.
const NONE: u64 = 0;

/// One line of the register. There are as many as there have been executors at once, and they are
/// used again.
struct Line {
    taken: AtomicBool,
    runs: AtomicU64,
    next: OnceLock<Box<Line>>,
}

impl Line {
    const fn new() -> Line {
        Line { taken: AtomicBool::new(false), runs: AtomicU64::new(NONE), next: OnceLock::new() }
    }
}

static REGISTER: Line = Line::new();

/// An executor's line.
pub(crate) struct Entry(&'static Line);

impl Entry {
    pub(crate) fn new() -> Entry {
        let mut line = &REGISTER;
        // Relaxed: that a line is taken says nothing about anything else.
        while line.taken.swap(true, Relaxed) {
            line = line.next.get_or_init(|| Box::new(Line::new()));
        }
        Entry(line)
    }

    /// Says that an execution runs, before it uses anything.
    #[inline]
    pub(crate) fn begin(&self, execution: u64) {
        self.0.runs.store(execution, Release);
    }

    /// Says that it uses nothing any more. Release: who sees this sees all that it has done.
    #[inline]
    pub(crate) fn end(&self) {
        self.0.runs.store(NONE, Release);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end();
        self.0.taken.store(false, Relaxed);
    }
}

/// Returns whether an execution runs, of which the caller has seen something that it has done. If
/// not, the caller sees all of it.
pub(crate) fn runs(execution: u64) -> bool {
    let mut line = Some(&REGISTER);
    while let Some(this) = line {
        if this.runs.load(Acquire) == execution {
            return true;
        }
        line = this.next.get().map(|next| &**next);
    }
    false
}

/// Ends the exploration with a panic of its caller: what the program wants to use cannot be
/// explored, so nothing that it does is a failure of its own.
#[cold]
pub(crate) fn refuse(why: String) -> ! {
    let alone = with(|w| {
        w.refused = Some(why.clone());
        matches!(w.mode, Mode::Alone | Mode::Outside)
    });
    if alone {
        // The set-up and the conditions run on the caller's stack.
        panic!("{why}");
    }
    if std::thread::panicking() {
        // A destructor that runs while its context unwinds: neither can be left where it is.
        eprintln!("{why}");
        std::process::abort();
    }
    with(|w| {
        w.turn = None;
        w.fail_here(FailureKind::Invariant, why);
    });
    loop {
        here().runners.suspend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_runs_from_its_begin_to_its_end_or_that_of_its_executor() {
        // Numbers that no execution of another test has.
        let (first, second) = (u64::MAX, u64::MAX - 1);
        let (one, other) = (Entry::new(), Entry::new());
        assert!(!runs(first));
        one.begin(first);
        other.begin(second);
        assert!(runs(first) && runs(second));
        one.end();
        assert!(!runs(first) && runs(second));
        drop(other);
        assert!(!runs(second));
    }
}
