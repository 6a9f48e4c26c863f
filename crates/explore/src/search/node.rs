//! A node of the tree: a state, and what has been and will be run from it.

use std::sync::{Arc, Mutex};

use crate::ids::{CtxId, CtxSet};

/// What is to be run from a state.
#[derive(Clone, Copy, Default)]
struct Sets {
    pub backtrack: u64,
    pub done: u64,
}

/// The sets of a node that several OS threads explore.
type Shared = Arc<Mutex<Sets>>;

pub(crate) struct Node {
    enabled: u64,
    sleep: u64,
    own: Sets,
    /// What was done when `chosen` was chosen.
    done_before: u64,
    shared: Option<Shared>,
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

    fn sets<R>(&mut self, f: impl FnOnce(&mut Sets) -> R) -> R {
        match &self.shared {
            Some(shared) => f(&mut shared.lock().expect("no panic while it is held")),
            None => f(&mut self.own),
        }
    }

    /// Adds contexts to the backtrack set.
    #[inline]
    pub(crate) fn add(&mut self, ctxs: CtxSet) {
        self.sets(|sets| sets.backtrack |= ctxs.0);
    }

    /// Adds `ctx`, or everybody if it could not run here.
    pub(crate) fn add_or_all(&mut self, ctx: CtxId) {
        let enabled = self.enabled;
        self.add(CtxSet(if enabled & ctx.bit() != 0 { ctx.bit() } else { enabled }));
    }

    /// Whether one of `ctxs` is run from here anyway, or need not be.
    #[inline]
    pub(crate) fn covers(&mut self, ctxs: CtxSet) -> bool {
        let sleep = self.sleep;
        self.sets(|sets| (sets.backtrack | sleep) & ctxs.0 != 0)
    }

    /// Takes the next context to run from here; whether the bound ruled any out.
    pub(crate) fn next(&mut self, bound: Option<u32>) -> (Option<CtxId>, bool) {
        let spent = bound.is_some_and(|bound| self.preemptions >= bound);
        let allowed = match self.previous {
            Some(previous) if spent && self.enabled & previous.bit() != 0 => previous.bit(),
            _ => self.enabled,
        };
        let sleep = self.sleep;
        let (next, before, bounded) = self.sets(|sets| {
            let open = sets.backtrack & !sets.done & !sleep;
            let before = sets.done;
            let next = CtxSet(open & allowed).first();
            if let Some(ctx) = next {
                sets.done |= ctx.bit();
            }
            (next, before, open & !allowed != 0)
        });
        if let Some(ctx) = next {
            self.done_before = before;
            self.chosen = ctx;
        }
        (next, bounded)
    }

    /// How many of how many branches have been begun.
    pub(crate) fn progress(&self) -> (u32, u32) {
        let sets = match &self.shared {
            Some(shared) => *shared.lock().expect("no panic while it is held"),
            None => self.own,
        };
        let all = (sets.backtrack & !self.sleep) | sets.done;
        (sets.done.count_ones().max(1), all.count_ones().max(1))
    }

    /// A node of another OS thread that stands for the same state, with the branches of both in common.
    pub(crate) fn share(&mut self) -> Node {
        let own = self.own;
        let shared = self.shared.get_or_insert_with(|| Arc::new(Mutex::new(own))).clone();
        Node { shared: Some(shared), ..*self }
    }

    /// Whether a branch is open that nobody has begun.
    pub(crate) fn has_open(&mut self) -> bool {
        let sleep = self.sleep;
        self.sets(|sets| sets.backtrack & !sets.done & !sleep != 0)
    }
}
