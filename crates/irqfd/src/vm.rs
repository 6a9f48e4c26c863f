//! The irqfds of one VM: its routing table, the list of what is assigned, and the ways through.
//!
//! ```text
//!   reroute, under the VM's lock          a delivery, in a read section
//!   publishes the table                   reads the irqfd's cached route
//!   rewrites the cached route of each     calls the controller
//!     assigned irqfd
//!   (without the lock) a grace period
//!   lowers, acknowledges, notifies what the former table has left
//! ```
//!
//! Deliveries and acknowledgements take no lock. Whatever is assigned stands on the list with the
//! route that it caches; both change under the lock alone, so an irqfd that is assigned during a
//! reroute caches the former table and is rewritten, or caches the new one. What depends on nobody
//! using the former table any more comes after the grace period, with no lock held.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use doorbell_platform::{Lock, LockClass, Platform, RcuCell, ReadDomain, ReadGuard, WaitType};

use crate::acks::Listeners;
use crate::cached::Cached;
use crate::deassign::{Deassigned, Deassigning};
use crate::each::each;
use crate::irqfd::Inner;
use crate::line::{self, Listed};
use crate::rerouted::Rerouted;
use crate::routing::Group;
use crate::slab::{Place, Slab};
use crate::{
    AckNotifier, Controller, Delivery, Error, Gsi, Irqfd, Notify, Owed, Pin, Route, RoutingTable,
    SourceId,
};

/// No interrupt handler takes it, so interrupts stay on under it but where the cached route of an
/// active irqfd is written.
pub(crate) static IRQFDS: LockClass = LockClass::new("irqfd.irqfds", WaitType::Spin).leaf();

/// How large a VM may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// GSIs are below this. Each costs the VM less than a hundred bytes. At most
    /// [`RoutingTable::MAX`].
    pub gsis: u32,
    /// The longest routing table.
    pub routes: usize,
    /// How many irqfds may be assigned at once.
    pub irqfds: u32,
}

impl Default for Limits {
    /// What KVM has: 4096 GSIs and routes; and 65536 irqfds.
    fn default() -> Self {
        Limits { gsis: RoutingTable::MAX as u32, routes: RoutingTable::MAX, irqfds: 1 << 16 }
    }
}

/// The irqfds of one VM, before its interrupt controller `C`. Cloning makes another handle of the
/// same VM.
///
/// The host [closes](Irqfds::close) it when the VM is shut down.
pub struct Irqfds<P: Platform, C: Controller> {
    pub(crate) shared: Arc<Shared<P, C>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] Irqfds<P, C>);

/// What all handles of a VM share.
pub(crate) struct Shared<P: Platform, C> {
    pub(crate) controller: C,
    pub(crate) limits: Limits,
    /// Read sections are deliveries and acknowledgements.
    pub(crate) srcu: Arc<P::Srcu>,
    /// Written under the lock of `state`.
    routes: RcuCell<P, P::Srcu, Arc<RoutingTable>>,
    pub(crate) state: Lock<P, State<P>>,
    /// The listeners to acknowledgements, by GSI.
    listeners: Box<[Listeners<P>]>,
}

/// What the VM's lock protects.
pub(crate) struct State<P: Platform> {
    pub(crate) closed: bool,
    /// What is in `routes`.
    pub(crate) table: Arc<RoutingTable>,
    pub(crate) irqfds: Slab<Assigned<P>>,
    pub(crate) lines: Slab<Listed<P>>,
    /// How many tables were replaced while there were lines, and have not settled them.
    pub(crate) rerouting: u32,
    /// The edition of [`Routes`](crate::Routes) that is in force.
    edition: u64,
}

/// An irqfd on the VM's list.
pub(crate) struct Assigned<P: Platform> {
    pub(crate) irqfd: Arc<Inner<P>>,
    pub(crate) gsi: Gsi,
    /// Among the GSI's listeners, if it resamples.
    pub(crate) listener: Option<u32>,
}

impl<P: Platform> State<P> {
    fn new(table: Arc<RoutingTable>) -> Self {
        State {
            closed: false,
            table,
            irqfds: Slab::new(),
            lines: Slab::new(),
            rerouting: 0,
            edition: 0,
        }
    }

