//! The routing table: what each GSI means. Built by the host, immutable, replaced as a whole.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Controller, Error, Gsi, Msi, Pin};

/// One meaning of a GSI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Route {
    /// An edge on a pin. An event is latched, whatever trigger mode the guest has given the pin.
    Edge(Pin),
    /// The level of a pin, for resampling irqfds and levels that the host sets. A plain irqfd is
    /// refused.
    Level(Pin),
    /// A pin in the trigger mode that the guest has given it, which the controller knows when it
    /// is delivered: what a route to an irqchip is to KVM. When the guest writes its redirection
    /// entry, nothing has to be rerouted.
    ///
    /// A plain irqfd gives a [pulse](Controller::pulse), a resampling one raises a level, and
    /// [`Irqfds::set_irq`](crate::Irqfds::set_irq) hands on the level as it is, so that one that
    /// is high already is no second edge.
    Pin(Pin),
    /// A message.
    Msi(Msi),
}

impl Route {
    pub(crate) fn pin(&self) -> Option<Pin> {
        match *self {
            Route::Edge(pin) | Route::Level(pin) | Route::Pin(pin) => Some(pin),
            Route::Msi(_) => None,
        }
    }

    /// Whether a resampling irqfd can hold it up.
    pub(crate) fn has_level(&self) -> bool {
        matches!(self, Route::Level(_) | Route::Pin(_))
    }
}

/// What each GSI of a VM means.
///
/// A GSI has either one MSI route or any number of pins (a PC's GSI 4 is an input of the 8259 and
/// one of the IOAPIC). Several GSIs may share a pin.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    /// All routes, sorted: tables of the same routes are equal in this.
    routes: Vec<(Gsi, Route)>,
    /// Where the routes of each GSI begin; one element more than GSIs.
    first: Vec<u32>,
    /// The group of each GSI that has pins, and of each pin.
    group_of_gsi: Vec<u32>,
    group_of_pin: Vec<(Pin, u32)>,
    groups: Vec<Group>,
}

/// GSIs that share pins, directly or through others.
///
/// All resampling irqfds share one source id, so one level bit per pin. Whoever lowers a pin
/// therefore lowers it for all GSIs that drive it, and owes a resample to all of them: the group is
/// what is lowered and notified together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) gsis: Vec<Gsi>,
    /// Pins that can be held up; those that only take edges need no lowering.
    pub(crate) level_pins: Vec<Pin>,
}

const NO_GROUP: u32 = u32::MAX;

impl RoutingTable {
    /// The longest table, and the number of GSIs, that any VM may have.
    pub const MAX: usize = 4096;

    /// Creates a table without routes.
    pub fn empty() -> Self {
        RoutingTable {
            routes: Vec::new(),
            first: vec![0],
            group_of_gsi: Vec::new(),
            group_of_pin: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Creates a table of these routes.
    ///
    /// # Errors
    /// [`TooManyRoutes`](Error::TooManyRoutes), [`GsiOutOfRange`](Error::GsiOutOfRange) at
    /// [`MAX`](Self::MAX), [`MixedRoutes`](Error::MixedRoutes),
    /// [`DuplicateRoute`](Error::DuplicateRoute).
    pub fn new(routes: &[(Gsi, Route)]) -> Result<Self, Error> {
        if routes.len() > Self::MAX {
            return Err(Error::TooManyRoutes(Self::MAX));
        }
        if let Some(&(gsi, _)) = routes.iter().find(|(gsi, _)| gsi.0 as usize >= Self::MAX) {
            return Err(Error::GsiOutOfRange(gsi));
        }
        let mut routes = routes.to_vec();
        routes.sort_unstable();
        for same in routes.chunk_by(|a, b| a.0 == b.0) {
            let gsi = same[0].0;
            let mut pins: Vec<Pin> = same.iter().filter_map(|(_, route)| route.pin()).collect();
            if same.len() > 1 && pins.len() < same.len() {
                return Err(Error::MixedRoutes(gsi));
            }
            pins.sort_unstable();
            if pins.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Error::DuplicateRoute(gsi));
            }
        }
        let gsis = routes.last().map_or(0, |(gsi, _)| gsi.0 as usize + 1);
        let first = (0..=gsis)
            .map(|gsi| routes.partition_point(|(of, _)| (of.0 as usize) < gsi) as u32)
            .collect();
        let mut table = RoutingTable {
            routes,
            first,
            group_of_gsi: vec![NO_GROUP; gsis],
            group_of_pin: Vec::new(),
            groups: Vec::new(),
        };
        table.group();
        Ok(table)
    }

