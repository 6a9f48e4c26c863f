//! Real eventfds: a loop that reads them and signals irqfds, and sinks that write to them.
//!
//! For sources outside the process (vhost-user, VFIO). A device model inside the process signals an
//! [`Irqfd`] itself, without a descriptor, a syscall or a thread in between.
//!
//! Any type of eventfd will do that lends its descriptor ([`AsFd`]) or gives it away
//! ([`OwnedFd`]); non-blocking or not, counting as a semaphore or not.
//! A descriptor is shared with the device, which can change its flags at any moment, take its event
//! back between poll and read, and fill what is signalled: it is read, and an [`EventSink`]'s
//! signalled, in ways that do not wait whatever its flags say, and nothing is written to it.
//!
//! An eventfd is served once in a process: a second assignment, by whatever loop, VM or number, is
//! [`Busy`](Error::Busy), unless the kernel does not say which eventfd it is: see
//! [`Descriptor::is_identified`].
//!
//! A loop has a thread of its own ([`EventLoop::spawn`]), or is a descriptor in the host's own
//! epoll ([`EventLoop::unthreaded`], [`EventLoop::dispatch`]), for hosts whose threads have CPUs,
//! priorities or filters of system calls of their own.
//!
//! On KVM, an [`Offload`] gives eventfds to `KVM_IRQFD` where that can deliver, else to a loop.
//!
//! If the controller or a sink panics, the loop goes on: see [`EventLoop::reporting`].
//!
//! # System calls
//!
//! For a filter of system calls:
//!
//! | who | calls | if denied with an error |
//! |---|---|---|
//! | making a loop | `epoll_create1`, `eventfd2`, `epoll_ctl`, with a thread `clone3` and what the standard library asks for it (`mmap`, `mprotect`, `sigaltstack`, `set_robust_list`, `rseq`, `prctl`, ...) | no loop |
//! | making a [`Descriptor`] | `fcntl`; `openat`, `read`, `close` of `/proc/self/fdinfo/N`; where that is not to be had `io_setup`, `pipe2`, `io_submit` (once for the process), and `kcmp` | [`is_identified`](Descriptor::is_identified) is false |
//! | making an [`EventSink`] | the same, and `io_setup`, `pipe2` | no sink |
//! | `assign`, `deassign` | `epoll_ctl`, `futex`, `membarrier`, `sched_yield` | `assign` fails |
//! | the thread, and `dispatch` | `epoll_wait`, `preadv2`, `futex` | `preadv2`: a plain `read`, which waits if a device makes its eventfd a blocking one and takes its event back |
//! | an [`Offload`] | what the loop calls, and `ioctl` (`KVM_IRQFD`, `KVM_SET_GSI_ROUTING`) | none is made, or the loop serves |
//! | an acknowledgement that notifies an [`EventSink`] | `io_submit`, `io_getevents` | nobody hears of it |

mod descriptor;
mod entry;
mod error;
mod kvm;
mod offload;
mod register;
mod sink;

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

pub use doorbell_platform::fd::of_eventfd;
use doorbell_platform::{Platform, fd};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use descriptor::Descriptor;
use entry::Entry;
pub use error::EventError;
pub use kvm::{Irqchip, KvmVm};
pub use offload::{Assigned, Offload};
pub use sink::EventSink;

use crate::each::each;
use crate::{Controller, Deassigning, Delivery, Error, Gsi, Irqfd, Irqfds, Notify, Owed};

/// A descriptor that an [`EventLoop`] serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Served(u64);

/// The token of the loop's own eventfd; those of others are larger.
const WAKE: u64 = 0;

/// How many descriptors one wait tells of, at most.
const EVENTS: usize = 256;

/// What serves descriptors, of any number of VMs. Dropping it deassigns them all.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::fs::File;
/// use std::io::Write;
/// use std::os::fd::AsFd;
///
/// use doorbell_irqfd::eventfd::EventLoop;
/// # use doorbell_irqfd::*;
/// # use doorbell_platform::Std;
/// # use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
/// # #[derive(Default)]
/// # struct Chip { injected: AtomicUsize }
/// # impl Controller for Chip {
/// #     type Delivery = ();
/// #     fn pins(&self, _: u16) -> u32 { 0 }
/// #     fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
/// #     fn edge(&self, _: Pin) {}
/// #     fn msi(&self, _: Msi) { self.injected.fetch_add(1, SeqCst); }
/// # }
/// # let vm = Irqfds::<Std, _>::new(Chip::default(), Limits::default());
/// # vm.reroute(RoutingTable::new(&[(Gsi(1), Route::Msi(Msi::new(0, 1)))])?)?.follow(&NoBypass);
/// let events = EventLoop::unthreaded()?;
/// let epoll_of_the_host = events.as_fd(); // readable when there is something to dispatch
/// let (event, _served) = events.open(&vm, Gsi(1))?;
///
/// File::from(event).write_all(&1_u64.to_ne_bytes())?; // the device, in a process of its own
///
/// # let _ = epoll_of_the_host;
/// assert_eq!(events.dispatch()?, 1);
/// assert_eq!(vm.controller().injected.load(SeqCst), 1);
/// # Ok(())
/// # }
/// ```
pub struct EventLoop<P: Platform, C: Controller> {
    shared: Arc<Loop<P, C>>,
    thread: Option<JoinHandle<()>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] EventLoop<P, C>);

