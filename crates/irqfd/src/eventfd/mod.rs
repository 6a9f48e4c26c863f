//! Real eventfds: a thread that reads them and signals irqfds, and sinks that write to them.
//!
//! For sources outside the process (vhost-user, VFIO). A device model inside the process signals an
//! [`Irqfd`] itself, without a descriptor, a syscall or a thread in between.
//!
//! Descriptors are duplicated, so it does no harm if their owner closes them. They must be non-blocking (as those made
//! with `EFD_NONBLOCK` are): a descriptor is shared with the device, which could otherwise empty it between poll and
//! read, or fill it before a write, and hang whoever serves it. `/proc` must be mounted: it tells what a descriptor is.

mod descriptor;
mod sink;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use doorbell_platform::Platform;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use descriptor::Descriptor;
use descriptor::{Drained, Identity};
pub use sink::EventSink;

use crate::{Controller, Deassigning, Error, Gsi, Irqfd, Irqfds, Notify, Signalled};

/// Why a descriptor was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventError {
    /// It is not open, not an eventfd, or nothing that can be polled.
    BadDescriptor,
    /// It is a blocking one.
    Blocking,
    /// What the VM says.
    Irqfd(Error),
    /// What the operating system says.
    Io(io::Error),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::BadDescriptor => f.write_str("not a descriptor that can signal an interrupt"),
            EventError::Blocking => f.write_str("the descriptor must be non-blocking"),
            EventError::Irqfd(error) => error.fmt(f),
            EventError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EventError {}

impl From<Error> for EventError {
    fn from(error: Error) -> Self {
        EventError::Irqfd(error)
    }
}

impl From<io::Error> for EventError {
    fn from(error: io::Error) -> Self {
        EventError::Io(error)
    }
}

/// A descriptor that an [`EventLoop`] serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Served(u64);

/// The token of the loop's own eventfd; those of others are larger.
const WAKE: u64 = 0;

/// A thread that serves descriptors, of any number of VMs. Dropping it deassigns them all.
pub struct EventLoop<P: Platform, C: Controller> {
    shared: Arc<Loop<P, C>>,
    thread: Option<JoinHandle<()>>,
}

struct Loop<P: Platform, C: Controller> {
    epoll: Epoll,
    wake: EventFd,
    /// A leaf: no call leaves the loop while it is held, but for `epoll_ctl`.
    entries: Mutex<Entries<P, C>>,
}

struct Entries<P: Platform, C: Controller> {
    served: BTreeMap<Served, Arc<Entry<P, C>>>,
    /// Also of descriptors that are just being assigned.
    taken: BTreeMap<Identity, ()>,
    last: u64,
    stop: bool,
}

struct Entry<P: Platform, C: Controller> {
    descriptor: Descriptor,
    irqfd: Irqfd<P, C>,
    /// Set when it is taken off the loop. Who serves may have found the entry before that: then it either sees the flag
    /// and lets the descriptor be, or has read an event that the irqfd delivers, or keeps. See `give_back`.
    gone: AtomicBool,
}

