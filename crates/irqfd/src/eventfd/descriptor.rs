//! What can be served: an eventfd, or any other descriptor that can be polled and read.

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use doorbell_platform::fd;
use vmm_sys_util::epoll::EventSet;

use super::EventError;
use super::register::{self, Identity};
use crate::Error;

/// A descriptor from which events are read: a duplicate of an eventfd, or the reading end of a pipe
/// or socket.
///
/// Making one asks the kernel a few questions; it can be pending and assigned again and again.
/// Clones are the same one, and so are all that are made of one eventfd, as long as any of them
/// lives.
///
/// An event that was read and found no route until the descriptor was deassigned stays here, as a
/// value: the next assignment delivers it, and [`take_pending`](Descriptor::take_pending) takes it.
/// Who wants that keeps a clone.
#[derive(Clone)]
pub struct Descriptor(Arc<Source>);

doorbell_platform::opaque_debug!([] Descriptor);

/// An open file that signals.
pub(super) struct Source {
    kind: Kind,
    identity: Identity,
    /// Somebody closed it. Its number may be another descriptor by now, so it is not used, and not
    /// closed, any more.
    lost: AtomicBool,
    /// [`SERVED`], or by how many sinks it is written.
    uses: AtomicU32,
    /// An event was read, and neither delivered nor taken.
    pending: AtomicBool,
}

/// Some loop reads it.
const SERVED: u32 = 1 << 31;

enum Kind {
    Event(OwnedFd),
    Stream(OwnedFd),
    /// While it is dropped.
    Lost,
}

pub(super) enum Drained {
    Event,
    Nothing,
    HungUp,
}

impl Descriptor {
    /// Duplicates an eventfd, of whatever type the host has for it. Its owner may close the
    /// original; until then two descriptors of the process are open.
    /// ([`of_eventfd`](super::of_eventfd) borrows the descriptor of an `EventFd` of
    /// `vmm-sys-util`.)
    ///
    /// The eventfd may be a blocking one, and may count as a semaphore: an event is one read.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is not an eventfd;
    /// [`DescriptorLimit`](EventError::DescriptorLimit); [`Blocking`](EventError::Blocking) if it
    /// is, and the kernel has no read of eventfds that does not wait (Linux before 5.8, or a filter
    /// of system calls).
    pub fn eventfd(event: impl AsFd) -> Result<Self, EventError> {
        Self::owned_eventfd(duplicate(event)?)
    }

    /// Takes an eventfd, whose owner has no use for it any more: no other descriptor is open
    /// beside it.
    ///
    /// # Errors
    /// As for [`eventfd`](Descriptor::eventfd); the descriptor is closed then.
    pub fn owned_eventfd(event: OwnedFd) -> Result<Self, EventError> {
        let blocking = !is_non_blocking(event.as_fd())?;
        let descriptor = Self::signalled_eventfd(event)?;
        if blocking && !fd::reads_eventfds_now() {
            return Err(EventError::Blocking);
        }
        Ok(descriptor)
    }

    /// Takes an eventfd that is signalled here and never read, so that reads of it may wait.
    pub(super) fn signalled_eventfd(event: OwnedFd) -> Result<Self, EventError> {
        let info = Info::of(event.as_raw_fd());
        if is_eventfd(event.as_fd(), &info) == Some(false) {
            return Err(EventError::BadDescriptor);
        }
        let identity = Identity::of(event.as_fd(), info.eventfd_id);
        Ok(Self::known(Kind::Event(event), identity))
    }

    /// Takes the reading end of a pipe or socket: each time something can be read is an event, and
    /// the end of it a hang-up.
    ///
    /// # Errors
    /// [`BadDescriptor`](EventError::BadDescriptor) if it is an eventfd;
    /// [`Blocking`](EventError::Blocking).
    pub fn stream(stream: OwnedFd) -> Result<Self, EventError> {
        if is_eventfd(stream.as_fd(), &Info::of(stream.as_raw_fd())) == Some(true) {
            // It would be read as if it were none.
            return Err(EventError::BadDescriptor);
        }
        if !is_non_blocking(stream.as_fd())? {
            return Err(EventError::Blocking);
        }
        let identity = Identity::of(stream.as_fd(), None);
        Ok(Self::known(Kind::Stream(stream), identity))
    }

    fn known(kind: Kind, identity: Identity) -> Self {
        let (lost, pending) = (AtomicBool::new(false), AtomicBool::new(false));
        Descriptor(register::find_or_insert(Source {
            kind,
            identity,
            lost,
            uses: AtomicU32::new(0),
            pending,
        }))
    }

