//! What lockdep would report as possible, put as a question to the search.

use std::collections::BTreeSet;
use std::fmt;

use super::graph::Graph;
use super::node::Node;

/// A deadlock that the rules cannot exclude. Equal questions have equal nodes in equal order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Question {
    /// Lock-order inversion: each was held when the next was awaited, and the last when the first
    /// was. The smallest node comes first.
    Inversion(Vec<Node>),
    /// Interrupt inversion: the first is irq-safe (a handler takes it), each was held when the next
    /// was awaited, and the last is irq-unsafe (held with interrupts on). A handler that interrupts
    /// the holder of the last closes the cycle.
    IrqInversion(Vec<Node>),
    /// A handler takes it, and it is held with interrupts on.
    IrqUsage(Node),
    /// Taken while another lock of the same class and subclass was held, and nothing declares an
    /// order between the two.
    Nesting(Node),
}

impl Question {
    /// Returns the classes, in the order in which each was held when the next was awaited.
    pub fn nodes(&self) -> &[Node] {
        match self {
            Question::Inversion(nodes) | Question::IrqInversion(nodes) => nodes,
            Question::IrqUsage(node) | Question::Nesting(node) => std::slice::from_ref(node),
        }
    }

    /// Returns the orders that the question is made of.
    pub fn orders(&self) -> Vec<(Node, Node)> {
        let nodes = self.nodes();
        let along = nodes.windows(2).map(|pair| (pair[0], pair[1]));
        match self {
            Question::IrqInversion(_) | Question::IrqUsage(_) => along.collect(),
            Question::Inversion(_) | Question::Nesting(_) => {
                along.chain([(nodes[nodes.len() - 1], nodes[0])]).collect()
            }
        }
    }

    /// Names the question in lockdep's words.
    pub fn title(&self) -> &'static str {
        match self {
            Question::Inversion(_) => "possible circular locking dependency",
            Question::IrqInversion(_) => "irq-safe to irq-unsafe lock order",
            Question::IrqUsage(_) => "inconsistent lock state (irq-safe and irq-unsafe)",
            Question::Nesting(_) => "possible recursive locking",
        }
    }

    pub(super) fn cycle(mut nodes: Vec<Node>) -> Self {
        let first = (0..nodes.len()).min_by_key(|at| nodes[*at]).unwrap_or(0);
        nodes.rotate_left(first);
        Question::Inversion(nodes)
    }

    /// Whether two neighbouring orders of it have a short cut: then a shorter question asks for the
    /// same, unless different contexts make the two.
    pub(super) fn short_cuts(&self, graph: &Graph) -> Vec<(usize, usize)> {
        let orders = self.orders();
        let closed = matches!(self, Question::Inversion(_));
        if orders.len() < 2 || (closed && orders.len() < 3) {
            return Vec::new();
        }
        let pairs = if closed { orders.len() } else { orders.len() - 1 };
        (0..pairs)
            .map(|at| (at, (at + 1) % orders.len()))
            .filter(|(one, two)| graph.has_order(orders[*one].0, orders[*two].1))
            .collect()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.title())?;
        match self {
            Question::IrqUsage(node) => write!(f, "{node}"),
            Question::IrqInversion(nodes) => write!(f, "{}", Arrows(nodes)),
            Question::Inversion(nodes) => write!(f, "{} → {}", Arrows(nodes), nodes[0]),
            Question::Nesting(node) => write!(f, "{node} → {node}"),
        }
    }
}

struct Arrows<'a>(&'a [Node]);

impl fmt::Display for Arrows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.0.iter().enumerate() {
            write!(f, "{}{node}", if at > 0 { " → " } else { "" })?;
        }
        Ok(())
    }
}

/// The questions so far, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions {
    pub(super) list: BTreeSet<Question>,
    /// There are more than were listed.
    pub(super) more: bool,
}

impl Questions {
    /// What the order, which is new, gives rise to.
    pub(super) fn of_order(&mut self, graph: &Graph, from: Node, to: Node, most: usize) {
        if from == to {
            self.ask(Question::Nesting(from), most);
            return;
        }
        let mut cycles = Vec::new();
        self.more |= !graph.paths(to, &BTreeSet::from([from]), &mut |path| {
            cycles.push(Question::cycle(path.to_vec()));
            cycles.len() <= most
        });
        for cycle in cycles {
            self.ask(cycle, most);
        }
    }

    /// What usages give rise to, after one is new or the orders have changed.
    pub(super) fn of_uses(&mut self, graph: &Graph, most: usize) {
        let irq_unsafe = graph.irq_unsafe();
        for irq_safe in graph.irq_safe() {
            if irq_unsafe.contains(&irq_safe) {
                self.ask(Question::IrqUsage(irq_safe), most);
            }
            let mut paths = Vec::new();
            self.more |= !graph.paths(irq_safe, &irq_unsafe, &mut |path| {
                paths.push(Question::IrqInversion(path.to_vec()));
                paths.len() <= most
            });
            for path in paths {
                self.ask(path, most);
            }
        }
    }

    /// Keeps `most` questions; with more, which ones are kept may depend on the order of asking.
    pub(super) fn ask(&mut self, question: Question, most: usize) {
        self.list.insert(question);
        if self.list.len() > most {
            self.list.pop_last();
            self.more = true;
        }
    }
}
