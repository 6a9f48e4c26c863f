//! Contexts that rest in a loop with `cpu_relax`, and when they go on all the same.

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::alone::{Alone, Looks};
use crate::machine::spin::Spin;
use crate::machine::world::World;
use crate::op::OpKind;
use crate::search::Fault;

/// How often a context looks again that has not seen yet what its loop read when it was probed.
const SOME_LOOKS: u32 = 64;

/// The contexts that could go on though they rest in a loop.
#[derive(Clone, Copy, Default)]
pub(crate) struct Resting {
    /// They have not seen yet all that their loop reads.
    pub look: CtxSet,
    /// They may lapse.
    pub lapse: CtxSet,
    /// They might lapse, but have done so as often as they may.
    pub limited: CtxSet,
    /// The context of which it is to be found out what its loop does.
    pub unknown: Option<CtxId>,
}

impl World {
    /// Returns whether `id` has come to a `cpu_relax`, and nothing has changed since it looked.
    #[inline]
    pub(crate) fn rests(&self, id: CtxId) -> bool {
        self.ctx(id).pending.kind == OpKind::Relax && !self.looks_again(id)
    }

    /// Returns whether there is a reason for `id`, which has come to a `cpu_relax`, to look again.
    pub(crate) fn looks_again(&self, id: CtxId) -> bool {
        self.has_news(id) || self.own_change(id)
    }

    /// Returns whether something was written that `id` has read since the last `cpu_relax`, or it
    /// has read nothing.
    pub(crate) fn has_news(&self, id: CtxId) -> bool {
        let reads = &self.ctx(id).reads;
        reads.is_empty()
            || reads.iter().any(|&(obj, version)| self.versions[obj.index()] != version)
    }

    /// Returns whether `id` has changed something itself since the last `cpu_relax`: the next look
    /// may go another way because of that. To change the same as in the round before is no
    /// progress: that is how looks are counted.
    pub(crate) fn own_change(&self, id: CtxId) -> bool {
        let known = &self.ctx(id).own_change;
        known.get().unwrap_or_else(|| {
            // A run that is only brought to its end is not recorded any more.
            let changed = self.search.is_searching() && self.changes_at(id, self.search.depth());
            known.set(Some(changed));
            changed
        })
    }

    /// [`own_change`](World::own_change), after so many steps.
    pub(crate) fn changes_at(&self, id: CtxId, depth: usize) -> bool {
        let steps = self.search.events.steps_of(id, depth);
        let changes = |step: &&u64| {
            [OpKind::Store, OpKind::Rmw, OpKind::Change, OpKind::Take]
                .iter()
                .any(|&kind| is(**step, kind))
        };
        let mut rounds = steps.rsplit(relaxes).map(|round| round.iter().filter(changes));
        let Some(last) = rounds.next().filter(|last| last.clone().next().is_some()) else {
            return false;
        };
        !rounds.next().is_some_and(|before| before.eq(last))
    }

    /// Sorts those who rest: `relaxing` have come to a `cpu_relax` and were not let go on.
    #[cold]
    pub(crate) fn resting(&mut self, relaxing: CtxSet, enabled: CtxSet) -> Resting {
        let mut resting = Resting::default();
        for id in relaxing.iter().filter(|&id| !enabled.contains(id)) {
            if !self.on_cpu(id) || self.ctx(id).spent {
                continue;
            }
            let (lapses, limit) = (self.ctx(id).lapses, self.search.settings.lapses);
            let free = self.ctx(id).looks_on == Some(self.ctx(id).pending.site);
            match self.spin(id).cloned() {
                None if self.search.is_searching() => {
                    resting.unknown = resting.unknown.or(Some(id))
                }
                // The run is only brought to its end.
                None => resting.limited.insert(id),
                Some(Spin::Await(all)) => {
                    let seen = |obj: &ObjId| self.ctx(id).reads.iter().any(|(read, _)| read == obj);
                    if self.ctx(id).in_vain < SOME_LOOKS && !all.iter().all(seen) {
                        resting.look.insert(id);
                    }
                }
                Some(_) if self.search.settings.fault == Some(Fault::NeverLapses) => {}
                Some(Spin::Counts) if free => resting.lapse.insert(id),
                Some(_) if lapses < limit => resting.lapse.insert(id),
                Some(_) => resting.limited.insert(id),
            }
        }
        if enabled.is_empty() && resting.look.is_empty() && resting.lapse.is_empty() {
            // Who alone is left has all the time there is.
            resting.lapse = std::mem::replace(&mut resting.limited, CtxSet::EMPTY);
        }
        resting
    }

    /// The looks of `id` until it gives up begin: it has lapsed.
    pub(crate) fn begin_lapse(&mut self, id: CtxId) {
        let rounds = matches!(self.ctx(id).spin, Some(Spin::Rounds));
        let ctx = self.ctx_mut(id);
        ctx.lapses += (rounds || ctx.looks_on != Some(ctx.pending.site)) as u32;
        let reads = ctx.reads.clone();
        self.repeats = false;
        self.alone = Some(Alone::Lapse { reads, looks: Looks::default() });
    }

    /// A context goes on, as recorded when this schedule ran before, where it relaxed.
    #[cold]
    pub(crate) fn relax_again(&mut self, id: CtxId, recorded: OpKind) {
        // What it had done before this step.
        let depth = self.search.depth() - 1;
        if !self.has_news(id) {
            let changed = self.changes_at(id, depth);
            self.ctx(id).own_change.set(Some(changed));
        }
        if recorded == OpKind::Lapse {
            self.spin_at(id, depth);
        }
        self.effect(id);
    }

    /// Returns whether `id` lapses if it goes on now.
    pub(crate) fn lapses(&self, id: CtxId) -> bool {
        let ctx = self.ctx(id);
        let gives_up = match ctx.spin {
            Some(Spin::Counts | Spin::Rounds) => true,
            Some(Spin::Await(_)) => false,
            None => !self.search.is_searching(),
        };
        gives_up && !ctx.spent && self.alone.is_none() && self.rests(id)
    }
}

/// Returns whether a step, as [`Events::steps_of`](crate::search::events::Events::steps_of) tells
/// it, is of that kind.
fn is(step: u64, kind: OpKind) -> bool {
    step as u8 == kind as u8
}

/// Returns whether a step ends a round of a loop.
pub(super) fn relaxes(step: &u64) -> bool {
    is(*step, OpKind::Relax) || is(*step, OpKind::Lapse)
}