    /// Returns whether the kernel says which open file it is. If not, a duplicate passes for
    /// another source: that it is served already is then for the caller to know. (The kernel says
    /// so of eventfds in `/proc/self/fdinfo` since Linux 5.2, and of anything by `kcmp`, if neither
    /// configuration nor a filter of system calls forbids it.)
    pub fn is_identified(&self) -> bool {
        self.0.identity != Identity::Unknown
    }

    /// Takes the event that was read and not delivered, if there is one; the caller is responsible
    /// for it from then on.
    #[doc(alias = "take_kept")]
    pub fn take_pending(&self) -> bool {
        self.0.pending.swap(false, Ordering::SeqCst)
    }

    /// Returns whether an event is pending here, and leaves it. While the descriptor is served,
    /// that is the loop's to say: [`EventLoop::is_pending`](super::EventLoop::is_pending).
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn is_pending(&self) -> bool {
        self.0.pending.load(Ordering::SeqCst)
    }

    /// Has an event pending, which the next assignment delivers: one that is in a snapshot.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn pend(&self) {
        self.0.pending.store(true, Ordering::SeqCst);
    }

    fn begin_use(&self, f: impl Fn(u32) -> Option<u32>) -> Result<(), EventError> {
        match self.0.uses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, f) {
            Ok(_) => Ok(()),
            Err(SERVED) => Err(Error::Busy.into()),
            Err(_) => Err(EventError::OwnSink),
        }
    }

    /// Claims it for one loop.
    ///
    /// # Errors
    /// If another has it, or a sink writes to it.
    pub(super) fn claim(&self) -> Result<(), EventError> {
        self.begin_use(|uses| (uses == 0).then_some(SERVED))
    }

    /// Nobody reads it any more.
    pub(super) fn release(&self) {
        self.0.uses.fetch_and(!SERVED, Ordering::SeqCst);
    }

    /// One sink more writes to it.
    ///
    /// # Errors
    /// If a loop reads it.
    pub(super) fn add_sink(&self) -> Result<(), EventError> {
        let added = self.begin_use(|uses| (uses & SERVED == 0).then_some(uses + 1));
        added.map_err(|_| EventError::OwnSink)
    }

    pub(super) fn remove_sink(&self) {
        self.0.uses.fetch_sub(1, Ordering::SeqCst);
    }

    /// Signals an eventfd. Does not wait, also if who shares it has made it a blocking one and
    /// filled it.
    pub(super) fn signal(&self, signals: &fd::Signals) {
        if let Some(fd) = self.0.fd() {
            // Fails if somebody has closed it: then nobody hears of it.
            let _ = signals.signal(fd);
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.fd().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Returns the descriptor if it is an eventfd, and open as far as one knows.
    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.0.fd().filter(|_| matches!(self.0.kind, Kind::Event(_)))
    }

    /// An eventfd is edge-triggered: one read empties it, and each write is an edge. If somebody
    /// closes our descriptor, epoll goes on watching the eventfd as long as it is open elsewhere,
    /// and cannot be told to stop; being level-triggered, it would never sleep again. A stream
    /// needs several reads, so it is level-triggered.
    pub(super) fn interest(&self) -> EventSet {
        match self.0.kind {
            Kind::Event(_) => EventSet::IN | EventSet::EDGE_TRIGGERED,
            _ => EventSet::IN,
        }
    }

    /// Takes out what is in it: the whole count of an eventfd, a good deal of a stream. However
    /// often it was signalled since, it is one event. Does not wait, also if who shares it has made
    /// it a blocking one and takes the event back.
    pub(super) fn drain(&self) -> Drained {
        let Some(fd) = self.0.fd() else { return Drained::HungUp };
        let (mut count, mut bytes) = ([0; 8], [0; 512]);
        let read = match self.0.kind {
            Kind::Event(_) => fd::read_now(fd, &mut count),
            _ => fd::read_now(fd, &mut bytes),
        };
        match read {
            Ok(0) => Drained::HungUp,
            Ok(_) => Drained::Event,
            Err(error) => match error.kind() {
                // A read that does not wait is not interrupted by a signal; if it were, take no
                // chances.
                io::ErrorKind::Interrupted => Drained::Event,
                io::ErrorKind::WouldBlock => Drained::Nothing,
                _ => {
                    self.0.lost.fetch_or(error.raw_os_error() == Some(EBADF), Ordering::Relaxed);
                    Drained::HungUp
                }
            },
        }
    }
}

impl Kind {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Kind::Event(file) | Kind::Stream(file) => Some(file.as_fd()),
            Kind::Lost => None,
        }
    }
}

