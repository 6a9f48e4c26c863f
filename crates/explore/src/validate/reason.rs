//! Why a deadlock that the class graph allows cannot happen.
//!
//! That it cannot is for the search to say, after it has gone through all schedules. What follows
//! only explains it: every combination of witnesses that would make up the deadlock is taken, and
//! each must be excluded by some rule.

use std::collections::BTreeSet;
use std::fmt;

use doorbell_platform::CpuId;

use super::feed::CtxKind;
use super::graph::Graph;
use super::node::Node;
use super::question::Question;
use super::witness::{Witness, Witnesses};
use crate::ids::CtxId;

/// Steps that one look at all combinations may take.
const PATIENCE: usize = 200_000;

/// Lengths up to which rings of locks of one class are looked at.
const LONGEST_RING: usize = 4;

/// Why it cannot happen. Several may be needed, each for some of the combinations.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// One context would have to wait at two places at once.
    SameContext {
        /// The contexts.
        ctx: Vec<CtxId>,
    },
    /// One context has ended before the other begins.
    Ordered {
        /// The earlier and the later, in each case.
        pairs: Vec<(CtxId, CtxId)>,
    },
    /// What one waits for is of the class, but not the lock, that the next one holds.
    DifferentInstances,
    /// Both hold the same lock when they wait, so only one of them can have come so far.
    GateLock {
        /// The names of these locks' classes.
        classes: Vec<&'static str>,
    },
    /// On the CPU of the handler, nobody holds the lock with interrupts on.
    IrqsOff {
        /// The handler's CPU.
        cpu: Vec<CpuId>,
        /// The lock that would have to be held by whom it interrupts.
        node: Node,
    },
    /// Both would have to be at their place on one CPU, and neither lets the other run there.
    ExclusiveOnCpu {
        /// The CPUs.
        cpu: Vec<CpuId>,
    },
    /// No simple rule covers it: no schedule within the scope makes them wait for each other.
    Search,
}

/// The rule that a [`Reason`] goes by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReasonKind {
    /// [`Reason::SameContext`].
    SameContext,
    /// [`Reason::Ordered`].
    Ordered,
    /// [`Reason::DifferentInstances`].
    DifferentInstances,
    /// [`Reason::GateLock`].
    GateLock,
    /// [`Reason::IrqsOff`].
    IrqsOff,
    /// [`Reason::ExclusiveOnCpu`].
    ExclusiveOnCpu,
    /// [`Reason::Search`].
    Search,
}

impl fmt::Display for ReasonKind {
    /// In a few words: `exclusive on one CPU`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReasonKind::SameContext => "one context",
            ReasonKind::Ordered => "one after the other",
            ReasonKind::DifferentInstances => "different instances",
            ReasonKind::GateLock => "under one lock",
            ReasonKind::IrqsOff => "interrupts off",
            ReasonKind::ExclusiveOnCpu => "exclusive on one CPU",
            ReasonKind::Search => "no schedule",
        })
    }
}

impl Reason {
    /// Returns the rule that the reason goes by.
    pub fn kind(&self) -> ReasonKind {
        match self {
            Reason::SameContext { .. } => ReasonKind::SameContext,
            Reason::Ordered { .. } => ReasonKind::Ordered,
            Reason::DifferentInstances => ReasonKind::DifferentInstances,
            Reason::GateLock { .. } => ReasonKind::GateLock,
            Reason::IrqsOff { .. } => ReasonKind::IrqsOff,
            Reason::ExclusiveOnCpu { .. } => ReasonKind::ExclusiveOnCpu,
            Reason::Search => ReasonKind::Search,
        }
    }

