//! One irqfd: an event that knows its way to the guest.
//!
//! ```text
//!   an event, in a read section       who assigns, or gives a route
//!   reads the link: not active        makes it active, under the VM's lock
//!   leaves it pending                 full barrier
//!   full barrier                      takes what is pending, delivers
//!   reads the link again: active,
//!     takes what is pending, delivers
//! ```
//!
//! Whether it is active is asked of one word alone, and the cached route stays what it was when the
//! irqfd leaves. Who deassigns waits for a grace period, and so for each event that has seen it
//! active.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use doorbell_platform::{Atomic, Held, Platform, ReadDomain, ReadGuard, SeqWords, lock_reserving};

use crate::acks::Listener;
use crate::cached::{Cached, WORDS};
use crate::deassign::Deassigning;
use crate::vm::{Assigned, Shared};
use crate::{Controller, Delivery, Error, Gsi, Notify, Outcome, Owed};

/// Not assigned.
const IDLE: u32 = 0;
/// Being assigned, or left and not yet done with leaving.
const BUSY: u32 = 1;
/// Assigned, at index `link - ACTIVE` of the VM's list.
const ACTIVE: u32 = 2;

/// What an irqfd shares with the VM's list. What a delivery reads fits into one cache line.
#[repr(align(64))]
pub(crate) struct Inner<P: Platform> {
    /// [`IDLE`], [`BUSY`] or the place on the VM's list; it leaves `IDLE` under the lock of that
    /// list. "Is it active" is asked of this word alone, in a read section: the cached route stays
    /// what it was when the irqfd leaves (known race F01: a route that was cleared on leaving was
    /// taken for another kind of route by those who came later).
    link: P::AtomicU32,
    /// An event came and found no way to the guest.
    pending: P::AtomicBool,
    cached: SeqWords<P, WORDS>,
}

/// What became of an event. It is never lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signalled {
    /// The controller has it.
    Delivered,
    /// The controller has it as one with an interrupt that is pending already, if the controller
    /// tells.
    Coalesced,
    /// The controller does not have it, if the controller tells: the host refused the message.
    Failed,
    /// The event is pending in the irqfd, which delivers it when it is assigned, or its GSI has a
    /// route again. Pending events coalesce into one.
    Pending,
}

/// An event source inside the process: what an eventfd that is assigned to a VM is to KVM, without
/// the descriptor.
///
/// It belongs to one VM and can be assigned to a GSI, deassigned, and assigned again. Events that
/// come while it is not assigned are pending. Share it by reference or `Arc`; dropping it deassigns
/// it (without waiting: nobody can signal it any more). Interrupt handlers may signal it and look
/// at it; all else is for task context.
pub struct Irqfd<P: Platform, C: Controller> {
    pub(crate) vm: Arc<Shared<P, C>>,
    inner: Arc<Inner<P>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] Irqfd<P, C>);

impl<P: Platform, C: Controller> Irqfd<P, C> {
    pub(crate) fn new(vm: &Arc<Shared<P, C>>) -> Self {
        Irqfd { vm: vm.clone(), inner: Arc::new(Inner::new()) }
    }

    /// Signals an event: delivers it to the controller before this returns. Neither allocates, nor
    /// takes a lock, nor waits.
    ///
    /// # Context
    /// Any context in which the controller can be called; does not sleep.
    #[inline]
    pub fn signal(&self) -> Signalled
    where
        C::Delivery: Delivery<Owed = ()>,
    {
        self.signal_owing().0
    }

    /// Signals as [`signal`](Irqfd::signal) does, where the controller leaves something to be done:
    /// the caller kicks and wakes vCPUs, when no section is left.
    ///
    /// # Context
    /// Any context in which the controller can be called; does not sleep.
    #[inline]
    pub fn signal_owing(&self) -> (Signalled, Owed<C>) {
        self.vm.signal_owing(&self.inner)
    }

    /// Assigns the irqfd to a GSI with edge, pin or MSI routes. An event that was pending is
    /// delivered: what is owed for it comes back.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`UnknownGsi`](Error::UnknownGsi), [`NeedsResampling`](Error::NeedsResampling),
    /// [`Busy`](Error::Busy), [`TooManyIrqfds`](Error::TooManyIrqfds), [`Closed`](Error::Closed).
    pub fn assign(&self, gsi: Gsi) -> Result<Owed<C>, Error> {
        self.link_to(gsi, None)
    }

