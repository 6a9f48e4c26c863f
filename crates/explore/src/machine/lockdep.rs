//! Between the machine and the lock validator: what it is told, and what it answers in the end.

use std::borrow::Cow;

use doorbell_platform::LockClass;

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::world::World;
use crate::op::OpKind;
use crate::run::{Report, Verdict};
use crate::trace::FailureKind;
use crate::validate::{AcquireEvent, Answer, CtxKind, Held, Question, Stuck, Waiting};

/// A member of a stuck set, as the validator is told of it once the run has a token.
#[derive(Clone, Debug)]
pub(crate) struct StuckLocks {
    ctx: CtxId,
    kind: CtxKind,
    held: Vec<Held>,
    waits: Option<Waiting>,
    interrupted: Option<CtxId>,
}

impl StuckLocks {
    pub(crate) fn view(&self) -> Stuck<'_> {
        Stuck {
            ctx: self.ctx,
            kind: self.kind,
            held: &self.held,
            waits: self.waits,
            interrupted: self.interrupted,
        }
    }
}

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
                format!("{}: {violation}.", self.ctx(id).name),
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

impl Report {
    /// Returns what the lock validator asked, and what the search answers. Within the scope of the
    /// program, an inversion is [`Reachable`](Answer::Reachable) if the run that was found is the
    /// deadlock it asks for, and [`Unreachable`](Answer::Unreachable) if the search was exhaustive
    /// and has not found it.
    pub fn lock_questions(&self) -> Vec<(&Question, Answer)> {
        let exhausted = self.verdict == Verdict::Exhausted;
        self.locks
            .questions()
            .into_iter()
            .map(|question| (question, self.locks.answer(question, exhausted)))
            .collect()
    }

    /// Returns the classes of the locks that contexts took (or tried to), ordered by name. What is
    /// excused for not being among them in any exploration is better excused by name.
    pub fn lock_classes(&self) -> impl Iterator<Item = &'static LockClass> {
        let mut classes: Vec<_> = self.locks.usages().map(|usage| usage.node.class).collect();
        classes.dedup();
        classes.into_iter()
    }

    /// Returns a report of each question and its answer. If the run that was found answers one,
    /// those that it does not answer are only counted.
    pub fn lock_report(&self) -> String {
        let name =
            |ctx: CtxId| self.contexts.get(ctx.index()).cloned().unwrap_or_else(|| ctx.to_string());
        let mut questions = self.lock_questions();
        let all = questions.len();
        if questions.iter().any(|(_, answer)| matches!(answer, Answer::Reachable { .. })) {
            questions.retain(|(_, answer)| *answer != Answer::Unknown);
        }
        let describe = |(question, answer): &(&Question, Answer)| {
            self.locks.describe(question, Some(answer), &name)
        };
        let mut texts: Vec<_> = questions.iter().map(describe).collect();
        if questions.len() < all {
            texts.push(format!(
                "({} more questioned, and not answered by this run)",
                all - questions.len()
            ));
        }
        texts.join("\n\n")
    }
}
