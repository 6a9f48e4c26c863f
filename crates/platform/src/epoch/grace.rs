//! Grace periods as a state machine that anyone may take further, and what waits for them.

use alloc::boxed::Box;
use alloc::collections::LinkedList;
use alloc::sync::Arc;
use core::mem;
use core::sync::atomic::Ordering;

use super::{Readers, Signals};
use crate::{Atomic, AtomicInt, Lock, LockClass, ParkWaitQueue, Platform, WaitQueue, WaitType};

pub(crate) static GRACE: LockClass = LockClass::new("platform.rcu.grace", WaitType::Spin).leaf();

/// A list, because lists are joined without allocating and in one step.
pub(super) type Callbacks = LinkedList<Box<dyn FnOnce() + Send>>;

/// What is to be done when the lock is gone.
#[must_use]
#[derive(Default)]
pub(super) struct Effects {
    /// A grace period has ended: wake who waits for it.
    pub(super) wake: bool,
    /// There are callbacks to run.
    pub(super) run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No grace period is under way.
    Idle,
    /// Waits for readers that took their index before the last flip and were counted after it.
    DrainStale,
    /// The index has been flipped: waits for the readers of the former one.
    DrainFormer,
}

struct State {
    phase: Phase,
    /// The CPU whose counter is to be seen at zero next.
    scan: usize,
    /// The number of the last grace period that has begun; they are numbered from 1.
    begun: u64,
    /// Grace periods are begun up to this number.
    wanted: u64,
    /// Callbacks that need the next grace period to begin.
    next: Callbacks,
    /// Callbacks that wait for the one that is under way.
    current: Callbacks,
    /// Callbacks that may run.
    due: Callbacks,
    /// How many callbacks have come.
    called: u64,
}

pub(super) struct Grace<P: Platform> {
    readers: Arc<[Readers<P>]>,
    state: Lock<P, State>,
    /// The number of the last grace period that has ended; written under the lock.
    completed: P::AtomicU64,
    /// Those who wait for the end of a grace period.
    pub(super) ended: ParkWaitQueue<P>,
    /// How many callbacks have run.
    ran: P::AtomicU64,
    /// Those who wait for callbacks to have run.
    callbacks_ran: ParkWaitQueue<P>,
}

impl<P: Platform> Grace<P> {
    pub(super) fn new(readers: Arc<[Readers<P>]>) -> Self {
        let state = State {
            phase: Phase::Idle,
            scan: 0,
            begun: 0,
            wanted: 0,
            next: Callbacks::new(),
            current: Callbacks::new(),
            due: Callbacks::new(),
            called: 0,
        };
        Grace {
            readers,
            state: Lock::new(&GRACE, state),
            completed: P::AtomicU64::ZERO,
            ended: ParkWaitQueue::EMPTY,
            ran: P::AtomicU64::ZERO,
            callbacks_ran: ParkWaitQueue::EMPTY,
        }
    }

    /// Asks for a grace period that begins after this call; returns its number.
    pub(super) fn request(&self, signals: &Signals<P>) -> (u64, Effects) {
        let mut state = self.state.lock_irqsave();
        let number = state.begun + 1;
        state.wanted = number;
        (number, self.advance(&mut state, signals))
    }

    /// Takes the grace period that is under way as far as it goes.
    pub(super) fn proceed(&self, signals: &Signals<P>) -> Effects {
        self.advance(&mut self.state.lock_irqsave(), signals)
    }

    /// Adds a callback, and asks for the grace period that it needs.
    pub(super) fn call(&self, f: Box<dyn FnOnce() + Send>, signals: &Signals<P>) -> Effects {
        // Allocated before the lock is taken.
        let mut callback = Callbacks::new();
        callback.push_back(f);
        let mut state = self.state.lock_irqsave();
        state.next.append(&mut callback);
        state.called += 1;
        state.wanted = state.begun + 1;
        self.advance(&mut state, signals)
    }

    /// Whether grace period `number` has ended; if so, acquires what its readers released.
    pub(super) fn has_ended(&self, number: u64) -> bool {
        self.completed.load(Ordering::Acquire) >= number
    }

    /// Sleeps until grace period `number` has ended.
    #[track_caller]
    pub(super) fn wait(&self, number: u64) {
        self.ended.wait_until(|| self.has_ended(number));
    }

