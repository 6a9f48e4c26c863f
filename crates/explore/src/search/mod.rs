//! The search: which schedules are run, and which need not be.
//!
//! Source-DPOR (Abdulla, Aronis, Jonsson, Sagonas, "Source sets: a foundation for optimal dynamic
//! partial order reduction", J. ACM 64(4), 2017) with sleep sets. Each step of a run is an event;
//! two events that use one object, not both reading it, depend on each other, and a pair of
//! dependent events that could have come in the other order is a race. A race puts a context into
//! the backtrack set of the node before its first event, from where the other order will be run.
//! Steps that can wait need two more rules: a race whose second event was not possible before its
//! first is looked for further back, and a step that waits when the run ends is analysed as if it
//! were done.

pub(crate) mod choice;
pub(crate) mod events;
mod fault;
mod node;
mod random;
pub(crate) mod removal;
mod sampler;

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::limit::{Limit, Until};
use crate::op::{Access, Op, OpKind};
use crate::validate::{Rules, Validator};

use events::{Event, Events, NewEvent, Race};
pub use fault::Fault;
pub(crate) use node::Branch;
use node::{Choice, Node};
pub(crate) use random::Random;
use removal::Removal;
pub(crate) use sampler::{Replay, Sampler};

/// After how many steps a search looks whether its time is over, and from how many on a run counts
/// as long: shorter ones are finished.
const LOOK: u32 = 4096;

/// How schedules are chosen.
pub(crate) enum Strategy {
    /// Exhaustively, with the reduction.
    Reduced,
    /// Exhaustively, without it.
    Brute,
    /// A sampler chooses.
    Sampled(Sampler),
}

#[derive(Clone)]
pub(crate) struct Settings {
    /// The largest number of preemptions.
    pub bound: Option<u32>,
    /// The largest number of steps of a run.
    pub max_steps: usize,
    /// Whether a stuck set ends the run at once.
    pub stop_at_stuck: bool,
    pub validate: bool,
    /// How often a context may lapse in one execution while others can go on.
    pub lapses: u32,
    /// How often in one execution each context's weak exchanges may fail, and its parking may end,
    /// for nothing.
    pub spurious: [u32; 2],
    /// Whether the run is written down for a trace.
    pub record: bool,
    /// Whether all contexts return when they are told that the run is over: then a failing run
    /// leaves no stack behind.
    pub contexts_return: bool,
    pub fault: Option<Fault>,
    /// What is taken out of the explored code.
    pub removal: Option<Removal>,
    /// Until when the search goes on.
    pub until: Until,
}

/// The event that is being done.
pub(crate) struct OpenEvent {
    pub ctx: CtxId,
    pub kind: OpKind,
    signature: u64,
    uses: Vec<(ObjId, Access)>,
    /// An event that it comes after beside those that its objects tell: the spawn of its context.
    pub after: Option<u32>,
    /// For joins: whose last event it comes after.
    pub target: Option<CtxId>,
    /// The interrupt token among them.
    pub token: Option<ObjId>,
    /// Whether it may have had to wait.
    pub waited: bool,
    /// The contexts that sleep in the state after it.
    pub asleep: CtxSet,
}

impl OpenEvent {
    #[inline]
    pub(crate) fn begin(&mut self, ctx: CtxId, op: &Op) {
        self.ctx = ctx;
        self.kind = op.kind;
        self.signature = op.signature();
        self.uses.clear();
        self.after = None;
        self.target = None;
        self.token = None;
        self.waited = false;
        self.asleep = CtxSet::EMPTY;
    }

    #[inline]
    pub(crate) fn add(&mut self, obj: ObjId, access: Access) {
        self.uses.push((obj, access));
    }

    #[inline]
    pub(crate) fn uses(&self) -> &[(ObjId, Access)] {
        &self.uses
    }
}

