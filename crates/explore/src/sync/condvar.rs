//! A condition variable.

use std::panic::Location;
use std::sync::LockResult;
use std::time::Duration;

use crate::op::{Op, OpKind};
use crate::sim::{Model, Spurious, Waiters, clock, spuriously, wait};
use crate::sync::MutexGuard;

/// A condition variable, shaped as that of `std`. Whom [`notify_one`](Condvar::notify_one) wakes, of
/// those that wait, is explored.
pub struct Condvar(Model<Waiters>);

doorbell_platform::opaque_debug!([] Condvar);

impl Default for Condvar {
    #[track_caller]
    fn default() -> Self {
        Condvar::new()
    }
}

impl Condvar {
    /// Creates one that nobody waits for.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new() -> Self {
        Condvar(Model::new("condvar", Waiters::default()))
    }

    /// Releases the mutex, sleeps until notified, and takes the mutex again.
    ///
    /// # Errors
    /// Never: the result is that of `std`.
    ///
    /// # Context
    /// Any task. It may sleep, and returns for nothing if
    /// [`Explore::spurious_wakes`](crate::Explore::spurious_wakes) asks for that.
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let place = self.0.change(Waiters::come);
        let mutex = guard.release();
        if spuriously(Spurious::Wake, Location::caller()) {
            self.0.change(|waiters| waiters.go(place));
        } else {
            self.0.take(|waiters| waiters.is_woken(place), |waiters| waiters.go(place));
        }
        Ok(mutex.take())
    }

    /// Waits as long as `condition` holds.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits as [`wait`](Condvar::wait) does, or until a timeout strikes: at any moment, and as often
    /// as [`Machine::timeouts`](crate::Machine::timeouts) says, however long `after` is.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        after: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let _ = after;
        let place = self.0.change(Waiters::come);
        let mutex = guard.release();
        let clock = clock();
        let ready = || self.0.state().is_woken(place) || *clock.state() > 0;
        wait(Op { obj2: Some(clock.id()), ..Op::new(OpKind::Take, self.0.id()) }, &ready);
        let timed_out = {
            let mut waiters = self.0.state();
            let timed_out = !waiters.is_woken(place);
            waiters.go(place);
            timed_out
        };
        *clock.state() -= u32::from(timed_out);
        Ok((mutex.take(), WaitTimeoutResult(timed_out)))
    }

    /// Wakes one of those that wait, if there are any.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn notify_one(&self) {
        self.0.change(Waiters::wake_one);
    }

    /// Wakes all that wait.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn notify_all(&self) {
        self.0.change(Waiters::wake_all);
    }
}

/// Says whether a wait ended because a timeout struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns whether it did.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}