    /// Assigns the irqfd to a GSI with a `Level` or `Pin` route: an event raises the line; the
    /// guest's acknowledgement lowers it and then notifies `sink`, whose device signals again if it
    /// still wants an interrupt. Several irqfds may do this on one GSI.
    ///
    /// Does not wait for a grace period: an acknowledgement that follows an event of this irqfd
    /// finds `sink`, since acknowledging looks for listeners after it has lowered the line.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// As for [`assign`](Irqfd::assign), with [`NotLevel`](Error::NotLevel) for `NeedsResampling`.
    pub fn assign_resample(&self, gsi: Gsi, sink: Arc<dyn Notify>) -> Result<Owed<C>, Error> {
        self.link_to(gsi, Some(sink))
    }

    /// Assigns the irqfd as [`assign_resample`](Irqfd::assign_resample) does, to a listener that is
    /// handed the irqfd that it belongs to: what it signals it by, if its device still wants an
    /// interrupt. (A sink that has an `Arc` of its own irqfd keeps it, and itself, for good.)
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// As for [`assign_resample`](Irqfd::assign_resample).
    pub fn assign_resample_with(
        &self,
        gsi: Gsi,
        resample: impl Fn(&Resampled<'_, P, C>) + Send + Sync + 'static,
    ) -> Result<Owed<C>, Error> {
        // Listeners are the VM's, which would never go if one of them held it.
        let (vm, irqfd) = (Arc::downgrade(&self.vm), Arc::clone(&self.inner));
        self.assign_resample(
            gsi,
            Arc::new(move || {
                if let Some(vm) = vm.upgrade() {
                    resample(&Resampled { vm: &vm, irqfd: &irqfd });
                }
            }),
        )
    }

    /// Deassigns the irqfd. When this returns, none of its events is being delivered, its sink is
    /// not being notified, and neither happens again; if it was the last resampling irqfd of its
    /// GSI, the line has been lowered.
    ///
    /// An event that comes meanwhile is delivered or pending.
    ///
    /// # Context
    /// Any task, with no lock held, from no read section of the VM (a notification is one); may
    /// sleep, for a grace period.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned), also if another deassignment of it is still waiting.
    pub fn deassign(&self) -> Result<(), Error> {
        self.deassign_begin().map(Deassigning::wait)
    }

    /// Begins to [`deassign`](Irqfd::deassign), and does not wait. Until the second half is
    /// through, the irqfd cannot be assigned again.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn deassign_begin(&self) -> Result<Deassigning<P, C>, Error> {
        let assigned = self.vm.delist(&self.inner).ok_or(Error::NotAssigned)?;
        Ok(Deassigning::one(&self.vm, assigned.deassign(&self.vm)))
    }

    /// Takes the event that is pending, if there is one; the caller is responsible for it from then
    /// on.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[doc(alias = "take_kept")]
    pub fn take_pending(&self) -> bool {
        self.inner.take_pending()
    }

    /// Returns whether an event is pending, and leaves it there: for a snapshot. What is restored
    /// is pending again by a [`signal`](Irqfd::signal_owing) of an irqfd that is not assigned yet.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn is_pending(&self) -> bool {
        self.inner.is_pending()
    }

    fn link_to(&self, gsi: Gsi, sink: Option<Arc<dyn Notify>>) -> Result<Owed<C>, Error> {
        match sink.zip(self.vm.listeners(gsi)) {
            None => self.vm.enlist(&self.inner, gsi, None)?,
            Some((sink, listeners)) => {
                self.vm.reserve(&self.inner, gsi)?;
                // The sink is listed before the first event can raise the line.
                let listener = listeners.join(Listener { sink, resamples: true });
                if let Err(error) = self.vm.enlist(&self.inner, gsi, Some(listener)) {
                    // The VM was closed, rerouted or filled a moment ago. The listener is taken off
                    // as if the irqfd had been active: others of the GSI may have counted on not
                    // being the last.
                    let departed =
                        Assigned { irqfd: self.inner.clone(), gsi, listener: Some(listener) }
                            .deassign(&self.vm);
                    Deassigning::one(&self.vm, departed).later();
                    return Err(error);
                }
            }
        }
        if self.take_pending() {
            // If it is deassigned at this very moment, `signal` has the event pending again.
            return Ok(self.signal_owing().1);
        }
        Ok(Default::default())
    }

    /// Returns whether the irqfd is assigned. That may have changed by the time the caller looks at
    /// it.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn is_assigned(&self) -> bool {
        self.inner.link.load(Ordering::SeqCst) >= ACTIVE
    }
}

