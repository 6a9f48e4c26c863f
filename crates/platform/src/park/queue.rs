//! A wait queue.
//!
//! ```text
//!   who waits                         who wakes
//!   lists itself, counts              changes the condition
//!   full barrier                      full barrier
//!   looks at the condition:           reads the count: nobody, and is done;
//!     sleeps if it does not hold        else takes the list, and wakes without the lock
//! ```
//!
//! At least one of them sees what the other wrote, so nobody sleeps with the condition true.

use core::sync::atomic::Ordering;

use super::list::{WaitList, Waiter};
use crate::{Atomic, Lock, LockClass, Platform, WaitQueue, WaitType};

pub(crate) static WAITERS: LockClass =
    LockClass::new("platform.park.waiters", WaitType::Spin).leaf();

/// A wait queue over the platform's spin lock and its `park` and `wake`.
///
/// Tasks are woken when the queue's lock is gone, so a wake-up may take any lock of the host.
/// Waking costs a fence and a load while nobody waits. Neither waiting nor waking allocates.
pub struct ParkWaitQueue<P: Platform> {
    list: Lock<P, WaitList<P>>,
    /// How many tasks are listed; written under the lock.
    listed: P::AtomicU32,
}

crate::opaque_debug!([P: Platform] ParkWaitQueue<P>);

impl<P: Platform> ParkWaitQueue<P> {
    /// An empty queue, for statics.
    #[allow(clippy::declare_interior_mutable_const)] // a constant to begin with, as `RawLock::INIT`
    pub const EMPTY: Self = ParkWaitQueue {
        list: Lock::constant(&WAITERS, WaitList::EMPTY),
        listed: P::AtomicU32::ZERO,
    };

    /// Makes the task that has waited longest check its condition again. That may be a task whose
    /// condition holds already and which is just leaving: what it leaves over for others, it must
    /// pass on.
    #[inline]
    #[track_caller]
    pub(super) fn wake_one(&self) {
        P::assert_no_leaf("wakes who waits");
        if self.may_have_waiters() {
            self.wake(1);
        }
    }

    /// The fence pairs with the one in [`wait_until`](WaitQueue::wait_until). The waker changes the
    /// condition, then reads the count; the waiter writes the count, then reads the condition. With
    /// a full barrier between the two on either side, at least one of them sees what the other
    /// wrote.
    #[inline]
    #[track_caller]
    fn may_have_waiters(&self) -> bool {
        P::fence(Ordering::SeqCst);
        self.listed.load(Ordering::Relaxed) != 0
    }

    /// Wakes at most `most` of the tasks that are listed now. A task that comes back while this
    /// runs gets a number above the limit, so this ends.
    #[cold]
    #[track_caller]
    fn wake(&self, most: u32) {
        let mut limit = None;
        for _ in 0..most {
            let mut list = self.list.lock_irqsave();
            let limit = *limit.get_or_insert(list.last_number());
            let task = list.pop(limit);
            self.listed.store(list.len(), Ordering::Relaxed);
            drop(list);
            let Some(task) = task else { return };
            P::wake(&task);
        }
    }
}

impl<P: Platform> WaitQueue for ParkWaitQueue<P> {
    fn new(_name: &'static str) -> Self {
        Self::EMPTY
    }

    #[track_caller]
    fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        P::assert_no_leaf("may sleep");
        if condition() {
            return;
        }
        let waiter = Waiter::new(P::current_task());
        let listing = Listing { queue: self, waiter: &waiter };
        loop {
            listing.renew();
            P::fence(Ordering::SeqCst); // pairs with that of `may_have_waiters`
            if condition() {
                return;
            }
            P::park();
        }
    }

    #[inline]
    #[track_caller]
    fn wake_all(&self) {
        P::assert_no_leaf("wakes who waits");
        if self.may_have_waiters() {
            self.wake(u32::MAX);
        }
    }
}

/// Takes the waiter off the queue, also if the condition panics.
struct Listing<'a, P: Platform> {
    queue: &'a ParkWaitQueue<P>,
    waiter: &'a Waiter<P>,
}

impl<P: Platform> Listing<'_, P> {
    #[track_caller]
    fn renew(&self) {
        let mut list = self.queue.list.lock_irqsave();
        // SAFETY: the waiter is used with this queue only; it is borrowed, hence does not move,
        // until `drop` has removed it.
        unsafe { list.push(self.waiter) };
        self.queue.listed.store(list.len(), Ordering::Relaxed);
    }
}

impl<P: Platform> Drop for Listing<'_, P> {
    fn drop(&mut self) {
        let mut list = self.queue.list.lock_irqsave();
        // SAFETY: the waiter is used with this queue only.
        unsafe { list.remove(self.waiter) };
        self.queue.listed.store(list.len(), Ordering::Relaxed);
    }
}
