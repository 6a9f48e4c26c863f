//! Real eventfds: a thread that reads them and signals irqfds, and sinks that write to them.
//!
//! For sources outside the process (vhost-user, VFIO). A device model inside the process signals an
//! [`Irqfd`] itself, without a descriptor, a syscall or a thread in between.
//!
//! Descriptors are duplicated, so it does no harm if their owner closes them. They must be
//! non-blocking (as those made with `EFD_NONBLOCK` are). A descriptor is shared with the device,
//! which can change that at any moment, take its event back between poll and read, and fill what is
//! signalled: it is read, and an [`EventSink`]'s signalled, in ways that do not wait whatever its
//! flags say, and nothing is written to it.
//!
//! An eventfd is served once in a process: a second assignment, by whatever loop, VM or number, is
//! [`Busy`](Error::Busy), unless the kernel does not say which eventfd it is: see
//! [`Descriptor::is_identified`].
//!
//! If the controller or a sink panics, the thread goes on: see [`EventLoop::reporting`].

mod descriptor;
mod register;
mod sink;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use doorbell_platform::Platform;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use descriptor::Descriptor;
use descriptor::Drained;
pub use sink::EventSink;

use crate::{Controller, Deassigning, Error, Gsi, Irqfd, Irqfds, Notify, Signalled};

/// Why a descriptor was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventError {
    /// The descriptor is not open, not an eventfd, or nothing that can be polled.
    BadDescriptor,
    /// The descriptor is a blocking one.
    Blocking,
    /// An [`EventSink`] writes to the eventfd from which events are to be read, or the other way
    /// round: each acknowledgement would be the next event, without end.
    OwnSink,
    /// What the VM says.
    Irqfd(Error),
    /// What the operating system says.
    Io(io::Error),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::BadDescriptor => {
                f.write_str("not a descriptor that can signal an interrupt")
            }
            EventError::Blocking => f.write_str("the descriptor must be non-blocking"),
            EventError::OwnSink => {
                f.write_str("one eventfd cannot signal an interrupt and hear of its end")
            }
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

doorbell_platform::opaque_debug!([P: Platform, C: Controller] EventLoop<P, C>);

struct Loop<P: Platform, C: Controller> {
    epoll: Epoll,
    wake: EventFd,
    /// A leaf: no call leaves the loop while it is held, but for `epoll_ctl`.
    entries: Mutex<Entries<P, C>>,
    on_panic: Box<OnPanic>,
}

type OnPanic = dyn Fn(Served, Box<dyn Any + Send>) + Send + Sync;

struct Entries<P: Platform, C: Controller> {
    served: BTreeMap<Served, Arc<Entry<P, C>>>,
    last: u64,
    stop: bool,
}

struct Entry<P: Platform, C: Controller> {
    descriptor: Descriptor,
    irqfd: Irqfd<P, C>,
    /// Held from the read of an event until it is delivered, or pending in the irqfd: who has taken
    /// the entry off the loop and then had this knows that no event is under way.
    serving: Mutex<()>,
    /// Set when it is taken off the loop. Who serves may have found the entry before that.
    gone: AtomicBool,
}

impl<P: Platform, C: Controller> EventLoop<P, C> {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn new() -> io::Result<Self> {
        Self::reporting(|_, _| {})
    }

    /// Creates a loop as [`new`](EventLoop::new) does, whose `on_panic` hears of each panic of a
    /// controller, with the descriptor whose event the controller was to deliver and what it has
    /// said; in the thread that has served the descriptor, with no lock held.
    ///
    /// A controller that panics has taken the event: it is not delivered again. Everything goes on
    /// to be served, that descriptor as well, until the host takes it off, or shuts the VM down.
    /// (Without `on_panic`, the process's panic hook is all that tells.)
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn reporting(
        on_panic: impl Fn(Served, Box<dyn Any + Send>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        epoll.ctl(
            ControlOperation::Add,
            std::os::fd::AsRawFd::as_raw_fd(&wake),
            EpollEvent::new(EventSet::IN, WAKE),
        )?;
        let entries = Entries { served: BTreeMap::new(), last: WAKE, stop: false };
        let shared = Arc::new(Loop {
            epoll,
            wake,
            entries: Mutex::new(entries),
            on_panic: Box::new(on_panic),
        });
        let thread = {
            let shared = shared.clone();
            thread::Builder::new().name("doorbell-irqfd".into()).spawn(move || shared.run())?
        };
        Ok(EventLoop { shared, thread: Some(thread) })
    }

    /// Assigns a descriptor to a GSI with edge or MSI routes. An event that is in it already, or
    /// was [pending](Descriptor::take_pending), is injected.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// [`Busy`](Error::Busy) if the same eventfd, by whatever number, is served by a loop of this
    /// process; [`OwnSink`](EventError::OwnSink) if a sink of it writes there; otherwise what
    /// [`Irqfd::assign`] and the operating system say.
    pub fn assign(
        &self,
        vm: &Irqfds<P, C>,
        descriptor: Descriptor,
        gsi: Gsi,
    ) -> Result<Served, EventError> {
        self.serve(vm.irqfd(), descriptor, |irqfd| irqfd.assign(gsi))
    }

    /// Assigns a descriptor to a GSI with a level-sensitive pin; see [`Irqfd::assign_resample`].
    /// `sink` can be an [`EventSink`].
    ///
    /// # Context
    /// Any task; may sleep.
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
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// As for [`assign`](EventLoop::assign).
    pub fn open(&self, vm: &Irqfds<P, C>, gsi: Gsi) -> Result<(EventFd, Served), EventError> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let served = self.assign(vm, Descriptor::eventfd(&event)?, gsi)?;
        Ok((event, served))
    }

