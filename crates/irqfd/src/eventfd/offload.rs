//! Eventfds that KVM takes where it can, and a loop of this process where it cannot.
//!
//! ```text
//!   a route has changed, under the lock of the sources
//!   takes those from KVM that it cannot deliver by its next table (KVM flushes: nothing of theirs
//!     is under way)
//!   replaces KVM's table
//!   gives each source to whom it belongs now: the loop lets go of it (and is waited for) before
//!     KVM has it, and KVM before the loop
//!   (without the lock) asks the devices of those that were moved, and resample
//! ```
//!
//! Between two readers nobody reads. An event that comes then is a count in the eventfd, for which
//! the next reader is responsible: the loop reads what is there when it begins, and KVM looks when
//! it is given the eventfd. A level that the former reader had raised is lowered, so the device is
//! asked.
//!
//! An irqfd of the process stands behind each source, whoever reads it: the same rules hold for it,
//! and the same errors.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_platform::Platform;

use super::{Descriptor, EventError, EventLoop, EventSink, Irqchip, KvmVm, Served};
use crate::each::each;
use crate::{
    Controller, Deassigning, Error, FollowRoutes, Gsi, Irqfd, Irqfds, Msi, Owed, Route,
    RoutingTable,
};

/// The number of "device or resource busy".
const EBUSY: i32 = 16;

/// An eventfd that an [`Offload`] has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Assigned(u64);

/// The eventfds of one VM on KVM. Each is taken by KVM (`KVM_IRQFD`) as long as that can deliver by
/// its GSI's route, without a thread of this process in between, and served by a loop otherwise:
/// which of the two depends on where the VM's [interrupt controllers are](Irqchip), and changes
/// with the route.
///
/// KVM's routes [follow](FollowRoutes) the VM's: whoever has replaced those hands the
/// [`Rerouted`](crate::Rerouted) an offload. Nobody else sets KVM's. Sources inside the process are
/// [`Irqfd`]s as ever. Eventfds that the loop alone is to serve can be given to the loop.
///
/// If KVM refuses a table or an eventfd, the loop serves those in question, until the next change
/// of routes: see [`take_refusal`](Offload::take_refusal).
///
/// An eventfd that is offloaded is served as far as other loops, VMs and sinks of the process are
/// concerned: they are told [`Busy`](Error::Busy). (KVM accepts one that an epoll watches, which
/// then sees nothing any more.)
///
/// Dropping it deassigns all.
pub struct Offload<P: Platform, C: Controller, K: KvmVm> {
    vm: Irqfds<P, C>,
    events: Arc<EventLoop<P, C>>,
    kvm: K,
    irqchip: Irqchip,
    /// Sleeps, while KVM or the loop lets go of an eventfd: one change of who reads at a time. No
    /// grace period of the VM is waited for under it, and no host code is called but KVM's ioctls
    /// and, by a loop that takes over what is in an eventfd, the controller.
    state: Mutex<State<P, C>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller, K: KvmVm] Offload<P, C, K>; irqchip);

struct State<P: Platform, C: Controller> {
    sources: BTreeMap<Assigned, Source<P, C>>,
    last: u64,
    closed: bool,
    /// The table that was in force when KVM was last told. It is held, so that no other is in its
    /// place.
    followed: Arc<RoutingTable>,
    /// The routes that KVM has, without redirection entries.
    image: RoutingTable,
    /// The redirection entries that KVM has.
    redirections: Vec<Option<Msi>>,
    refused: Option<EventError>,
}

struct Source<P: Platform, C: Controller> {
    /// Claimed, as long as the source is in the map, unless the loop has left it by itself.
    descriptor: Descriptor,
    irqfd: Arc<Irqfd<P, C>>,
    gsi: Gsi,
    /// What is signalled when the guest has acknowledged, if it resamples.
    sink: Option<Arc<EventSink>>,
    reader: Reader,
}

/// The one who takes events out of an eventfd.
#[derive(Clone, Copy)]
enum Reader {
    /// They stay in it.
    Nobody,
    Loop(Served),
    Kvm,
}

/// What is to be done when the lock is gone.
struct After<P: Platform, C: Controller> {
    /// What the controller has left to be done.
    owed: Vec<Owed<C>>,
    /// Sources with an event that was read by a reader that they have no more: signalled here.
    signals: Vec<Arc<Irqfd<P, C>>>,
    /// Whose level may have been lowered with the former reader.
    resampled: BTreeSet<Gsi>,
}

