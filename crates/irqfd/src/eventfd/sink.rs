//! An eventfd to be signalled.

use std::os::fd::AsRawFd;

use doorbell_platform::fd;
use vmm_sys_util::eventfd::EventFd;

use super::EventError;
use super::descriptor::{Info, bad};
use crate::Notify;

/// Notifies by an eventfd: the resamplefd of a device outside the process.
///
/// This is the one place where something is written to an eventfd that others have open. Who shares it could make it blocking
/// again and fill it, and so hang the virtual CPU that acknowledges (there is no write to an eventfd that does not wait whatever the flags
/// say): do not share it with whom you do not trust that far.
pub struct EventSink(EventFd);

impl EventSink {
    /// A duplicate of an eventfd. Its owner may close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd, [`Blocking`](EventError::Blocking).
    pub fn new(event: &EventFd) -> Result<Self, EventError> {
        let event = event.try_clone().map_err(bad)?;
        if Info::of(event.as_raw_fd()).is_eventfd == Some(false) {
            return Err(EventError::BadDescriptor);
        }
        let non_blocking = fd::is_non_blocking(fd::of_eventfd(&event)).map_err(bad)?;
        non_blocking.then_some(EventSink(event)).ok_or(EventError::Blocking)
    }
}

impl Notify for EventSink {
    fn notify(&self) {
        // Fails if the counter is at its maximum: then its reader has an event to read, which is this one too.
        let _ = self.0.write(1);
    }
}
