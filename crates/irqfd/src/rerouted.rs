//! What a replacement of the routing table has changed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{Gsi, RoutingTable};

/// What posts interrupts by the routes of a VM without its controller: whoever owns an IRQ bypass.
pub trait FollowRoutes {
    /// Has what is posted for a GSI go by the route that is in force by now, or through the host.
    /// When this returns, nothing is posted by a former one. For an owner of
    /// `doorbell_host::Bypass`, that is its `follow`, of the tokens of that GSI.
    ///
    /// # Context
    /// That of the call of [`Rerouted::follow`]; may sleep there.
    fn follow(&self, gsi: Gsi);
}

/// The answer of a host in which nothing is posted without the controller.
#[derive(Clone, Copy, Debug)]
pub struct NoBypass;

impl FollowRoutes for NoBypass {
    fn follow(&self, _: Gsi) {}
}

/// A routing table was replaced. Deliveries go by the new one, but hardware that posts by a route
/// of the former one (an irqfd's IRQ bypass) goes on to do so until it is
/// [told](Rerouted::follow).
///
/// What controllers leave to be done for deliveries of the replacement, vCPUs to be kicked, is what
/// that returns.
///
/// Both tables are kept, so that nothing is compared or collected while somebody holds a lock.
#[derive(Clone, Debug)]
#[must_use = "what hardware posts by the former routes goes on until it is told by `follow`, and vCPUs may wait for what is owed"]
pub struct Rerouted<O = ()> {
    former: Arc<RoutingTable>,
    now: Arc<RoutingTable>,
    owed: Vec<O>,
}

impl<O> Rerouted<O> {
    pub(crate) fn new(former: Arc<RoutingTable>, now: Arc<RoutingTable>, owed: Vec<O>) -> Self {
        Rerouted { former, now, owed }
    }

    /// Has a bypass [follow](Rerouted::follow) each route that was replaced. Returns what the
    /// controller has left to be done for events that have found a route again, and for levels that
    /// have moved.
    ///
    /// # Context
    /// Any task, with no lock held; sleeps if the bypass does.
    #[must_use = "vCPUs wait for it"]
    pub fn follow_owing(self, bypass: &impl FollowRoutes) -> Vec<O> {
        self.gsis().for_each(|gsi| bypass.follow(gsi));
        self.owed
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

impl Rerouted {
    /// Has a bypass follow each route that was replaced. When this returns, nothing is posted by
    /// one of the former table.
    ///
    /// # Context
    /// Any task, with no lock held; sleeps if the bypass does.
    pub fn follow(self, bypass: &impl FollowRoutes) {
        self.follow_owing(bypass).clear();
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
    fn a_bypass_follows_what_has_changed_and_nothing_else_and_what_is_owed_comes_back() {
        struct Followed(core::cell::RefCell<Vec<Gsi>>);
        impl FollowRoutes for Followed {
            fn follow(&self, gsi: Gsi) {
                self.0.borrow_mut().push(gsi);
            }
        }
        let table = |routes| Arc::new(RoutingTable::new(routes).unwrap());
        let followed = Followed(Vec::new().into());
        let (former, now) = (table(&[msi(1, 1), msi(2, 2)]), table(&[msi(1, 1), msi(2, 3)]));
        let rerouted = Rerouted::new(former, now, [4, 5].to_vec());
        assert_eq!(rerouted.follow_owing(&followed), [4, 5]);
        assert_eq!(followed.0.into_inner(), [Gsi(2)]);
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