impl<P: Platform, C: Controller, K: KvmVm> Offload<P, C, K> {
    /// Puts the routes of a VM in force that KVM can deliver by, and takes eventfds from here on.
    /// `irqchip` says what the host has created in KVM.
    ///
    /// # Errors
    /// What KVM says of the routes.
    pub fn new(
        vm: &Irqfds<P, C>,
        events: &Arc<EventLoop<P, C>>,
        kvm: K,
        irqchip: Irqchip,
    ) -> io::Result<Self> {
        let pins = if let Irqchip::Split { pins } = irqchip { pins as usize } else { 0 };
        let followed = vm.table();
        let image = irqchip.image(&followed);
        if irqchip != Irqchip::User {
            kvm.set_gsi_routing(&image.iter().collect::<Vec<_>>())?;
        }
        let state = State {
            sources: BTreeMap::new(),
            last: 0,
            closed: false,
            followed,
            image,
            redirections: vec![None; pins.min(RoutingTable::MAX)],
            refused: None,
        };
        Ok(Offload {
            vm: vm.clone(),
            events: Arc::clone(events),
            kvm,
            irqchip,
            state: Mutex::new(state),
        })
    }

    /// Assigns a descriptor as [`EventLoop::assign`] does: to KVM if that can deliver, else to the
    /// loop.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    ///
    /// # Errors
    /// As [`EventLoop::assign`]; [`Busy`](Error::Busy) also if somebody else has given the eventfd
    /// to KVM.
    pub fn assign(&self, descriptor: Descriptor, gsi: Gsi) -> Result<Assigned, EventError> {
        self.take_on(descriptor, gsi, None)
    }

    /// Assigns a descriptor as [`EventLoop::assign_resample`] does, with the resamplefd that is
    /// signalled when the guest has acknowledged: by KVM if that can resample, else by
    /// [`Irqfds::ack`].
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    ///
    /// # Errors
    /// As for [`assign`](Offload::assign), and what [`EventSink::new`] says of the resamplefd.
    pub fn assign_resample(
        &self,
        descriptor: Descriptor,
        gsi: Gsi,
        resample: impl AsFd,
    ) -> Result<Assigned, EventError> {
        self.take_on(descriptor, gsi, Some(Arc::new(EventSink::new(resample)?)))
    }

    /// Deassigns a descriptor, whoever reads it. When this returns, nothing of it is delivered any
    /// more, and its resamplefd is not signalled: what comes stays in the eventfd.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep,
    /// for a grace period.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned); what KVM says: if somebody has closed the descriptor,
    /// KVM goes on delivering, and the source stays.
    pub fn deassign(&self, assigned: Assigned) -> Result<(), EventError> {
        let source = {
            let mut state = self.state();
            let source = state.sources.get_mut(&assigned).ok_or(Error::NotAssigned)?;
            match self.stop_reading(source) {
                // The loop has left it, when the VM was shut down, and others may have it by now.
                Err(EventError::Irqfd(error)) => {
                    state.sources.remove(&assigned);
                    return Err(error.into());
                }
                stopped => stopped?,
            }
            state.sources.remove(&assigned).ok_or(Error::NotAssigned)?
        };
        source.leave(Deassigning::wait);
        Ok(())
    }

    /// Tells KVM what the guest has written to a redirection entry of the VMM's IOAPIC, as a
    /// message, masked or not: `KVM_EXIT_IOAPIC_EOI` comes for vectors of level-triggered entries
    /// (bit 15 of the data) that KVM knows. An edge-triggered one may be `None`.
    ///
    /// An entry that is masked stays, or the end of an interrupt that is in service is not told.
    /// Without a split interrupt controller nobody has to know, and this does nothing.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep,
    /// for a grace period of KVM's.
    ///
    /// # Errors
    /// [`GsiOutOfRange`](Error::GsiOutOfRange) if the IOAPIC has no such pin; what KVM says of the
    /// message: it has the former one then.
    pub fn redirect(&self, pin: Gsi, entry: Option<Msi>) -> Result<(), EventError> {
        if !matches!(self.irqchip, Irqchip::Split { .. }) {
            return Ok(());
        }
        let mut state = self.state();
        let mut redirections = state.redirections.clone();
        let at = redirections.get_mut(pin.0 as usize).ok_or(Error::GsiOutOfRange(pin))?;
        if *at != entry {
            *at = entry;
            self.put_routes(&redirections, &state.image)?;
            state.redirections = redirections;
        }
        Ok(())
    }