/// An irqfd whose level an acknowledgement has lowered, as its listener sees it: see
/// [`Irqfd::assign_resample_with`].
pub struct Resampled<'a, P: Platform, C: Controller> {
    vm: &'a Shared<P, C>,
    irqfd: &'a Inner<P>,
}

doorbell_platform::opaque_debug!(['a, P: Platform, C: Controller] Resampled<'a, P, C>);

impl<P: Platform, C: Controller> Resampled<'_, P, C> {
    /// Raises the level again, as [`Irqfd::signal`] does.
    ///
    /// # Context
    /// Inside the notification.
    pub fn signal(&self) -> Signalled
    where
        C::Delivery: Delivery<Owed = ()>,
    {
        self.signal_owing().0
    }

    /// Raises the level again, as [`Irqfd::signal_owing`] does. What is owed waits until the
    /// notification is over, if it cannot be done in a section.
    ///
    /// # Context
    /// Inside the notification.
    pub fn signal_owing(&self) -> (Signalled, Owed<C>) {
        self.vm.signal_owing(self.irqfd)
    }
}

impl<P: Platform, C: Controller> Drop for Irqfd<P, C> {
    fn drop(&mut self) {
        // Most are deassigned when they are dropped: spare them the lock. Nobody else can assign it
        // meanwhile.
        if self.is_assigned()
            && let Some(assigned) = self.vm.delist(&self.inner)
        {
            let departed = assigned.deassign(&self.vm);
            // Nobody signals it any more, and nobody assigns it again. So if it listens to nothing,
            // nothing is left to be done.
            if departed.left.is_some() {
                Deassigning::one(&self.vm, departed).later();
            }
        }
    }
}