impl<P: Platform, C: Controller> EventLoop<P, C> {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        epoll.ctl(
            ControlOperation::Add,
            std::os::fd::AsRawFd::as_raw_fd(&wake),
            EpollEvent::new(EventSet::IN, WAKE),
        )?;
        let entries = Entries { served: BTreeMap::new(), taken: BTreeMap::new(), last: WAKE, stop: false };
        let shared = Arc::new(Loop { epoll, wake, entries: Mutex::new(entries) });
        let thread = {
            let shared = shared.clone();
            thread::Builder::new().name("doorbell-irqfd".into()).spawn(move || shared.run())?
        };
        Ok(EventLoop { shared, thread: Some(thread) })
    }

    /// Assigns a descriptor to a GSI with edge or MSI routes. An event that is in it already is injected.
    ///
    /// # Errors
    /// [`Busy`](Error::Busy) if the same eventfd, by whatever number, is served by this loop; otherwise what
    /// [`Irqfd::assign`] and the operating system say.
    pub fn assign(&self, vm: &Irqfds<P, C>, descriptor: Descriptor, gsi: Gsi) -> Result<Served, EventError> {
        self.serve(vm.irqfd(), descriptor, |irqfd| irqfd.assign(gsi))
    }

    /// Assigns a descriptor to a GSI with a level-sensitive pin; see [`Irqfd::assign_resample`]. `sink` can be an
    /// [`EventSink`].
    ///
    /// # Errors
    /// As for [`assign`](EventLoop::assign).
    pub fn assign_resample(
        &self,
        vm: &Irqfds<P, C>,
        descriptor: Descriptor,
        gsi: Gsi,
        sink: Arc<dyn Notify>,
    ) -> Result<Served, EventError> {
        self.serve(vm.irqfd(), descriptor, |irqfd| irqfd.assign_resample(gsi, sink))
    }

    /// Makes an eventfd for a source that needs one, and assigns it to a GSI.
    ///
    /// # Errors
    /// As for [`assign`](EventLoop::assign).
    pub fn open(&self, vm: &Irqfds<P, C>, gsi: Gsi) -> Result<(EventFd, Served), EventError> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let served = self.assign(vm, Descriptor::eventfd(&event)?, gsi)?;
        Ok((event, served))
    }

    /// Deassigns a descriptor; waits, and guarantees, as [`Irqfd::deassign`] does. An event that was read but found no
    /// route is put back into the eventfd.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn deassign(&self, served: Served) -> Result<(), Error> {
        let entry = self.shared.remove(served).ok_or(Error::NotAssigned)?;
        // Not assigned any more if the VM was shut down meanwhile: nothing to do then.
        if let Ok(leaving) = entry.irqfd.deassign_begin() {
            leaving.wait();
        }
        entry.give_back();
        Ok(())
    }

    /// [`deassign`](EventLoop::deassign) of many, for one grace period per VM. Those that are not assigned are passed
    /// over.
    pub fn deassign_all(&self, served: impl IntoIterator<Item = Served>) {
        let entries: Vec<_> = served.into_iter().filter_map(|served| self.shared.remove(served)).collect();
        Deassigning::wait_all(entries.iter().filter_map(|entry| entry.irqfd.deassign_begin().ok()));
        entries.iter().for_each(|entry| entry.give_back());
    }

    /// How many descriptors are served.
    pub fn len(&self) -> usize {
        self.shared.entries().served.len()
    }

    /// Whether none is served.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn serve(
        &self,
        irqfd: Irqfd<P, C>,
        descriptor: Descriptor,
        assign: impl FnOnce(&Irqfd<P, C>) -> Result<(), Error>,
    ) -> Result<Served, EventError> {
        let identity = descriptor.identity();
        {
            let mut entries = self.shared.entries();
            if entries.stop {
                return Err(Error::Closed.into());
            }
            if entries.taken.insert(identity, ()).is_some() {
                return Err(Error::Busy.into());
            }
        }
        let entry = Arc::new(Entry { descriptor, irqfd, gone: AtomicBool::new(false) });
        let result = match assign(&entry.irqfd) {
            Ok(()) => self.shared.add(&entry),
            Err(error) => Err(error.into()),
        };
        match &result {
            // An event that was there before is injected here and now; the thread may find it first. (If the descriptor
            // turns out to be dead, the thread finds that too.)
            Ok(_) => _ = entry.serve(),
            // Dropping the entry deassigns the irqfd.
            Err(_) => _ = self.shared.entries().taken.remove(&identity),
        }
        result
    }
}

