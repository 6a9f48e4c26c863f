//! How a step is announced, chosen and performed.
//!
//! A context announces what it will do next and suspends; when it is chosen, the machine performs its share (who holds
//! which lock, which interrupts are on) and the context does the rest inline: nobody else runs until it announces again.

use doorbell_platform::{CpuId, WaitType};

use crate::coroutine;
use crate::ids::{CtxId, CtxSet, ObjId};
use crate::op::{Access, Op, OpKind};
use crate::search::Open;
use crate::trace::FailureKind;
use crate::validate::{CtxKind, Held};
use crate::world::{Cpu, Ended, Mode, NOBODY, ObjKind, World, with};

/// The object of steps that share nothing.
pub(crate) const NO_OBJ: ObjId = ObjId(u32::MAX);

/// A version that no object has. Who has changed an object does not wait, in a retry loop, for others to do so: the next
/// attempt may go another way because of its own change, of which what it has read so far says nothing.
const OWN_CHANGE: u32 = u32::MAX;

enum Next {
    Go,
    Suspend,
    Over,
    /// The step was not performed: the task has to let others run first.
    Preempted,
}

/// Announces `op` and returns when it has been performed; `Err` if the run ended first and `op` is where a service waits.
///
/// Inlined as far as the place where the step is kept, so that it is written there field by field and not copied.
#[inline(always)]
pub(crate) fn try_step(op: Op) -> Result<(), Ended> {
    loop {
        let next = with(|w| {
            if w.mode != Mode::Running {
                return w.alone(op);
            }
            w.ctxs[w.current.index()].pending = op;
            w.announce()
        });
        let next = match next {
            Next::Suspend => {
                coroutine::suspend();
                with(|w| w.resumed())
            }
            next => next,
        };
        match next {
            Next::Go | Next::Suspend => return Ok(()),
            Next::Over => return Err(Ended),
            Next::Preempted => preempt(),
        }
    }
}

/// The current task was preempted where it announced a step: others run, and then it announces the step again.
#[cold]
fn preempt() {
    let scheduled = with(|w| {
        let me = w.current;
        w.ctx(me).scheduled.clone()
    });
    scheduled.expect("only tasks of a scheduler are preempted").preempt();
}

/// [`try_step`] for code that has nothing to do when the run is over: it stays where it is.
#[inline(always)]
pub(crate) fn step(op: Op) {
    if try_step(op).is_err() {
        stay();
    }
}

/// A context that waited when the run ended, in code that does not expect it, never goes on.
#[cold]
fn stay() -> ! {
    loop {
        coroutine::suspend();
    }
}

impl World {
    /// The current context has come to its next step, which is pending.
    fn announce(&mut self) -> Next {
        self.close();
        let me = self.current;
        if self.ctx(me).pending.kind.can_wait() && !self.may_sleep(me)
            || self.starting
            || !self.unstarted.is_empty()
            || self.failed.is_some()
        {
            return Next::Suspend;
        }
        match self.decide() {
            Some(next) if next == me => {
                self.perform(me);
                if self.failed.is_some() { Next::Suspend } else { self.resumed() }
            }
            next => {
                self.next = next;
                Next::Suspend
            }
        }
    }

    /// What a context finds when its turn has come.
    #[inline]
    fn resumed(&mut self) -> Next {
        if self.mode == Mode::Ending {
            return Next::Over;
        }
        let me = self.current;
        if std::mem::take(&mut self.ctx_mut(me).preempted) { Next::Preempted } else { Next::Go }
    }

    /// Whether `id` has to let other tasks of its CPU run before it does anything else.
    #[inline(always)]
    fn must_reschedule(&self, id: CtxId) -> bool {
        let Some(cpu) = self.ctx(id).cpu.map(|cpu| &self.cpus[cpu.0 as usize]) else { return false };
        cpu.need_resched && self.may_reschedule(id, cpu)
    }

    #[cold]
    fn may_reschedule(&self, id: CtxId, cpu: &Cpu) -> bool {
        let ctx = self.ctx(id);
        // Who spins for a lock has preemption off.
        ctx.scheduled.is_some()
            && cpu.running() == Some(id)
            && !(ctx.pending.kind == OpKind::Lock && self.obj(ctx.pending.obj).kind == ObjKind::Spin)
            && !self.atomic(id)
    }

