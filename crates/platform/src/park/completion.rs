//! A completion.

use core::sync::atomic::Ordering;

use super::ParkWaitQueue;
use crate::{Atomic, Completion, Platform, WaitQueue};

/// A completion over the platform's spin lock and its `park` and `wake`.
pub struct ParkCompletion<P: Platform> {
    done: P::AtomicBool,
    queue: ParkWaitQueue<P>,
}

crate::opaque_debug!([P: Platform] ParkCompletion<P>);

impl<P: Platform> Completion for ParkCompletion<P> {
    fn new(_name: &'static str) -> Self {
        ParkCompletion { done: P::AtomicBool::ZERO, queue: ParkWaitQueue::EMPTY }
    }

    #[track_caller]
    fn complete_all(&self) {
        self.done.store(true, Ordering::Release);
        self.queue.wake_all();
    }

    #[track_caller]
    fn wait(&self) {
        self.queue.wait_until(|| self.is_done());
    }

    /// `true` makes what was written before [`complete_all`](Completion::complete_all) visible.
    #[inline]
    #[track_caller]
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}