impl<P: Platform> Inner<P> {
    fn new() -> Self {
        Inner {
            link: P::AtomicU32::new(IDLE).named("link"),
            pending: P::AtomicBool::new(false).named("pending"),
            cached: SeqWords::new(Cached::Nowhere.pack()).named("cached route"),
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    pub(crate) fn take_pending(&self) -> bool {
        self.pending.swap(false, Ordering::SeqCst)
    }

    /// Takes on a new cached route, under the lock of the VM's list, at index `index` of which this
    /// irqfd is. With interrupts off: its gate is open, and an interrupt handler that signals it
    /// would wait forever for the writer that it interrupted.
    pub(crate) fn reroute(&self, held: &impl Held<P>, index: u32, route: Cached) {
        self.cached.write(held, route.pack());
        // Changes nothing, but makes the new route part of what a delivery acquires with its SeqCst
        // load of `link`, hence visible to every read section that the grace period after this does
        // not wait for.
        self.link.store(index + ACTIVE, Ordering::SeqCst);
    }

    /// Under the lock of the VM's list, so that it stays idle until its state is changed there.
    fn check_idle(&self) -> Result<(), Error> {
        if self.link.load(Ordering::SeqCst) == IDLE { Ok(()) } else { Err(Error::Busy) }
    }

    /// Allows the irqfd to be assigned again.
    pub(crate) fn release(&self) {
        self.link.store(IDLE, Ordering::SeqCst);
    }

    /// Closes the gate, on behalf of the VM's shutdown, under the lock of the VM's list.
    pub(crate) fn shut(&self) {
        self.link.store(BUSY, Ordering::SeqCst);
    }
}

impl<P: Platform, C: Controller> Shared<P, C> {
    #[inline]
    pub(crate) fn signal_owing(&self, irqfd: &Inner<P>) -> (Signalled, Owed<C>) {
        match self.signal(irqfd) {
            None => (Signalled::Pending, Default::default()),
            Some(delivery) => {
                let signalled = match delivery.outcome() {
                    Outcome::Delivered => Signalled::Delivered,
                    Outcome::Coalesced => Signalled::Coalesced,
                    Outcome::Failed => Signalled::Failed,
                };
                (signalled, delivery.owed())
            }
        }
    }

    /// Delivers an event; `None` if it is pending.
    #[inline(always)]
    pub(crate) fn signal(&self, irqfd: &Inner<P>) -> Option<C::Delivery> {
        let section = self.srcu.read();
        // SeqCst, as the stores to it: a section that a grace period does not wait for began after
        // the store.
        if irqfd.link.load(Ordering::SeqCst) < ACTIVE {
            return self.signal_idle(irqfd, section);
        }
        let words = irqfd.cached.read();
        // The way that has to be short: nothing of the others is prepared on it.
        match Cached::unpack_msi(words) {
            Some(msi) => Some(self.controller.msi(msi)),
            None => self.deliver_or_pend(irqfd, Cached::unpack(words), section),
        }
    }

    /// An event of an irqfd that is not assigned.
    #[cold]
    fn signal_idle(
        &self,
        irqfd: &Inner<P>,
        section: ReadGuard<'_, P::Srcu>,
    ) -> Option<C::Delivery> {
        // Publish, then look at the gate: `assign` opens the gate, then looks for what was
        // published. Both SeqCst, so at least one of us sees the other, and `swap` lets only one of
        // us deliver.
        irqfd.pending.store(true, Ordering::SeqCst);
        if irqfd.link.load(Ordering::SeqCst) < ACTIVE
            || !irqfd.pending.swap(false, Ordering::SeqCst)
        {
            return None;
        }
        self.deliver_or_pend(irqfd, Cached::unpack(irqfd.cached.read()), section)
    }

    #[inline(never)]
    fn deliver_or_pend(
        &self,
        irqfd: &Inner<P>,
        route: Cached,
        section: ReadGuard<'_, P::Srcu>,
    ) -> Option<C::Delivery> {
        let delivery = self.deliver(route, &section);
        if delivery.is_some() {
            return delivery;
        }
        // The GSI has lost its route. `reroute` is responsible from now on: it looks for pending
        // events after the grace period that waits for this section.
        irqfd.pending.store(true, Ordering::SeqCst);
        None
    }

    /// Claims an irqfd for an assignment with resampling, so that no sink is listed in vain (and
    /// perhaps notified) if the assignment is refused.
    fn reserve(&self, irqfd: &Inner<P>, gsi: Gsi) -> Result<(), Error> {
        let state = self.state.lock();
        state.check(&self.limits, gsi, true)?;
        irqfd.check_idle()?;
        irqfd.link.store(BUSY, Ordering::SeqCst);
        Ok(())
    }

    /// Puts an irqfd on the VM's list and opens the gate. Its place among the listeners, if it has
    /// one, was made before.
    fn enlist(&self, irqfd: &Arc<Inner<P>>, gsi: Gsi, listener: Option<u32>) -> Result<(), Error> {
        // Interrupts stay on: nobody reads a cached route behind a closed gate, and this one opens
        // when it is written.
        let mut state = lock_reserving(|| self.state.lock(), |state| state.grows(&self.limits));
        let route = state.check(&self.limits, gsi, listener.is_some())?;
        if listener.is_none() {
            irqfd.check_idle()?;
        }
        irqfd.cached.write(state.guard(), route.pack());
        let index = state.irqfds.insert(Assigned { irqfd: irqfd.clone(), gsi, listener });
        irqfd.link.store(index + ACTIVE, Ordering::SeqCst);
        Ok(())
    }

    /// Closes the gate and takes an irqfd off the VM's list; `None` if it is not on it.
    fn delist(&self, irqfd: &Inner<P>) -> Option<Assigned<P>> {
        let mut state = self.state.lock();
        let index = irqfd.link.load(Ordering::SeqCst).checked_sub(ACTIVE)?;
        irqfd.link.store(BUSY, Ordering::SeqCst);
        state.irqfds.remove(index)
    }
}