    /// Says whether an irqfd can be assigned to a GSI at this moment; if so, what it caches.
    pub(crate) fn check(&self, limits: &Limits, gsi: Gsi, resample: bool) -> Result<Cached, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let route = Cached::checked(&self.table, gsi, resample)?;
        (self.irqfds.len() < limits.irqfds)
            .then_some(route)
            .ok_or(Error::TooManyIrqfds(limits.irqfds))
    }

    /// What one more irqfd makes longer. A VM that takes none does not grow.
    pub(crate) fn grows(&mut self, limits: &Limits) -> Option<&mut Vec<Place<Assigned<P>>>> {
        let takes = !self.closed && self.irqfds.len() < limits.irqfds;
        if takes { self.irqfds.grows() } else { None }
    }
}

impl<P: Platform> Assigned<P> {
    fn route(&self, table: &RoutingTable) -> Cached {
        Cached::of(table, self.gsi, self.listener.is_some())
    }

    /// After it was taken off the list: leaves the listeners too.
    pub(crate) fn deassign<C: Controller>(self, vm: &Shared<P, C>) -> Deassigned<P> {
        let left =
            self.listener.and_then(|listener| vm.listeners(self.gsi)?.remove(self.gsi, listener));
        Deassigned { irqfd: Some(self.irqfd), left }
    }
}

impl<P: Platform, C: Controller> Clone for Irqfds<P, C> {
    fn clone(&self) -> Self {
        Irqfds { shared: self.shared.clone() }
    }
}

impl<P: Platform, C: Controller> Irqfds<P, C> {
    /// Creates a VM without routes and irqfds. Limits above what is possible are lowered to it.
    #[track_caller]
    pub fn new(controller: C, limits: Limits) -> Self {
        let max = RoutingTable::MAX;
        let limits = Limits {
            gsis: limits.gsis.min(max as u32),
            routes: limits.routes.min(max),
            irqfds: limits.irqfds.min(u32::MAX / 4),
        };
        let srcu = Arc::new(P::Srcu::new("irqfd.srcu"));
        let table = Arc::new(RoutingTable::empty());
        Irqfds {
            shared: Arc::new(Shared {
                controller,
                limits,
                routes: RcuCell::new(&srcu, Box::new(table.clone())),
                srcu,
                state: Lock::new(&IRQFDS, State::new(table)),
                listeners: (0..limits.gsis).map(|_| Listeners::new()).collect(),
            }),
        }
    }

    /// The controller.
    pub fn controller(&self) -> &C {
        &self.shared.controller
    }

    /// Creates a source of this VM, which is not yet assigned.
    pub fn irqfd(&self) -> Irqfd<P, C> {
        Irqfd::new(&self.shared)
    }