    /// Steps outside of the search: while the program sets up, while a panic unwinds, when the run is over.
    #[inline(never)]
    fn alone(&mut self, op: Op) -> Next {
        match self.mode {
            Mode::Ending if op.kind.can_wait() => return Next::Over,
            Mode::Outside | Mode::Alone => {
                let waits = match op.kind {
                    OpKind::Lock => self.obj(op.obj).holder != NOBODY,
                    OpKind::Await | OpKind::Take => !self.holds(&op),
                    OpKind::Relax => true,
                    _ => false,
                };
                assert!(!waits, "{} would wait for ever: no context runs yet", self.describe_wait(&op));
            }
            _ => {}
        }
        match op.kind {
            OpKind::Lock => self.obj_mut(op.obj).holder = 0,
            OpKind::TryLock => {
                let free = self.obj(op.obj).holder == NOBODY;
                self.obj_mut(op.obj).holder = 0;
                if self.ctxs.is_empty() || self.mode == Mode::Alone {
                    self.alone_got = free;
                } else {
                    let me = self.current;
                    self.ctx_mut(me).got = free;
                }
            }
            OpKind::Unlock => self.obj_mut(op.obj).holder = NOBODY,
            _ => {}
        }
        Next::Go
    }

    /// Complains about something that sleeps where nothing may.
    fn may_sleep(&mut self, me: CtxId) -> bool {
        let op = &self.ctx(me).pending;
        let sleeps = match op.kind {
            OpKind::Lock => self.obj(op.obj).kind == ObjKind::Mutex,
            OpKind::Await | OpKind::Take | OpKind::Join => true,
            _ => false,
        };
        if !sleeps || !self.atomic(me) {
            return true;
        }
        let why = match self.ctx(me) {
            ctx if ctx.kind == CtxKind::Handler => "in an interrupt handler".to_owned(),
            ctx if ctx.held.iter().any(|held| held.class.wait_type() == WaitType::Spin) => {
                let names: Vec<_> = ctx.held.iter().map(|held| held.class.name()).collect();
                format!("holding {}", names.join(", "))
            }
            ctx if ctx.preempt_off > 0 => "with preemption off".to_owned(),
            _ => "with interrupts off".to_owned(),
        };
        let message = format!("{} {} may sleep, but is called {why}", self.ctx(me).name, self.describe_wait(op));
        self.fail(FailureKind::SleepInAtomic, CtxSet(me.bit()), message);
        false
    }

    /// Whether `ctx` must not sleep.
    pub(crate) fn atomic(&self, ctx: CtxId) -> bool {
        let this = self.ctx(ctx);
        this.kind == CtxKind::Handler
            || this.preempt_off > 0
            || this.cpu.is_some_and(|cpu| !self.cpus[cpu.0 as usize].irqs_on)
            || this.held.iter().any(|held| held.class.wait_type() == WaitType::Spin && held.lock.is_some())
    }

    /// Whether the condition of a waiting step holds.
    #[inline]
    pub(crate) fn holds(&self, op: &Op) -> bool {
        // SAFETY: the condition lives on the stack of the context that announced the step and that is suspended in it,
        // or is the caller.
        op.condition.is_none_or(|condition| unsafe { (*condition)() })
    }

    /// Whether `id` may take steps on its CPU now.
    #[inline]
    pub(crate) fn on_cpu(&self, id: CtxId) -> bool {
        self.ctx(id).cpu.is_none_or(|cpu| self.cpus[cpu.0 as usize].running() == Some(id))
    }

    /// Whether `id` could do its pending step now.
    #[inline]
    pub(crate) fn enabled(&self, id: CtxId) -> bool {
        let ctx = self.ctx(id);
        if ctx.finished {
            return false;
        }
        let op = &ctx.pending;
        if op.kind == OpKind::Enter {
            let cpu = &self.cpus[ctx.cpu.expect("a handler has a CPU").0 as usize];
            return ctx.raised && cpu.irqs_on;
        }
        self.on_cpu(id) && (self.op_enabled(id, op) || self.must_reschedule(id))
    }

    /// Whether what a step waits for is there, its CPU aside.
    #[inline]
    pub(crate) fn op_enabled(&self, id: CtxId, op: &Op) -> bool {
        match op.kind {
            OpKind::Lock => self.obj(op.obj).holder == NOBODY,
            OpKind::Await | OpKind::Take => self.holds(op),
            OpKind::Join => self.ctx(op.target).finished,
            OpKind::Relax => {
                let reads = &self.ctx(id).reads;
                reads.is_empty() || reads.iter().any(|&(obj, version)| self.obj(obj).version != version)
            }
            _ => true,
        }
    }

