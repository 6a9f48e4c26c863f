//! An eventfd to be signalled.

use std::os::fd::AsRawFd;

use vmm_sys_util::eventfd::EventFd;

use super::EventError;
use super::descriptor::{Info, bad};
use crate::Notify;

/// Notifies by an eventfd: the resamplefd of a device outside the process.
///
/// Who shares the eventfd could make it blocking again and fill it, and so hang the virtual CPU that acknowledges: do
/// not share it with whom you do not trust that far.
pub struct EventSink(EventFd);

impl EventSink {
    /// A duplicate of an eventfd. Its owner may close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd, [`Blocking`](EventError::Blocking).
    pub fn new(event: &EventFd) -> Result<Self, EventError> {
        let event = event.try_clone().map_err(bad)?;
        match Info::of(event.as_raw_fd())? {
            Info { is_eventfd: false, .. } => Err(EventError::BadDescriptor),
            Info { non_blocking: false, .. } => Err(EventError::Blocking),
            _ => Ok(EventSink(event)),
        }
    }
}

impl Notify for EventSink {
    fn notify(&self) {
        // Fails if the counter is at its maximum: then its reader has an event to read, which is this one too.
        let _ = self.0.write(1);
    }
}
