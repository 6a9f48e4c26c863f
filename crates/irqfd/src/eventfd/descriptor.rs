//! What can be served: an eventfd, or any other descriptor that can be polled and read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::EventError;

/// A descriptor from which events are read: a duplicate of an eventfd, or the reading end of a pipe or socket.
///
/// Making one asks the kernel a few questions; it can be kept and assigned again and again. Clones are the same one.
#[derive(Clone)]
pub struct Descriptor(Arc<Inner>);

struct Inner {
    kind: Kind,
    identity: Identity,
    /// Somebody closed it. Its number may be another descriptor by now, so it is not used, and not closed, any more.
    lost: AtomicBool,
}

enum Kind {
    Event(EventFd),
    Stream(File),
    /// While it is dropped.
    Lost,
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
        Self::checked(Kind::Event(event), identity, &info)
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
        Self::checked(Kind::Stream(stream.into()), identity, &info)
    }

    fn checked(kind: Kind, identity: Identity, info: &Info) -> Result<Self, EventError> {
        let inner = Inner { kind, identity, lost: AtomicBool::new(false) };
        info.non_blocking.then(|| Descriptor(Arc::new(inner))).ok_or(EventError::Blocking)
    }

    pub(super) fn identity(&self) -> Identity {
        self.0.identity
    }

    pub(super) fn raw(&self) -> RawFd {
        match &self.0.kind {
            Kind::Event(event) => event.as_raw_fd(),
            Kind::Stream(stream) => stream.as_raw_fd(),
            Kind::Lost => -1,
        }
    }

    /// An eventfd is edge-triggered: one read empties it, and each write is an edge. If somebody closes our descriptor,
    /// epoll goes on watching the eventfd as long as it is open elsewhere, and cannot be told to stop; being
    /// level-triggered, it would never sleep again. A stream needs several reads, so it is level-triggered.
    pub(super) fn interest(&self) -> EventSet {
        match self.0.kind {
            Kind::Event(_) => EventSet::IN | EventSet::EDGE_TRIGGERED,
            _ => EventSet::IN,
        }
    }

    /// Takes out what is in it: the whole count of an eventfd, a good deal of a stream. However often it was signalled
    /// since, it is one event.
    pub(super) fn drain(&self) -> Drained {
        let result = match &self.0.kind {
            Kind::Event(event) => event.read().map(|_| Drained::Event),
            Kind::Stream(stream) => {
                let mut stream: &File = stream;
                stream.read(&mut [0; 512]).map(|n| if n == 0 { Drained::HungUp } else { Drained::Event })
            }
            Kind::Lost => return Drained::HungUp,
        };
        result.unwrap_or_else(|error| match error.kind() {
            // A non-blocking read is not interrupted by a signal; if it were, take no chances.
            io::ErrorKind::Interrupted => Drained::Event,
            io::ErrorKind::WouldBlock => Drained::Nothing,
            _ => {
                self.0.lost.fetch_or(error.raw_os_error() == Some(EBADF), Ordering::Relaxed);
                Drained::HungUp
            }
        })
    }

    pub(super) fn give_back(&self) {
        if let Kind::Event(event) = &self.0.kind
            && !self.0.lost.load(Ordering::Relaxed)
        {
            // Fails if the counter is at its maximum: then there is an event in it anyway.
            let _ = event.write(1);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.lost.get_mut() {
            let _not_closed = match mem::replace(&mut self.kind, Kind::Lost) {
                Kind::Event(event) => event.into_raw_fd(),
                Kind::Stream(stream) => stream.into_raw_fd(),
                Kind::Lost => -1,
            };
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

        let open = File::open(format!("/proc/self/fdinfo/{fd}"));
        let mut file = open.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if fs::exists("/proc/self/fdinfo").unwrap_or(false) => EventError::BadDescriptor,
            _ => EventError::Io(error),
        })?;
        // An eventfd's is some 120 bytes, and comes in one piece.
        let mut text = [0; 512];
        let len = file.read(&mut text)?;
        let text = str::from_utf8(&text[..len]).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok()).unwrap_or(0);
        Ok(Info {
            is_eventfd: field("eventfd-count:").is_some(),
            eventfd_id: field("eventfd-id:").and_then(|id| id.parse().ok()),
            non_blocking: flags & NON_BLOCKING != 0,
        })
    }
}

/// "Not open"; it has no [`io::ErrorKind`].
const EBADF: i32 = 9;

/// What duplicating a descriptor says.
pub(super) fn bad(error: io::Error) -> EventError {
    if error.raw_os_error() == Some(EBADF) { EventError::BadDescriptor } else { EventError::Io(error) }
}
