//! The context that did something, where, and under which circumstances: what tells a possible
//! deadlock from an impossible one.

use std::cmp::Ordering;
use std::panic::Location;

use doorbell_platform::{CpuId, WaitType};

use super::feed::{AcquireEvent, CtxKind, Held};
use super::node::Node;
use crate::ids::{CtxId, CtxSet, ObjId};

/// A place in the source.
pub type Site = &'static Location<'static>;

/// The circumstances of an acquisition. Of an order it tells how the second lock was awaited with
/// the first one held, of a usage how the lock was taken.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The context that took the lock.
    pub ctx: CtxId,
    /// What kind of context that is.
    pub kind: CtxKind,
    /// The CPU it ran on.
    pub cpu: Option<CpuId>,
    /// The lock that was held, and where it was taken; `None` for a usage. An annotation stands for
    /// the lock of its class that the context holds too, if there is one.
    pub held: Option<(Option<ObjId>, Site)>,
    /// The lock that was taken, likewise.
    pub taken: Option<ObjId>,
    /// Where it was taken.
    pub site: Site,
    /// All locks held at that moment, in the order of their ids, with the names of their classes.
    /// The lock of a usage with interrupts on is among them.
    pub gates: Vec<(ObjId, &'static str)>,
    /// Whether interrupts were on.
    pub irqs_on: bool,
    /// Whether the context keeps its CPU while it waits (or, for a usage with interrupts on, while
    /// it holds the lock).
    pub pinned: bool,
    /// The contexts that had ended before it began. Where the same thing was seen with several such
    /// sets, what they have in common.
    pub after: CtxSet,
}

impl Witness {
    /// `held` was held when the event's lock was taken.
    pub(super) fn of_order(event: &AcquireEvent<'_>, held: &Held) -> Self {
        let pinned = Node::of_held(&event.taken).spins() && keeps_cpu(event);
        Witness {
            held: Some((object(held, event.held), held.site)),
            pinned,
            ..Witness::of_use(event)
        }
    }

    /// The event's lock was taken.
    pub(super) fn of_use(event: &AcquireEvent<'_>) -> Self {
        let mut gates: Vec<_> =
            event.held.iter().filter_map(|h| Some((h.lock?, h.class.name()))).collect();
        gates.sort_unstable();
        Witness {
            ctx: event.ctx,
            kind: event.kind,
            cpu: event.cpu,
            held: None,
            taken: object(&event.taken, event.held),
            site: event.taken.site,
            gates,
            irqs_on: event.taken.irqs_on,
            pinned: keeps_cpu(event),
            after: event.after,
        }
    }

    /// `lock`, which is the event's or one that is held already, is held with interrupts on from
    /// now on.
    pub(super) fn of_irqs_on(event: &AcquireEvent<'_>, lock: &Held) -> Self {
        let mut witness =
            Witness { taken: object(lock, event.held), site: lock.site, ..Witness::of_use(event) };
        witness.pinned |= Node::of_held(lock).spins();
        if let Some(id) = lock.lock
            && let Err(at) = witness.gates.binary_search_by_key(&id, |gate| gate.0)
        {
            witness.gates.insert(at, (id, lock.class.name()));
        }
        witness
    }

    /// Everything but `after`, which is merged.
    fn same_as(&self, other: &Self) -> Ordering {
        let key =
            |w: &Self| (w.ctx, w.kind as u8, w.cpu, w.held, w.taken, w.site, w.irqs_on, w.pinned);
        key(self).cmp(&key(other)).then_with(|| self.gates.cmp(&other.gates))
    }
}

fn keeps_cpu(event: &AcquireEvent<'_>) -> bool {
    event.kind == CtxKind::Handler
        || event.atomic
        || event.held.iter().any(|h| h.class.wait_type() == WaitType::Spin)
}

/// The lock itself, or the one that an annotation speaks of: the newest of its class that the
/// context holds.
fn object(lock: &Held, held: &[Held]) -> Option<ObjId> {
    lock.lock.or_else(|| held.iter().rev().filter(|h| h.class == lock.class).find_map(|h| h.lock))
}

/// The first few witnesses of an order or a usage, in their own order, so that neither the order of
/// the executions nor the number of threads makes a difference.
#[derive(Clone, Debug, Default)]
pub(super) struct Witnesses {
    list: Vec<Witness>,
    more: bool,
}

impl Witnesses {
    pub(super) fn add(&mut self, witness: Witness, most: usize) {
        match self.list.binary_search_by(|w| w.same_as(&witness)) {
            Ok(at) => self.list[at].after.0 &= witness.after.0,
            Err(at) => self.list.insert(at, witness),
        }
        if self.list.len() > most {
            self.list.truncate(most);
            self.more = true;
        }
    }

    pub(super) fn merge(&mut self, other: Witnesses, most: usize) {
        self.more |= other.more;
        for witness in other.list {
            self.add(witness, most);
        }
    }

    pub(super) fn list(&self) -> &[Witness] {
        &self.list
    }

    /// Whether some were left out, so that nothing can be concluded from all of them.
    pub(super) fn incomplete(&self) -> bool {
        self.more
    }
}
