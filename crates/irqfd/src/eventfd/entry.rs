//! One descriptor that a loop serves: from an event in it to its irqfd, and how that ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_platform::Platform;

use super::Descriptor;
use super::descriptor::Drained;
use crate::each::each;
use crate::{Controller, Deassigning, Irqfd, Owed, Signalled};

/// A descriptor that a loop serves, and the irqfd that gets its events.
pub(super) struct Entry<P: Platform, C: Controller> {
    pub(super) descriptor: Descriptor,
    /// Outlives the entry if the descriptor is offloaded.
    pub(super) irqfd: Arc<Irqfd<P, C>>,
    /// Held from the read of an event until it is delivered, or pending in the irqfd: who has taken
    /// the entry off the loop and then had this knows that no event is under way.
    pub(super) serving: Mutex<()>,
    /// Set when it is taken off the loop. Who serves may have found the entry before that.
    pub(super) gone: AtomicBool,
    /// What goes when it is taken off the loop. Pushed to under the lock of the entries, which it is
    /// not among any more when this is taken.
    attached: Mutex<Vec<Box<dyn Send>>>,
}

impl<P: Platform, C: Controller> Entry<P, C> {
    pub(super) fn new(descriptor: &Descriptor, irqfd: &Arc<Irqfd<P, C>>) -> Self {
        Entry {
            descriptor: descriptor.clone(),
            irqfd: Arc::clone(irqfd),
            serving: Mutex::new(()),
            gone: AtomicBool::new(false),
            attached: Mutex::new(Vec::new()),
        }
    }

    /// Reads the descriptor and signals; `false` if there is no use in going on. With what the
    /// controller leaves to be done.
    pub(super) fn serve(&self) -> (bool, Owed<C>) {
        // A panic of the controller leaves nothing behind that another event would stumble over.
        let _serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gone.load(Ordering::SeqCst) {
            return (true, Default::default());
        }
        // What is not read stays the device's: the VM may have been shut down.
        if !self.irqfd.is_assigned() {
            return (false, Default::default());
        }
        match self.descriptor.drain() {
            Drained::Nothing => (true, Default::default()),
            Drained::HungUp => (false, Default::default()),
            Drained::Event => {
                let (signalled, owed) = self.irqfd.signal_owing();
                let kept = signalled == Signalled::Pending;
                if self.gone.load(Ordering::SeqCst) {
                    // Who has taken it off the loop did not wait, and may have looked before.
                    self.hand_over();
                }
                // Kept because the VM was shut down just now, or because the GSI has no route for
                // the moment?
                (!kept || self.irqfd.is_assigned(), owed)
            }
        }
    }

    /// What was pending when the descriptor was last deassigned.
    pub(super) fn inject_pending(&self) -> Owed<C> {
        if self.descriptor.take_pending() {
            self.irqfd.signal_owing().1
        } else {
            Default::default()
        }
    }

    /// After it was taken off the loop: waits until no event is under way from the descriptor to
    /// the irqfd, so that it is delivered by the route that it has still.
    pub(super) fn wait_for_server(&self) {
        drop(self.serving.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// After it was taken off the loop: deassigns the irqfd, when what goes with it has gone, and
    /// ends the service. `leaves` waits or does not: the thread that serves it does not.
    pub(super) fn leave(&self, leaves: fn(Deassigning<P, C>)) {
        each(0..3, |step| match step {
            0 => self.detach(),
            // Not assigned any more if the VM was shut down meanwhile: nothing to do then.
            1 => _ = self.irqfd.deassign_begin().map(leaves),
            _ => self.let_go(),
        });
    }

    pub(super) fn attached(&self) -> MutexGuard<'_, Vec<Box<dyn Send>>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what goes with it, without a lock.
    pub(super) fn detach(&self) {
        let attached = std::mem::take(&mut *self.attached());
        each(attached.into_iter(), drop);
    }

    /// Ends the service of a source that was deassigned: what is pending in the irqfd stays so in
    /// the descriptor, which others may serve from here on.
    pub(super) fn let_go(&self) {
        self.hand_over();
        self.descriptor.release();
    }

    fn hand_over(&self) {
        if self.irqfd.take_pending() {
            self.descriptor.pend();
        }
    }
}
