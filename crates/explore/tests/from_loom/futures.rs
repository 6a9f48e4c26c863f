//! Futures.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Poll, Waker};

use doorbell_explore::sync::atomic::AtomicBool;
use doorbell_explore::sync::{Mutex, block_on, thread};
use doorbell_explore::trace::FailureKind;

use crate::{fails, passes};

/// A flag, and who is to be told.
type Event = Arc<(AtomicBool, Mutex<Option<Waker>>)>;

/// A task sets the event, and another one blocks on it. Before or after it has registered its waker,
/// that one looks whether the event is set.
fn event(late: bool) -> impl Fn() + Send + Sync {
    move || {
        let event: Event = Arc::default();
        let other = Arc::clone(&event);
        thread::spawn(move || {
            other.0.store(true, SeqCst);
            let waker = other.1.lock().unwrap().take();
            waker.into_iter().for_each(Waker::wake);
        });
        block_on(poll_fn(|context| {
            let is_set = late && event.0.load(SeqCst);
            if !is_set {
                *event.1.lock().unwrap() = Some(context.waker().clone());
            }
            if is_set || !late && event.0.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

#[test]
fn a_waker_that_is_registered_after_the_look_is_never_woken() {
    fails(FailureKind::Deadlock, event(true));
    passes(event(false));
}

#[test]
fn an_async_block_goes_on_where_it_was() {
    passes(|| {
        let (sender, receiver) = doorbell_explore::sync::mpsc::channel();
        let task = thread::spawn(move || block_on(async move { receiver.recv().unwrap() + 1 }));
        block_on(async { sender.send(1).unwrap() });
        assert_eq!(task.join().unwrap(), 2);
    });
}
