//! Channels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{RecvError, SendError, TryRecvError, TrySendError};

use crate::sim::Model;

struct Queue<T> {
    items: VecDeque<T>,
    most: usize,
    senders: usize,
    receives: bool,
}

impl<T> Queue<T> {
    fn has_room(&self) -> bool {
        self.items.len() < self.most
    }
}

/// Creates a channel that holds up to `most` values, shaped as that of `std`: whoever sends more
/// waits.
///
/// # Panics
/// If `most` is 0: a channel by which two meet is none of these.
///
/// # Context
/// Any.
#[track_caller]
pub fn sync_channel<T>(most: usize) -> (SyncSender<T>, Receiver<T>) {
    assert!(most > 0, "a channel that holds nothing is none of these");
    let queue = Queue { items: VecDeque::new(), most, senders: 1, receives: true };
    let queue = Arc::new(Model::new("channel", queue));
    (SyncSender(Arc::clone(&queue)), Receiver(queue))
}

/// Creates a channel that holds any number of values.
///
/// # Context
/// Any.
#[track_caller]
pub fn channel<T>() -> (SyncSender<T>, Receiver<T>) {
    sync_channel(usize::MAX)
}

/// The end of a channel that values go into. The last that is dropped closes it.
pub struct SyncSender<T>(Arc<Model<Queue<T>>>);

doorbell_platform::opaque_debug!([T] SyncSender<T>);

impl<T> SyncSender<T> {
    /// Sends `value`, and waits until there is room for it.
    ///
    /// # Errors
    /// Returns the value if nobody will receive it.
    ///
    /// # Context
    /// Any task. It may sleep if the channel has a limit.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.take(
            |queue| queue.has_room() || !queue.receives,
            |queue| {
                if !queue.receives {
                    return Err(SendError(value));
                }
                queue.items.push_back(value);
                Ok(())
            },
        )
    }

    /// Sends `value` if there is room for it.
    ///
    /// # Errors
    /// Returns the value if there is none, or nobody will receive it.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.change(|queue| {
            if !queue.receives {
                return Err(TrySendError::Disconnected(value));
            }
            if !queue.has_room() {
                return Err(TrySendError::Full(value));
            }
            queue.items.push_back(value);
            Ok(())
        })
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        self.0.change(|queue| queue.senders += 1);
        SyncSender(Arc::clone(&self.0))
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.0.change(|queue| queue.senders -= 1);
    }
}

/// The end of a channel that values come out of.
pub struct Receiver<T>(Arc<Model<Queue<T>>>);

doorbell_platform::opaque_debug!([T] Receiver<T>);

impl<T> Receiver<T> {
    /// Waits for the next value.
    ///
    /// # Errors
    /// If there is none, and nobody will send one.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.0.take(
            |queue| !queue.items.is_empty() || queue.senders == 0,
            |queue| queue.items.pop_front().ok_or(RecvError),
        )
    }

    /// Returns the next value, if there is one.
    ///
    /// # Errors
    /// If there is none; and says whether one may come.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut received = Err(TryRecvError::Empty);
        self.0.change_if(|queue| {
            received = match queue.items.pop_front() {
                Some(value) => Ok(value),
                None if queue.senders == 0 => Err(TryRecvError::Disconnected),
                None => Err(TryRecvError::Empty),
            };
            received.is_ok()
        });
        received
    }

    /// Returns values until nobody sends any more.
    ///
    /// # Context
    /// Any task. Each step of it may sleep.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What is left is dropped when the machine is left.
        let left = self.0.change(|queue| {
            queue.receives = false;
            std::mem::take(&mut queue.items)
        });
        drop(left);
    }
}