    /// Sleeps until the callbacks that have come so far have run.
    #[track_caller]
    pub(super) fn barrier(&self) {
        let called = self.called();
        self.callbacks_ran.wait_until(|| self.ran.load(Ordering::Acquire) >= called);
    }

    /// How many callbacks have come.
    fn called(&self) -> u64 {
        self.state.lock_irqsave().called
    }

    fn advance(&self, state: &mut State, signals: &Signals<P>) -> Effects {
        let mut effects = Effects::default();
        loop {
            let other = signals.index.load(Ordering::Relaxed) ^ 1;
            match state.phase {
                Phase::Idle => {
                    if state.begun == state.wanted {
                        return effects;
                    }
                    state.begun += 1;
                    state.current = mem::take(&mut state.next);
                    // Orders what was written before the grace period was asked for before the
                    // loads of the counters that follow. See the safety comment of the domain.
                    P::fence(Ordering::SeqCst);
                    (state.phase, state.scan) = (Phase::DrainStale, 0);
                }
                Phase::DrainStale => {
                    if !self.drained(state, signals, other) {
                        return effects;
                    }
                    signals.index.store(other, Ordering::Relaxed);
                    (state.phase, state.scan) = (Phase::DrainFormer, 0);
                }
                Phase::DrainFormer => {
                    if !self.drained(state, signals, other) {
                        return effects;
                    }
                    state.phase = Phase::Idle;
                    self.completed.store(state.begun, Ordering::Release);
                    effects.wake = true;
                    effects.run |= !state.current.is_empty();
                    state.due.append(&mut state.current);
                }
            }
        }
    }

    /// Whether the counters of `index` have each been seen at zero since the phase began. If not,
    /// the reader that takes the one that is not to zero will know that it is awaited: the second
    /// look is after that was announced.
    fn drained(&self, state: &mut State, signals: &Signals<P>, index: u32) -> bool {
        let look = |state: &mut State| {
            while let Some(readers) = self.readers.get(state.scan) {
                if readers[index as usize].load(Ordering::SeqCst) != 0 {
                    return false;
                }
                state.scan += 1;
            }
            true
        };
        if look(state) {
            if signals.awaited.load(Ordering::Relaxed) != 0 {
                signals.awaited.store(0, Ordering::Relaxed);
            }
            return true;
        }
        signals.awaited.store(index + 1, Ordering::SeqCst);
        let drained = look(state);
        if drained {
            signals.awaited.store(0, Ordering::Relaxed);
        }
        drained
    }

    /// Runs the callbacks that are due. Never twice at once. If one panics, `again` is called for
    /// the rest.
    pub(super) fn run_callbacks(&self, again: impl Fn()) {
        let due = mem::take(&mut self.state.lock_irqsave().due);
        let mut batch = Batch { grace: self, due, again };
        while let Some(f) = batch.due.pop_front() {
            let _ran = Ran(self);
            f();
        }
    }

    /// Takes all callbacks out, for when there are no readers and never will be.
    pub(super) fn take_callbacks(&self) -> Callbacks {
        let mut guard = self.state.lock_irqsave();
        let state = &mut *guard;
        let mut all = mem::take(&mut state.due);
        all.append(&mut state.current);
        all.append(&mut state.next);
        all
    }
}

/// Counts a callback that has run, also one that panics.
struct Ran<'a, P: Platform>(&'a Grace<P>);

impl<P: Platform> Drop for Ran<'_, P> {
    fn drop(&mut self) {
        self.0.ran.fetch_add(1, Ordering::Release);
        self.0.callbacks_ran.wake_all();
    }
}

/// Callbacks that are being run; what a panic leaves of them is put back.
struct Batch<'a, P: Platform, F: Fn()> {
    grace: &'a Grace<P>,
    due: Callbacks,
    again: F,
}

impl<P: Platform, F: Fn()> Drop for Batch<'_, P, F> {
    fn drop(&mut self) {
        if !self.due.is_empty() {
            let mut state = self.grace.state.lock_irqsave();
            self.due.append(&mut state.due);
            mem::swap(&mut self.due, &mut state.due);
            drop(state);
            (self.again)();
        }
    }
}