struct Loop<P: Platform, C: Controller> {
    epoll: Epoll,
    /// Wakes the thread, if there is one.
    wake: Option<EventFd>,
    /// A leaf: no call leaves the loop while it is held, but for `epoll_ctl`.
    entries: Mutex<Entries<P, C>>,
    /// Set under the lock of the entries, so that nothing is added after that.
    is_stopped: AtomicBool,
    on_panic: Mutex<Arc<OnPanic>>,
    /// Does what the controller leaves to be done.
    settles: Box<Settles<C>>,
}

type Settles<C> = dyn Fn(Owed<C>) + Send + Sync;
type OnPanic = dyn Fn(Served, Box<dyn Any + Send>) + Send + Sync;

struct Entries<P: Platform, C: Controller> {
    served: BTreeMap<Served, Arc<Entry<P, C>>>,
    last: u64,
}

/// The loop's epoll, which is readable when there is something to
/// [`dispatch`](EventLoop::dispatch). A host watches it, and does nothing else with it.
impl<P: Platform, C: Controller> AsFd for EventLoop<P, C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        fd::of_epoll(&self.shared.epoll)
    }
}

impl<P: Platform, C: Controller> EventLoop<P, C> {
    /// Makes a loop and starts its thread, which has the name `doorbell-irqfd`.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    #[doc(alias = "new")]
    pub fn spawn() -> io::Result<Self>
    where
        C::Delivery: Delivery<Owed = ()>,
    {
        Self::spawn_settling(|()| ())
    }