    /// Returns whether KVM has the eventfd; if not, the loop serves it.
    ///
    /// # Context
    /// Any task, from no notification; may sleep, while another call is under way.
    ///
    /// # Errors
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn is_offloaded(&self, assigned: Assigned) -> Result<bool, Error> {
        let state = self.state();
        let source = state.sources.get(&assigned).ok_or(Error::NotAssigned)?;
        Ok(matches!(source.reader, Reader::Kvm))
    }

    /// Takes out why KVM has last refused a table or an eventfd, or the loop one that it was to
    /// have instead. What KVM has refused, the loop serves; what both have, keeps its events; the
    /// next change of routes tries again.
    ///
    /// # Context
    /// Any task, from no notification; may sleep, while another call is under way.
    pub fn take_refusal(&self) -> Option<EventError> {
        self.state().refused.take()
    }

    /// Shuts the VM down as [`Irqfds::close`] does, which does not know of KVM.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep.
    pub fn close(&self) -> Deassigning<P, C> {
        let sources = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.sources)
        };
        let read = self.stop_reading_all(sources);
        let closing = self.vm.close();
        read.into_iter().for_each(|source| source.leave(Deassigning::later));
        closing
    }

    fn state(&self) -> MutexGuard<'_, State<P, C>> {
        // What panics under it is a `KvmVm`: then a source may be read by nobody, which keeps its
        // events.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_on(
        &self,
        descriptor: Descriptor,
        gsi: Gsi,
        sink: Option<Arc<EventSink>>,
    ) -> Result<Assigned, EventError> {
        descriptor.claim()?;
        let irqfd = Arc::new(self.vm.irqfd());
        let assigned = match &sink {
            None => irqfd.assign(gsi),
            Some(sink) => irqfd.assign_resample(gsi, Arc::clone(sink) as _),
        };
        let owed = assigned.inspect_err(|_| descriptor.release())?;
        let mut after = After::owing(owed);
        let mut source = Source { descriptor, irqfd, gsi, sink, reader: Reader::Nobody };
        let result = {
            let mut state = self.state();
            let given = if state.closed {
                Err(Error::Closed.into())
            } else {
                let is_kvms = self.is_kvms(&source, &state.image, &self.vm.table());
                self.give(&mut source, is_kvms, &mut state.refused, &mut after)
            };
            match given {
                Ok(()) => {
                    state.last += 1;
                    let assigned = Assigned(state.last);
                    state.sources.insert(assigned, source);
                    Ok(assigned)
                }
                Err(error) => Err((error, source)),
            }
        };
        self.finish(after);
        result.map_err(|(error, source)| {
            source.leave(Deassigning::later);
            error
        })
    }

    /// Brings KVM's routes, and who reads what, into agreement with the table in force.
    fn agree(&self, state: &mut State<P, C>, after: &mut After<P, C>) {
        let table = self.vm.table();
        // Once for all GSIs that a replacement has changed.
        if Arc::ptr_eq(&table, &state.followed) {
            return;
        }
        state.followed = Arc::clone(&table);
        let wanted = self.irqchip.image(&table);
        let State { sources, image, redirections, refused, .. } = state;
        // KVM takes a plain source along to another message. Without a route it would take events,
        // and drop them. On a pin, it raises for an event and lowers for it, each by the table of
        // that moment: were the table another in between, the pin would stay up, and have no edge
        // any more. The same goes for a level until it is acknowledged. KVM is done with both when
        // it has given the source back.
        for source in sources.values_mut().filter(|source| matches!(source.reader, Reader::Kvm)) {
            let gsi = source.gsi;
            let stays = same_routes(image, &wanted, gsi)
                || has_message(image, gsi) && has_message(&wanted, gsi);
            if !stays && let Err(error) = self.stop_reading(source) {
                *refused = Some(error);
            }
        }
        if !wanted.iter().eq(image.iter()) {
            match self.put_routes(redirections, &wanted) {
                Ok(()) => *image = wanted,
                Err(error) => *refused = Some(error.into()),
            }
        }
        sources.retain(|_, source| {
            let is_kvms = self.is_kvms(source, image, &table);
            match (source.reader, is_kvms) {
                (Reader::Kvm, true) | (Reader::Loop(_), false) => return true,
                (Reader::Nobody, _) => {}
                (Reader::Kvm, false) | (Reader::Loop(_), true) => match self.stop_reading(source) {
                    Ok(()) => {}
                    // The loop has left it by itself: the VM was shut down.
                    Err(EventError::Irqfd(_)) => return false,
                    Err(error) => {
                        *refused = Some(error);
                        return true;
                    }
                },
            }
            if let Err(error) = self.give(source, is_kvms, refused, after) {
                *refused = Some(error);
            }
            if source.sink.is_some() {
                after.resampled.insert(source.gsi);
            }
            true
        });
    }

    /// Whether KVM can deliver a source's events, and by the route that is in force.
    fn is_kvms(
        &self,
        source: &Source<P, C>,
        image: &RoutingTable,
        in_force: &RoutingTable,
    ) -> bool {
        let gsi = source.gsi;
        source.descriptor.event().is_some()
            && image.routes(gsi).next().is_some()
            && same_routes(image, in_force, gsi)
            && (source.sink.is_none() || self.irqchip.resamples(image.routes(gsi)))
    }

    /// Gives a source that nobody reads to KVM, if it is KVM's and KVM takes it, else to the loop.
    fn give(
        &self,
        source: &mut Source<P, C>,
        is_kvms: bool,
        refused: &mut Option<EventError>,
        after: &mut After<P, C>,
    ) -> Result<(), EventError> {
        if let Some(event) = source.descriptor.event().filter(|_| is_kvms) {
            let resample = source.sink.as_ref().and_then(|sink| sink.event());
            match self.kvm.register_irqfd(event, source.gsi, resample) {
                Ok(()) => {
                    // What was in the eventfd KVM has injected, but not taken out, and what came
                    // since it has taken itself: left there, an event would be the next reader's
                    // once more.
                    let _injected = source.descriptor.drain();
                    source.reader = Reader::Kvm;
                    if source.descriptor.take_pending() {
                        after.signals.push(Arc::clone(&source.irqfd));
                    }
                    return Ok(());
                }
                // Somebody has given it to KVM behind our back: a loop would see nothing of it.
                Err(error) if error.raw_os_error() == Some(EBUSY) => {
                    return Err(Error::Busy.into());
                }
                Err(error) => *refused = Some(error.into()),
            }
        }
        let served = self.events.watch(&source.descriptor, &source.irqfd, &mut after.owed)?;
        source.reader = Reader::Loop(served);
        Ok(())
    }

    /// Has nobody read a source. When this returns, nothing that was read is under way.
    ///
    /// # Errors
    /// What KVM says, which has it still; or the loop, which has let go of it, and of its claim, by
    /// itself.
    fn stop_reading(&self, source: &mut Source<P, C>) -> Result<(), EventError> {
        match source.reader {
            Reader::Nobody => {}
            Reader::Loop(served) => self.events.unwatch(served)?,
            Reader::Kvm => {
                let event = source.descriptor.event().ok_or(EventError::BadDescriptor)?;
                self.kvm.unregister_irqfd(event, source.gsi)?;
            }
        }
        source.reader = Reader::Nobody;
        Ok(())
    }

    /// Has nobody read these any more, and returns those that are still ours. (One that somebody
    /// has closed is lost to us: KVM lets go of it when the VM is gone.)
    fn stop_reading_all(&self, sources: BTreeMap<Assigned, Source<P, C>>) -> Vec<Source<P, C>> {
        let ours = |mut source| self.stop_reading(&mut source).is_ok().then_some(source);
        sources.into_values().filter_map(ours).collect()
    }

    fn put_routes(&self, redirections: &[Option<Msi>], image: &RoutingTable) -> io::Result<()> {
        let entries = (0..).map(Gsi).zip(redirections);
        let entries = entries.filter_map(|(gsi, entry)| Some((gsi, Route::Msi((*entry)?))));
        self.kvm.set_gsi_routing(&entries.chain(image.iter()).collect::<Vec<_>>())
    }

    fn finish(&self, after: After<P, C>) {
        let After { mut owed, signals, resampled } = after;
        each(0..3, |step| match step {
            0 => each(signals.iter(), |irqfd| owed.push(irqfd.signal_owing().1)),
            1 => each(resampled.iter(), |gsi| self.vm.notify_ack(*gsi)),
            _ => self.events.settle(std::mem::take(&mut owed)),
        });
    }
}