impl<P: Platform, C: Controller> Drop for EventLoop<P, C> {
    fn drop(&mut self) {
        self.shared.entries().stop = true;
        // Fails if the counter is at its maximum, which wakes the thread as well.
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // An error is a panic of the controller, which was reported in its own thread.
            let _ = thread.join();
        }
        let served: Vec<_> = self.shared.entries().served.keys().copied().collect();
        for entry in served.into_iter().filter_map(|served| self.shared.remove(served)) {
            if let Ok(leaving) = entry.irqfd.deassign_begin() {
                leaving.later();
            }
            entry.give_back();
        }
    }
}

impl<P: Platform, C: Controller> Loop<P, C> {
    fn entries(&self) -> MutexGuard<'_, Entries<P, C>> {
        // Nothing panics while it is held.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts serving. An event that is in the descriptor already is seen at once.
    fn add(&self, entry: &Arc<Entry<P, C>>) -> Result<Served, EventError> {
        let mut entries = self.entries();
        if entries.stop {
            return Err(Error::Closed.into());
        }
        entries.last += 1;
        let served = Served(entries.last);
        let event = EpollEvent::new(entry.descriptor.interest(), served.0);
        self.epoll.ctl(ControlOperation::Add, entry.descriptor.raw(), event).map_err(|error| {
            // What epoll says of a regular file or a directory.
            if error.kind() == io::ErrorKind::PermissionDenied { EventError::BadDescriptor } else { error.into() }
        })?;
        entries.served.insert(served, entry.clone());
        Ok(served)
    }

    /// Stops serving, before the descriptor is closed: the eventfd may live on elsewhere, and epoll with it.
    fn remove(&self, served: Served) -> Option<Arc<Entry<P, C>>> {
        let mut entries = self.entries();
        let entry = entries.served.remove(&served)?;
        entries.taken.remove(&entry.descriptor.identity());
        entry.gone.store(true, Ordering::SeqCst);
        // Fails if somebody closed the descriptor, which belongs to us: then epoll has forgotten it already.
        let _ = self.epoll.ctl(ControlOperation::Delete, entry.descriptor.raw(), EpollEvent::default());
        Some(entry)
    }

    fn run(&self) {
        let mut events = [EpollEvent::default(); 64];
        let mut ready = Vec::with_capacity(events.len());
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    // Somebody closed our epoll descriptor. Refuse what comes; their sources keep what was assigned.
                    self.entries().stop = true;
                    return;
                }
            };
            {
                let entries = self.entries();
                if entries.stop {
                    return;
                }
                let tokens = events[..count].iter().map(|event| Served(event.data()));
                ready.extend(tokens.filter_map(|served| Some((served, entries.served.get(&served)?.clone()))));
            }
            for (served, entry) in ready.drain(..) {
                if !entry.serve()
                    && let Some(entry) = self.remove(served)
                {
                    // A hang-up: nobody waits for the end of it, least of all this thread.
                    if let Ok(leaving) = entry.irqfd.deassign_begin() {
                        leaving.later();
                    }
                    entry.give_back();
                }
            }
        }
    }
}

impl<P: Platform, C: Controller> Entry<P, C> {
    /// Reads the descriptor and signals; `false` if there is no use in going on.
    fn serve(&self) -> bool {
        if self.gone.load(Ordering::SeqCst) {
            return true;
        }
        match self.descriptor.drain() {
            Drained::Nothing => true,
            Drained::HungUp => false,
            Drained::Event => {
                let kept = self.irqfd.signal() == Signalled::Kept;
                if self.gone.load(Ordering::SeqCst) {
                    self.give_back();
                }
                // Kept because the VM was shut down, or because the GSI has no route for the moment?
                !kept || self.irqfd.is_assigned()
            }
        }
    }

    /// After it is gone: puts an event that was read, and neither delivered nor assigned to anybody, back into the
    /// eventfd, where whoever it is assigned to next finds it.
    ///
    /// Called by who removed the entry, and by the thread if it signalled meanwhile; `take_kept` lets one of them do it.
    /// (A stream cannot be written to, but it is closed now, by who gave its reading end away.)
    fn give_back(&self) {
        if self.irqfd.take_kept() {
            self.descriptor.give_back();
        }
    }
}
