//! An eventfd to be signalled.

use std::os::fd::{AsFd, BorrowedFd};

use doorbell_platform::fd::Signals;

use super::{Descriptor, EventError, descriptor};
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
    /// Duplicates an eventfd, blocking or not, of whatever type the host has for it. Its owner may
    /// close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd,
    /// [`DescriptorLimit`](EventError::DescriptorLimit); [`OwnSink`](EventError::OwnSink) if a loop
    /// of this process reads it; [`Io`](EventError::Io) if the kernel does not let this process
    /// signal without waiting. (A host that trusts its devices can still write to their eventfds,
    /// by a [`Notify`] of its own.)
    pub fn new(event: impl AsFd) -> Result<Self, EventError> {
        let signals = Signals::of_process()?;
        let descriptor = Descriptor::signalled_eventfd(descriptor::duplicate(event)?)?;
        descriptor.add_sink()?;
        Ok(EventSink { descriptor, signals })
    }

    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.event()
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