    /// Says the reason in a plain sentence; `name` names contexts.
    pub fn sentence(&self, name: &dyn Fn(CtxId) -> String) -> String {
        match self {
            Reason::SameContext { ctx } => match ctx.as_slice() {
                [one] => format!("Only {} does both, one after the other.", name(*one)),
                many => {
                    format!("One of {} would have to wait in two places at once.", list(many.iter().map(|c| name(*c))))
                }
            },
            Reason::Ordered { pairs } => {
                let each = pairs.iter().map(|(a, b)| format!("{} has ended before {} gets there", name(*a), name(*b)));
                format!("They never overlap: {}.", list(each))
            }
            Reason::DifferentInstances => {
                "The classes coincide, but the lock that one waits for is never the one that the next holds.".into()
            }
            Reason::GateLock { classes } => {
                let each = list(classes.iter().map(|c| c.to_string()));
                format!("Both sides run under the same {each}, so only one of them gets that far.")
            }
            Reason::IrqsOff { cpu, node } => {
                let each = list(cpu.iter().map(|c| c.to_string()));
                format!("The handler runs on {each}, where {node} is never held with interrupts on.")
            }
            Reason::ExclusiveOnCpu { cpu } => {
                let each = list(cpu.iter().map(|c| c.to_string()));
                format!("Both would have to be on {each} at once, where one keeps the other out until it is through.")
            }
            Reason::Search => "No schedule in the scope makes them wait for each other.".into(),
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// The reasons, in the order of [`Reason`]: one if one covers all combinations, else no more than
/// are needed.
pub(super) fn reasons(graph: &Graph, question: &Question) -> Vec<Reason> {
    let Some(lines) = lines(graph, question) else { return vec![Reason::Search] };
    let excluded = |rules: &[Rule]| {
        let mut notes = Notes::default();
        let done = lines.iter().all(|line| line.is_excluded(rules, &mut notes));
        done.then_some((rules.to_vec(), notes))
    };
    let alone = ALL.iter().find_map(|rule| excluded(&[*rule]));
    let found = alone.or_else(|| {
        let (mut needed, mut notes) = excluded(&ALL)?;
        // The last ones are the least telling: try to do without them first.
        for rule in ALL.iter().rev() {
            let fewer: Vec<_> = needed.iter().copied().filter(|r| r != rule).collect();
            if let Some(better) = excluded(&fewer) {
                (needed, notes) = better;
            }
        }
        Some((needed, notes))
    });
    let Some((rules, notes)) = found else { return vec![Reason::Search] };
    let last = question.nodes()[question.nodes().len() - 1];
    rules
        .iter()
        .filter(|rule| notes.used.contains(rule))
        .map(|rule| notes.reason(*rule, last))
        .collect()
}

/// Whether each combination of the two orders' witnesses has one context for both.
pub(super) fn always_one_context(one: &Witnesses, two: &Witnesses) -> bool {
    let both = || one.list().iter().flat_map(|a| two.list().iter().map(move |b| (a, b)));
    !one.incomplete() && !two.incomplete() && both().all(|(a, b)| a.ctx == b.ctx)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rule {
    SameContext,
    Ordered,
    DifferentInstances,
    GateLock,
    IrqsOff,
    ExclusiveOnCpu,
}

/// The most telling first.
const ALL: [Rule; 6] = [
    Rule::SameContext,
    Rule::Ordered,
    Rule::DifferentInstances,
    Rule::GateLock,
    Rule::IrqsOff,
    Rule::ExclusiveOnCpu,
];

/// What a party to the deadlock does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Holds a lock and waits for the next one's.
    Waits,
    /// Has interrupted the last party, and waits for the first lock.
    Interrupts,
    /// Holds the last lock, and is interrupted.
    Interrupted,
}

/// The parties to a deadlock in the order in which they wait for each other, each with all its
/// witnesses.
struct Line<'a> {
    parties: Vec<(Role, &'a [Witness])>,
    /// The last waits for the first.
    closed: bool,
}

/// `None` if some witnesses were left out, so that the combinations are not known.
fn lines<'a>(graph: &'a Graph, question: &Question) -> Option<Vec<Line<'a>>> {
    let complete = |witnesses: &'a Witnesses| (!witnesses.incomplete()).then(|| witnesses.list());
    let mut waits = Vec::new();
    for (from, to) in question.orders() {
        waits.push((Role::Waits, complete(graph.witnesses(from, to)?)?));
    }
    let nodes = question.nodes();
    match question {
        Question::Inversion(_) => Some(vec![Line { parties: waits, closed: true }]),
        Question::Nesting(_) => {
            // A context that nests two known locks does not wait for itself; one that nests
            // annotations may.
            let alone = waits[0]
                .1
                .iter()
                .any(|w| w.taken.is_none() || w.held.is_none_or(|(lock, _)| lock.is_none()));
            let shortest = if alone { 1 } else { 2 };
            Some(
                (shortest..=LONGEST_RING)
                    .map(|len| Line { parties: vec![waits[0]; len], closed: true })
                    .collect(),
            )
        }
        Question::IrqInversion(_) | Question::IrqUsage(_) => {
            let handler = complete(&graph.uses_of(nodes[0])?.in_handler)?;
            let stopped = complete(&graph.uses_of(nodes[nodes.len() - 1])?.irqs_on)?;
            let mut parties = vec![(Role::Interrupts, handler)];
            parties.append(&mut waits);
            parties.push((Role::Interrupted, stopped));
            Some(vec![Line { parties, closed: false }])
        }
    }
}

#[derive(Default)]
struct Notes {
    used: BTreeSet<Rule>,
    ctx: BTreeSet<CtxId>,
    pairs: BTreeSet<(CtxId, CtxId)>,
    classes: BTreeSet<&'static str>,
    irq_cpu: BTreeSet<CpuId>,
    cpu: BTreeSet<CpuId>,
}

impl Notes {
    fn reason(&self, rule: Rule, last: Node) -> Reason {
        match rule {
            Rule::SameContext => Reason::SameContext { ctx: self.ctx.iter().copied().collect() },
            Rule::Ordered => Reason::Ordered { pairs: self.pairs.iter().copied().collect() },
            Rule::DifferentInstances => Reason::DifferentInstances,
            Rule::GateLock => Reason::GateLock { classes: self.classes.iter().copied().collect() },
            Rule::IrqsOff => {
                Reason::IrqsOff { cpu: self.irq_cpu.iter().copied().collect(), node: last }
            }
            Rule::ExclusiveOnCpu => {
                Reason::ExclusiveOnCpu { cpu: self.cpu.iter().copied().collect() }
            }
        }
    }
}

impl<'a> Line<'a> {
    /// Whether `rules` exclude every combination of witnesses. Giving up counts as no.
    fn is_excluded(&self, rules: &[Rule], notes: &mut Notes) -> bool {
        let mut look = Look { line: self, rules, notes, patience: PATIENCE };
        look.none_left(&mut Vec::new())
    }
}

struct Look<'l, 'a, 'n> {
    line: &'l Line<'a>,
    rules: &'l [Rule],
    notes: &'n mut Notes,
    patience: usize,
}