    /// Returns the routes of a GSI.
    #[inline]
    pub fn routes(&self, gsi: Gsi) -> impl Iterator<Item = &Route> {
        let gsi = gsi.0 as usize;
        let range = match self.first.get(gsi..).and_then(|first| first.get(..2)) {
            Some(first) => first[0] as usize..first[1] as usize,
            None => 0..0,
        };
        self.routes.get(range).unwrap_or_default().iter().map(|(_, route)| route)
    }

    /// Returns all routes, in ascending order of their GSIs.
    pub fn iter(&self) -> impl Iterator<Item = (Gsi, Route)> {
        self.routes.iter().copied()
    }

    /// Returns how many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Returns whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// All GSIs that have routes are below this.
    pub(crate) fn gsis(&self) -> u32 {
        self.group_of_gsi.len() as u32
    }

    /// Says whether a VM with such a controller and limits can have this table.
    pub(crate) fn check<C: Controller>(
        &self,
        controller: &C,
        gsis: u32,
        routes: usize,
    ) -> Result<(), Error> {
        if self.routes.len() > routes {
            return Err(Error::TooManyRoutes(routes));
        }
        for (gsi, route) in &self.routes {
            if gsi.0 >= gsis {
                return Err(Error::GsiOutOfRange(*gsi));
            }
            if let Some(pin) = route.pin()
                && pin.number >= controller.pins(pin.chip)
            {
                return Err(Error::PinOutOfRange(pin));
            }
        }
        Ok(())
    }

    pub(crate) fn group_of_gsi(&self, gsi: Gsi) -> Option<&Group> {
        let group = *self.group_of_gsi.get(gsi.0 as usize)?;
        self.groups.get(group as usize)
    }

    pub(crate) fn group_of_pin(&self, pin: Pin) -> Option<&Group> {
        let at = self.group_of_pin.binary_search_by_key(&pin, |(pin, _)| *pin).ok()?;
        self.groups.get(self.group_of_pin[at].1 as usize)
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Finds the groups: joins the GSIs of each pin, smaller root first, then numbers the roots.
    fn group(&mut self) {
        let mut by_pin: Vec<(Pin, Gsi, bool)> = self
            .routes
            .iter()
            .filter_map(|(gsi, route)| Some((route.pin()?, *gsi, route.has_level())))
            .collect();
        by_pin.sort_unstable();

        let mut parent: Vec<u32> = (0..self.group_of_gsi.len() as u32).collect();
        for pair in by_pin.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let (a, b) = (root(&mut parent, pair[0].1.0), root(&mut parent, pair[1].1.0));
            parent[a.max(b) as usize] = a.min(b);
        }
        for &(pin, gsi, level) in &by_pin {
            let root = root(&mut parent, gsi.0) as usize;
            if self.group_of_gsi[root] == NO_GROUP {
                self.group_of_gsi[root] = self.groups.len() as u32;
                self.groups.push(Group::default());
            }
            let index = self.group_of_gsi[root];
            self.group_of_gsi[gsi.0 as usize] = index;
            let group = &mut self.groups[index as usize];
            group.gsis.push(gsi);
            if level && group.level_pins.last() != Some(&pin) {
                group.level_pins.push(pin);
            }
            if self.group_of_pin.last().is_none_or(|(last, _)| *last != pin) {
                self.group_of_pin.push((pin, index));
            }
        }
        for group in &mut self.groups {
            group.gsis.sort_unstable();
            group.gsis.dedup();
        }
    }
}