    /// Deassigns a descriptor; waits, and guarantees, as [`Irqfd::deassign`] does. An event that
    /// was read but found no route stays in the [`Descriptor`], if somebody has a clone of it.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn deassign(&self, served: Served) -> Result<(), Error> {
        let entry = self.shared.remove(served).ok_or(Error::NotAssigned)?;
        entry.wait_for_server();
        // Not assigned any more if the VM was shut down meanwhile: nothing to do then.
        if let Ok(leaving) = entry.irqfd.deassign_begin() {
            leaving.wait();
        }
        entry.let_go();
        Ok(())
    }

    /// Deassigns many descriptors as [`deassign`](EventLoop::deassign) does, for one grace period
    /// per VM. Those that are not assigned are passed over.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    pub fn deassign_all(&self, served: impl IntoIterator<Item = Served>) {
        let entries: Vec<_> =
            served.into_iter().filter_map(|served| self.shared.remove(served)).collect();
        entries.iter().for_each(|entry| entry.wait_for_server());
        Deassigning::wait_all(entries.iter().filter_map(|entry| entry.irqfd.deassign_begin().ok()));
        entries.iter().for_each(|entry| entry.let_go());
    }

    /// Returns how many descriptors are served.
    pub fn len(&self) -> usize {
        self.shared.entries().served.len()
    }

    /// Returns whether no descriptor is served.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn serve(
        &self,
        irqfd: Irqfd<P, C>,
        descriptor: Descriptor,
        assign: impl FnOnce(&Irqfd<P, C>) -> Result<(), Error>,
    ) -> Result<Served, EventError> {
        if self.shared.entries().stop {
            return Err(Error::Closed.into());
        }
        descriptor.claim()?;
        let entry = Arc::new(Entry {
            descriptor,
            irqfd,
            serving: Mutex::new(()),
            gone: AtomicBool::new(false),
        });
        let result = match assign(&entry.irqfd) {
            Ok(()) => self.shared.add(&entry),
            Err(error) => Err(error.into()),
        };
        match &result {
            // An event that was there before is injected here and now; the thread may find it
            // first. (If the descriptor turns out to be dead, the thread finds that too.)
            Ok(served) => {
                self.shared.guarded(*served, || entry.inject_pending());
                self.shared.guarded(*served, || _ = entry.serve());
            }
            // Dropping the entry deassigns the irqfd.
            Err(_) => entry.descriptor.release(),
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
            let _ = thread.join();
        }
        let served: Vec<_> = self.shared.entries().served.keys().copied().collect();
        for entry in served.into_iter().filter_map(|served| self.shared.remove(served)) {
            entry.stop_serving();
        }
    }
}

