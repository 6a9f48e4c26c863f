//! Nodes at which not a context is chosen but a value, for the context that runs.
//!
//! A choice is an event of its context that uses no object, right behind the one before it: nobody
//! has a turn between. So it races with nothing, no context is ever brought forward to its node,
//! and who sleeps before it sleeps after it. All of its values are run.

use crate::ids::{CtxId, CtxSet};
use crate::op::OpKind;
use crate::search::node::{Choice, Node};
use crate::search::{Phase, Sampler, Search, Strategy};

impl Search {
    /// Returns the value that whoever has its turn, `by`, gets at this depth, of those below `most`,
    /// which is 64 at most.
    pub(crate) fn value(&mut self, by: Option<CtxId>, most: u8) -> u8 {
        let depth = self.depth;
        if self.choices.last().is_none_or(|last| last.depth < depth) {
            self.choices.push(Choice { depth, by });
        }
        if let Some(planned) = self.planned() {
            return planned.0;
        }
        let values = CtxSet(u64::MAX >> (64 - most));
        let first = CtxId(0);
        let chosen = match &mut self.strategy {
            _ if self.phase == Phase::Finishing => first,
            Strategy::Sampled(sampler) => sampler.value(values, first, depth),
            _ => {
                let preemptions = self.nodes.last().map_or(0, Node::preemptions_after);
                let values = match self.settings.fault {
                    Some(super::Fault::FirstChoice) if self.analyses() => CtxSet(first.bit()),
                    _ => values,
                };
                self.nodes.push(Node::of_choice(values, self.asleep, preemptions));
                first
            }
        };
        self.plan.push(chosen);
        chosen.0
    }

    /// The contexts that sleep before a choice at this depth, and so after it.
    pub(crate) fn sleeps_through(&self) -> CtxSet {
        if !matches!(self.strategy, Strategy::Reduced) || self.settings.bound.is_some() {
            return CtxSet::EMPTY;
        }
        let through = self.nodes.get(self.depth).and_then(Node::through);
        CtxSet(through.unwrap_or(0) & !self.unwinders.0)
    }

    /// Forgets the choices from `depth` on.
    pub(crate) fn forget_choices(&mut self, depth: usize) {
        while self.choices.last().is_some_and(|last| last.depth >= depth) {
            self.choices.pop();
        }
    }

    /// The node at which a context can be brought forward to where the one at `depth` is: a choice
    /// belongs to the step before it, or, where its context began with it, to what comes then.
    pub(crate) fn scheduled_at(&self, depth: usize) -> Option<usize> {
        let is_choice = |node: &Node| node.through().is_some();
        let back = self.nodes[..=depth].iter().rposition(|node| !is_choice(node));
        let on = || self.nodes[depth..].iter().position(|node| !is_choice(node));
        back.or_else(|| on().map(|further| depth + further))
    }
}

impl Sampler {
    /// Chooses a value.
    fn value(&mut self, values: CtxSet, first: CtxId, depth: usize) -> CtxId {
        match self {
            Sampler::Replay(replay) => replay.choose(first, depth),
            Sampler::Uniform { random, .. } | Sampler::Priorities { random, .. } => {
                CtxId(random.below(values.len() as u64) as u8)
            }
        }
    }
}

/// What a replay compares to find out that a program is not deterministic: how many values there
/// are to choose from, and which was chosen.
pub(crate) fn signature(most: u8, value: u8) -> u64 {
    (u64::from(most) << 8 | u64::from(value)) << 8 | OpKind::Choose as u64
}
