//! An eventfd to be signalled.

use vmm_sys_util::eventfd::EventFd;

use super::{Descriptor, EventError};
use crate::Notify;

/// Notifies by an eventfd: the resamplefd of a device outside the process.
///
/// This is the one place where something is written to an eventfd that others have open. Who shares
/// it could make it blocking again and fill it, and so hang the virtual CPU that acknowledges
/// (there is no write to an eventfd that does not wait whatever the flags say): do not share it
/// with whom you do not trust that far.
pub struct EventSink(Descriptor);

impl EventSink {
    /// A duplicate of an eventfd. Its owner may close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd,
    /// [`Blocking`](EventError::Blocking); [`OwnSink`](EventError::OwnSink) if a loop of this
    /// process reads it.
    pub fn new(event: &EventFd) -> Result<Self, EventError> {
        let descriptor = Descriptor::eventfd(event)?;
        descriptor.add_sink()?;
        Ok(EventSink(descriptor))
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.0.remove_sink();
    }
}

impl Notify for EventSink {
    fn notify(&self) {
        self.0.signal();
    }
}