impl Default for OpenEvent {
    fn default() -> Self {
        OpenEvent {
            ctx: CtxId(0),
            kind: OpKind::Spawn,
            signature: 0,
            uses: Vec::new(),
            after: None,
            target: None,
            token: None,
            waited: false,
            asleep: CtxSet::EMPTY,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nodes are made, or schedules sampled.
    Searching,
    /// Whatever comes next has been explored elsewhere: the run is only brought to its end.
    Finishing,
}

/// What one OS thread has explored, and what it has still to explore.
pub(crate) struct Search {
    pub settings: Settings,
    pub strategy: Strategy,
    pub validator: Validator,
    pub events: Events,
    nodes: Vec<Node>,
    /// The contexts that take the steps of the run, as far as it is known.
    plan: Vec<CtxId>,
    /// Where in the plan values stand, and not contexts.
    choices: Vec<Choice>,
    depth: usize,
    /// How long the plan was when the run began.
    began: usize,
    phase: Phase,
    open: Option<Box<OpenEvent>>,
    /// The memory of events that were open.
    blank: Option<Box<OpenEvent>>,
    asleep: CtxSet,
    races: Vec<Race>,
    last_new: bool,
    /// Executions cut by sleep sets.
    pub cut: u64,
    pub steps: u64,
    /// The contexts that have taken a step, or ended, in some execution.
    pub ran: CtxSet,
    /// Whether the bound kept the search from anything.
    pub bounded: bool,
    /// Whether the limit of lapses did.
    pub limited: bool,
    /// Those whose destructors have taken steps while they unwound. How much such a step does shows
    /// only when it is done, so they never sleep.
    unwinders: CtxSet,
    this_run_cut: bool,
    /// What ends the search when this run is over.
    pub overdue: Option<Limit>,
    /// The run was ended in the middle for it.
    pub halted: bool,
    /// How many steps are taken before the search looks whether it is to end.
    until_look: u32,
}

/// The memory of a search, to be used again: nothing is in it.
#[derive(Default)]
pub(crate) struct Memory {
    events: Events,
    nodes: Vec<Node>,
    plan: Vec<CtxId>,
    blank: Option<Box<OpenEvent>>,
    races: Vec<Race>,
}

impl Search {
    pub(crate) fn new(
        strategy: Strategy,
        settings: Settings,
        rules: Rules,
        memory: Memory,
    ) -> Self {
        let Memory { events, nodes, plan, blank, races } = memory;
        Search {
            settings,
            strategy,
            validator: Validator::new(rules),
            events,
            nodes,
            plan,
            choices: Vec::new(),
            depth: 0,
            began: 0,
            phase: Phase::Searching,
            open: None,
            blank,
            asleep: CtxSet::EMPTY,
            races,
            last_new: false,
            cut: 0,
            steps: 0,
            ran: CtxSet::EMPTY,
            bounded: false,
            limited: false,
            unwinders: CtxSet::EMPTY,
            this_run_cut: false,
            overdue: None,
            halted: false,
            until_look: LOOK,
        }
    }

    /// Forgets everything, and returns the memory of it.
    pub(crate) fn take_memory(&mut self) -> Memory {
        self.events.clear();
        self.nodes.clear();
        self.plan.clear();
        Memory {
            events: std::mem::take(&mut self.events),
            nodes: std::mem::take(&mut self.nodes),
            plan: std::mem::take(&mut self.plan),
            blank: self.open.take().or(self.blank.take()),
            races: std::mem::take(&mut self.races),
        }
    }

    #[inline]
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The schedule of the run.
    pub(crate) fn plan(&self) -> &[CtxId] {
        &self.plan
    }

    /// Whether the steps from here on are analysed.
    #[inline]
    pub(crate) fn analyses(&self) -> bool {
        self.phase == Phase::Searching && matches!(self.strategy, Strategy::Reduced)
    }

    /// The run is no execution from here on: it is brought to its end, and forgotten.
    pub(crate) fn begin_probe(&mut self) {
        self.phase = Phase::Finishing;
    }

    /// Forgets the run, to run its schedule again.
    pub(crate) fn end_probe(&mut self) {
        self.plan.truncate(self.began);
        self.forget_choices(self.began);
        self.nodes.truncate(self.began);
        self.events.truncate(self.began.saturating_sub(1));
    }

    /// Returns whether the run goes where none has been, and not only to its end.
    pub(crate) fn is_searching(&self) -> bool {
        self.phase == Phase::Searching
    }

    /// The destructors of `ctx` take steps while it unwinds.
    pub(crate) fn unwinds(&mut self, ctx: CtxId) {
        self.unwinders.insert(ctx);
    }

    /// Whether the run that just ended was cut.
    pub(crate) fn was_cut(&self) -> bool {
        self.this_run_cut
    }

    /// A run is over.
    #[inline]
    pub(crate) fn ended(&mut self) {
        self.steps += self.depth as u64;
    }

    /// Looks, now and then, whether the run is to end where it is: what limits the search was
    /// reached, and who knows when this run will end. `None` if it was not the time to look.
    #[inline]
    pub(crate) fn looks(&mut self) -> Option<bool> {
        self.until_look -= 1;
        (self.until_look == 0).then(|| self.halts())
    }

    #[cold]
    fn halts(&mut self) -> bool {
        self.until_look = LOOK;
        self.overdue = self.overdue.or_else(|| self.settings.until.reached());
        self.halted = self.overdue.is_some() && self.depth >= LOOK as usize;
        self.halted
    }

    /// What halted the run in the middle, if that is how it ended.
    pub(crate) fn take_halted(&mut self) -> Option<Limit> {
        self.overdue.filter(|_| std::mem::take(&mut self.halted))
    }

    /// Makes ready for a run along the plan.
    pub(crate) fn restart(&mut self) {
        self.depth = 0;
        self.phase = Phase::Searching;
        self.open = None;
        self.asleep = CtxSet::EMPTY;
        self.this_run_cut = false;
        if let Strategy::Sampled(sampler) = &mut self.strategy {
            sampler.begin(self.plan.len());
            self.plan.clear();
            self.choices.clear();
            self.events.truncate(0);
        }
        self.began = self.plan.len();
    }

    /// Where a replayed run differed from the default schedule.
    pub(crate) fn deviations(&self) -> Vec<(usize, CtxId)> {
        match &self.strategy {
            Strategy::Sampled(Sampler::Replay(replay)) => replay.differed.clone(),
            _ => Vec::new(),
        }
    }

    /// The shallowest branch that nobody has begun, with the way there.
    pub(crate) fn give(&mut self) -> Option<Branch> {
        let depth = self.nodes.iter().position(Node::has_open)?;
        let mut nodes: Vec<Node> = self.nodes[..=depth].iter_mut().map(Node::share).collect();
        let (next, bounded) = nodes[depth].next(self.settings.bound);
        self.bounded |= bounded;
        let mut plan = self.plan[..depth].to_vec();
        plan.push(next?);
        Some(Branch { nodes, plan })
    }

    /// Turns to a branch that another thread gave away.
    pub(crate) fn adopt(&mut self, branch: Branch) {
        self.events.truncate(0);
        self.choices.clear();
        self.nodes = branch.nodes;
        self.plan = branch.plan;
    }

    /// The context that the plan names for the next step.
    #[inline]
    pub(crate) fn planned(&self) -> Option<CtxId> {
        self.plan.get(self.depth).copied()
    }

    /// Whether the next step has not been analysed yet.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        self.depth >= self.events.len() && self.phase == Phase::Searching
    }

    #[inline]
    pub(crate) fn last_is_new(&self) -> bool {
        self.last_new
    }

    /// The next step, as it was recorded when this schedule ran before.
    #[inline]
    pub(crate) fn recorded(&self) -> Option<&Event> {
        self.events.at(self.depth)
    }

    #[inline]
    pub(crate) fn advance(&mut self, new: bool) {
        self.last_new = new;
        self.depth += 1;
    }

    /// Those who need not be run from here, now that `ctx` is.
    #[inline]
    pub(crate) fn sleep_set(&self, ctx: CtxId) -> CtxSet {
        if !matches!(self.strategy, Strategy::Reduced) || self.settings.bound.is_some() {
            return CtxSet::EMPTY;
        }
        match self.nodes.get(self.depth) {
            Some(node) => CtxSet(node.asleep_or_done() & !ctx.bit() & !self.unwinders.0),
            None => CtxSet::EMPTY,
        }
    }

    #[inline]
    pub(crate) fn open(&mut self, mut open: Box<OpenEvent>) {
        if self.settings.fault == Some(Fault::StaleSleep) {
            open.asleep = self.sleep_set(open.ctx);
        }
        self.asleep = open.asleep;
        self.open = Some(open);
    }

    /// Returns whether the step that is being done is one that has not been recorded yet.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes back the event that is being done, to be opened again.
    pub(crate) fn reopen(&mut self) -> Option<Box<OpenEvent>> {
        self.open.take()
    }

    /// An event to be opened.
    #[inline]
    pub(crate) fn blank(&mut self) -> Box<OpenEvent> {
        self.blank.take().unwrap_or_default()
    }

    /// The step that is being done turned out only to read.
    #[inline]
    pub(crate) fn demote(&mut self) {
        if let Some(open) = &mut self.open {
            open.kind = OpKind::Load;
            open.uses[0].1 = Access::Read;
        }
    }

    /// Chooses who takes the next step, in a state that has not been seen. Those in `lapse` are
    /// enabled because their loops give up.
    #[inline(always)]
    pub(crate) fn choose(&mut self, enabled: CtxSet, lapse: CtxSet) -> CtxId {
        // Who rests has given up its CPU of its own accord.
        let last = match self.choices.last() {
            Some(last) if last.depth + 1 == self.plan.len() => last.by,
            _ => self.plan.last().copied(),
        };
        let previous = last.filter(|&previous| !lapse.contains(previous));
        let favourite = match previous {
            Some(previous) if enabled.contains(previous) => previous,
            _ => {
                CtxSet(enabled.0 & !lapse.0).first().or(lapse.first()).expect("somebody is enabled")
            }
        };
        let chosen = match &mut self.strategy {
            _ if self.phase == Phase::Finishing => favourite,
            Strategy::Sampled(sampler) => sampler.choose(enabled, favourite, self.depth),
            _ => {
                let asleep = self.asleep;
                let awake = CtxSet(enabled.0 & !asleep.0);
                let Some(first) = CtxSet(awake.0 & !lapse.0).first().or(awake.first()) else {
                    self.phase = Phase::Finishing;
                    self.this_run_cut = true;
                    self.cut += 1;
                    self.plan.push(favourite);
                    return favourite;
                };
                let chosen = if awake.contains(favourite) { favourite } else { first };
                let preemptions = match self.nodes.last() {
                    Some(node) => node.preemptions_after(),
                    None => 0,
                };
                // Under a bound it matters who goes on where a context gives up its CPU for
                // nothing.
                let free = self.settings.bound.is_some() && !lapse.is_empty();
                let brute = matches!(self.strategy, Strategy::Brute) || free;
                self.nodes.push(Node::new(enabled, asleep, chosen, previous, preemptions, brute));
                chosen
            }
        };
        self.plan.push(chosen);
        chosen
    }

    /// Ends the open event: it joins the recorded run, and its races become backtrack points.
    #[inline]
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.add(&open);
            self.blank = Some(open);
        }
    }

    fn add(&mut self, open: &OpenEvent) {
        self.races.clear();
        if matches!(self.strategy, Strategy::Reduced) {
            self.find_races(open);
        }
        self.events.begin(NewEvent { ctx: open.ctx, kind: open.kind, signature: open.signature });
        for &(obj, access) in open.uses() {
            self.events.access(obj, access);
        }
        if let Some(event) = open.after {
            self.events.join(event as usize);
        }
        if let Some(last) = open.target.and_then(|target| self.events.last_of(target)) {
            self.events.join(last);
        }
        self.events.end();
        if !self.races.is_empty() {
            self.reverse_all(open);
        }
    }

    /// Lists the events that `open` races with.
    #[inline]
    fn find_races(&mut self, open: &OpenEvent) {
        let bounded = self.settings.bound.is_some();
        // Under a bound the other order of the last pair may cost too much, and that of an earlier
        // one not.
        let waits = open.waited && open.kind != OpKind::Lock || bounded;
        let no_token = open.kind == OpKind::Enter && self.settings.fault == Some(Fault::NoToken);
        for (index, &(obj, access)) in open.uses().iter().enumerate() {
            if no_token && access == Access::Acquire {
                continue;
            }
            if waits || Some(obj) == open.token {
                self.events.race_chain(obj, access, open.ctx, index as u8, &mut self.races);
            } else {
                self.events.races(obj, access, open.ctx, &mut self.races);
            }
        }
        if bounded {
            self.find_switches(open);
        }
    }

    /// Lists the events that `open` may have waited for. To wait is a switch that costs no
    /// preemption: under a bound it matters where it happens.
    #[cold]
    fn find_switches(&mut self, open: &OpenEvent) {
        for &(obj, _) in open.uses().iter().filter(|(_, access)| *access == Access::Acquire) {
            self.races.extend(self.events.release(obj, open.ctx));
        }
        if let Some(last) = open.target.and_then(|target| self.events.last_of(target)) {
            self.races.push(Race { event: last as u32, chain: None });
        }
    }

    /// Sees to the races of the last event, which is `open`.
    fn reverse_all(&mut self, open: &OpenEvent) {
        let event = self.events.len() - 1;
        let mut settled = None;
        for index in 0..self.races.len() {
            let race = self.races[index];
            if race.chain.is_none() || race.chain != settled {
                let interrupts = race
                    .chain
                    .is_some_and(|index| Some(open.uses()[index as usize].0) == open.token);
                let reversed = self.reverse(race.event as usize, event, interrupts);
                settled = if reversed { race.chain } else { None };
            }
        }
    }

    /// Sees to it that the events `first` and `second`, which race, are also run in the other
    /// order. `false` unless it is certain that they can be: `second` may have to wait before
    /// `first`, and its chance may have come earlier. `interrupts`: it is the interrupt token that
    /// they race for.
    fn reverse(&mut self, first: usize, second: usize, interrupts: bool) -> bool {
        let ctx = self.events.get(second).ctx;
        let entry = self.events.get(second).kind == OpKind::Enter;
        if interrupts {
            // Before interrupts were turned on, they were off. Whoever is interrupted stands still
            // until the handlers above it have returned.
            let cannot = match self.events.get(first).kind {
                OpKind::IrqOn => true,
                OpKind::Return | OpKind::IrqOff => !entry,
                _ => false,
            };
            if cannot && self.events.get(first).ctx != ctx {
                return false;
            }
        }
        if self.settings.bound.is_some() {
            self.reverse_bounded(first, ctx);
            return false;
        }
        if second == first + 1 && self.settings.fault.is_none() {
            // Nothing between them: `second` begins what would be run before `first`.
            let node = &mut self.nodes[first];
            let alone = CtxSet(ctx.bit() & node.enabled());
            node.cover(alone, alone);
            return !alone.is_empty();
        }
        // What would be run before `first`: all that does not come after it, up to `second`. A
        // context whose first event there needs none of the others can begin it.
        let mut begun = [0u32; 64];
        let mut initials = CtxSet::EMPTY;
        // Those of them without whose first event `second` would not come.
        let mut needed = CtxSet::EMPTY;
        let mut seen = CtxSet::EMPTY;
        for index in first + 1..=second {
            if self.events.happens_before(first, index) && index != second {
                continue;
            }
            let other = self.events.get(index).ctx;
            if seen.contains(other) {
                continue;
            }
            let clock = self.events.clock(index);
            let needs = seen.iter().any(|earlier| clock[earlier.index()] > begun[earlier.index()]);
            seen.insert(other);
            begun[other.index()] = index as u32;
            if !needs {
                initials.insert(other);
                if self.events.happens_before(index, second) {
                    needed.insert(other);
                }
            }
        }
        let node = &mut self.nodes[first];
        if self.settings.fault == Some(Fault::EntryWithoutRaise) {
            node.add(CtxSet(ctx.bit() & node.enabled()));
            return true;
        }
        // `second` itself may wait at `first`; then the race cannot be reversed there.
        let needed = CtxSet(needed.0 & node.enabled());
        if needed.is_empty() {
            return false;
        }
        let at_once = needed.contains(ctx) && begun[ctx.index()] == second as u32;
        node.cover(CtxSet(initials.0 & node.enabled()), needed);
        // Interrupts were on before they were turned off and before a handler began.
        at_once
            || interrupts
                && entry
                && matches!(self.events.get(first).kind, OpKind::IrqOff | OpKind::Enter)
    }

    /// Under a bound, sleep sets and source sets are not sound: the other order may need a
    /// preemption more than is left, or be reachable without one only from further back. So more is
    /// added (Coons, Musuvathi, McKinley, "Bounded partial-order reduction", OOPSLA 2013).
    fn reverse_bounded(&mut self, first: usize, ctx: CtxId) {
        let Some(first) = self.scheduled_at(first) else { return };
        self.nodes[first].add_or_all(ctx);
        if self.settings.fault == Some(Fault::NaiveBound) {
            return;
        }
        let mut start = first;
        // The context that took a step, or chose a value.
        let who = |depth: usize| self.events.get(depth).ctx;
        while start > 0 && who(start - 1) == who(first) {
            start -= 1;
        }
        if let Some(start) = self.scheduled_at(start) {
            self.nodes[start].add_or_all(ctx);
        }
    }

    /// Where a run ends or is cut: those who wait could have had their turn before what they wait
    /// for was taken.
    pub(crate) fn analyse_waiting(&mut self, waiting: impl Iterator<Item = OpenEvent>) {
        let depth = self.events.len();
        for open in waiting {
            self.add(&open);
            self.events.truncate(depth);
        }
    }

    /// Turns to the next schedule; `false` if there is none.
    pub(crate) fn backtrack(&mut self) -> bool {
        while let Some(node) = self.nodes.last_mut() {
            let (next, bounded) = node.next(self.settings.bound);
            self.bounded |= bounded;
            let depth = self.nodes.len() - 1;
            match next {
                Some(ctx) => {
                    self.plan.truncate(depth);
                    self.forget_choices(depth);
                    self.plan.push(ctx);
                    self.events.truncate(depth);
                    return true;
                }
                None => {
                    self.nodes.pop();
                }
            }
        }
        false
    }

    /// The share of the tree that has been explored, if what is known of its breadth now is all
    /// there is.
    pub(crate) fn share(&self) -> f64 {
        let mut share = 0.0;
        let mut weight = 1.0;
        for node in &self.nodes {
            let (done, all) = node.progress();
            weight /= all as f64;
            share += (done - 1) as f64 * weight;
        }
        share
    }
}