    /// Returns how many irqfds are assigned.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn assigned(&self) -> u32 {
        self.shared.state.lock().irqfds.len()
    }

    /// Replaces the routing table. When this returns, no delivery uses the former one.
    ///
    /// Events of irqfds that had lost their route and have one again are delivered. The line of a
    /// resampling irqfd that has moved is lowered where it was, and its sink notified, so that it
    /// is raised where it is now. [Lines](crate::Line) move along. (What the host raised by
    /// [`set_irq`](Irqfds::set_irq) stays as it was; the host knows its level.)
    ///
    /// What is owed for those deliveries is in [`Rerouted`], too.
    ///
    /// Interrupts that hardware posts by a route of the former table, without a delivery, are the
    /// caller's affair: [`Rerouted`] says which GSIs are concerned.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep, for a
    /// grace period.
    ///
    /// # Errors
    /// [`TooManyRoutes`](Error::TooManyRoutes), [`GsiOutOfRange`](Error::GsiOutOfRange),
    /// [`PinOutOfRange`](Error::PinOutOfRange), [`SharedSource`](Error::SharedSource),
    /// [`Closed`](Error::Closed).
    pub fn reroute(&self, table: RoutingTable) -> Result<Rerouted<Owed<C>>, Error> {
        self.shared.reroute(table, None)
    }

    /// Returns the routing table that is in force. When [`reroute`](Irqfds::reroute) has returned,
    /// that is its table or a later one.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn table(&self) -> Arc<RoutingTable> {
        let section = self.shared.srcu.read();
        Arc::clone(self.shared.routes.get(&section))
    }

    /// Sets the level that `source` gives to a GSI (`KVM_IRQ_LINE`). For an edge or an MSI, `true`
    /// is an event and `false` nothing. What comes back is the controller's
    /// (`KVM_IRQ_LINE_STATUS`).
    ///
    /// # Context
    /// Any context in which the controller can be called; does not sleep.
    ///
    /// # Errors
    /// [`UnknownGsi`](Error::UnknownGsi), [`ReservedSource`](Error::ReservedSource).
    pub fn set_irq(&self, gsi: Gsi, source: SourceId, level: bool) -> Result<C::Delivery, Error> {
        if source.is_reserved() {
            return Err(Error::ReservedSource);
        }
        let section = self.shared.srcu.read();
        let mut known = false;
        let routes = self.shared.table(&section).routes(gsi).inspect(|_| known = true);
        let deliveries = routes.filter_map(|route| match *route {
            Route::Level(pin) | Route::Pin(pin) => {
                Some(self.shared.controller.set_irq(pin, source, level))
            }
            Route::Edge(pin) if level => Some(self.shared.controller.edge(pin)),
            Route::Msi(msi) if level => Some(self.shared.controller.msi(msi)),
            Route::Edge(_) | Route::Msi(_) => None,
        });
        let delivery = deliveries.reduce(Delivery::and).unwrap_or_default();
        known.then_some(delivery).ok_or(Error::UnknownGsi(gsi))
    }

    /// Says that the guest acknowledged the interrupt of a pin (its end, for a controller that
    /// tells).
    ///
    /// The lines that resampling irqfds raised there are lowered, and then those are notified who
    /// listen to the GSIs of the pin. In this order, so that a device may raise its line again at
    /// once.
    ///
    /// An IOAPIC calls this *before* it clears Remote IRR, and looks at the pin when it has cleared
    /// it: what the devices have raised again by then is one interrupt, and what they have not is
    /// none. The other way round, it finds the line up that nobody has lowered yet, and each end is
    /// a spurious interrupt: 2,000 of 2,000 in `tests/remote_irr.rs`.
    ///
    /// # Context
    /// Any task, with none of the controller's locks held; sleeps if a listener does.
    pub fn ack(&self, pin: Pin) {
        let section = self.shared.srcu.read();
        if let Some(group) = self.shared.table(&section).group_of_pin(pin) {
            self.shared.acknowledge(group);
        }
    }

    /// Returns whether somebody listens to acknowledgements of a pin. A controller tells the ends
    /// of level-triggered interrupts anyway; of an edge-triggered pin, only if this is so need an
    /// end be noticed, which may cost an exit.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn is_listened_to(&self, pin: Pin) -> bool {
        let section = self.shared.srcu.read();
        let group = self.shared.table(&section).group_of_pin(pin);
        group.is_some_and(|group| self.shared.is_listened_to(group))
    }

    /// Acknowledges as [`ack`](Irqfds::ack) does, for a caller that knows the GSI.
    ///
    /// # Context
    /// Any task, with none of the controller's locks held; sleeps if a listener does.
    pub fn notify_ack(&self, gsi: Gsi) {
        let section = self.shared.srcu.read();
        match self.shared.table(&section).group_of_gsi(gsi) {
            Some(group) => self.shared.acknowledge(group),
            None => self.shared.notify(gsi),
        }
    }

    /// Has `sink` notified of acknowledgements of a GSI, until the notifier is dropped.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`GsiOutOfRange`](Error::GsiOutOfRange).
    pub fn register_ack_notifier(
        &self,
        gsi: Gsi,
        sink: Arc<dyn Notify>,
    ) -> Result<AckNotifier<P, C>, Error> {
        AckNotifier::register(&self.shared, gsi, sink)
    }

    /// Shuts the VM down: deassigns all irqfds, as one [`Deassigning`] with one grace period, and
    /// refuses new ones.
    ///
    /// The sources stay, and their events stay pending. A second close finds nothing left; both may
    /// be waited for.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn close(&self) -> Deassigning<P, C> {
        let irqfds = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            let irqfds = mem::replace(&mut state.irqfds, Slab::new());
            irqfds.iter().for_each(|(_, assigned)| assigned.irqfd.shut());
            irqfds
        };
        let departed: Vec<_> =
            irqfds.into_values().map(|assigned| assigned.deassign(&self.shared)).collect();
        Deassigning::many(&self.shared, departed)
    }
}