impl<P: Platform, C: Controller, K: KvmVm> FollowRoutes for Offload<P, C, K> {
    /// Has KVM's routes follow, and moves eventfds to who can serve them. When this returns, KVM
    /// delivers nothing by a former route. No event is lost; one that comes meanwhile is delivered
    /// by the former route or by the new one.
    ///
    /// Of several that replace the table at once, the last to come here sees what is in force then.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep, for grace
    /// periods of KVM's.
    fn follow(&self, _: Gsi) {
        let mut after = After::default();
        self.agree(&mut self.state(), &mut after);
        self.finish(after);
    }
}

fn has_message(table: &RoutingTable, gsi: Gsi) -> bool {
    table.routes(gsi).any(|route| matches!(route, Route::Msi(_)))
}

fn same_routes(one: &RoutingTable, other: &RoutingTable, gsi: Gsi) -> bool {
    one.routes(gsi).eq(other.routes(gsi))
}

impl<P: Platform, C: Controller> After<P, C> {
    fn owing(owed: Owed<C>) -> Self {
        After { owed: vec![owed], ..After::default() }
    }
}

impl<P: Platform, C: Controller> Default for After<P, C> {
    fn default() -> Self {
        After { owed: Vec::new(), signals: Vec::new(), resampled: BTreeSet::new() }
    }
}

