//! Events built by hand.

use std::panic::Location;

use doorbell_platform::{CpuId, LockClass, Subclass, WaitType};

use super::*;
use crate::ids::CtxSet;

mod feeding;
mod irq;
mod orders;
mod pi_wakeup;
mod reasons;
mod rules;

static A: LockClass = LockClass::new("a", WaitType::Spin);
static B: LockClass = LockClass::new("b", WaitType::Spin);
static C: LockClass = LockClass::new("c", WaitType::Spin);
static GATE: LockClass = LockClass::new("gate", WaitType::Spin);
static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

/// A context that takes locks.
#[derive(Clone)]
struct Context {
    id: u8,
    kind: CtxKind,
    cpu: u32,
    irqs_on: bool,
    atomic: bool,
    after: CtxSet,
    held: Vec<Held>,
}

/// Task `id` on a CPU of the same number, with interrupts on.
fn task(id: u8) -> Context {
    Context {
        id,
        kind: CtxKind::Task,
        cpu: id.into(),
        irqs_on: true,
        atomic: false,
        after: CtxSet::EMPTY,
        held: Vec::new(),
    }
}

/// Handler `id` on `cpu`, with interrupts off.
fn handler(id: u8, cpu: u32) -> Context {
    Context { kind: CtxKind::Handler, ..task(id).on(cpu).irqs_off() }
}

impl Context {
    fn on(self, cpu: u32) -> Self {
        Context { cpu, ..self }
    }

    fn irqs_off(self) -> Self {
        Context { irqs_on: false, atomic: true, ..self }
    }

    fn after(mut self, ctx: u8) -> Self {
        self.after.insert(CtxId(ctx));
        self
    }

    #[track_caller]
    fn held_lock(&self, class: &'static LockClass, lock: Option<u32>) -> Held {
        Held {
            lock: lock.map(ObjId),
            class,
            subclass: Subclass::DEFAULT,
            tried: false,
            irqs_on: self.irqs_on,
            site: Location::caller(),
        }
    }

    fn take(
        &mut self,
        v: &mut Validator,
        taken: Held,
        under: Option<&'static LockClass>,
    ) -> Option<Box<Violation>> {
        let violation = v.acquire(&AcquireEvent {
            ctx: CtxId(self.id),
            kind: self.kind,
            cpu: Some(CpuId(self.cpu)),
            taken,
            under,
            atomic: self.atomic,
            held: &self.held,
            after: self.after,
        });
        self.held.push(taken);
        violation
    }

    #[track_caller]
    fn lock(
        &mut self,
        v: &mut Validator,
        class: &'static LockClass,
        lock: u32,
    ) -> Option<Box<Violation>> {
        self.take(v, self.held_lock(class, Some(lock)), None)
    }

    #[track_caller]
    fn try_lock(
        &mut self,
        v: &mut Validator,
        class: &'static LockClass,
        lock: u32,
    ) -> Option<Box<Violation>> {
        self.take(v, Held { tried: true, ..self.held_lock(class, Some(lock)) }, None)
    }

    #[track_caller]
    fn lock_nested(
        &mut self,
        v: &mut Validator,
        class: &'static LockClass,
        lock: u32,
        subclass: u8,
    ) {
        let taken = Held { subclass: Subclass::new(subclass), ..self.held_lock(class, Some(lock)) };
        assert_eq!(self.take(v, taken, None), None);
    }

    #[track_caller]
    fn annotate(
        &mut self,
        v: &mut Validator,
        class: &'static LockClass,
        subclass: u8,
    ) -> Option<Box<Violation>> {
        self.take(
            v,
            Held { subclass: Subclass::new(subclass), ..self.held_lock(class, None) },
            None,
        )
    }

    #[track_caller]
    fn lock_under(
        &mut self,
        v: &mut Validator,
        class: &'static LockClass,
        lock: u32,
        under: &'static LockClass,
    ) -> Option<Box<Violation>> {
        self.take(v, self.held_lock(class, Some(lock)), Some(under))
    }

    /// Takes `locks` one inside the other, then gives them back.
    #[track_caller]
    fn nest(mut self, v: &mut Validator, locks: &[(&'static LockClass, u32)]) {
        for (class, lock) in locks {
            assert_eq!(self.lock(v, class, *lock), None);
        }
    }

    /// This context as a member of a stuck set, waiting for a lock.
    fn stuck(
        &self,
        waits: Option<(&'static LockClass, u32, u8)>,
        interrupted: Option<u8>,
    ) -> Stuck<'_> {
        Stuck {
            ctx: CtxId(self.id),
            kind: self.kind,
            held: &self.held,
            waits: waits.map(|(class, lock, subclass)| Waiting {
                lock: Some(ObjId(lock)),
                class,
                subclass: Subclass::new(subclass),
            }),
            interrupted: interrupted.map(CtxId),
        }
    }
}

fn fresh() -> Validator {
    Validator::new(Rules::default())
}

fn only_question(v: &Validator) -> Question {
    let questions = v.questions();
    assert_eq!(questions.len(), 1, "{v}");
    questions[0].clone()
}

/// The one question's only reason.
fn only_reason(v: &Validator) -> Reason {
    let mut reasons = v.unreachable_reasons(&only_question(v));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

fn question_texts(v: &Validator) -> Vec<String> {
    v.questions().iter().map(|question| question.to_string()).collect()
}
