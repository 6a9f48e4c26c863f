//! Leaving: what is done after the locks are gone and a grace period has passed.
//!
//! ```text
//!   under the lock        a grace period                       then
//!   off the list,     ->  events and acknowledgements that ->  lowers the line if nobody is left
//!   not active            have seen it come to an end          to, and the irqfd is free again
//! ```
//!
//! Waiting is the caller's choice: `wait` sleeps, `later` leaves the rest to a callback. No worker
//! waits (document 002).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use doorbell_platform::{Platform, ReadDomain};

use crate::each::each;
use crate::irqfd::Inner;
use crate::vm::Shared;
use crate::{Controller, Gsi, Notify};

/// An irqfd (or an ack notifier) that is on no list any more.
pub(crate) struct Deassigned<P: Platform> {
    pub(crate) irqfd: Option<Arc<Inner<P>>>,
    pub(crate) left: Option<DeassignedListener>,
}

/// A listener that left its GSI.
pub(crate) struct DeassignedListener {
    pub(crate) gsi: Gsi,
    /// Kept for the acknowledgements that are under way.
    pub(crate) sink: Arc<dyn Notify>,
    /// Nobody was left to lower the line: it is done after the grace period.
    pub(crate) last: bool,
}

impl<P: Platform> Deassigned<P> {
    /// What remains to be done, after a grace period.
    fn finish<C: Controller>(self, vm: &Shared<P, C>) {
        // Also if the controller or a sink panics.
        let _released = self.irqfd.map(Released);
        if let Some(left) = self.left {
            if left.last {
                // None of those who left can raise the line any more. Someone may have come since,
                // and what is lowered here may be theirs: `lower` tells them, and they raise it
                // again.
                vm.lower(left.gsi);
            }
            drop(left.sink);
        }
    }
}

/// May be assigned again once this is dropped.
struct Released<P: Platform>(Arc<Inner<P>>);

impl<P: Platform> Drop for Released<P> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A deassignment that has begun: no new event is delivered, but some may be under way.
///
/// Either wait for them, or leave it to the VM ([`later`](Deassigning::later), also what dropping
/// does).
#[must_use = "events may still be under way until `wait` returns"]
pub struct Deassigning<P: Platform, C: Controller> {
    vm: Arc<Shared<P, C>>,
    one: Option<Deassigned<P>>,
    more: Vec<Deassigned<P>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] Deassigning<P, C>);

impl<P: Platform, C: Controller> Deassigning<P, C> {
    pub(crate) fn one(vm: &Arc<Shared<P, C>>, departed: Deassigned<P>) -> Self {
        Deassigning { vm: vm.clone(), one: Some(departed), more: Vec::new() }
    }

    pub(crate) fn many(vm: &Arc<Shared<P, C>>, departed: Vec<Deassigned<P>>) -> Self {
        Deassigning { vm: vm.clone(), one: None, more: departed }
    }

    /// Waits for a grace period and ends the deassignment: nothing is delivered or notified any
    /// more.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    pub fn wait(mut self) {
        self.vm.srcu.synchronize_expedited();
        self.finish();
    }

    /// Waits for many at once, for one grace period per VM.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    pub fn wait_all(all: impl IntoIterator<Item = Self>) {
        // All have begun before the first grace period does.
        let mut all: Vec<Self> = all.into_iter().collect();
        while let Some(first) = all.pop() {
            let vm = first.vm.clone();
            let same_vm: Vec<_> =
                all.extract_if(.., |leaving| Arc::ptr_eq(&leaving.vm, &vm)).collect();
            vm.srcu.synchronize_expedited();
            each([first].into_iter().chain(same_vm), |mut leaving| leaving.finish());
        }
    }

    /// Lets the deassignment end by itself after a grace period, without waiting. For workers,
    /// notifications, and whoever has no use for the guarantee.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn later(self) {
        drop(self);
    }

    fn finish(&mut self) {
        let vm = &self.vm;
        each(self.one.take().into_iter().chain(self.more.drain(..)), |departed| {
            departed.finish(vm)
        });
    }
}

impl<P: Platform, C: Controller> Drop for Deassigning<P, C> {
    fn drop(&mut self) {
        let mut departed = core::mem::take(&mut self.more);
        departed.extend(self.one.take());
        // Also those that listen to nothing: an event that is under way, and that found no route,
        // is pending when it ends. An assignment that looks for pending events before that, and
        // reports success, would leave it lying.
        if !departed.is_empty() {
            let vm = self.vm.clone();
            self.vm.srcu.call(Box::new(move || {
                each(departed.into_iter(), |departed| departed.finish(&vm))
            }));
        }
    }
}