    /// All contexts that could do their pending step now.
    #[inline]
    pub(crate) fn all_enabled(&self) -> CtxSet {
        let mut set = CtxSet::EMPTY;
        for index in 0..self.ctxs.len() {
            let id = CtxId(index as u8);
            if self.enabled(id) {
                set.insert(id);
            }
        }
        set
    }

    /// Which context takes the next step; `None` ends the run.
    #[inline]
    pub(crate) fn decide(&mut self) -> Option<CtxId> {
        if let Some(planned) = self.search.planned() {
            return Some(planned);
        }
        if self.failed.is_some() {
            return None;
        }
        let enabled = self.all_enabled();
        if self.search.settings.stop_at_stuck && self.someone_new_waits(enabled) {
            let stuck = self.stuck(enabled);
            if !stuck.is_empty() {
                self.fail_stuck(stuck);
                return None;
            }
        }
        if enabled.is_empty() {
            return None;
        }
        if self.search.depth() >= self.search.settings.max_steps {
            let message = format!("the run has not ended after {} steps", self.search.settings.max_steps);
            self.fail(FailureKind::TooLong, CtxSet::EMPTY, message);
            return None;
        }
        let analysed = self.search.analyses();
        let chosen = self.search.choose(enabled);
        if analysed && self.search.was_cut() {
            // What can go on from here is run elsewhere. What cannot may have its turn nowhere but before.
            self.analyse_waiting(enabled);
        }
        if !enabled.contains(chosen) {
            let message = format!("the schedule cannot be followed at step {}", self.search.depth());
            self.fail(FailureKind::Nondeterministic, CtxSet::EMPTY, message);
            return None;
        }
        Some(chosen)
    }

    /// Whether the context that just ran has come to wait or has ended: only then can a stuck set be new.
    #[inline]
    fn someone_new_waits(&self, enabled: CtxSet) -> bool {
        !enabled.contains(self.current) && self.ctxs.len() > 1
    }

    /// Does the machine's share of the pending step of `id`.
    #[inline]
    pub(crate) fn perform(&mut self, id: CtxId) {
        if self.must_reschedule(id) {
            // What it announced it will announce again.
            let ctx = self.ctx_mut(id);
            ctx.pending = Op { kind: OpKind::Observe, obj: NO_OBJ, obj2: None, condition: None, ..ctx.pending };
            ctx.preempted = true;
            self.cpu_of(id).need_resched = false;
        }
        let new = self.search.is_new();
        if new {
            self.open(id);
        } else if !self.search.matches(&self.ctxs[id.index()].pending, id) {
            let message = format!(
                "{} does something else at step {} when the same schedule is run again: the program depends on \
                 something that the machine does not control",
                self.ctx(id).name,
                self.search.depth(),
            );
            self.fail(FailureKind::Nondeterministic, CtxSet(id.bit()), message);
            return;
        }
        let record = self.search.settings.record;
        let preempts = record && self.preempts(id);
        self.search.advance();
        self.effect(id);
        if record {
            let op = self.ctx(id).pending;
            self.record(id, &op, preempts);
        }
    }

    /// Begins a new event: everything that has to be known about it before its effects.
    #[inline]
    fn open(&mut self, id: CtxId) {
        let mut open = self.as_event(id, &self.ctx(id).pending);
        let mut asleep = CtxSet::EMPTY;
        for sleeper in self.search.sleepers(id).iter() {
            if !self.conflicts(sleeper, &open) {
                asleep.insert(sleeper);
            }
        }
        open.asleep = asleep;
        self.ctx_mut(id).begun = true;
        self.search.open(open);
    }

    /// The event that `op` is if `id` does it now.
    #[inline]
    pub(crate) fn as_event(&self, id: CtxId, op: &Op) -> Open {
        let mut open = Open::new(id, op);
        if op.kind == OpKind::TryLock && self.obj(op.obj).holder != NOBODY {
            open.kind = OpKind::Observe;
        }
        if op.obj != NO_OBJ && op.kind != OpKind::Relax {
            open.add(op.obj, open.kind.access());
        }
        if let Some(obj2) = op.obj2 {
            open.add(obj2, Access::Write);
        }
        if let Some((token, access)) = self.token_use(id, op) {
            open.add(token, access);
            open.token = Some(token);
        } else if matches!(op.kind, OpKind::IrqOff | OpKind::IrqOn | OpKind::Return) {
            open.token = Some(op.obj);
        }
        let ctx = self.ctx(id);
        if let Some(switch) = ctx.cpu.and_then(|cpu| self.cpus[cpu.0 as usize].switch)
            && op.kind != OpKind::Switch
        {
            open.add(switch, Access::Read);
            open.token = open.token.or(Some(switch));
        }
        if op.kind == OpKind::Relax {
            // Who has changed something itself looks again, whatever others do.
            let waits = ctx.reads.iter().all(|&(_, version)| version != OWN_CHANGE);
            for &(obj, _) in ctx.reads.iter().filter(|_| waits) {
                open.add(obj, Access::Read);
            }
        }
        if !ctx.begun {
            open.after = ctx.born;
        }
        if op.kind == OpKind::Join {
            open.target = Some(op.target);
        }
        open.waited = op.kind.can_wait();
        open
    }

