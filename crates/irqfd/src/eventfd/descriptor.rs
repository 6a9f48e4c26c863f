//! What can be served: an eventfd, or any other descriptor that can be polled and read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use vmm_sys_util::eventfd::EventFd;

use super::EventError;

/// A descriptor from which events are read: a duplicate of an eventfd, or the reading end of a pipe or socket.
pub struct Descriptor {
    kind: Kind,
    identity: Identity,
}

enum Kind {
    Event(EventFd),
    Stream(File),
}

/// What makes two descriptors the same source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Identity {
    /// The kernel's number of an eventfd, which duplicates share.
    Event(u64),
    /// A descriptor that we own; that numbers no other source.
    Owned(RawFd),
}

pub(super) enum Drained {
    Event,
    Nothing,
    HungUp,
}

impl Descriptor {
    /// A duplicate of an eventfd. Its owner may close the original.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd, [`Blocking`](EventError::Blocking).
    pub fn eventfd(event: &EventFd) -> Result<Self, EventError> {
        let event = event.try_clone().map_err(bad)?;
        let info = Info::of(event.as_raw_fd())?;
        if !info.is_eventfd {
            return Err(EventError::BadDescriptor);
        }
        // Kernels before 5.2 do not number them; then each duplicate passes for a source of its own.
        let identity = info.eventfd_id.map_or(Identity::Owned(event.as_raw_fd()), Identity::Event);
        info.non_blocking.then_some(Descriptor { kind: Kind::Event(event), identity }).ok_or(EventError::Blocking)
    }

    /// The reading end of a pipe or socket: each time something can be read is an event, and the end of it a hang-up.
    ///
    /// # Errors
    /// [`Blocking`](EventError::Blocking).
    pub fn stream(stream: OwnedFd) -> Result<Self, EventError> {
        let info = Info::of(stream.as_raw_fd())?;
        if info.is_eventfd {
            // It would get another identity than as an eventfd.
            return Err(EventError::BadDescriptor);
        }
        let identity = Identity::Owned(stream.as_raw_fd());
        info.non_blocking.then_some(Descriptor { kind: Kind::Stream(stream.into()), identity }).ok_or(EventError::Blocking)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn raw(&self) -> RawFd {
        match &self.kind {
            Kind::Event(event) => event.as_raw_fd(),
            Kind::Stream(stream) => stream.as_raw_fd(),
        }
    }

    /// Takes out what is in it: the whole count of an eventfd, a good deal of a stream. However often it was signalled
    /// since, it is one event.
    pub(super) fn drain(&self) -> Drained {
        let result = match &self.kind {
            Kind::Event(event) => event.read().map(|_| Drained::Event),
            Kind::Stream(stream) => {
                let mut stream: &File = stream;
                stream.read(&mut [0; 512]).map(|n| if n == 0 { Drained::HungUp } else { Drained::Event })
            }
        };
        result.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Drained::Nothing,
            _ => Drained::HungUp,
        })
    }

    pub(super) fn give_back(&self) {
        if let Kind::Event(event) = &self.kind {
            // Fails if the counter is at its maximum: then there is an event in it anyway.
            let _ = event.write(1);
        }
    }
}

/// What the kernel tells of a descriptor.
pub(super) struct Info {
    pub(super) is_eventfd: bool,
    eventfd_id: Option<u64>,
    pub(super) non_blocking: bool,
}

impl Info {
    pub(super) fn of(fd: RawFd) -> Result<Self, EventError> {
        /// `O_NONBLOCK` of Linux, the same on all architectures that Rust's std supports but MIPS and SPARC.
        const NON_BLOCKING: u32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 0x80 } else { 0o4000 };

        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if fs::exists("/proc/self/fdinfo").unwrap_or(false) => EventError::BadDescriptor,
            _ => EventError::Io(error),
        })?;
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok()).unwrap_or(0);
        Ok(Info {
            is_eventfd: field("eventfd-count:").is_some(),
            eventfd_id: field("eventfd-id:").and_then(|id| id.parse().ok()),
            non_blocking: flags & NON_BLOCKING != 0,
        })
    }
}

/// What duplicating a descriptor that is not open says; EBADF has no kind of its own.
pub(super) fn bad(error: io::Error) -> EventError {
    const EBADF: i32 = 9;
    if error.raw_os_error() == Some(EBADF) { EventError::BadDescriptor } else { EventError::Io(error) }
}
