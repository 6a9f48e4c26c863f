//! What the validator has to say at the end.

use super::Validator;
use super::graph::Graph;
use super::node::Node;
use super::question::Question;
use super::reason::{Reason, always_one_context, reasons};
use super::rules::Violation;
use super::witness::Witness;

/// The search's answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The deadlock happens.
    Reachable {
        /// Replays the simplest run known in which it does.
        token: String,
    },
    /// The deadlock does not happen within the scope, which was gone through completely.
    Unreachable {
        /// Why. Several, if some combinations are impossible for one reason and some for another.
        reasons: Vec<Reason>,
    },
    /// The deadlock did not happen as far as the search has come.
    Unknown,
}

/// How a class is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Usage {
    /// The class.
    pub node: Node,
    /// Handlers take it (and would wait for it).
    pub in_handler: bool,
    /// The class is held with interrupts on.
    pub irqs_on: bool,
}

impl Validator {
    /// Returns the questions, in their order.
    ///
    /// One that goes a longer way round is left out while a single context makes all of the detour:
    /// the shorter one asks for the same deadlocks.
    pub fn questions(&self) -> Vec<&Question> {
        self.questions.list.iter().filter(|question| !is_detour(&self.graph, question)).collect()
    }

    /// Returns whether there are more questions than are kept.
    pub fn has_more_questions(&self) -> bool {
        self.questions.more
    }

    /// Returns the broken rules, each once.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter()
    }

    /// Returns the answer to `question`. `exhausted`: the search has gone through everything within
    /// its scope.
    pub fn answer(&self, question: &Question, exhausted: bool) -> Answer {
        let realised =
            self.deadlocks.iter().filter(|(members, _)| question.is_answered_by(members));
        let simplest = realised.map(|(_, token)| token).min_by_key(|token| (token.len(), *token));
        match simplest {
            Some(token) => Answer::Reachable { token: token.clone() },
            None if exhausted => {
                Answer::Unreachable { reasons: self.unreachable_reasons(question) }
            }
            None => Answer::Unknown,
        }
    }

    /// Returns why the deadlock that `question` asks for cannot happen, given that it cannot. Never
    /// empty.
    pub fn unreachable_reasons(&self, question: &Question) -> Vec<Reason> {
        reasons(&self.graph, question)
    }

    /// Returns all orders: the first was held when the second was awaited. The same class twice is
    /// a nesting.
    pub fn order_edges(&self) -> impl Iterator<Item = (Node, Node)> {
        self.graph.orders()
    }

    /// Returns the classes that were met, and how they are used.
    pub fn usages(&self) -> impl Iterator<Item = Usage> {
        self.graph.all_uses().map(|(node, uses)| Usage {
            node,
            in_handler: !uses.in_handler.list().is_empty(),
            irqs_on: !uses.irqs_on.list().is_empty(),
        })
    }

    /// Witnesses that `from` was held when `to` was awaited; the first few.
    pub fn witnesses(&self, from: Node, to: Node) -> &[Witness] {
        self.graph.witnesses(from, to).map_or(&[], |witnesses| witnesses.list())
    }

    /// Witnesses that handlers take `node`; the first few.
    pub fn taken_in_handler(&self, node: Node) -> &[Witness] {
        self.graph.uses_of(node).map_or(&[], |uses| uses.in_handler.list())
    }

    /// Witnesses that `node` is held with interrupts on; the first few.
    pub fn held_with_irqs_on(&self, node: Node) -> &[Witness] {
        self.graph.uses_of(node).map_or(&[], |uses| uses.irqs_on.list())
    }
}

fn is_detour(graph: &Graph, question: &Question) -> bool {
    let orders = question.orders();
    question.short_cuts(graph).into_iter().any(|(one, two)| {
        let of = |at: usize| graph.witnesses(orders[at].0, orders[at].1);
        matches!((of(one), of(two)), (Some(a), Some(b)) if always_one_context(a, b))
    })
}