impl<'a> Look<'_, 'a, '_> {
    /// `chosen` is a witness for each of the first parties, which the rules do not exclude.
    fn none_left(&mut self, chosen: &mut Vec<&'a Witness>) -> bool {
        let at = chosen.len();
        let Some(&(_, witnesses)) = self.line.parties.get(at) else { return false };
        for witness in witnesses {
            if self.patience == 0 {
                return false;
            }
            self.patience -= 1;
            chosen.push(witness);
            let excluded = self.is_impossible(chosen) || self.none_left(chosen);
            chosen.pop();
            if !excluded {
                return false;
            }
        }
        true
    }

    /// Whether the last of `chosen` does not go with one of those before.
    fn is_impossible(&mut self, chosen: &[&Witness]) -> bool {
        let last = chosen.len() - 1;
        let full = chosen.len() == self.line.parties.len();
        for &rule in self.rules {
            let hit = match rule {
                // Neighbours only; the first is the last one's neighbour in a ring.
                Rule::DifferentInstances => {
                    (last > 0 && self.differ(chosen, last - 1, last))
                        || (full && self.line.closed && self.differ(chosen, last, 0))
                }
                _ => (0..last).any(|before| self.excludes(rule, chosen, before, last)),
            };
            if hit {
                self.notes.used.insert(rule);
                return true;
            }
        }
        false
    }

    /// Whether `waiter` waits for another lock than the one that `holder` holds. An annotation may
    /// stand for any.
    fn differ(&self, chosen: &[&Witness], waiter: usize, holder: usize) -> bool {
        let held = match self.line.parties[holder].0 {
            Role::Interrupted => chosen[holder].taken,
            Role::Waits => chosen[holder].held.and_then(|(lock, _)| lock),
            Role::Interrupts => return false,
        };
        matches!((chosen[waiter].taken, held), (Some(wanted), Some(held)) if wanted != held)
    }

    fn excludes(&mut self, rule: Rule, chosen: &[&Witness], one: usize, two: usize) -> bool {
        let (a, b) = (chosen[one], chosen[two]);
        let same_cpu = a.cpu.is_some() && a.cpu == b.cpu;
        let interrupts = self.line.parties[one].0 == Role::Interrupts
            && self.line.parties[two].0 == Role::Interrupted;
        match rule {
            Rule::SameContext if a.ctx == b.ctx => {
                self.notes.ctx.insert(a.ctx);
            }
            Rule::Ordered if b.after.contains(a.ctx) => {
                self.notes.pairs.insert((a.ctx, b.ctx));
            }
            Rule::Ordered if a.after.contains(b.ctx) => {
                self.notes.pairs.insert((b.ctx, a.ctx));
            }
            // One context taken twice is not kept out by its own lock.
            Rule::GateLock if a.ctx != b.ctx => {
                let Some(gate) = a.gates.iter().find(|gate| b.gates.contains(gate)) else {
                    return false;
                };
                self.notes.classes.insert(gate.1);
            }
            // A holder that does not keep its CPU may come to the handler's.
            Rule::IrqsOff if interrupts && !same_cpu && b.pinned => {
                self.notes.irq_cpu.extend(a.cpu)
            }
            Rule::ExclusiveOnCpu
                if !interrupts && same_cpu && !may_be_under(a, b) && !may_be_under(b, a) =>
            {
                self.notes.cpu.extend(a.cpu);
            }
            _ => return false,
        }
        true
    }
}

/// Whether `a` can stay where it is while `b` runs on the same CPU: as a task that was scheduled
/// out, or interrupted.
fn may_be_under(a: &Witness, b: &Witness) -> bool {
    (a.kind == CtxKind::Task && !a.pinned) || (b.kind == CtxKind::Handler && a.irqs_on)
}