    /// Makes a loop with a thread, as [`spawn`](EventLoop::spawn) does, for a controller whose
    /// deliveries leave something to be done: `settles` kicks and wakes vCPUs. The thread calls it,
    /// or who assigns a descriptor that has an event, when no section and no lock is held.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn spawn_settling(settles: impl Fn(Owed<C>) + Send + Sync + 'static) -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK)?;
        let mut events = Self::with(Some(wake), Box::new(settles))?;
        let shared = events.shared.clone();
        let thread = thread::Builder::new().name("doorbell-irqfd".into());
        events.thread = Some(thread.spawn(move || shared.run())?);
        Ok(events)
    }

    /// Makes a loop without a thread: the host watches its [descriptor](EventLoop::as_fd), and
    /// calls [`dispatch`](EventLoop::dispatch) when that is readable.
    ///
    /// # Context
    /// Any task.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn unthreaded() -> io::Result<Self>
    where
        C::Delivery: Delivery<Owed = ()>,
    {
        Self::unthreaded_settling(|()| ())
    }

    /// Makes a loop without a thread, as [`unthreaded`](EventLoop::unthreaded) does, for a
    /// controller whose deliveries leave something to be done: `settles` is called by who
    /// dispatches, or assigns.
    ///
    /// # Context
    /// Any task.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn unthreaded_settling(
        settles: impl Fn(Owed<C>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::with(None, Box::new(settles))
    }

    fn with(wake: Option<EventFd>, settles: Box<Settles<C>>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        if let Some(wake) = &wake {
            let event = EpollEvent::new(EventSet::IN, WAKE);
            epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), event)?;
        }
        let entries = Entries { served: BTreeMap::new(), last: WAKE };
        let entries = Mutex::new(entries);
        let on_panic: Arc<OnPanic> = Arc::new(|_, _| {});
        let shared = Arc::new(Loop {
            epoll,
            wake,
            entries,
            is_stopped: AtomicBool::new(false),
            on_panic: Mutex::new(on_panic),
            settles,
        });
        Ok(EventLoop { shared, thread: None })
    }

    /// Has `on_panic` hear of each panic of a controller, with the descriptor whose event the
    /// controller was to deliver and what it has said; in the thread that has served the
    /// descriptor, with no lock held. Of two, the last hears.
    ///
    /// A controller that panics has taken the event: it is not delivered again. Everything goes on
    /// to be served, that descriptor as well, until the host takes it off, or shuts the VM down.
    /// (Without `on_panic`, the process's panic hook is all that tells.)
    ///
    /// # Context
    /// Any task.
    #[must_use = "the loop"]
    pub fn reporting(
        self,
        on_panic: impl Fn(Served, Box<dyn Any + Send>) + Send + Sync + 'static,
    ) -> Self {
        *self.shared.on_panic() = Arc::new(on_panic);
        self
    }

    /// Serves what has been signalled, and returns how many descriptors that were: at most 256 a
    /// call, so that the host's loop comes round; what is left keeps [`as_fd`](EventLoop::as_fd)
    /// readable. Does not wait if nothing was signalled. (Beside a thread of the loop there may be
    /// nothing left to serve.)
    ///
    /// # Context
    /// Any task, with no lock held, several at once as well; sleeps no longer than the controller
    /// does.
    ///
    /// # Errors
    /// What the kernel says of the loop's epoll: that somebody has closed it, for one. Nothing is
    /// assigned from then on, and what was is the device's, until it is deassigned.
    pub fn dispatch(&self) -> io::Result<usize> {
        self.shared.serve_ready(&mut [EpollEvent::default(); EVENTS], 0)
    }

    /// Assigns a descriptor to a GSI with edge, pin or MSI routes. An event that is in it already,
    /// or was [pending](Descriptor::take_pending), is injected.
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

    /// Assigns a descriptor to a GSI with a `Level` or `Pin` route; see [`Irqfd::assign_resample`].
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

    /// Makes a non-blocking eventfd for a source that needs one, and assigns it to a GSI. The
    /// device signals it by writing eight bytes: a number of the machine's byte order.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// As for [`assign`](EventLoop::assign).
    pub fn open(&self, vm: &Irqfds<P, C>, gsi: Gsi) -> Result<(OwnedFd, Served), EventError> {
        let event = fd::eventfd().map_err(descriptor::refused)?;
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
        entry.leave(Deassigning::wait);
        Ok(())
    }

    /// Has the loop own what must not outlive the assignment of a descriptor: the registration of
    /// an IRQ bypass, by which hardware would go on posting for a device that has hung up.
    ///
    /// When the descriptor is served no more, `attached` is dropped, whether the descriptor was
    /// [deassigned](EventLoop::deassign), has hung up, or the VM was shut down or the loop dropped:
    /// before the irqfd is deassigned, in the thread that takes the descriptor off, with no lock
    /// held. If that takes long, the thread of the loop serves no other meanwhile.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned): it was dropped.
    pub fn attach(&self, served: Served, attached: impl Send + 'static) -> Result<(), Error> {
        let attached: Box<dyn Send> = Box::new(attached);
        let entries = self.shared.entries();
        let Some(entry) = entries.served.get(&served) else {
            drop(entries);
            return Err(Error::NotAssigned);
        };
        entry.attached().push(attached);
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
        let begun = || entries.iter().filter_map(|entry| entry.irqfd.deassign_begin().ok());
        each(0..3, |step| match step {
            0 => each(entries.iter(), |entry| entry.detach()),
            1 => Deassigning::wait_all(begun()),
            _ => entries.iter().for_each(|entry| entry.let_go()),
        });
    }

    /// Returns whether an event of a descriptor is pending, because its GSI has no route, and
    /// leaves it there: for a snapshot. (One that is still in the eventfd is the device's to save.)
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn is_pending(&self, served: Served) -> Result<bool, Error> {
        let entry = self.shared.entries().served.get(&served).cloned().ok_or(Error::NotAssigned)?;
        entry.wait_for_server();
        Ok(entry.irqfd.is_pending())
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
        assign: impl FnOnce(&Irqfd<P, C>) -> Result<Owed<C>, Error>,
    ) -> Result<Served, EventError> {
        if self.shared.is_stopped.load(Ordering::SeqCst) {
            return Err(Error::Closed.into());
        }
        descriptor.claim()?;
        let (irqfd, mut owed) = (Arc::new(irqfd), Vec::new());
        let served = assign(&irqfd).map_err(EventError::from).and_then(|by_assignment| {
            owed.push(by_assignment);
            self.watch(&descriptor, &irqfd, &mut owed)
        });
        match &served {
            Ok(served) => owed.into_iter().for_each(|owed| {
                self.shared.guarded(*served, || (self.shared.settles)(owed));
            }),
            // Dropping the irqfd deassigns it.
            Err(_) => {
                descriptor.release();
                self.settle(owed);
            }
        }
        served
    }

    /// Has the loop read a descriptor that the caller has claimed, for an irqfd that is assigned.
    /// If the loop leaves it by itself, because the VM was shut down, the claim is gone, too.
    pub(super) fn watch(
        &self,
        descriptor: &Descriptor,
        irqfd: &Arc<Irqfd<P, C>>,
        owed: &mut Vec<Owed<C>>,
    ) -> Result<Served, EventError> {
        let entry = Arc::new(Entry::new(descriptor, irqfd));
        let served = self.shared.add(&entry)?;
        // An event that was there before is injected here and now; the thread may find it first.
        // (If the descriptor turns out to be dead, the thread finds that too.)
        self.shared.guarded(served, || owed.push(entry.inject_pending()));
        self.shared.guarded(served, || owed.push(entry.serve().1));
        Ok(served)
    }

    /// Has the loop read a descriptor no longer, whose irqfd stays assigned, and whose claim is the
    /// caller's again. When this returns, no event is under way from the descriptor to the irqfd;
    /// one may be pending in the descriptor, for the caller.
    pub(super) fn unwatch(&self, served: Served) -> Result<(), Error> {
        let entry = self.shared.remove(served).ok_or(Error::NotAssigned)?;
        entry.wait_for_server();
        Ok(())
    }

    /// Does what controllers have left to be done.
    pub(super) fn settle(&self, owed: Vec<Owed<C>>) {
        each(owed.into_iter(), |owed| (self.shared.settles)(owed));
    }
}

