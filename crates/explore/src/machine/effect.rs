//! A step that is performed: the event that it is to the search, and the machine's share of what it
//! does.

use std::panic::Location;

use doorbell_platform::{CpuId, WaitType};

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::alone::Alone;
use crate::machine::cpu::Cpu;
use crate::machine::flags::removing;
use crate::machine::object::NOBODY;
use crate::machine::world::{Mode, World};
use crate::op::{Access, NO_OBJ, Op, OpKind};
use crate::search::{Fault, OpenEvent};
use crate::trace::FailureKind;
use crate::validate::Held;

impl World {
    /// Begins a new event: everything that has to be known about it before its effects.
    #[inline]
    pub(crate) fn open(&mut self, id: CtxId) {
        let mut open = self.search.blank();
        let sleepers = self.search.sleep_set(id);
        if self.relaxes {
            for one in CtxSet(sleepers.0 | id.bit()).iter() {
                if self.rests(one) {
                    self.spin(one);
                }
            }
        }
        self.as_event(id, &self.ctx(id).pending, &mut open);
        let mut asleep = CtxSet::EMPTY;
        for sleeper in sleepers.iter() {
            if !self.conflicts(sleeper, &open) {
                asleep.insert(sleeper);
            }
        }
        open.asleep = asleep;
        self.ctx_mut(id).begun = true;
        self.search.ran.insert(id);
        self.search.open(open);
    }

    /// Makes `open` the event that `op` is if `id` does it now.
    #[inline(always)]
    pub(crate) fn as_event(&self, id: CtxId, op: &Op, open: &mut OpenEvent) {
        open.begin(id, op);
        open.kind = self.becomes(id, op);
        let kind = open.kind;
        let late = self.search.settings.fault == Some(Fault::LateObjects);
        open.token = self.op_uses(id, op, kind, &mut |obj, access| {
            if !late || obj.index() < self.set_up {
                open.add(obj, access);
            }
        });
        let ctx = self.ctx(id);
        if !ctx.begun {
            open.after = ctx.born;
        }
        if op.kind == OpKind::Join {
            open.target = Some(op.target);
        }
        open.waited = op.kind.can_wait();
    }

    /// Calls `f` with all that the step `op` of `id` uses, if it is done now and becomes `kind`.
    /// Returns the token that stands for whose turn it is on its CPU, if it uses one.
    #[inline(always)]
    pub(crate) fn op_uses(
        &self,
        id: CtxId,
        op: &Op,
        kind: OpKind,
        f: &mut impl FnMut(ObjId, Access),
    ) -> Option<ObjId> {
        if op.obj != NO_OBJ && op.kind != OpKind::Relax {
            f(op.obj, kind.access());
        }
        let ctx = self.ctx(id);
        let cpu = ctx.cpu.map(|cpu| &self.cpus[cpu.0 as usize]);
        let plain =
            cpu.is_none_or(|cpu| !cpu.has_handlers && cpu.switch.is_none()) && ctx.more.is_none();
        if plain && matches!(op.kind, OpKind::Load | OpKind::Store | OpKind::Rmw) {
            return None;
        }
        self.uses_beside(id, op, kind, f)
    }

    /// [`op_uses`](World::op_uses), but for the object that the step is about.
    fn uses_beside(
        &self,
        id: CtxId,
        op: &Op,
        kind: OpKind,
        f: &mut impl FnMut(ObjId, Access),
    ) -> Option<ObjId> {
        if let Some(obj2) = op.obj2 {
            f(obj2, Access::Write);
        }
        let mut token = match op.kind {
            OpKind::IrqOff | OpKind::IrqOn | OpKind::Return => Some(op.obj),
            _ => None,
        };
        if let Some(cpu) = self.ctx(id).cpu.map(|cpu| &self.cpus[cpu.0 as usize])
            && (cpu.has_handlers || cpu.switch.is_some())
        {
            if let Some((obj, access)) = self.token_use(id, op, cpu) {
                f(obj, access);
                token = Some(obj);
            }
            if let Some(switch) = cpu.switch
                && op.kind != OpKind::Switch
            {
                f(switch, Access::Read);
                token = token.or(Some(switch));
            }
        }
        if op.kind == OpKind::Relax {
            self.relax_uses(id, kind, f);
        }
        self.more_uses(id, f);
        token
    }

    /// [`op_uses`](World::op_uses) of a `cpu_relax`.
    fn relax_uses(&self, id: CtxId, kind: OpKind, f: &mut impl FnMut(ObjId, Access)) {
        // Who has changed something itself looks again, whatever others do.
        if self.own_change(id) {
            return;
        }
        for &(obj, _) in &self.ctx(id).reads {
            let takes = kind == OpKind::Lapse && self.obj(obj).is_lock();
            f(obj, if takes { Access::Write } else { Access::Read });
        }
    }

