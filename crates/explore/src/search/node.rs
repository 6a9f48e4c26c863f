//! A node of the tree: a state, and what has been and will be run from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ids::{CtxId, CtxSet};

/// What is to be run from a state.
#[derive(Clone, Copy, Default)]
struct Sets {
    backtrack: u64,
    /// What has been begun.
    done: u64,
}

/// The sets of a node that several OS threads explore. Both only grow, and a branch belongs to the
/// thread that puts it into `done`. Whoever adds to `backtrack` has the node on its own path and
/// looks at it again, so nothing else need be ordered.
struct Shared {
    backtrack: AtomicU64,
    done: AtomicU64,
}

/// A choice on the way of the run: the entry of the plan there is a value.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub depth: usize,
    /// The context whose turn it was; none, if one chose before its first step.
    pub by: Option<CtxId>,
}

/// A branch to be explored.
pub(crate) struct Branch {
    pub nodes: Vec<Node>,
    pub plan: Vec<CtxId>,
}

pub(crate) struct Node {
    /// For a node at which a value is chosen: the contexts that sleep before it. All sets are of
    /// values then.
    through: Option<u64>,
    enabled: u64,
    sleep: u64,
    own: Sets,
    /// What was done when `chosen` was chosen.
    done_before: u64,
    shared: Option<Arc<Shared>>,
    previous: Option<CtxId>,
    chosen: CtxId,
    preemptions: u32,
}

impl Node {
    pub(crate) fn new(
        enabled: CtxSet,
        asleep: CtxSet,
        chosen: CtxId,
        previous: Option<CtxId>,
        preemptions: u32,
        brute: bool,
    ) -> Self {
        let backtrack = if brute { enabled.0 } else { chosen.bit() };
        Node {
            through: None,
            enabled: enabled.0,
            sleep: asleep.0,
            own: Sets { backtrack, done: chosen.bit() },
            done_before: 0,
            shared: None,
            previous,
            chosen,
            preemptions,
        }
    }

    /// A node at which each of `values` is chosen, the first now.
    pub(crate) fn of_choice(values: CtxSet, asleep: CtxSet, preemptions: u32) -> Self {
        let through = Some(asleep.0);
        let node = Node::new(values, CtxSet::EMPTY, CtxId(0), None, preemptions, true);
        Node { through, ..node }
    }

    /// The contexts that sleep before a choice, if this is one.
    #[inline]
    pub(crate) fn through(&self) -> Option<u64> {
        self.through
    }

    #[inline]
    pub(crate) fn enabled(&self) -> u64 {
        self.enabled
    }

    /// Those whose turn here has been explored, or is explored elsewhere.
    #[inline]
    pub(crate) fn asleep_or_done(&self) -> u64 {
        self.sleep | self.done_before
    }

    /// Whether choosing `ctx` here preempts.
    fn costs(&self, ctx: CtxId) -> bool {
        self.previous.is_some_and(|previous| previous != ctx && self.enabled & previous.bit() != 0)
    }

    /// How many preemptions the run has after the step that is taken here.
    #[inline]
    pub(crate) fn preemptions_after(&self) -> u32 {
        self.preemptions + self.costs(self.chosen) as u32
    }

    #[inline]
    fn sets(&self) -> Sets {
        match &self.shared {
            Some(shared) => {
                Sets { backtrack: shared.backtrack.load(Relaxed), done: shared.done.load(Relaxed) }
            }
            None => self.own,
        }
    }

    /// Begins the branch of `ctx`, if `done` is still all that has been begun.
    #[inline]
    fn begin(&mut self, done: u64, ctx: CtxId) -> bool {
        let and_this = done | ctx.bit();
        match &self.shared {
            Some(shared) => shared.done.compare_exchange(done, and_this, Relaxed, Relaxed).is_ok(),
            None => {
                self.own.done = and_this;
                true
            }
        }
    }

    /// Adds contexts to the backtrack set.
    #[inline]
    pub(crate) fn add(&mut self, ctxs: CtxSet) {
        match &self.shared {
            Some(shared) => {
                // Most have been added before: then the line stays shared.
                if ctxs.0 & !shared.backtrack.load(Relaxed) != 0 {
                    shared.backtrack.fetch_or(ctxs.0, Relaxed);
                }
            }
            None => self.own.backtrack |= ctxs.0,
        }
    }

    /// Adds `ctx`, or everybody if it could not run here.
    pub(crate) fn add_or_all(&mut self, ctx: CtxId) {
        let enabled = self.enabled;
        self.add(CtxSet(if enabled & ctx.bit() != 0 { ctx.bit() } else { enabled }));
    }

    /// Sees to it that one of `initials` is run from here, or need not be. All of them could begin
    /// what is to be run; the `needed` ones belong to it.
    ///
    /// One that sleeps here and is not needed is no excuse. It is in the run only because it was
    /// woken for fear of a conflict that then was none, and what begins with it elsewhere need not
    /// lead to what is wanted here, without it.
    #[inline]
    pub(crate) fn cover(&mut self, initials: CtxSet, needed: CtxSet) {
        let covered = self.sets().backtrack & !self.sleep & initials.0 | self.sleep & needed.0;
        if covered == 0
            && let Some(one) = needed.first()
        {
            self.add(CtxSet(one.bit()));
        }
    }

    /// Takes the next context to run from here; whether the bound ruled any out.
    pub(crate) fn next(&mut self, bound: Option<u32>) -> (Option<CtxId>, bool) {
        let spent = bound.is_some_and(|bound| self.preemptions >= bound);
        let allowed = match self.previous {
            Some(previous) if spent && self.enabled & previous.bit() != 0 => previous.bit(),
            _ => self.enabled,
        };
        loop {
            let Sets { backtrack, done } = self.sets();
            let open = backtrack & !done & !self.sleep;
            let bounded = open & !allowed != 0;
            let Some(next) = CtxSet(open & allowed).first() else { return (None, bounded) };
            if self.begin(done, next) {
                self.done_before = done;
                self.chosen = next;
                return (Some(next), bounded);
            }
        }
    }

    /// How many of how many branches have been begun.
    pub(crate) fn progress(&self) -> (u32, u32) {
        let sets = self.sets();
        let all = (sets.backtrack & !self.sleep) | sets.done;
        (sets.done.count_ones().max(1), all.count_ones().max(1))
    }

    /// A node of another OS thread that stands for the same state, with the branches of both in
    /// common.
    pub(crate) fn share(&mut self) -> Node {
        let own = self.own;
        let shared = self.shared.get_or_insert_with(|| {
            Arc::new(Shared {
                backtrack: AtomicU64::new(own.backtrack),
                done: AtomicU64::new(own.done),
            })
        });
        let shared = Arc::clone(shared);
        Node { shared: Some(shared), ..*self }
    }

    /// Whether a branch is open that nobody has begun.
    pub(crate) fn has_open(&self) -> bool {
        let sets = self.sets();
        sets.backtrack & !sets.done & !self.sleep != 0
    }
}
