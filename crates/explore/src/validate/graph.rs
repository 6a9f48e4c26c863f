//! The graph of lock orders, and how each class is used.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::witness::{Witness, Witnesses};

/// Steps that one enumeration of paths may take. Beyond, the graph is too tangled for anyone to
/// read the answers.
const PATIENCE: usize = 20_000;

/// In which contexts a class was taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// Taken in a handler that would have waited for it: it is irq-safe, or had better be.
    pub(super) in_handler: Witnesses,
    /// Held with interrupts on: it is irq-unsafe.
    pub(super) irqs_on: Witnesses,
}

/// Orders and usages with their witnesses.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    orders: BTreeMap<(Node, Node), Witnesses>,
    next: BTreeMap<Node, BTreeSet<Node>>,
    uses: BTreeMap<Node, Uses>,
}

impl Graph {
    /// Tells whether the order itself is new.
    pub(super) fn add_order(
        &mut self,
        from: Node,
        to: Node,
        witness: Witness,
        most: usize,
    ) -> bool {
        self.orders.entry((from, to)).or_default().add(witness, most);
        self.next.entry(from).or_default().insert(to)
    }

    /// Makes the class known, used or not.
    pub(super) fn uses(&mut self, node: Node) -> &mut Uses {
        self.uses.entry(node).or_default()
    }

    pub(super) fn merge(&mut self, other: Graph, most: usize) {
        for ((from, to), witnesses) in other.orders {
            self.orders.entry((from, to)).or_default().merge(witnesses, most);
            self.next.entry(from).or_default().insert(to);
        }
        for (node, uses) in other.uses {
            let mine = self.uses.entry(node).or_default();
            mine.in_handler.merge(uses.in_handler, most);
            mine.irqs_on.merge(uses.irqs_on, most);
        }
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = (Node, Node)> {
        self.orders.keys().copied()
    }

    pub(super) fn all_uses(&self) -> impl Iterator<Item = (Node, &Uses)> {
        self.uses.iter().map(|(node, uses)| (*node, uses))
    }

    pub(super) fn has_order(&self, from: Node, to: Node) -> bool {
        self.orders.contains_key(&(from, to))
    }

    /// Witnesses that `from` was held when `to` was awaited.
    pub(super) fn witnesses(&self, from: Node, to: Node) -> Option<&Witnesses> {
        self.orders.get(&(from, to))
    }

    pub(super) fn uses_of(&self, node: Node) -> Option<&Uses> {
        self.uses.get(&node)
    }

    pub(super) fn irq_safe(&self) -> Vec<Node> {
        self.all_uses()
            .filter(|(_, uses)| !uses.in_handler.list().is_empty())
            .map(|(node, _)| node)
            .collect()
    }

    pub(super) fn irq_unsafe(&self) -> BTreeSet<Node> {
        self.all_uses()
            .filter(|(_, uses)| !uses.irqs_on.list().is_empty())
            .map(|(node, _)| node)
            .collect()
    }

    /// Calls `found` with every path from `from` to one of `goals` that visits no node twice and
    /// has at least one order, until that returns `false`. Returns `false` if it stopped before the
    /// end.
    pub(super) fn paths(
        &self,
        from: Node,
        goals: &BTreeSet<Node>,
        found: &mut dyn FnMut(&[Node]) -> bool,
    ) -> bool {
        let mut walk = Walk { useful: self.leading_to(goals), goals, found, patience: PATIENCE };
        walk.go(self, &mut vec![from])
    }

    /// Everything from which one of `goals` can be reached.
    fn leading_to(&self, goals: &BTreeSet<Node>) -> BTreeSet<Node> {
        let mut useful = goals.clone();
        loop {
            let before = useful.len();
            for (from, to) in self.orders.keys() {
                if useful.contains(to) {
                    useful.insert(*from);
                }
            }
            if useful.len() == before {
                return useful;
            }
        }
    }
}

struct Walk<'a> {
    useful: BTreeSet<Node>,
    goals: &'a BTreeSet<Node>,
    found: &'a mut dyn FnMut(&[Node]) -> bool,
    patience: usize,
}

impl Walk<'_> {
    fn go(&mut self, graph: &Graph, path: &mut Vec<Node>) -> bool {
        let Some(next) = path.last().and_then(|last| graph.next.get(last)) else { return true };
        for &node in next {
            if path.contains(&node) || !self.useful.contains(&node) {
                continue;
            }
            if self.patience == 0 {
                return false;
            }
            self.patience -= 1;
            path.push(node);
            let finished =
                (!self.goals.contains(&node) || (self.found)(path)) && self.go(graph, path);
            path.pop();
            if !finished {
                return false;
            }
        }
        true
    }
}