    /// What a step is, if it is done as things are now: one that would leave its object as it is
    /// only reads. So two steps on an object depend on each other unless both leave it unchanged. A
    /// store always writes, also the value that is there.
    #[inline(always)]
    pub(crate) fn becomes(&self, id: CtxId, op: &Op) -> OpKind {
        match op.kind {
            OpKind::Relax if self.lapses(id) => OpKind::Lapse,
            OpKind::TryLock if self.obj(op.obj).holder != NOBODY => OpKind::Observe,
            OpKind::Rmw if !self.holds(op) => OpKind::Load,
            OpKind::Change if !self.holds(op) => OpKind::Observe,
            kind => kind,
        }
    }

    /// Calls `f` with what the pending step of `id` uses beside what its `Op` names.
    #[inline]
    pub(crate) fn more_uses(&self, id: CtxId, f: &mut impl FnMut(ObjId, Access)) {
        if let Some(more) = self.ctx(id).more {
            // SAFETY: it lives on the stack of the context that announced the step and that is
            // suspended in it, or is the caller.
            unsafe { (*more)(&mut |obj, access| f(obj, access)) };
        }
    }

    /// What the step does to the interrupt token of its CPU.
    #[inline]
    fn token_use(&self, id: CtxId, op: &Op, cpu: &Cpu) -> Option<(ObjId, Access)> {
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
    pub(crate) fn conflicts(&self, sleeper: CtxId, open: &OpenEvent) -> bool {
        let ctx = self.ctx(sleeper);
        let op = &ctx.pending;
        let clash = |obj: ObjId, access: Access| {
            open.uses().iter().any(|&(other, theirs)| {
                other == obj && !(access == Access::Read && theirs == Access::Read)
            })
        };
        let mut clashes = ctx.may_change.is_some_and(|obj| clash(obj, Access::Write));
        let blind =
            self.search.settings.fault == Some(Fault::BlindExchange) && op.kind == OpKind::Rmw;
        let kind = if blind { OpKind::Load } else { self.becomes(sleeper, op) };
        self.op_uses(sleeper, op, kind, &mut |obj, access| clashes |= clash(obj, access));
        clashes
    }

    /// Does the machine's share of an access of `id` to a word; `false`, with nothing done, if the
    /// step is another one.
    #[inline(always)]
    pub(crate) fn access(&mut self, id: CtxId, kind: OpKind, obj: ObjId) -> bool {
        match kind {
            OpKind::Load => self.ctxs[id.index()].reads.push((obj, self.versions[obj.index()])),
            OpKind::Store | OpKind::Rmw => self.versions[obj.index()] += 1,
            _ => return false,
        }
        true
    }

    /// Does the machine's share of the pending step of `id`.
    #[inline(always)]
    pub(crate) fn effect(&mut self, id: CtxId) {
        let op = &self.ctx(id).pending;
        let (kind, obj) = (op.kind, op.obj);
        if !self.access(id, kind, obj) {
            self.further_effect(id);
        }
    }

    /// [`effect`](World::effect) of a step that is no access to a word.
    #[inline(never)]
    fn further_effect(&mut self, id: CtxId) {
        let op = &self.ctx(id).pending;
        let (kind, obj, obj2, target, op_site) = (op.kind, op.obj, op.obj2, op.target, op.site);
        match kind {
            OpKind::Observe if obj == NO_OBJ => {}
            OpKind::Switch => {
                // The spin locks of the one that leaves (that of the run queue), the next one
                // holds.
                while let Some(place) = self
                    .ctx(id)
                    .held
                    .iter()
                    .position(|held| held.class.wait_type() == WaitType::Spin)
                {
                    let held = self.ctx_mut(id).let_go(place);
                    if let Some(lock) = held.lock {
                        self.obj_mut(lock).holder = target.0;
                    }
                    self.ctx_mut(target).hold(held);
                }
                self.cpu_of(id).task = Some(target);
            }
            OpKind::Observe => {
                let version = self.versions[obj.index()];
                self.ctx_mut(id).reads.push((obj, version));
            }
            OpKind::Change | OpKind::Take => self.versions[obj.index()] += 1,
            OpKind::Lock => self.take(id, false),
            OpKind::TryLock => {
                let free = self.obj(obj).holder == NOBODY;
                self.ctx_mut(id).got = free;
                if free {
                    self.take(id, !self.ctx(id).pending.or_waits);
                } else {
                    let version = self.versions[obj.index()];
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
            OpKind::Relax => self.relax(id, op_site),
            OpKind::Join => {
                let ended = self.ctx(target).after;
                let ctx = self.ctx_mut(id);
                ctx.after.0 |= ended.0 | target.bit();
                self.joined(target, id);
            }
            // `access` does the first three.
            OpKind::Load
            | OpKind::Store
            | OpKind::Rmw
            | OpKind::Await
            | OpKind::Spawn
            | OpKind::Choose
            | OpKind::Lapse => {}
        }
        if let Some(obj2) = obj2 {
            self.versions[obj2.index()] += 1;
        }
        self.forget_more(id);
    }

    /// A `cpu_relax` at `site` is done.
    fn relax(&mut self, id: CtxId, site: &'static Location<'static>) {
        let lapses = self.lapses(id);
        // Who has not seen yet all that its loop reads adds to what it has seen.
        let adds = !lapses && self.alone.is_none() && self.rests(id);
        if lapses {
            self.begin_lapse(id);
        }
        let ctx = self.ctx_mut(id);
        ctx.in_vain = if adds { ctx.in_vain + 1 } else { 0 };
        ctx.relaxed = site;
        ctx.spin = None;
        ctx.own_change.set(None);
        ctx.spent = false;
        if !adds {
            ctx.reads.clear();
        }
    }

    /// The pending step of `id` has been done, unless the task was preempted before it.
    #[inline]
    fn forget_more(&mut self, id: CtxId) {
        let ctx = &mut self.ctxs[id.index()];
        if ctx.preempted.is_some() {
            return;
        }
        if let Some(more) = ctx.more.take() {
            let versions = &mut self.versions;
            // SAFETY: as in `more_uses`.
            unsafe {
                (*more)(&mut |obj, access| {
                    if access != Access::Read {
                        versions[obj.index()] += 1;
                    }
                });
            }
        }
    }

    #[inline]
    pub(crate) fn cpu_of(&mut self, id: CtxId) -> &mut Cpu {
        let cpu: CpuId = self.ctx(id).cpu.expect("interrupts are a matter of CPUs");
        &mut self.cpus[cpu.0 as usize]
    }

    fn take(&mut self, id: CtxId, tried: bool) {
        let op = &self.ctx(id).pending;
        let (lock, how, site) = (op.obj, op.how.expect("a lock is taken somehow"), op.site);
        self.obj_mut(lock).holder = id.0;
        self.versions[lock.index()] += 1;
        let irqs_on = self.ctx(id).cpu.is_some_and(|cpu| self.cpus[cpu.0 as usize].irqs_on);
        let taken = Held {
            lock: Some(lock),
            class: how.class,
            subclass: how.subclass,
            tried,
            irqs_on,
            site,
        };
        self.note_acquire(id, taken, how.under);
        if removing() {
            self.takes_lock(id, lock, site);
        }
    }

    fn release(&mut self, id: CtxId, lock: ObjId) {
        if removing() {
            self.leaves_lock(lock);
        }
        let holder = std::mem::replace(&mut self.obj_mut(lock).holder, NOBODY);
        self.versions[lock.index()] += 1;
        // A retry loop that looks under a lock waits for somebody else to take it.
        let version = self.versions[lock.index()];
        self.ctx_mut(id).reads.push((lock, version));
        let ctx = self.ctx_mut(id);
        match ctx.held.iter().rposition(|held| held.lock == Some(lock)) {
            Some(place) if holder == id.0 => {
                ctx.let_go(place);
            }
            _ => {
                let message = format!(
                    "{} releases {}, which it does not hold",
                    self.ctx(id).name,
                    self.name(lock)
                );
                self.fail(FailureKind::LockRule, CtxSet(id.bit()), message);
            }
        }
    }

    fn leave(&mut self, id: CtxId) {
        let ctx = self.ctx_mut(id);
        ctx.active = false;
        let left = ctx.held.first().map(|held| held.class.name());
        if let Some(name) = left {
            let message =
                format!("the handler {} returns while it holds {name}", self.ctx(id).name);
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

    /// The last step turned out to have changed nothing, which its announcement did not say.
    pub(crate) fn only_read(&mut self, obj: ObjId) {
        if self.mode == Mode::Running {
            self.unchanged(obj);
            self.search.demote();
        }
    }

    /// The last step wrote what was there before.
    pub(crate) fn unchanged(&mut self, obj: ObjId) {
        if self.mode != Mode::Running {
            return;
        }
        if let Some(Alone::Probe(probe)) = &mut self.alone {
            probe.unchanged(obj);
        }
        self.versions[obj.index()] -= 1;
        let version = self.versions[obj.index()];
        let me = self.current;
        self.ctx_mut(me).reads.push((obj, version));
    }

    /// The step that is being done changes another object, too, as it turns out.
    pub(crate) fn also_changes(&mut self, obj: ObjId) {
        if self.mode != Mode::Running {
            return;
        }
        self.versions[obj.index()] += 1;
        self.also(|_, open| open.add(obj, Access::Write));
    }

    /// The step that is being done uses more than it has said, which `add` adds.
    pub(crate) fn also(&mut self, add: impl FnOnce(&World, &mut OpenEvent)) {
        if let Some(mut open) = self.search.reopen() {
            add(self, &mut open);
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
        if self.has_extras && self.extras.plain.is_open() {
            self.close_plain();
        }
    }

    /// The current context has returned from its function.
    pub(crate) fn finished(&mut self, id: CtxId) {
        self.leave_alone();
        self.close();
        self.turn = None;
        self.search.ran.insert(id);
        self.ctx_mut(id).finished = true;
        if self.mode != Mode::Running || self.failed.is_some() {
            return;
        }
        let ctx = self.ctx(id);
        let message = if let Some(held) = ctx.held.first() {
            format!("{} ends while it holds {}", ctx.name, held.class.name())
        } else if ctx
            .cpu
            .map(|cpu| &self.cpus[cpu.0 as usize])
            .is_some_and(|cpu| !cpu.irqs_on && cpu.task == Some(id))
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