/// What a replaced table leaves to be done for one of its groups.
enum After<'a> {
    Lower(Pin),
    Acknowledge(&'a Group),
    Notify(Gsi),
}

impl<P: Platform, C: Controller> Shared<P, C> {
    #[inline]
    pub(crate) fn table<'a>(&'a self, section: &'a ReadGuard<'_, P::Srcu>) -> &'a RoutingTable {
        self.routes.get(section)
    }

    pub(crate) fn listeners(&self, gsi: Gsi) -> Option<&Listeners<P>> {
        self.listeners.get(gsi.0 as usize)
    }

    /// Hands an event to the controller, in a read section; `None` if there is no route.
    #[inline]
    pub(crate) fn deliver(
        &self,
        route: Cached,
        section: &ReadGuard<'_, P::Srcu>,
    ) -> Option<C::Delivery> {
        Some(match route {
            Cached::Nowhere => return None,
            Cached::Msi(msi) => self.controller.msi(msi),
            Cached::Edge(pin) => self.controller.edge(pin),
            Cached::Level(pin) => self.controller.set_irq(pin, SourceId::RESAMPLE, true),
            Cached::Pulse(pin) => self.controller.pulse(pin),
            Cached::Table(gsi) => return self.deliver_by_table(gsi, false, section),
            Cached::LevelTable(gsi) => return self.deliver_by_table(gsi, true, section),
        })
    }

    fn deliver_by_table(
        &self,
        gsi: Gsi,
        resample: bool,
        section: &ReadGuard<'_, P::Srcu>,
    ) -> Option<C::Delivery> {
        let deliveries = self.table(section).routes(gsi).map(|route| match *route {
            Route::Msi(msi) => self.controller.msi(msi),
            Route::Edge(pin) => self.controller.edge(pin),
            Route::Level(pin) | Route::Pin(pin) if resample => {
                self.controller.set_irq(pin, SourceId::RESAMPLE, true)
            }
            // If it is a `Level`, the GSI became so after the irqfd was assigned. The pulse may be
            // missed: the responsibility is with whoever replaced the table under it, as assignment
            // would have refused.
            Route::Level(pin) | Route::Pin(pin) => self.controller.pulse(pin),
        });
        deliveries.reduce(Delivery::and)
    }

    /// An acknowledgement of one of a group's pins, in a read section.
    fn acknowledge(&self, group: &Group) {
        if self.is_listened_to(group) {
            self.lower_group(group);
        }
    }

    fn is_listened_to(&self, group: &Group) -> bool {
        group.gsis.iter().any(|&gsi| self.listeners(gsi).is_some_and(|of| !of.is_empty()))
    }

    /// Lowers what resampling irqfds raised, then tells everybody who may have raised it.
    ///
    /// An event that raised the line before it was lowered is not lost: its irqfd was listed
    /// before, so it is notified now, and is responsible for raising it again. One that comes after
    /// stays raised.
    fn lower_group(&self, group: &Group) {
        let lowers = group.level_pins.iter().map(|pin| (Some(*pin), None));
        let tells = group.gsis.iter().map(|gsi| (None, Some(*gsi)));
        each(lowers.chain(tells), |(pin, gsi)| {
            pin.into_iter().for_each(|pin| self.controller.lower(pin, SourceId::RESAMPLE));
            gsi.into_iter().for_each(|gsi| self.notify(gsi));
        });
    }

    fn notify(&self, gsi: Gsi) {
        if let Some(listeners) = self.listeners(gsi).filter(|of| !of.is_empty()) {
            listeners.notify_all();
        }
    }

    /// Lowers the line of a GSI whose last resampling irqfd has left, after the grace period.
    pub(crate) fn lower(&self, gsi: Gsi) {
        let section = self.srcu.read();
        // Without a group, the GSI has lost its pins; `reroute` is responsible for those, as for
        // all that were moved.
        if let Some(group) = self.table(&section).group_of_gsi(gsi) {
            self.lower_group(group);
        }
    }

    /// Replaces the table, unless a later edition is in force.
    pub(crate) fn reroute(
        &self,
        table: RoutingTable,
        edition: Option<u64>,
    ) -> Result<Rerouted<Owed<C>>, Error> {
        table.check(&self.controller, self.limits.gsis, self.limits.routes)?;
        let table = Arc::new(table);
        let boxed = Box::new(table.clone());
        let mut now = Arc::clone(&table);
        let (former, retired, regained, has_lines) = {
            let mut state = self.state.lock_irqsave();
            if state.closed {
                return Err(Error::Closed);
            }
            if edition.is_some_and(|edition| edition < state.edition) {
                now = Arc::clone(&state.table);
                drop(state);
                // Whoever has put it there may still be waiting.
                self.srcu.synchronize_expedited();
                return Ok(Rerouted::new(Arc::clone(&now), now, Vec::new()));
            }
            line::check(&state.lines, &table)?;
            state.edition = edition.unwrap_or(state.edition);
            let has_lines = state.lines.len() > 0;
            state.rerouting += u32::from(has_lines);
            let mut regained = false;
            for (index, assigned) in state.irqfds.iter() {
                let (old, new) = (assigned.route(&state.table), assigned.route(&table));
                if old != new {
                    regained |= old == Cached::Nowhere;
                    assigned.irqfd.reroute(&state, index, new);
                }
            }
            let former = mem::replace(&mut state.table, table);
            (former, self.routes.replace(boxed), regained, has_lines)
        };
        // Here, in the caller's context, and not under the lock: deliveries that still use the
        // former table end.
        drop(retired.synchronize_expedited());
        let mut owed = Vec::new();
        each(0..3, |step| match step {
            0 => self.settle(&former),
            1 if has_lines => self.settle_lines(&former, &now, &mut owed),
            2 if regained => self.deliver_pending(&mut owed),
            _ => {}
        });
        Ok(Rerouted::new(former, now, owed))
    }

    /// After a table was replaced: lowers the lines that nobody would lower any more.
    fn settle(&self, former: &RoutingTable) {
        each(former.groups().iter().filter(|group| !group.level_pins.is_empty()), |group| {
            // The table that is in force now, which may be a later one: what moved since is the
            // later call's affair.
            let section = self.srcu.read();
            let table = self.table(&section);
            if group.level_pins.iter().all(|&pin| table.group_of_pin(pin) == Some(group)) {
                return;
            }
            // Whoever may have raised those pins, by the old table or by the new one, has to know.
            let lowers = group.level_pins.iter().map(|pin| After::Lower(*pin));
            let moved = group
                .level_pins
                .iter()
                .filter_map(|&pin| table.group_of_pin(pin))
                .map(After::Acknowledge);
            let lost = group
                .gsis
                .iter()
                .map(|&gsi| table.group_of_gsi(gsi).map_or(After::Notify(gsi), After::Acknowledge));
            each(lowers.chain(moved).chain(lost), |what| match what {
                After::Lower(pin) => self.controller.lower(pin, SourceId::RESAMPLE),
                After::Acknowledge(now) => self.acknowledge(now),
                After::Notify(gsi) => self.notify(gsi),
            });
        });
    }

    /// Delivers what is pending in irqfds since they had no route.
    ///
    /// After a grace period: an event that saw no route is pending by now, one that comes later
    /// sees the route.
    fn deliver_pending(&self, owed: &mut Vec<Owed<C>>) {
        let mut from = 0;
        let pending = core::iter::from_fn(|| {
            let state = self.state.lock();
            let (index, assigned) =
                state.irqfds.iter_from(from).find(|(_, of)| of.irqfd.is_pending())?;
            from = index + 1;
            Some(assigned.irqfd.clone())
        });
        each(pending, |irqfd| {
            if irqfd.take_pending() {
                owed.extend(self.signal(&irqfd).map(Delivery::owed));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;

    #[test]
    fn there_is_room_to_be_made_in_a_vm_that_takes_one_irqfd_more() {
        let mut state = State::<Std>::new(Arc::new(RoutingTable::empty()));
        let limits = |irqfds| Limits { irqfds, ..Limits::default() };
        assert!(state.grows(&limits(1)).is_some());
        assert!(state.grows(&limits(0)).is_none());
        state.closed = true;
        assert!(state.grows(&limits(1)).is_none());
    }
}
