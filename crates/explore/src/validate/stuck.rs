//! Deadlocks that the search has found, and which questions they answer.

use doorbell_platform::{LockClass, Subclass};

use super::feed::{CtxKind, Held};
use super::node::Node;
use super::question::Question;
use crate::ids::{CtxId, ObjId};

/// What a context waits for.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// The lock; `None` if it waits for what an annotation stands for.
    pub lock: Option<ObjId>,
    /// The lock's class.
    pub class: &'static LockClass,
    /// The subclass it is being taken with.
    pub subclass: Subclass,
}

/// One member of a stuck set.
#[derive(Clone, Copy, Debug)]
pub struct Stuck<'a> {
    /// The context.
    pub ctx: CtxId,
    /// What kind of context that is.
    pub kind: CtxKind,
    /// What it holds. What a context holds that it interrupted is not in it.
    pub held: &'a [Held],
    /// What it waits for; `None` if it is stopped by an interrupt, or waits for something that is
    /// no lock.
    pub waits: Option<Waiting>,
    /// The context that it interrupted, if it is a handler that did; that one belongs to the stuck
    /// set too.
    pub interrupted: Option<CtxId>,
}

impl Question {
    /// Returns whether the deadlock of `members` is the one that is asked for: they wait for each
    /// other along the question's orders, and each for a lock that the next one really holds.
    pub fn matches(&self, members: &[Stuck<'_>]) -> bool {
        let members: Vec<_> = members.iter().map(Member::of).collect();
        self.is_answered_by(&members)
    }

    pub(super) fn is_answered_by(&self, members: &[Member]) -> bool {
        let ring = |nodes: &[Node]| {
            members.iter().enumerate().any(|(at, first)| {
                first.holds(nodes[0])
                    && Chain { members, closes: &|last| first.lets_wait(last) }
                        .go(&mut vec![at], nodes)
            })
        };
        match self {
            Question::Inversion(nodes) => {
                let mut round = nodes.clone();
                round.push(nodes[0]);
                ring(&round)
            }
            Question::Nesting(node) => (2..=members.len() + 1).any(|len| ring(&vec![*node; len])),
            Question::IrqInversion(_) | Question::IrqUsage(_) => irq_chain(self.nodes(), members),
        }
    }
}

/// A handler waits for the first node, and whoever holds the last is under that handler.
fn irq_chain(nodes: &[Node], members: &[Member]) -> bool {
    let last = nodes[nodes.len() - 1];
    members
        .iter()
        .enumerate()
        .filter(|(_, h)| h.handler && h.waits.is_some_and(|(node, _)| node == nodes[0]))
        .any(|(at, handler)| {
            let stopped: Vec<&Member> = members
                .iter()
                .filter(|m| m.holds(last) && is_under(members, m.ctx, handler))
                .collect();
            let closes = |waiter: &Member| stopped.iter().any(|m| m.lets_wait(waiter));
            if nodes.len() == 1 {
                return closes(handler);
            }
            members.iter().enumerate().any(|(next, first)| {
                next != at
                    && first.holds(nodes[0])
                    && first.lets_wait(handler)
                    && Chain { members, closes: &closes }.go(&mut vec![at, next], nodes)
            })
        })
}

/// Whether `handler` interrupted `ctx`, or a handler that did.
fn is_under(members: &[Member], ctx: CtxId, handler: &Member) -> bool {
    let mut top = handler;
    // Nobody interrupts twice, so the chain is no longer than the list.
    for _ in 0..members.len() {
        match top.interrupted {
            Some(below) if below == ctx => return true,
            Some(below) => match members.iter().find(|m| m.ctx == below) {
                Some(next) => top = next,
                None => return false,
            },
            None => return false,
        }
    }
    false
}

/// Looks for distinct members that wait along given nodes.
struct Chain<'a> {
    members: &'a [Member],
    closes: &'a dyn Fn(&Member) -> bool,
}

impl Chain<'_> {
    /// The last of `used` holds the first of `nodes`; it must wait for the second, in a lock that
    /// the next member holds.
    fn go(&self, used: &mut Vec<usize>, nodes: &[Node]) -> bool {
        let waiter = &self.members[used[used.len() - 1]];
        if waiter.waits.is_none_or(|(node, _)| node != nodes[1]) {
            return false;
        }
        if nodes.len() == 2 {
            return (self.closes)(waiter);
        }
        for (at, next) in self.members.iter().enumerate() {
            if used.contains(&at) || !next.holds(nodes[1]) || !next.lets_wait(waiter) {
                continue;
            }
            used.push(at);
            let found = self.go(used, &nodes[1..]);
            used.pop();
            if found {
                return true;
            }
        }
        false
    }
}

/// A member of a stuck set without the places in the source: deadlocks that differ only there are
/// the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Member {
    ctx: CtxId,
    handler: bool,
    held: Vec<(Node, Option<ObjId>)>,
    waits: Option<(Node, Option<ObjId>)>,
    interrupted: Option<CtxId>,
}

impl Member {
    pub(super) fn of(stuck: &Stuck<'_>) -> Self {
        Member {
            ctx: stuck.ctx,
            handler: stuck.kind == CtxKind::Handler,
            held: stuck.held.iter().map(|h| (Node::of_held(h), h.lock)).collect(),
            waits: stuck.waits.map(|w| (Node { class: w.class, subclass: w.subclass }, w.lock)),
            interrupted: stuck.interrupted,
        }
    }

    fn holds(&self, node: Node) -> bool {
        self.held.iter().any(|(held, _)| *held == node)
    }

    /// Whether it holds what `waiter` waits for: the very lock, or for want of a lock the
    /// annotation.
    fn lets_wait(&self, waiter: &Member) -> bool {
        match waiter.waits {
            Some((_, Some(lock))) => self.held.iter().any(|(_, held)| *held == Some(lock)),
            Some((node, None)) => self.holds(node),
            None => false,
        }
    }
}