impl<P: Platform, C: Controller> Loop<P, C> {
    /// Runs what calls the controller. If that panics, says so, and goes on.
    fn guarded(&self, served: Served, f: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
            // A panic of who is told goes no further either; what it says, the panic hook has
            // shown.
            let told = catch_unwind(AssertUnwindSafe(|| (self.on_panic)(served, payload)));
            // The payload's destructor could panic in its turn.
            told.unwrap_or_else(std::mem::forget);
        }
    }

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
            if error.kind() == io::ErrorKind::PermissionDenied {
                EventError::BadDescriptor
            } else {
                error.into()
            }
        })?;
        entries.served.insert(served, entry.clone());
        Ok(served)
    }

    /// Stops serving, before the descriptor is closed: the eventfd may live on elsewhere, and epoll
    /// with it.
    fn remove(&self, served: Served) -> Option<Arc<Entry<P, C>>> {
        let mut entries = self.entries();
        let entry = entries.served.remove(&served)?;
        entry.gone.store(true, Ordering::SeqCst);
        // Fails if somebody closed the descriptor, which belongs to us: then epoll has forgotten it
        // already.
        let _ =
            self.epoll.ctl(ControlOperation::Delete, entry.descriptor.raw(), EpollEvent::default());
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
                    // Somebody closed our epoll descriptor. Refuse what comes; their sources keep
                    // what was assigned.
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
                ready.extend(
                    tokens
                        .filter_map(|served| Some((served, entries.served.get(&served)?.clone()))),
                );
            }
            for (served, entry) in ready.drain(..) {
                self.guarded(served, || {
                    if !entry.serve()
                        && let Some(entry) = self.remove(served)
                    {
                        entry.stop_serving();
                    }
                });
                // It may be the last one, and take the VM with it.
                self.guarded(served, || drop(entry));
            }
        }
    }
}

impl<P: Platform, C: Controller> Entry<P, C> {
    /// Reads the descriptor and signals; `false` if there is no use in going on.
    fn serve(&self) -> bool {
        // A panic of the controller leaves nothing behind that another event would stumble over.
        let _serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gone.load(Ordering::SeqCst) {
            return true;
        }
        // What is not read stays the device's: the VM may have been shut down.
        if !self.irqfd.is_assigned() {
            return false;
        }
        match self.descriptor.drain() {
            Drained::Nothing => true,
            Drained::HungUp => false,
            Drained::Event => {
                let kept = self.irqfd.signal() == Signalled::Pending;
                if self.gone.load(Ordering::SeqCst) {
                    // Who has taken it off the loop did not wait, and may have looked before.
                    self.hand_over();
                }
                // Kept because the VM was shut down just now, or because the GSI has no route for
                // the moment?
                !kept || self.irqfd.is_assigned()
            }
        }
    }

    /// What was pending when the descriptor was last deassigned.
    fn inject_pending(&self) {
        if self.descriptor.take_pending() {
            let _ = self.irqfd.signal();
        }
    }

    /// After it was taken off the loop: waits until no event is under way from the descriptor to
    /// the irqfd, so that it is delivered by the route that it has still.
    fn wait_for_server(&self) {
        drop(self.serving.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// After it was taken off the loop, by the thread that serves it or when that has ended: leaves
    /// without waiting.
    fn stop_serving(&self) {
        if let Ok(leaving) = self.irqfd.deassign_begin() {
            leaving.later();
        }
        self.let_go();
    }

    /// Ends the service of a source that was deassigned: what is pending in the irqfd stays so in
    /// the descriptor, which others may serve from here on.
    fn let_go(&self) {
        self.hand_over();
        self.descriptor.release();
    }

    fn hand_over(&self) {
        if self.irqfd.take_pending() {
            self.descriptor.pend();
        }
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;
    use crate::{Limits, Msi, Pin, Route, RoutingTable, SourceId};

    struct Nothing;
    impl Controller for Nothing {
        fn pins(&self, _: u16) -> u32 {
            0
        }
        fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
        fn edge(&self, _: Pin) {}
        fn msi(&self, _: Msi) {}
    }

    #[test]
    fn an_event_that_was_read_and_not_yet_signalled_is_waited_for() {
        type Events = EventLoop<Std, Nothing>;
        let alone = |events: &Events, served| events.deassign(served).unwrap();
        let among_others = |events: &Events, served| events.deassign_all([served]);
        let vm = Irqfds::<Std, _>::new(Nothing, Limits::default());
        let _ = vm
            .reroute(RoutingTable::new(&[(Gsi(1), Route::Msi(Msi::new(0, 1)))]).unwrap())
            .unwrap();
        for round in 0..20 {
            let deassign: &(dyn Fn(&Events, Served) + Sync) =
                if round % 2 == 0 { &alone } else { &among_others };
            let events = EventLoop::new().unwrap();
            let (_event, served) = events.open(&vm, Gsi(1)).unwrap();
            let entry = events.shared.entries().served[&served].clone();
            thread::scope(|scope| {
                let serving = entry.serving.lock().unwrap();
                let deassigns = scope.spawn(|| deassign(&events, served));
                while !events.is_empty() {
                    thread::yield_now();
                }
                (0..100).for_each(|_| thread::yield_now());
                assert_eq!(entry.irqfd.signal(), Signalled::Delivered);
                drop(serving);
                deassigns.join().unwrap();
            });
            assert!(!entry.irqfd.is_assigned());
        }
    }
}
