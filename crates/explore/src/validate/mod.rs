//! The lock validator: what kernel lockdep keeps, with the search to ask where lockdep can only say
//! "possible".
//!
//! It is told every acquisition in every execution that is explored ([`Validator::acquire`]) and
//! never forgets one. From them it keeps the orders between lock classes (with their subclasses)
//! and how each class is used in and out of handlers. What is wrong whatever else runs is a
//! [`Violation`], returned at once. What could be a deadlock is a [`Question`]; the deadlocks that
//! the search then finds ([`Validator::deadlock_seen`]) answer it with yes, and its end without one
//! with no and a [`Reason`] ([`Validator::answer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;

use doorbell_platform::LockClass;

mod answer;
mod feed;
mod graph;
mod node;
mod question;
mod reason;
mod report;
mod rules;
mod seen;
mod stuck;
mod witness;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Usage};
pub use feed::{AcquireEvent, CtxKind, Held};
pub use node::Node;
pub use question::Question;
pub use reason::{Reason, ReasonKind};
pub use rules::{Rules, Violation, ViolationKind};
pub use stuck::{Stuck, Waiting};
pub use witness::{Site, Witness};

use crate::ids::{CtxId, ObjId};
use graph::Graph;
use question::Questions;
use seen::{Seen, fingerprint};
use stuck::Member;

/// Different deadlocks that are kept.
const MOST_DEADLOCKS: usize = 1024;

/// Everything that is known about the locks of a program after some of its executions.
///
/// Whatever it lists has an order that depends on neither the order of the executions nor the
/// number of threads that explored them.
#[derive(Clone, Debug)]
pub struct Validator {
    seen: Seen,
    rules: Rules,
    graph: Graph,
    questions: Questions,
    violations: BTreeSet<Violation>,
    /// Deadlocks that were found, with the token of the simplest run that shows each.
    deadlocks: BTreeMap<Vec<Member>, String>,
}

impl Validator {
    /// Creates a validator that knows nothing yet.
    pub fn new(rules: Rules) -> Self {
        Validator {
            seen: Seen::new(),
            rules: Rules { witnesses: rules.witnesses.max(1), ..rules },
            graph: Graph::default(),
            questions: Questions::default(),
            violations: BTreeSet::new(),
            deadlocks: BTreeMap::new(),
        }
    }

    /// Hears that a lock is taken. Returns the gravest of the rules that this breaks, each time
    /// that it does.
    #[inline]
    pub fn acquire(&mut self, event: &AcquireEvent<'_>) -> Option<Box<Violation>> {
        let print = fingerprint(event);
        if self.seen.contains(print) {
            return None;
        }
        self.acquire_unseen(event, print)
    }

    #[cold]
    #[inline(never)]
    fn acquire_unseen(&mut self, event: &AcquireEvent<'_>, print: u64) -> Option<Box<Violation>> {
        let broken = self.learn(event);
        if broken.is_none() {
            // One that breaks a rule stays unseen, so that it is reported in the next execution
            // too.
            self.seen.insert(print);
        }
        broken
    }

    /// Asserts that `ctx`, which holds `held`, holds a lock of `class`, `lock` itself if that is
    /// given.
    #[track_caller]
    pub fn assert_held(
        &mut self,
        ctx: CtxId,
        held: &[Held],
        lock: Option<ObjId>,
        class: &'static LockClass,
    ) -> Option<Box<Violation>> {
        self.assert_held_at(ctx, held, lock, class, Location::caller())
    }

    /// Asserts as [`assert_held`](Validator::assert_held) does, for an assertion that stands
    /// elsewhere than the caller.
    pub fn assert_held_at(
        &mut self,
        ctx: CtxId,
        held: &[Held],
        lock: Option<ObjId>,
        class: &'static LockClass,
        site: Site,
    ) -> Option<Box<Violation>> {
        let violation = rules::check_held(ctx, held, lock, class, site)?;
        self.violations.insert(violation.clone());
        Some(Box::new(violation))
    }

    /// Hears that the search ended an execution in a deadlock of `members`, which `token` replays.
    pub fn deadlock_seen(&mut self, members: &[Stuck<'_>], token: &str) {
        let mut members: Vec<_> = members.iter().map(Member::of).collect();
        members.sort_unstable();
        self.keep_deadlock(members, token.to_owned());
    }

    /// Takes over what `other` knows, as if this one had been fed the same. Both must have the same
    /// rules.
    pub fn merge(&mut self, other: Validator) {
        self.graph.merge(other.graph, self.rules.witnesses);
        self.violations.extend(other.violations);
        for (members, token) in other.deadlocks {
            self.keep_deadlock(members, token);
        }
        self.questions.more |= other.questions.more;
        // Cycles may have one order from each.
        for (from, to) in self.graph.orders() {
            self.questions.of_order(&self.graph, from, to, self.rules.questions);
        }
        self.questions.of_uses(&self.graph, self.rules.questions);
    }

    fn keep_deadlock(&mut self, members: Vec<Member>, token: String) {
        if let Some(known) = self.deadlocks.get_mut(&members) {
            if (token.len(), &token) < (known.len(), known) {
                *known = token;
            }
        } else if self.deadlocks.len() < MOST_DEADLOCKS {
            self.deadlocks.insert(members, token);
        }
    }

    /// The slow path. Feeding an event again changes nothing.
    fn learn(&mut self, event: &AcquireEvent<'_>) -> Option<Box<Violation>> {
        let most = self.rules.witnesses;
        let taken = Node::of_held(&event.taken);
        let mut new_use = false;
        for lock in event.held.iter().chain([&event.taken]) {
            let uses = self.graph.uses(Node::of_held(lock));
            // With interrupts on now, everything that is held is held so. Of locks that were taken
            // so it is known already.
            let now = std::ptr::eq(lock, &event.taken);
            if event.taken.irqs_on && (now || !lock.irqs_on) {
                new_use |= uses.irqs_on.list().is_empty();
                uses.irqs_on.add(Witness::of_irqs_on(event, lock), most);
            }
        }
        // A try-lock waits for nobody: it makes nothing irq-safe, and no order leads to it.
        if event.kind == CtxKind::Handler && !event.taken.tried {
            let uses = self.graph.uses(taken);
            new_use |= uses.in_handler.list().is_empty();
            uses.in_handler.add(Witness::of_use(event), most);
        }
        let mut new_orders = Vec::new();
        if !event.taken.tried {
            let serialised =
                event.under.is_some_and(|under| event.held.iter().any(|h| h.class == under));
            for held in event.held {
                let itself = held.lock.is_some() && held.lock == event.taken.lock;
                if itself || (serialised && held.class == taken.class) {
                    continue;
                }
                let from = Node::of_held(held);
                if self.graph.add_order(from, taken, Witness::of_order(event, held), most) {
                    new_orders.push(from);
                }
            }
        }
        for from in &new_orders {
            self.questions.of_order(&self.graph, *from, taken, self.rules.questions);
        }
        if new_use || !new_orders.is_empty() {
            self.questions.of_uses(&self.graph, self.rules.questions);
        }
        let broken = rules::check(&self.rules, event);
        self.violations.extend(broken.iter().cloned());
        broken.into_iter().next().map(Box::new)
    }
}
