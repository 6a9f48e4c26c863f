//! Futures.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sim::Model;

/// What a waker sets, and the task that polls waits for.
struct Signal(Model<bool>);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.change(|woken| *woken = true);
    }
}

/// Polls `future` until it is ready, and sleeps between. A waker that is registered too late, or
/// dropped, is a deadlock.
///
/// # Context
/// Any task. It may sleep.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal(Model::new("waker", false)));
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        signal.0.take(|woken| *woken, |woken| *woken = false);
    }
}
