//! The recorded run: events with vector clocks, kept across executions as far as their common
//! prefix goes.
//!
//! Everything here is a stack. Going back to depth `d` undoes the events above it exactly, so the
//! analysis of a prefix is never done again.

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::op::{Access, OpKind};
use crate::search::Random;

pub(crate) const NONE: u32 = u32::MAX;

/// One executed step.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub ctx: CtxId,
    pub kind: OpKind,
    pub signature: u64,
    /// The event before it of the same context.
    previous: u32,
    /// The event's first entry in `accesses`.
    accesses: u32,
}

/// One use of an object by an event, with what it replaced in the object's history.
#[derive(Clone, Copy)]
struct Use {
    event: u32,
    obj: ObjId,
    before: History,
}

/// The last uses of an object.
#[derive(Clone, Copy)]
struct History {
    /// The last acquisition (or write), with which later uses race: an event.
    acquired: u32,
    /// The last event that changed it, which later uses come after.
    changed: u32,
    /// The uses that only read it since `changed`: the last entry in `accesses`; older ones hang on
    /// it.
    read: u32,
    /// The use that made `acquired`: an entry in `accesses`.
    acquisition: u32,
}

/// The clocks of as many contexts as are dealt with at once: most programs need one lane.
type Lane = [u32; LANE];
const LANE: usize = 4;

const UNUSED: History = History { acquired: NONE, changed: NONE, read: NONE, acquisition: NONE };

/// Joins the clock of `event` to the last one.
#[inline]
fn join(clocks: &mut [Lane], lanes: usize, event: usize) {
    let (before, clock) = clocks.split_at_mut(clocks.len() - lanes);
    for (mine, other) in clock.iter_mut().zip(&before[event * lanes..]) {
        *mine = std::array::from_fn(|ctx| mine[ctx].max(other[ctx]));
    }
}

#[derive(Default)]
pub(crate) struct Events {
    events: Vec<Event>,
    uses: Vec<Use>,
    /// Per event, per context: how many events of the run (as an index + 1) of that context happen
    /// before it. Those of one event take `lanes` entries.
    clocks: Vec<Lane>,
    lanes: usize,
    history: Vec<History>,
    /// Per object: who has ever used it, also in events that were undone.
    users: Vec<CtxSet>,
    last: Vec<u32>,
}

