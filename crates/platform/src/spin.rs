//! Spin locks over atomics, for hosts that have none of their own.

use core::sync::atomic::Ordering;

use crate::{Acquire, Atomic, AtomicInt, Platform, RawLock};

/// A spin lock that is a flag: the smallest and, uncontended, the fastest. Not fair.
pub struct SpinLock<P: Platform> {
    held: P::AtomicBool,
}

crate::opaque_debug!([P: Platform] SpinLock<P>);

impl<P: Platform> SpinLock<P> {
    #[inline]
    #[track_caller]
    fn take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn spin(&self) {
        loop {
            // Waits reading, which leaves the cache line shared among those who wait.
            while self.held.load(Ordering::Relaxed) {
                P::cpu_relax();
            }
            if self.take() {
                return;
            }
        }
    }
}

// SAFETY: whoever changes the flag from `false` has the lock; only `unlock` changes it back, with
// Release, and every acquisition is an Acquire on the same word.
unsafe impl<P: Platform> RawLock for SpinLock<P> {
    const INIT: Self = SpinLock { held: P::AtomicBool::ZERO };

    #[inline]
    #[track_caller]
    fn lock(&self, _how: Acquire) {
        P::assert_no_leaf("takes a spin lock");
        P::preempt_disable();
        if !self.take() {
            self.spin();
        }
    }

    #[inline]
    #[track_caller]
    fn try_lock(&self, _how: Acquire) -> bool {
        P::assert_no_leaf("takes a spin lock");
        P::preempt_disable();
        let taken = self.take();
        if !taken {
            P::preempt_enable();
        }
        taken
    }

    #[inline]
    #[track_caller]
    unsafe fn unlock(&self) {
        self.held.store(false, Ordering::Release);
        P::preempt_enable();
    }
}

/// A spin lock that is taken in the order of arrival.
pub struct TicketLock<P: Platform> {
    /// The next ticket in the upper half, the ticket that is being served in the lower; free when
    /// they are equal. One word, so that `try_lock` sees both at one time.
    tickets: P::AtomicU64,
}

crate::opaque_debug!([P: Platform] TicketLock<P>);

const NEXT: u64 = 1 << 32;

const fn serving(tickets: u64) -> u32 {
    tickets as u32
}

const fn next(tickets: u64) -> u32 {
    (tickets >> 32) as u32
}

// SAFETY: tickets are handed out by atomic additions, so each is held once (2³² contexts would have
// to wait at once for a repetition); the holder of the ticket that is being served has the lock,
// and only its `unlock` serves the next, with Release; every acquisition ends with an Acquire on
// the same word.
unsafe impl<P: Platform> RawLock for TicketLock<P> {
    const INIT: Self = TicketLock { tickets: P::AtomicU64::ZERO };

    #[inline]
    #[track_caller]
    fn lock(&self, _how: Acquire) {
        P::assert_no_leaf("takes a spin lock");
        P::preempt_disable();
        let mut tickets = self.tickets.fetch_add(NEXT, Ordering::Acquire);
        let mine = next(tickets);
        while serving(tickets) != mine {
            P::cpu_relax();
            tickets = self.tickets.load(Ordering::Acquire);
        }
    }

    #[inline]
    #[track_caller]
    fn try_lock(&self, _how: Acquire) -> bool {
        P::assert_no_leaf("takes a spin lock");
        P::preempt_disable();
        let tickets = self.tickets.load(Ordering::Relaxed);
        let taken = serving(tickets) == next(tickets)
            && self
                .tickets
                .compare_exchange(
                    tickets,
                    tickets.wrapping_add(NEXT),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok();
        if !taken {
            P::preempt_enable();
        }
        taken
    }

    #[inline]
    #[track_caller]
    unsafe fn unlock(&self) {
        // Only the holder changes the lower half. It must not carry into the upper one when it
        // wraps.
        match serving(self.tickets.load(Ordering::Relaxed)) {
            u32::MAX => self.tickets.fetch_sub(u64::from(u32::MAX), Ordering::Release),
            _ => self.tickets.fetch_add(1, Ordering::Release),
        };
        P::preempt_enable();
    }
}
