//! The listeners to acknowledgements of one GSI: resampling irqfds and ack notifiers.
//!
//! ```text
//!   an acknowledgement, in a          an irqfd that is assigned
//!   read section                      is listed
//!   lowers the line                   goes live
//!   looks for listeners, tells        its first event raises the line
//!     them
//! ```
//!
//! A listener is listed before its first event can raise the line, so an acknowledgement of that
//! event finds it, and neither side needs a grace period. Listeners that leave are kept until one
//! has passed, for walks that have begun. Whether the last one leaves is decided under the lock;
//! the line is lowered after the grace period, without it.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitType, lock_reserving};

use crate::deassign::{Deassigned, DeassignedListener, Deassigning};
use crate::each::each;
use crate::slab::Slab;
use crate::vm::Shared;
use crate::{Controller, Error, Gsi, Notify};

pub(crate) static ACKS: LockClass = LockClass::new("irqfd.acks", WaitType::Spin).leaf();

/// How many listeners are copied out under the lock at a time.
const BATCH: usize = 4;

/// The listeners of one GSI.
///
/// One such object exists per GSI for the life of the VM, so there is nothing to find, publish or
/// free when a resampler's first irqfd comes or its last one goes, and a resampler that is created
/// while its predecessor is being torn down is the same object. (With a resampler object per
/// generation, the final lowering of the old one's line has to be kept apart from the first raise
/// of the new one's.)
pub(crate) struct Listeners<P: Platform> {
    /// How many there are; written under the lock. An acknowledgement of a GSI without listeners
    /// reads only this.
    count: P::AtomicU32,
    list: Lock<P, List>,
}

struct List {
    listeners: Slab<Listener>,
    resamplers: u32,
}

pub(crate) struct Listener {
    pub(crate) sink: Arc<dyn Notify>,
    /// A resampling irqfd's; else an ack notifier's.
    pub(crate) resamples: bool,
}

impl<P: Platform> Listeners<P> {
    pub(crate) fn new() -> Self {
        Listeners {
            count: P::AtomicU32::ZERO.named("listeners"),
            list: Lock::new(&ACKS, List { listeners: Slab::new(), resamplers: 0 }),
        }
    }

    /// Whether nobody listens.
    ///
    /// May miss a listener that is being added: none of its events has been acknowledged then,
    /// since it signals only after it was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds a listener; returns its number.
    pub(crate) fn join(&self, listener: Listener) -> u32 {
        let mut list = lock_reserving(|| self.list.lock(), |list| list.listeners.grows());
        list.resamplers += u32::from(listener.resamples);
        let listener = list.listeners.insert(listener);
        self.count.store(list.listeners.len(), Ordering::Release);
        listener
    }

    /// Removes a listener. Walks that have begun may still notify it: the sink that is returned is
    /// kept until a grace period has passed, so that it is never freed by an acknowledgement.
    ///
    /// Whether it was the last resampling irqfd is decided here, under the lock, and acted upon
    /// later, without it (document 002).
    pub(crate) fn remove(&self, gsi: Gsi, listener: u32) -> Option<DeassignedListener> {
        let mut list = self.list.lock();
        let listener = list.listeners.remove(listener)?;
        list.resamplers -= u32::from(listener.resamples);
        let last = listener.resamples && list.resamplers == 0;
        self.count.store(list.listeners.len(), Ordering::Release);
        drop(list);
        Some(DeassignedListener { gsi, sink: listener.sink, last })
    }

    /// Notifies everybody who is there when it begins and when it ends; some of those who come or
    /// go meanwhile.
    ///
    /// In a read section of the VM's domain, which is what a leaving listener waits for. The lock
    /// is not held over the calls: a sink may signal, assign, and begin to deassign.
    pub(crate) fn notify_all(&self) {
        let mut batch: [Option<Arc<dyn Notify>>; BATCH] = [const { None }; BATCH];
        let (mut next, mut from) = (BATCH, Some(0));
        let sinks = core::iter::from_fn(|| {
            if batch.get(next).is_none_or(Option::is_none) {
                (next, from) = (0, self.copy_batch(from?, &mut batch));
            }
            next += 1;
            batch.get_mut(next - 1)?.take()
        });
        each(sinks, |sink| sink.notify());
    }

    /// Copies listeners from a number on, and returns the number after them, if there is another.
    fn copy_batch(&self, start: u32, batch: &mut [Option<Arc<dyn Notify>>; BATCH]) -> Option<u32> {
        let list = self.list.lock();
        let mut listeners = list.listeners.iter_from(start);
        for (place, (_, listener)) in batch.iter_mut().zip(&mut listeners) {
            *place = Some(listener.sink.clone());
        }
        listeners.next().map(|(listener, _)| listener)
    }
}

/// A registered ack notifier. Dropping it unregisters it, without waiting: it may still be called
/// for a moment.
#[must_use = "dropping an ack notifier unregisters it"]
pub struct AckNotifier<P: Platform, C: Controller> {
    vm: Arc<Shared<P, C>>,
    gsi: Gsi,
    /// `None` once it has left.
    listener: Option<u32>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] AckNotifier<P, C>; gsi);

impl<P: Platform, C: Controller> AckNotifier<P, C> {
    pub(crate) fn register(
        vm: &Arc<Shared<P, C>>,
        gsi: Gsi,
        sink: Arc<dyn Notify>,
    ) -> Result<Self, Error> {
        let listeners = vm.listeners(gsi).ok_or(Error::GsiOutOfRange(gsi))?;
        let listener = listeners.join(Listener { sink, resamples: false });
        Ok(AckNotifier { vm: vm.clone(), gsi, listener: Some(listener) })
    }

    /// Unregisters the notifier. When this returns, it is not being called, and never will be.
    ///
    /// # Context
    /// Any task, with no lock held, from no read section of the VM (a notification is one); may
    /// sleep, for a grace period.
    pub fn unregister(mut self) {
        if let Some(leaving) = self.begin() {
            leaving.wait();
        }
    }

    fn begin(&mut self) -> Option<Deassigning<P, C>> {
        let left = self.vm.listeners(self.gsi)?.remove(self.gsi, self.listener.take()?);
        Some(Deassigning::one(&self.vm, Deassigned { irqfd: None, left }))
    }
}

impl<P: Platform, C: Controller> Drop for AckNotifier<P, C> {
    fn drop(&mut self) {
        if let Some(leaving) = self.begin() {
            leaving.later();
        }
    }
}