impl Events {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    #[inline]
    pub(crate) fn at(&self, index: usize) -> Option<&Event> {
        self.events.get(index)
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> &Event {
        &self.events[index]
    }

    /// Whether event `first` happens before event `second` (or is it).
    #[inline]
    pub(crate) fn happens_before(&self, first: usize, second: usize) -> bool {
        self.clock(second)[self.events[first].ctx.index()] > first as u32
    }

    #[inline]
    pub(crate) fn clock(&self, event: usize) -> &[u32] {
        self.clocks[event * self.lanes..][..self.lanes].as_flattened()
    }

    /// Whether event `first` happens before whatever `ctx` does next, for its own reasons.
    #[inline(always)]
    fn known_to(&self, first: u32, ctx: CtxId) -> bool {
        let last = self.last[ctx.index()];
        last != NONE && self.happens_before(first as usize, last as usize)
    }

    /// The last event of a context.
    #[inline]
    pub(crate) fn last_of(&self, ctx: CtxId) -> Option<usize> {
        self.last.get(ctx.index()).and_then(|&last| (last != NONE).then_some(last as usize))
    }

    /// Returns who has ever used which object.
    pub(crate) fn users(&self) -> &[CtxSet] {
        &self.users
    }

    /// What a context has done in the first `depth` events, in order: each step's object and, in
    /// the lowest byte, what kind of step it turned out to be.
    pub(crate) fn steps_of(&self, ctx: CtxId, depth: usize) -> Vec<u64> {
        let mut at = self.last_of(ctx);
        let mut steps = Vec::new();
        while let Some(index) = at {
            let event = &self.events[index];
            if index < depth {
                steps.push(event.signature & !0xff | event.kind as u64);
            }
            at = (event.previous != NONE).then_some(event.previous as usize);
        }
        steps.reverse();
        steps
    }

    /// Forgets everything, but for the memory of it.
    pub(crate) fn clear(&mut self) {
        let Events { events, uses, clocks, lanes, history, users, last } = self;
        events.clear();
        uses.clear();
        clocks.clear();
        *lanes = 0;
        history.clear();
        users.clear();
        last.clear();
    }

    /// Undoes all events from `depth` on.
    pub(crate) fn truncate(&mut self, depth: usize) {
        while self.events.len() > depth {
            let event = self.events.pop().expect("counted");
            while self.uses.len() > event.accesses as usize {
                let undone = self.uses.pop().expect("counted");
                self.history[undone.obj.index()] = undone.before;
            }
            self.last[event.ctx.index()] = event.previous;
        }
        self.clocks.truncate(depth * self.lanes);
    }

    /// Makes room for contexts with numbers below `contexts`.
    #[cold]
    fn widen(&mut self, contexts: usize) {
        let lanes = contexts.div_ceil(LANE);
        let mut wide = vec![[0; LANE]; self.events.len() * lanes];
        for (new, old) in wide.chunks_mut(lanes).zip(self.clocks.chunks(self.lanes.max(1))) {
            new[..old.len()].copy_from_slice(old);
        }
        self.clocks = wide;
        self.lanes = lanes;
        self.last.resize(lanes * LANE, NONE);
    }

    /// Begins an event of `ctx`; [`access`](Events::access) adds to it.
    #[inline]
    pub(crate) fn begin(&mut self, event: NewEvent) {
        let ctx = event.ctx.index();
        if ctx >= self.last.len() {
            self.widen(ctx + 1);
        }
        let previous = self.last[ctx];
        for lane in 0..self.lanes {
            let known = if previous == NONE {
                [0; LANE]
            } else {
                self.clocks[previous as usize * self.lanes + lane]
            };
            self.clocks.push(known);
        }
        self.events.push(Event {
            ctx: event.ctx,
            kind: event.kind,
            signature: event.signature,
            previous,
            accesses: self.uses.len() as u32,
        });
    }

    /// Joins the clock of an event that enabled the one that is being added, such as the spawn of
    /// its context.
    #[inline]
    pub(crate) fn join(&mut self, event: usize) {
        join(&mut self.clocks, self.lanes, event);
    }

    /// The release that let an acquisition of `obj` by `ctx` in, unless it is ordered before it
    /// anyway.
    pub(crate) fn release(&self, obj: ObjId, ctx: CtxId) -> Option<Race> {
        let history = self.history.get(obj.index())?;
        let released = history.changed != NONE && history.changed != history.acquired;
        (released && !self.known_by(history.changed, ctx))
            .then_some(Race { event: history.changed, chain: None })
    }

    /// Lists in `races` the earlier uses of `obj` that a use by `ctx` races with directly, as far
    /// as this one object can tell: not ordered before it by what `ctx` itself has done.
    #[inline(always)]
    pub(crate) fn races(&self, obj: ObjId, access: Access, ctx: CtxId, races: &mut Vec<Race>) {
        let Some(history) = self.history.get(obj.index()) else { return };
        if access != Access::Read && history.read != NONE {
            self.races_with_reads(history.read, ctx, races);
        }
        let last = match access {
            Access::Release => return,
            // Only who waits for a release has no race with it.
            Access::Acquire => history.acquired,
            Access::Read | Access::Write => history.changed,
        };
        if last != NONE && !self.known_by(last, ctx) {
            races.push(Race { event: last, chain: None });
        }
    }

    fn races_with_reads(&self, mut read: u32, ctx: CtxId, races: &mut Vec<Race>) {
        while read != NONE {
            let used = &self.uses[read as usize];
            if self.events[used.event as usize].ctx != ctx && !self.known_by(used.event, ctx) {
                races.push(Race { event: used.event, chain: None });
            }
            read = used.before.read;
        }
    }

    /// [`races`](Events::races), and those that they came after, as long as they are not ordered
    /// either: for steps that may have had to wait, and whose chance came before the last change.
    /// One of a `chain` is enough.
    pub(crate) fn race_chain(
        &self,
        obj: ObjId,
        access: Access,
        ctx: CtxId,
        chain: u8,
        races: &mut Vec<Race>,
    ) {
        let Some(&history) = self.history.get(obj.index()) else { return };
        let race = |event| Race { event, chain: Some(chain) };
        if access != Access::Read {
            self.races_with_reads(history.read, ctx, races);
        }
        if access == Access::Release {
            return;
        }
        let mut acquired = history.acquired;
        let mut acquisition = history.acquisition;
        if access != Access::Acquire && history.changed != acquired {
            if self.known_by(history.changed, ctx) {
                return;
            }
            races.push(race(history.changed));
        }
        while acquired != NONE && !self.known_by(acquired, ctx) {
            races.push(race(acquired));
            let before = self.uses[acquisition as usize].before;
            acquired = before.acquired;
            acquisition = before.acquisition;
        }
    }

    /// Whether an event happens before whatever `ctx` does next, for its own reasons.
    #[inline]
    pub(crate) fn known_by(&self, event: u32, ctx: CtxId) -> bool {
        ctx.index() < self.last.len() && self.known_to(event, ctx)
    }

    /// Adds a use of `obj` to the event that is being added.
    #[inline]
    pub(crate) fn access(&mut self, obj: ObjId, access: Access) {
        if obj.index() >= self.history.len() {
            self.history.resize(obj.index() + 1, UNUSED);
            self.users.resize(obj.index() + 1, CtxSet::EMPTY);
        }
        let event = self.events.len() as u32 - 1;
        self.users[obj.index()].insert(self.events[event as usize].ctx);
        let entry = self.uses.len() as u32;
        let history = &mut self.history[obj.index()];
        let before = *history;
        if before.changed != NONE && before.changed != event {
            join(&mut self.clocks, self.lanes, before.changed as usize);
        }
        if access != Access::Read {
            let mut read = before.read;
            while read != NONE {
                let used = &self.uses[read as usize];
                if used.event != event {
                    join(&mut self.clocks, self.lanes, used.event as usize);
                }
                read = used.before.read;
            }
        }
        match access {
            Access::Read => history.read = entry,
            Access::Write | Access::Acquire => {
                *history =
                    History { acquired: event, changed: event, read: NONE, acquisition: entry }
            }
            Access::Release => {
                history.changed = event;
                history.read = NONE;
            }
        }
        self.uses.push(Use { event, obj, before });
    }

    /// Ends the event that is being added.
    #[inline]
    pub(crate) fn end(&mut self) {
        let index = self.events.len() as u32 - 1;
        let ctx = self.events[index as usize].ctx.index();
        let clock = self.clocks.len() - self.lanes;
        self.clocks[clock + ctx / LANE][ctx % LANE] = index + 1;
        self.last[ctx] = index;
    }
}

impl Events {
    /// A number that the run so far has in common with those that are equivalent to it: those with
    /// the same steps of each context, and the same order of each two that depend on each other. Of
    /// others it has another one, but for one in 2⁶⁴.
    pub(crate) fn equivalence(&self) -> u64 {
        let mut own = vec![0u64; self.last.len()];
        let mut place = Vec::with_capacity(self.events.len());
        let mut sum = 0u64;
        for (index, event) in self.events.iter().enumerate() {
            own[event.ctx.index()] += 1;
            place.push(own[event.ctx.index()]);
            // Which step of which context it is, and how many steps of each happen before it.
            let knows = self.clock(index).iter().enumerate().filter(|(_, last)| **last != 0);
            let known = knows.map(|(ctx, &last)| (ctx as u64) << 32 | place[last as usize - 1]);
            let parts = known.chain([u64::from(event.ctx.0), event.kind as u64]);
            let parts = parts.chain((event.kind == OpKind::Choose).then_some(event.signature));
            sum = sum.wrapping_add(parts.fold(0, |mixed, part| Random::new(mixed ^ part).next()));
        }
        sum
    }
}

/// An event that another one races with.
#[derive(Clone, Copy)]
pub(crate) struct Race {
    pub event: u32,
    /// The chain of which one reversal is enough.
    pub chain: Option<u8>,
}

/// What [`Events::begin`] needs to know.
pub(crate) struct NewEvent {
    pub ctx: CtxId,
    pub kind: OpKind,
    pub signature: u64,
}