fn root(parent: &mut [u32], mut of: u32) -> u32 {
    while parent[of as usize] != of {
        let above = parent[of as usize];
        parent[of as usize] = parent[above as usize];
        of = above;
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    const IOAPIC: u16 = 1;
    const fn level(gsi: u32, pin: u32) -> (Gsi, Route) {
        (Gsi(gsi), Route::Level(Pin::new(IOAPIC, pin)))
    }

    #[test]
    fn a_gsi_finds_its_routes_and_no_others() {
        let msi = Route::Msi(Msi::new(0xfee0_0000, 0x41));
        let table = RoutingTable::new(&[level(5, 5), (Gsi(24), msi), level(2, 3)]).unwrap();
        assert_eq!(table.routes(Gsi(24)).collect::<Vec<_>>(), [&msi]);
        assert_eq!(table.routes(Gsi(2)).collect::<Vec<_>>(), [&level(2, 3).1]);
        for gsi in [0, 3, 23, 25, 4095, u32::MAX] {
            assert_eq!(table.routes(Gsi(gsi)).count(), 0, "GSI {gsi}");
        }
        assert_eq!(RoutingTable::empty().routes(Gsi(0)).count(), 0);
    }

    #[test]
    fn gsis_that_share_pins_through_others_are_one_group() {
        let table = RoutingTable::new(&[
            level(1, 10),
            level(2, 10),
            level(2, 11),
            level(9, 11),
            level(4, 4),
        ])
        .unwrap();
        let group = table.group_of_gsi(Gsi(9)).unwrap();
        assert_eq!(group.gsis, [Gsi(1), Gsi(2), Gsi(9)]);
        assert_eq!(group.level_pins, [Pin::new(IOAPIC, 10), Pin::new(IOAPIC, 11)]);
        assert_eq!(table.group_of_pin(Pin::new(IOAPIC, 10)), Some(group));
        assert_eq!(table.group_of_pin(Pin::new(IOAPIC, 4)).unwrap().gsis, [Gsi(4)]);
        assert_eq!(table.group_of_pin(Pin::new(IOAPIC, 5)), None);
    }

    #[test]
    fn an_edge_pin_is_in_a_group_but_is_not_lowered() {
        let pin = Pin::new(0, 4);
        let table = RoutingTable::new(&[(Gsi(4), Route::Edge(pin)), level(4, 4)]).unwrap();
        let group = table.group_of_pin(pin).unwrap();
        assert_eq!(
            (&group.gsis[..], &group.level_pins[..]),
            (&[Gsi(4)][..], &[Pin::new(IOAPIC, 4)][..])
        );
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused_with_the_reason() {
        let msi = (Gsi(7), Route::Msi(Msi::new(0xfee0_0000, 1)));
        assert_eq!(RoutingTable::new(&[level(7, 1), msi]).unwrap_err(), Error::MixedRoutes(Gsi(7)));
        assert_eq!(RoutingTable::new(&[msi, msi]).unwrap_err(), Error::MixedRoutes(Gsi(7)));
        assert_eq!(
            RoutingTable::new(&[level(7, 1), level(7, 1)]).unwrap_err(),
            Error::DuplicateRoute(Gsi(7))
        );
        let both = [level(7, 1), (Gsi(7), Route::Edge(Pin::new(IOAPIC, 1)))];
        assert_eq!(RoutingTable::new(&both).unwrap_err(), Error::DuplicateRoute(Gsi(7)));
        assert_eq!(
            RoutingTable::new(&[level(4096, 1)]).unwrap_err(),
            Error::GsiOutOfRange(Gsi(4096))
        );
        let long: Vec<_> = (0..4097).map(|n| level(n % 64, n)).collect();
        assert_eq!(RoutingTable::new(&long).unwrap_err(), Error::TooManyRoutes(4096));
        assert_eq!(RoutingTable::new(&long[..4096]).unwrap().len(), 4096);
    }
}
