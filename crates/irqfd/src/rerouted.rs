//! What a replacement of the routing table has changed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{Gsi, RoutingTable};

/// A routing table was replaced. Deliveries go by the new one, but hardware that posts by a route
/// of the former one (an irqfd's IRQ bypass) goes on to do so until it is told.
///
/// What controllers leave to be done for deliveries of the replacement, vCPUs to be kicked, is in
/// it, too.
///
/// Both tables are kept, so that nothing is compared or collected while somebody holds a lock.
#[derive(Clone, Debug)]
#[must_use = "what hardware posts by the former routes goes on until it is told; if there is no such hardware, drop it"]
pub struct Rerouted<O = ()> {
    former: Arc<RoutingTable>,
    now: Arc<RoutingTable>,
    owed: Vec<O>,
}

impl<O> Rerouted<O> {
    pub(crate) fn new(former: Arc<RoutingTable>, now: Arc<RoutingTable>, owed: Vec<O>) -> Self {
        Rerouted { former, now, owed }
    }

    /// Takes out what the controller has left to be done for events that have found a route again,
    /// and for levels that have moved.
    #[must_use = "vCPUs wait for it"]
    pub fn take_owed(&mut self) -> Vec<O> {
        core::mem::take(&mut self.owed)
    }

    /// Returns the GSIs whose routes were replaced by others, in ascending order: also those that
    /// have lost theirs, or have some at last.
    ///
    /// Another replacement may have followed by now, and says for itself what it has changed: look
    /// at the [table in force](crate::Irqfds::table), not at this one.
    pub fn gsis(&self) -> impl Iterator<Item = Gsi> {
        let gsis = self.former.gsis().max(self.now.gsis());
        (0..gsis).map(Gsi).filter(|gsi| !self.former.routes(*gsi).eq(self.now.routes(*gsi)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Msi, Pin, Route};

    const fn msi(gsi: u32, data: u32) -> (Gsi, Route) {
        (Gsi(gsi), Route::Msi(Msi::new(0xfee0_0000, data)))
    }

    fn changed(former: &[(Gsi, Route)], now: &[(Gsi, Route)]) -> Vec<u32> {
        let table = |routes| Arc::new(RoutingTable::new(routes).unwrap());
        Rerouted::new(table(former), table(now), Vec::<()>::new()).gsis().map(|gsi| gsi.0).collect()
    }

    #[test]
    fn a_gsi_that_goes_elsewhere_that_comes_and_that_goes_has_changed() {
        let former = [msi(1, 1), msi(2, 2), msi(3, 3), msi(9, 9)];
        assert_eq!(changed(&former, &[msi(1, 1), msi(3, 4), msi(4, 4), msi(9, 9)]), [2, 3, 4]);
        assert_eq!(changed(&former, &[]), [1, 2, 3, 9]);
        assert_eq!(changed(&[], &former), [1, 2, 3, 9]);
    }

    #[test]
    fn the_same_routes_in_another_order_are_no_change() {
        let (a, b) =
            ((Gsi(4), Route::Edge(Pin::new(0, 4))), (Gsi(4), Route::Level(Pin::new(1, 4))));
        assert!(changed(&[a, b, msi(5, 5)], &[msi(5, 5), b, a]).is_empty());
        assert_eq!(changed(&[a, b], &[b]), [4]);
        assert_eq!(changed(&[a], &[(Gsi(4), Route::Level(Pin::new(0, 4)))]), [4]);
    }
}