impl Source {
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the open descriptor, unless somebody has closed it.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.kind.fd().filter(|_| !self.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        register::forget(self.identity);
        if *self.lost.get_mut() {
            let _not_closed = match mem::replace(&mut self.kind, Kind::Lost) {
                Kind::Event(file) | Kind::Stream(file) => file.into_raw_fd(),
                Kind::Lost => -1,
            };
        }
    }
}

/// What the kernel tells of a descriptor in `/proc`, where that is mounted.
#[derive(Default)]
pub(super) struct Info {
    pub(super) is_eventfd: Option<bool>,
    eventfd_id: Option<u64>,
}

impl Info {
    pub(super) fn of(fd: RawFd) -> Self {
        let Ok(mut file) = File::open(format!("/proc/self/fdinfo/{fd}")) else {
            return Info::default();
        };
        // An eventfd's is some 120 bytes, and comes in one piece.
        let mut text = [0; 512];
        let Ok(len) = file.read(&mut text) else { return Info::default() };
        let text = str::from_utf8(&text[..len]).unwrap_or_default();
        let field =
            |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        Info {
            is_eventfd: Some(field("eventfd-count:").is_some()),
            eventfd_id: field("eventfd-id:").and_then(|id| id.parse().ok()),
        }
    }
}

pub(super) fn duplicate(fd: impl AsFd) -> Result<OwnedFd, EventError> {
    fd.as_fd().try_clone_to_owned().map_err(refused)
}

/// Returns whether a descriptor is an eventfd, by whatever of the kernel tells: `/proc` may not be
/// mounted, and a filter of system calls may deny the other.
fn is_eventfd(fd: BorrowedFd<'_>, info: &Info) -> Option<bool> {
    info.is_eventfd.or_else(|| fd::Signals::of_process().ok()?.is_eventfd(fd))
}

fn is_non_blocking(fd: BorrowedFd<'_>) -> Result<bool, EventError> {
    fd::is_non_blocking(fd).map_err(refused)
}

/// Numbers of errors that have no [`io::ErrorKind`].
const EBADF: i32 = 9;
const EMFILE: i32 = 24;

/// What the kernel says of a descriptor that it does not duplicate.
pub(super) fn refused(error: io::Error) -> EventError {
    match error.raw_os_error() {
        Some(EBADF) => EventError::BadDescriptor,
        Some(EMFILE) => EventError::DescriptorLimit { limit: fd::open_limit() },
        _ => EventError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use crate::eventfd::of_eventfd;

    use super::*;

    fn event() -> EventFd {
        EventFd::new(EFD_NONBLOCK).unwrap()
    }

    /// A descriptor of an eventfd whose number nobody tells.
    fn unnumbered(event: &EventFd) -> Descriptor {
        let event = of_eventfd(event).try_clone_to_owned().unwrap();
        let identity = Identity::of(event.as_fd(), None);
        Descriptor::known(Kind::Event(event), identity)
    }

    #[test]
    fn all_descriptors_of_an_eventfd_are_one_as_long_as_one_lives() {
        let (event, other) = (event(), event());
        for make in [|event: &EventFd| Descriptor::eventfd(of_eventfd(event)).unwrap(), unnumbered]
        {
            let (one, again, another) =
                (make(&event), make(&event.try_clone().unwrap()), make(&other));
            if !one.is_identified() {
                println!("skipped: the kernel does not say which files are the same");
                continue;
            }
            assert!(one.claim().is_ok() && again.claim().is_err() && another.claim().is_ok());
            drop(one);
            assert!(make(&event).claim().is_err(), "the other holds it open");
            again.pend();
            assert!(make(&event).take_pending() && !again.take_pending());
            drop(again);
            assert!(make(&event).claim().is_ok());
        }
    }

    #[test]
    fn of_many_files_that_have_no_number_each_is_found() {
        let events: Vec<_> = (0..50).map(|_| event()).collect();
        let all: Vec<_> = events.iter().map(unnumbered).collect();
        if all.iter().any(|one| !one.is_identified()) {
            println!("skipped: the kernel does not compare files here");
            return;
        }
        let again: Vec<_> = events.iter().map(unnumbered).collect();
        assert!(all.iter().zip(&again).all(|(one, again)| Arc::ptr_eq(&one.0, &again.0)));
        drop((all, again));
        assert!(events.iter().all(|event| unnumbered(event).claim().is_ok()));
    }

    #[test]
    fn what_nobody_identifies_says_so() {
        let event = event();
        let owned = || of_eventfd(&event).try_clone_to_owned().unwrap();
        let make = || Descriptor::known(Kind::Event(owned()), Identity::Unknown);
        let (one, other) = (make(), make());
        assert!(!one.is_identified() && one.claim().is_ok() && other.claim().is_ok());
    }
}