impl<P: Platform, C: Controller> Drop for EventLoop<P, C> {
    fn drop(&mut self) {
        self.shared.stop();
        // Fails if the counter is at its maximum, which wakes the thread as well.
        let _ = self.shared.wake.as_ref().map(|wake| wake.write(1));
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
        let served: Vec<_> = self.shared.entries().served.keys().copied().collect();
        for entry in served.into_iter().filter_map(|served| self.shared.remove(served)) {
            entry.leave(Deassigning::later);
        }
    }
}

impl<P: Platform, C: Controller> Loop<P, C> {
    /// Runs what calls the controller. If that panics, says so, and goes on.
    fn guarded(&self, served: Served, f: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
            // A panic of who is told goes no further either; what it says, the panic hook has
            // shown.
            let on_panic = Arc::clone(&self.on_panic());
            let told = catch_unwind(AssertUnwindSafe(|| on_panic(served, payload)));
            // The payload's destructor could panic in its turn.
            told.unwrap_or_else(std::mem::forget);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<P, C>> {
        // Nothing panics while it is held.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let _entries = self.entries();
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    fn on_panic(&self) -> MutexGuard<'_, Arc<OnPanic>> {
        self.on_panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts serving. An event that is in the descriptor already is seen at once.
    fn add(&self, entry: &Arc<Entry<P, C>>) -> Result<Served, EventError> {
        let mut entries = self.entries();
        if self.is_stopped.load(Ordering::SeqCst) {
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
        let mut events = [EpollEvent::default(); EVENTS];
        while !self.is_stopped.load(Ordering::SeqCst) {
            // An error has stopped the loop.
            let _ = self.serve_ready(&mut events, -1);
        }
    }

    /// Serves what is signalled, after a wait of so many milliseconds for the first of it (-1: as
    /// long as that takes), unless the loop is stopped.
    fn serve_ready(&self, events: &mut [EpollEvent], timeout: i32) -> io::Result<usize> {
        let count = match self.epoll.wait(timeout, events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                // Somebody closed our epoll descriptor. Refuse what comes; their sources keep what
                // was assigned.
                self.stop();
                return Err(error);
            }
        };
        // One that is taken off meanwhile says so itself.
        let ready: Vec<_> = {
            let entries = self.entries();
            let tokens = events[..count].iter().map(|event| Served(event.data()));
            tokens.filter_map(|token| Some((token, entries.served.get(&token)?.clone()))).collect()
        };
        let mut served = 0;
        for (served_by, entry) in ready {
            if self.is_stopped.load(Ordering::SeqCst) {
                self.guarded(served_by, || drop(entry));
                continue;
            }
            served += 1;
            self.guarded(served_by, || {
                let (goes_on, owed) = entry.serve();
                if !goes_on && let Some(entry) = self.remove(served_by) {
                    entry.leave(Deassigning::later);
                }
                (self.settles)(owed);
            });
            // It may be the last one, and take the VM with it.
            self.guarded(served_by, || drop(entry));
        }
        Ok(served)
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;
    use crate::{Limits, Msi, Pin, Route, RoutingTable, Signalled, SourceId};

    struct Nothing;
    impl Controller for Nothing {
        type Delivery = ();

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
            let events = EventLoop::spawn().unwrap();
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