impl<P: Platform, C: Controller> Source<P, C> {
    /// Leaves the VM, when nobody reads it any more. What is pending stays so in the descriptor.
    fn leave(self, leaves: impl FnOnce(Deassigning<P, C>)) {
        // Not assigned any more if the VM was shut down.
        if let Ok(leaving) = self.irqfd.deassign_begin() {
            leaves(leaving);
        }
        if self.irqfd.take_pending() {
            self.descriptor.pend();
        }
        self.descriptor.release();
    }
}

impl<P: Platform, C: Controller, K: KvmVm> Drop for Offload<P, C, K> {
    fn drop(&mut self) {
        let sources = std::mem::take(&mut self.state().sources);
        for source in self.stop_reading_all(sources) {
            source.leave(Deassigning::later);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;

    use doorbell_platform::{Std, fd};

    use super::*;
    use crate::{Limits, Pin, Signalled, SourceId};

    struct Chip;
    impl Controller for Chip {
        type Delivery = ();

        fn pins(&self, _: u16) -> u32 {
            1
        }
        fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
        fn edge(&self, _: Pin) {}
        fn msi(&self, _: Msi) {}
    }

    /// Whether it has an eventfd.
    #[derive(Default)]
    struct Kvm(AtomicBool);
    impl KvmVm for Kvm {
        fn register_irqfd(
            &self,
            _: BorrowedFd<'_>,
            _: Gsi,
            _: Option<BorrowedFd<'_>>,
        ) -> io::Result<()> {
            self.0.store(true, SeqCst);
            Ok(())
        }
        fn unregister_irqfd(&self, _: BorrowedFd<'_>, _: Gsi) -> io::Result<()> {
            self.0.store(false, SeqCst);
            Ok(())
        }
        fn set_gsi_routing(&self, _: &[(Gsi, Route)]) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn kvm_gets_an_eventfd_when_what_the_loop_has_read_is_delivered() {
        let table = |route| RoutingTable::new(&[(Gsi(30), route)]).unwrap();
        let vm = Irqfds::<Std, _>::new(Chip, Limits::default());
        let events = Arc::new(EventLoop::spawn().unwrap());
        let kvm = Arc::new(Kvm::default());
        let irqchip = Irqchip::Split { pins: 24 };
        let offload = Offload::new(&vm, &events, Arc::clone(&kvm), irqchip).unwrap();
        vm.reroute(table(Route::Edge(Pin::new(0, 0)))).unwrap().follow(&offload);
        let event = fd::eventfd().unwrap();
        let assigned = offload.assign(Descriptor::eventfd(&event).unwrap(), Gsi(30)).unwrap();
        let entry = events.shared.entries().served.values().next().cloned().unwrap();
        thread::scope(|scope| {
            // The loop's thread has read an event.
            let serving = entry.serving.lock().unwrap();
            let message = table(Route::Msi(Msi::new(0, 1)));
            let moves = scope.spawn(|| vm.reroute(message).unwrap().follow(&offload));
            while !events.is_empty() {
                thread::yield_now();
            }
            (0..100).for_each(|_| thread::yield_now());
            assert!(!kvm.0.load(SeqCst));
            assert_eq!(entry.irqfd.signal(), Signalled::Delivered);
            drop(serving);
            moves.join().unwrap();
        });
        assert!(kvm.0.load(SeqCst) && offload.is_offloaded(assigned).unwrap());
    }
}
