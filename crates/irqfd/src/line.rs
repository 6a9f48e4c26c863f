//! Lines: levels that sources in the process hold, each with a source id of its own.
//!
//! ```text
//!   who sets a level, in a            who replaces the table
//!   read section                      publishes the new one
//!   writes the level                  waits for the sections that use the former one
//!   gives it to the pins that the     lowers the pins that the line has no more
//!     table names                     reads the level, gives it to the pins that it has
//! ```
//!
//! A level outlives its route: a line that is lowered while its GSI has none is low, since the
//! replacement that has taken the route away lowers the pin. A line that is dropped meanwhile stays
//! on the VM's list until that is done, so that no other line takes its source id before.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;

use doorbell_platform::{Atomic, Platform, ReadDomain, ReadGuard, lock_reserving};

use crate::each::each;
use crate::slab::{Place, Slab};
use crate::vm::Shared;
use crate::{Controller, Delivery, Error, Gsi, Irqfds, Owed, Pin, Route, RoutingTable, SourceId};

/// How many lines a VM may have: who replaces its table compares those of one source.
const MOST: u32 = 256;

/// A level that a device in the process holds on a GSI, whatever its routes are at the moment. The
/// level of a pin is the OR over all lines and other sources.
///
/// When the routing table is replaced, the level moves along; while the GSI has no route, it is
/// kept. Where the GSI's route is an edge or a message, a rise is an event. Dropping a line lowers
/// it, without waiting for a grace period.
///
/// ```
/// # use doorbell_irqfd::*;
/// # use doorbell_platform::Std;
/// # use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// # #[derive(Default)]
/// # struct Chip(AtomicU32);
/// # impl Controller for Chip {
/// #     type Delivery = ();
/// #     fn pins(&self, _: u16) -> u32 { 24 }
/// #     fn set_irq(&self, _: Pin, source: SourceId, level: bool) {
/// #         match level {
/// #             true => self.0.fetch_or(source.bit(), SeqCst),
/// #             false => self.0.fetch_and(!source.bit(), SeqCst),
/// #         };
/// #     }
/// #     fn edge(&self, _: Pin) {}
/// #     fn msi(&self, _: Msi) {}
/// # }
/// # let vm = Irqfds::<Std, _>::new(Chip::default(), Limits::default());
/// # vm.reroute(RoutingTable::new(&[(Gsi(4), Route::Pin(Pin::new(0, 4)))])?)?.follow(&NoBypass);
/// # let is_high = || vm.controller().0.load(SeqCst) != 0;
/// let (serial, other) = (vm.line(Gsi(4), "ttyS0")?, vm.line(Gsi(4), "ttyS2")?);
/// serial.set(true);
/// serial.set(true);
/// other.set(true);
/// serial.set(false);
/// assert!(is_high(), "the other one holds it");
/// drop(other);
/// assert!(!is_high());
/// # Ok::<(), Error>(())
/// ```
#[must_use = "dropping a line lowers it"]
pub struct Line<P: Platform, C: Controller> {
    vm: Arc<Shared<P, C>>,
    /// On the VM's list.
    index: u32,
    driven: Arc<Driven<P>>,
    label: Box<str>,
}

/// What a line shares with the VM's list.
pub(crate) struct Driven<P: Platform> {
    gsi: Gsi,
    source: SourceId,
    level: P::AtomicBool,
}

/// A line on the VM's list.
pub(crate) struct Listed<P: Platform> {
    driven: Arc<Driven<P>>,
    /// Dropped, while a table was being replaced.
    gone: bool,
}

impl<P: Platform, C: Controller> Line<P, C> {
    /// Sets the level; one that is set already changes nothing. Of two calls at once, the level
    /// that one of them has set is on the pins when both have returned. What the controller leaves
    /// to be done comes back.
    ///
    /// # Context
    /// Any context in which the controller can be called; does not sleep.
    pub fn set(&self, level: bool) -> Owed<C> {
        let section = self.vm.srcu.read();
        if self.driven.level.swap(level, Ordering::SeqCst) == level {
            return Default::default();
        }
        let delivery = self.vm.drive(&self.driven, &section, true);
        delivery.map(Delivery::owed).unwrap_or_default()
    }

