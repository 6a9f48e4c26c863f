//! An eventfd to be signalled.

use doorbell_platform::fd::Signals;
use vmm_sys_util::eventfd::EventFd;

use super::{Descriptor, EventError};
use crate::Notify;

/// Notifies by an eventfd: the resamplefd of a device outside the process.
///
/// The virtual CPU that acknowledges an interrupt does this, so it does not wait, whatever the
/// device does to the eventfd that it shares: one that makes it blocking and fills it finds it at
/// its maximum, and nobody else notices. See [`Signals`] for how, and for what it asks of the
/// kernel.
pub struct EventSink {
    descriptor: Descriptor,
    signals: &'static Signals,
}

doorbell_platform::opaque_debug!([] EventSink);

impl EventSink {
    /// Duplicates an eventfd. Its owner may close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd,
    /// [`Blocking`](EventError::Blocking); [`OwnSink`](EventError::OwnSink) if a loop of this
    /// process reads it; [`Io`](EventError::Io) if the kernel does not let this process signal
    /// without waiting. (A host that trusts its devices can still write to their eventfds, by a
    /// [`Notify`] of its own.)
    pub fn new(event: &EventFd) -> Result<Self, EventError> {
        let signals = Signals::of_process()?;
        let descriptor = Descriptor::eventfd(event)?;
        descriptor.add_sink()?;
        Ok(EventSink { descriptor, signals })
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.descriptor.remove_sink();
    }
}

impl Notify for EventSink {
    fn notify(&self) {
        self.descriptor.signal(self.signals);
    }
}
