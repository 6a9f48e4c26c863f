//! The spin lock of a process.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;

use crate::{Acquire, RawLock};

/// A spin lock for threads, which may lose their CPU while they hold it: who waits spins for a
/// moment, then yields, then sleeps for a little (a real-time thread that only yields could keep
/// the holder from ever running).
pub struct StdSpin {
    held: AtomicBool,
}

crate::opaque_debug!([] StdSpin);

const SPINS: u32 = 64;
const YIELDS: u32 = 256;
const NAP: Duration = Duration::from_micros(50);

impl StdSpin {
    #[inline]
    fn take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) {
        for round in 0u32.. {
            // Waits reading, which leaves the cache line shared among those who wait.
            if !self.held.load(Ordering::Relaxed) && self.take() {
                return;
            }
            match round {
                0..SPINS => core::hint::spin_loop(),
                SPINS..YIELDS => thread::yield_now(),
                _ => thread::sleep(NAP),
            }
        }
        unreachable!("a lock was held for longer than anyone could wait");
    }
}

// SAFETY: whoever changes the flag from `false` has the lock; only `unlock` changes it back, with
// Release, and every acquisition is an Acquire on the same word.
unsafe impl RawLock for StdSpin {
    const INIT: Self = StdSpin { held: AtomicBool::new(false) };

    #[inline]
    fn lock(&self, _how: Acquire) {
        if !self.take() {
            self.wait();
        }
    }

    #[inline]
    fn try_lock(&self, _how: Acquire) -> bool {
        self.take()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.held.store(false, Ordering::Release);
    }
}