    /// What the step does to the interrupt token of its CPU.
    #[inline]
    fn token_use(&self, id: CtxId, op: &Op) -> Option<(ObjId, Access)> {
        let cpu = &self.cpus[self.ctx(id).cpu?.0 as usize];
        if !cpu.has_handlers {
            return None;
        }
        match op.kind {
            OpKind::Enter => Some((cpu.token, Access::Acquire)),
            OpKind::IrqOff | OpKind::IrqOn | OpKind::Return => None,
            // Whoever was interrupted had them on.
            _ if cpu.irqs_on || !self.on_cpu(id) => Some((cpu.token, Access::Read)),
            _ => None,
        }
    }

    /// Whether the pending step of `sleeper` depends on the step that is being done.
    fn conflicts(&self, sleeper: CtxId, open: &Open) -> bool {
        let ctx = self.ctx(sleeper);
        let op = &ctx.pending;
        if op.kind == OpKind::Relax {
            return true;
        }
        let clash = |obj: ObjId, access: Access| {
            open.uses()
                .iter()
                .any(|&(other, theirs)| other == obj && !(access == Access::Read && theirs == Access::Read))
        };
        (op.obj != NO_OBJ && clash(op.obj, op.kind.access()))
            || op.obj2.is_some_and(|obj2| clash(obj2, Access::Write))
            || self.token_use(sleeper, op).is_some_and(|(obj, access)| clash(obj, access))
    }

    #[inline]
    fn effect(&mut self, id: CtxId) {
        let op = &self.ctx(id).pending;
        let (kind, obj, obj2, target) = (op.kind, op.obj, op.obj2, op.target);
        match kind {
            OpKind::Observe if obj == NO_OBJ => {}
            OpKind::Switch => {
                // What the one that leaves holds (the lock of the run queue), the next one holds.
                let mut held = std::mem::take(&mut self.ctx_mut(id).held);
                for lock in held.iter().filter_map(|held| held.lock) {
                    self.obj_mut(lock).holder = target.0;
                }
                self.ctx_mut(target).held.append(&mut held);
                self.cpu_of(id).task = Some(target);
            }
            OpKind::Load | OpKind::Observe => {
                let version = self.obj(obj).version;
                self.ctx_mut(id).reads.push((obj, version));
            }
            OpKind::Store | OpKind::Rmw | OpKind::Change | OpKind::Take => {
                self.obj_mut(obj).version += 1;
                self.ctx_mut(id).reads.push((obj, OWN_CHANGE));
            }
            OpKind::Lock => self.take(id, false),
            OpKind::TryLock => {
                let free = self.obj(obj).holder == NOBODY;
                self.ctx_mut(id).got = free;
                if free {
                    self.take(id, !self.ctx(id).pending.or_waits);
                } else {
                    let version = self.obj(obj).version;
                    self.ctx_mut(id).reads.push((obj, version));
                }
            }
            OpKind::Unlock => self.release(id, obj),
            OpKind::IrqOff => self.cpu_of(id).irqs_on = false,
            OpKind::IrqOn => self.cpu_of(id).irqs_on = true,
            OpKind::Enter => {
                let ctx = self.ctx_mut(id);
                ctx.raised = false;
                ctx.active = true;
                let cpu = self.cpu_of(id);
                cpu.irqs_on = false;
                cpu.handlers.push(id);
            }
            OpKind::Return => self.leave(id),
            OpKind::Raise => self.ctx_mut(target).raised = true,
            OpKind::Relax => self.ctx_mut(id).reads.clear(),
            OpKind::Join => {
                let ended = self.ctx(target).after;
                let ctx = self.ctx_mut(id);
                ctx.after.0 |= ended.0 | target.bit();
            }
            OpKind::Await | OpKind::Spawn => {}
        }
        if let Some(obj2) = obj2 {
            self.obj_mut(obj2).version += 1;
        }
    }

