//! A sleeping lock.

use core::sync::atomic::Ordering;

use super::ParkWaitQueue;
use crate::{Acquire, Atomic, Platform, RawLock, WaitQueue};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be waiting: who releases it wakes one.
const AWAITED: u32 = 2;

/// A sleeping lock over the platform's spin lock and its `park` and `wake`.
///
/// Uncontended, it costs one compare-exchange to take and one exchange to release. It is not fair:
/// a running task may take it before the one that has been woken for it, as in most kernels.
pub struct ParkMutex<P: Platform> {
    state: P::AtomicU32,
    queue: ParkWaitQueue<P>,
}

crate::opaque_debug!([P: Platform] ParkMutex<P>);

impl<P: Platform> ParkMutex<P> {
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wait(&self) {
        // Whoever sleeps was on the queue when it last left AWAITED behind, so the release that
        // finds AWAITED finds the sleeper too. Who takes the lock here leaves AWAITED although it
        // may have been the last: that costs one needless look at the queue, and keeps its release
        // from forgetting the others.
        self.queue.wait_until(|| self.state.swap(AWAITED, Ordering::Acquire) == FREE);
    }

    /// Out of line, as `wait` is, so that the caller saves no registers for what is rare.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wake(&self) {
        self.queue.wake_one();
    }
}

// SAFETY: whoever changes the state from FREE has the lock, and only `unlock` changes it back, with
// Release; every acquisition is an Acquire on the same word.
unsafe impl<P: Platform> RawLock for ParkMutex<P> {
    const INIT: Self = ParkMutex { state: P::AtomicU32::ZERO, queue: ParkWaitQueue::EMPTY };

    #[inline]
    #[track_caller]
    fn lock(&self, how: Acquire) {
        if !self.try_lock(how) {
            self.wait();
        }
    }

    #[inline]
    #[track_caller]
    fn try_lock(&self, _how: Acquire) -> bool {
        P::assert_no_leaf("takes a sleeping lock");
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    #[track_caller]
    unsafe fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == AWAITED {
            self.wake();
        }
    }
}
