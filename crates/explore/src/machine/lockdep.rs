//! What the lock validator is told by the machine.

use std::borrow::Cow;

use doorbell_platform::LockClass;

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::failed::StuckLocks;
use crate::machine::world::World;
use crate::op::OpKind;
use crate::trace::FailureKind;
use crate::validate::{AcquireEvent, Held, Waiting};

/// Numbers from here on are of locks that were created while the program ran.
const CREATED_LATER: u32 = 1 << 31;

impl World {
    /// The running context creates a lock.
    pub(crate) fn creates_lock(&mut self) -> (CtxId, u32) {
        let me = self.current;
        let created = &mut self.ctx_mut(me).locks_created;
        *created += 1;
        (me, *created - 1)
    }

    /// What the validator, which looks at all executions, knows a lock by: the same number in each
    /// of them. Objects are numbered in the order in which they appear, and only while the program
    /// is set up is that always the same.
    fn numbered(&self, mut lock: Held) -> Held {
        if let Some((creator, before)) = lock.lock.and_then(|lock| self.obj(lock).creator) {
            lock.lock = Some(ObjId(CREATED_LATER | u32::from(creator.0) << 24 | before));
        }
        lock
    }

    /// Tells the validator that a lock is taken, and remembers that it is held.
    pub(crate) fn note_acquire(
        &mut self,
        id: CtxId,
        taken: Held,
        under: Option<&'static LockClass>,
    ) {
        if self.search.settings.validate && self.search.last_is_new() {
            self.tell_validator(id, taken, under);
        }
        self.ctx_mut(id).hold(taken);
    }

    fn tell_validator(&mut self, id: CtxId, taken: Held, under: Option<&'static LockClass>) {
        let atomic = self.atomic(id);
        let ctx = &self.ctxs[id.index()];
        let later = |held: &Held| held.lock.is_some_and(|lock| self.obj(lock).creator.is_some());
        let held = if ctx.held.iter().any(later) {
            Cow::Owned(ctx.held.iter().map(|held| self.numbered(*held)).collect())
        } else {
            Cow::Borrowed(&*ctx.held)
        };
        let event = AcquireEvent {
            ctx: id,
            kind: ctx.kind,
            cpu: ctx.cpu,
            taken: self.numbered(taken),
            under,
            atomic,
            held: &held,
            after: ctx.after,
        };
        if let Some(violation) = self.search.validator.acquire(&event) {
            self.fail(
                FailureKind::LockRule,
                CtxSet(id.bit()),
                format!("{}.", violation.by(&self.ctx(id).name)),
            );
        }
    }

    /// What the members of a stuck set hold and wait for. Locks that they wait for count as taken:
    /// in other runs they may never be.
    pub(crate) fn stuck_locks(&mut self, members: CtxSet) -> Vec<StuckLocks> {
        let mut locks = Vec::new();
        for id in members.iter() {
            let ctx = self.ctx(id);
            let op = ctx.pending;
            let on_cpu = self.on_cpu(id);
            let mut waits = None;
            if let (OpKind::Lock, Some(how), true) = (op.kind, op.how, on_cpu) {
                let irqs_on = ctx.cpu.is_some_and(|cpu| self.cpus[cpu.0 as usize].irqs_on);
                let taken = Held {
                    lock: Some(op.obj),
                    class: how.class,
                    subclass: how.subclass,
                    tried: false,
                    irqs_on,
                    site: op.site,
                };
                let lock = self.numbered(taken).lock;
                waits = Some(Waiting { lock, class: how.class, subclass: how.subclass });
                if self.search.settings.validate {
                    self.tell_validator(id, taken, how.under);
                }
            }
            let ctx = self.ctx(id);
            let interrupted = ctx.cpu.filter(|_| ctx.active).and_then(|cpu| {
                let cpu = &self.cpus[cpu.0 as usize];
                let place = cpu.handlers.iter().position(|&handler| handler == id)?;
                if place == 0 { cpu.task } else { Some(cpu.handlers[place - 1]) }
            });
            let held = ctx.held.iter().map(|held| self.numbered(*held)).collect();
            locks.push(StuckLocks { ctx: id, kind: ctx.kind, held, waits, interrupted });
        }
        locks
    }
}