    #[inline]
    fn cpu_of(&mut self, id: CtxId) -> &mut Cpu {
        let cpu: CpuId = self.ctx(id).cpu.expect("interrupts are a matter of CPUs");
        &mut self.cpus[cpu.0 as usize]
    }

    fn take(&mut self, id: CtxId, tried: bool) {
        let op = &self.ctx(id).pending;
        let (lock, how, site) = (op.obj, op.how.expect("a lock is taken somehow"), op.site);
        let obj = self.obj_mut(lock);
        obj.holder = id.0;
        obj.version += 1;
        let irqs_on = self.ctx(id).cpu.is_some_and(|cpu| self.cpus[cpu.0 as usize].irqs_on);
        let taken = Held { lock: Some(lock), class: how.class, subclass: how.subclass, tried, irqs_on, site };
        self.note_acquire(id, taken, how.under);
    }

    fn release(&mut self, id: CtxId, lock: ObjId) {
        let obj = self.obj_mut(lock);
        let holder = obj.holder;
        obj.holder = NOBODY;
        obj.version += 1;
        // A retry loop that looks under a lock waits for somebody else to take it.
        let version = obj.version;
        self.ctx_mut(id).reads.push((lock, version));
        let held = &mut self.ctx_mut(id).held;
        match held.iter().rposition(|held| held.lock == Some(lock)) {
            Some(place) if holder == id.0 => {
                held.remove(place);
            }
            _ => {
                let message = format!("{} releases {}, which it does not hold", self.ctx(id).name, self.name(lock));
                self.fail(FailureKind::LockRule, CtxSet(id.bit()), message);
            }
        }
    }

    fn leave(&mut self, id: CtxId) {
        let ctx = self.ctx_mut(id);
        ctx.active = false;
        let left = ctx.held.first().map(|held| held.class.name());
        if let Some(name) = left {
            let message = format!("the handler {} returns while it holds {name}", self.ctx(id).name);
            self.fail(FailureKind::LockRule, CtxSet(id.bit()), message);
        }
        self.ctx_mut(id).irq_saves.clear();
        let cpu = self.cpu_of(id);
        let left = cpu.handlers.pop();
        debug_assert_eq!(left, Some(id));
        cpu.irqs_on = true;
        let reschedules = self.ctx(id).reschedules;
        self.cpu_of(id).need_resched |= reschedules;
    }

    /// The last step wrote what was there before. `read_only`: it would have done so whatever others had written.
    pub(crate) fn unchanged(&mut self, obj: ObjId, read_only: bool) {
        if self.mode != Mode::Running {
            return;
        }
        self.obj_mut(obj).version -= 1;
        let version = self.obj(obj).version;
        let me = self.current;
        let reads = &mut self.ctx_mut(me).reads;
        if reads.last() == Some(&(obj, OWN_CHANGE)) {
            reads.pop();
        }
        reads.push((obj, version));
        if read_only {
            self.search.demote();
        }
    }

    /// The step that is being done changes another object, too, as it turns out.
    pub(crate) fn also_changes(&mut self, obj: ObjId) {
        if self.mode != Mode::Running {
            return;
        }
        self.obj_mut(obj).version += 1;
        if let Some(mut open) = self.search.reopen() {
            open.add(obj, Access::Write);
            for sleeper in open.asleep.iter() {
                if self.conflicts(sleeper, &open) {
                    open.asleep.remove(sleeper);
                }
            }
            self.search.open(open);
        }
    }

    /// Ends the event that is open, if any: analyses what it races with.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.search.close();
    }

    /// The current context has returned from its function.
    pub(crate) fn finished(&mut self, id: CtxId) {
        self.close();
        self.ctx_mut(id).finished = true;
        if self.mode != Mode::Running || self.failed.is_some() {
            return;
        }
        let ctx = self.ctx(id);
        let message = if let Some(held) = ctx.held.first() {
            format!("{} ends while it holds {}", ctx.name, held.class.name())
        } else if ctx.cpu.map(|cpu| &self.cpus[cpu.0 as usize]).is_some_and(|cpu| !cpu.irqs_on && cpu.task == Some(id))
        {
            format!("{} ends with interrupts off", ctx.name)
        } else if ctx.preempt_off > 0 {
            format!("{} ends with preemption off", ctx.name)
        } else {
            if let Some(cpu) = ctx.cpu
                && self.cpus[cpu.0 as usize].task == Some(id)
            {
                self.cpus[cpu.0 as usize].task = None;
            }
            return;
        };
        self.fail(FailureKind::LockRule, CtxSet(id.bit()), message);
    }
}