    /// Returns the level that was set last.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn level(&self) -> bool {
        self.driven.level.load(Ordering::SeqCst)
    }

    /// Returns the GSI that the line is of.
    pub fn gsi(&self) -> Gsi {
        self.driven.gsi
    }

    /// Returns the source that its level has at the controller. No other line on any of its pins
    /// has the same.
    pub fn source(&self) -> SourceId {
        self.driven.source
    }

    /// Returns what the host calls it.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl<P: Platform, C: Controller> fmt::Debug for Line<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("label", &self.label)
            .field("gsi", &self.driven.gsi)
            .field("source", &self.driven.source)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, C: Controller> Drop for Line<P, C> {
    fn drop(&mut self) {
        // In this order: whoever publishes a table after the pins of the former one were lowered
        // may forget the line, whoever publishes one before finds it.
        let _delisted = Delisted(self);
        let section = self.vm.srcu.read();
        // Nobody else sets it any more.
        if self.driven.level.load(Ordering::SeqCst) {
            self.driven.level.store(false, Ordering::SeqCst);
            let routes = self.vm.table(&section).routes(self.driven.gsi);
            let pins = routes.filter(|route| route.has_level()).filter_map(Route::pin);
            each(pins, |pin| self.vm.controller.lower(pin, self.driven.source));
        }
    }
}

/// A line that leaves the list when this is dropped, also if the controller panics.
struct Delisted<'a, P: Platform, C: Controller>(&'a Line<P, C>);

impl<P: Platform, C: Controller> Drop for Delisted<'_, P, C> {
    fn drop(&mut self) {
        let Line { vm, index, .. } = self.0;
        let _removed = {
            let mut state = vm.state.lock();
            if state.rerouting == 0 {
                state.lines.remove(*index)
            } else {
                state.lines.get_mut(*index).into_iter().for_each(|listed| listed.gone = true);
                None
            }
        };
    }
}

impl<P: Platform, C: Controller> Irqfds<P, C> {
    /// Makes a line of a GSI, which is low. The GSI need not have a route yet. The label is for
    /// whoever debugs.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`GsiOutOfRange`](Error::GsiOutOfRange), [`TooManyLines`](Error::TooManyLines),
    /// [`Closed`](Error::Closed).
    pub fn line(&self, gsi: Gsi, label: impl Into<Box<str>>) -> Result<Line<P, C>, Error> {
        let (vm, label) = (Arc::clone(&self.shared), label.into());
        if gsi.0 >= vm.limits.gsis {
            return Err(Error::GsiOutOfRange(gsi));
        }
        let mut driven = Arc::new(Driven {
            gsi,
            source: SourceId::USERSPACE,
            level: P::AtomicBool::new(false).named("level"),
        });
        let index = {
            let mut state = lock_reserving(|| vm.state.lock(), |state| grows(&mut state.lines));
            if state.closed {
                return Err(Error::Closed);
            }
            let source = free_source(&state.lines, &state.table, gsi)?;
            // Nobody else has it yet.
            Arc::get_mut(&mut driven).into_iter().for_each(|driven| driven.source = source);
            state.lines.insert(Listed { driven: driven.clone(), gone: false })
        };
        Ok(Line { vm, index, driven, label })
    }
}

fn grows<P: Platform>(
    lines: &mut Slab<Listed<P>>,
) -> Option<&mut alloc::vec::Vec<Place<Listed<P>>>> {
    if lines.len() < MOST { lines.grows() } else { None }
}

/// Returns the source of a new line: one that no other line has while there are such, else one that
/// no line on the same pins has.
fn free_source<P: Platform>(
    lines: &Slab<Listed<P>>,
    table: &RoutingTable,
    gsi: Gsi,
) -> Result<SourceId, Error> {
    if lines.len() >= MOST {
        return Err(Error::TooManyLines(MOST));
    }
    let (mut used, mut used_here) = (0, 0);
    for (_, Listed { driven, .. }) in lines.iter() {
        used |= driven.source.bit();
        if driven.gsi == gsi || shared_pin(table, driven.gsi, gsi).is_some() {
            used_here |= driven.source.bit();
        }
    }
    let free = |used: u32| SourceId::lines().find(|source| used & source.bit() == 0);
    free(used)
        .or_else(|| free(used_here))
        .ok_or(Error::TooManyLines(SourceId::lines().count() as u32))
}

fn shared_pin(table: &RoutingTable, one: Gsi, other: Gsi) -> Option<Pin> {
    let pins = |gsi| table.routes(gsi).filter(|route| route.has_level()).filter_map(Route::pin);
    pins(one).find(|pin| pins(other).any(|of_other| of_other == *pin))
}

/// Says whether lines that have one source would share a pin under a table.
pub(crate) fn check<P: Platform>(
    lines: &Slab<Listed<P>>,
    table: &RoutingTable,
) -> Result<(), Error> {
    for (index, Listed { driven: one, .. }) in lines.iter() {
        let others = lines.iter_from(index + 1).map(|(_, listed)| &listed.driven);
        let mut same = others.filter(|of| of.source == one.source && of.gsi != one.gsi);
        if let Some(pin) = same.find_map(|other| shared_pin(table, one.gsi, other.gsi)) {
            return Err(Error::SharedSource(pin));
        }
    }
    Ok(())
}

impl<P: Platform, C: Controller> Shared<P, C> {
    /// Gives the pins of a line the level that it has at last; a rise is an event where the route
    /// takes events, if those are wanted.
    fn drive(
        &self,
        line: &Driven<P>,
        section: &ReadGuard<'_, P::Srcu>,
        events: bool,
    ) -> Option<C::Delivery> {
        let (table, mut all) = (self.table(section), None);
        loop {
            let level = line.level.load(Ordering::SeqCst);
            each(table.routes(line.gsi), |route| {
                let delivery = match *route {
                    Route::Level(pin) | Route::Pin(pin) => {
                        self.controller.set_irq(pin, line.source, level)
                    }
                    Route::Edge(pin) if level && events => self.controller.edge(pin),
                    Route::Msi(msi) if level && events => self.controller.msi(msi),
                    Route::Edge(_) | Route::Msi(_) => return,
                };
                all = [all.take(), Some(delivery)].into_iter().flatten().reduce(Delivery::and);
            });
            // Whoever is the last at a pin looks once more after that, and whoever changes the
            // level after that look is at the pin later. A repetition is another's change.
            if line.level.load(Ordering::SeqCst) == level {
                return all;
            }
        }
    }

    /// Moves the levels of lines, after a table was replaced and the sections that used it are
    /// over.
    ///
    /// First all of them are lowered where they were, then all that are high are raised: two lines
    /// may have one source if they share no pin, and what is one's former pin may be the other's
    /// now.
    pub(crate) fn settle_lines(
        &self,
        former: &RoutingTable,
        now: &RoutingTable,
        owed: &mut alloc::vec::Vec<Owed<C>>,
    ) {
        let _settled = Settled(self);
        each([false, true].into_iter(), |raises| {
            each(self.listed_lines(), |line| {
                // The table that is in force, which may be a later one. Who has published that
                // waits for this section before it settles.
                let section = self.srcu.read();
                let changed = !former.routes(line.gsi).eq(now.routes(line.gsi));
                match raises {
                    false if changed => self.lower_former(&line, former, &section),
                    true if line.level.load(Ordering::SeqCst) => {
                        let delivery = self.drive(&line, &section, changed);
                        owed.extend(delivery.map(Delivery::owed));
                    }
                    _ => {}
                }
            });
        });
    }

    fn lower_former(
        &self,
        line: &Driven<P>,
        former: &RoutingTable,
        section: &ReadGuard<'_, P::Srcu>,
    ) {
        let pins = |table: &RoutingTable| {
            let routes = table.routes(line.gsi).filter(|route| route.has_level());
            routes.filter_map(Route::pin).collect::<alloc::vec::Vec<_>>()
        };
        let now = pins(self.table(section));
        let lost = pins(former).into_iter().filter(|pin| !now.contains(pin));
        each(lost, |pin| self.controller.lower(pin, line.source));
    }

    fn listed_lines(&self) -> impl Iterator<Item = Arc<Driven<P>>> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let state = self.state.lock();
            let (index, listed) = state.lines.iter_from(from).next()?;
            from = index + 1;
            Some(Arc::clone(&listed.driven))
        })
    }
}

/// Lets the lines go that were dropped meanwhile, if no other table is being replaced.
struct Settled<'a, P: Platform, C: Controller>(&'a Shared<P, C>);

impl<P: Platform, C: Controller> Drop for Settled<'_, P, C> {
    fn drop(&mut self) {
        self.0.state.lock().rerouting -= 1;
        loop {
            let _removed = {
                let mut state = self.0.state.lock();
                let gone = state.lines.iter().find(|(_, listed)| listed.gone);
                match gone.map(|(index, _)| index) {
                    Some(index) if state.rerouting == 0 => state.lines.remove(index),
                    _ => return,
                }
            };
        }
    }
}
