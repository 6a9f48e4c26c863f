//! What is wrong at once, whatever else runs: no search is needed.

use std::fmt;

use doorbell_platform::{LockClass, WaitType};

use super::feed::{AcquireEvent, CtxKind, Held};
use super::node::Node;
use super::witness::Site;
use crate::ids::{CtxId, ObjId};

/// What the validator demands, and how much it keeps.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The table of nestings: an inner class may be taken while an outer one is held only if
    /// `(outer, inner)` is in it. `None`: any may.
    pub nestings: Option<Vec<(&'static LockClass, &'static LockClass)>>,
    /// How many witnesses an order or a usage keeps, at least 1. When there are more, reasons that
    /// depend on all of them are no longer given.
    pub witnesses: usize,
    /// How many questions are kept.
    pub questions: usize,
}

impl Default for Rules {
    /// Any nesting, 16 witnesses, 256 questions.
    fn default() -> Self {
        Rules { nestings: None, witnesses: 16, questions: 256 }
    }
}

/// The rule that was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ViolationKind {
    /// The context takes a lock that it holds, and waits for itself.
    Recursion,
    /// A handler takes a lock that sleeps.
    SleepInHandler,
    /// A lock that sleeps is taken under one that spins.
    WaitTypeInversion,
    /// A lock that sleeps is taken with interrupts or preemption off.
    SleepInAtomic,
    /// A nesting that is not in the table.
    NestingNotAllowed,
    /// The outer lock that was declared to serialise a nesting is not held.
    NestLockNotHeld,
    /// A lock was asserted to be held, and is not.
    NotHeld,
}

/// A broken rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Violation {
    /// The rule that was broken.
    pub kind: ViolationKind,
    /// The context that broke it.
    pub ctx: CtxId,
    /// What was taken, or asserted to be held.
    pub taken: Node,
    /// That lock; `None` for an annotation.
    pub lock: Option<ObjId>,
    /// Where.
    pub site: Site,
    /// The lock held that it does not go with, and where that was taken.
    pub held: Option<(Node, Option<ObjId>, Site)>,
    /// The class that was declared as the outer one but is not held.
    pub under: Option<Node>,
}

/// A violation without its subject: the predicate of a sentence that begins with whoever it was.
struct Predicate<'a>(&'a Violation);

impl Violation {
    /// Returns the violation as a sentence about whoever is called `who`.
    pub(crate) fn by(&self, who: &str) -> String {
        format!("{who} {}", Predicate(self))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = match self.kind {
            ViolationKind::SleepInHandler => "handler",
            _ => "context",
        };
        write!(f, "{noun} {} {}", self.ctx, Predicate(self))
    }
}

impl fmt::Display for Predicate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { kind, taken, site, held, under, .. } = self.0;
        match kind {
            ViolationKind::Recursion => write!(f, "takes {taken}, which it holds already")?,
            ViolationKind::SleepInHandler => write!(f, "takes {taken}, which sleeps")?,
            ViolationKind::WaitTypeInversion => {
                write!(f, "takes {taken}, which sleeps, under a spin lock")?
            }
            ViolationKind::SleepInAtomic => {
                write!(f, "takes {taken}, which sleeps, with interrupts or preemption off")?
            }
            ViolationKind::NestingNotAllowed => {
                write!(f, "takes {taken} in a nesting that the table does not have")?
            }
            ViolationKind::NestLockNotHeld => {
                write!(f, "takes {taken} under a lock that it does not hold")?
            }
            ViolationKind::NotHeld => write!(f, "does not hold {taken}, as it should")?,
        }
        write!(f, ", at {}:{}", site.file(), site.line())?;
        if let Some((node, _, site)) = held {
            write!(f, "; {node} was taken at {}:{}", site.file(), site.line())?;
        }
        match under {
            Some(under) => write!(f, "; the lock that it should hold is of class {under}"),
            None => Ok(()),
        }
    }
}

/// All rules that the event breaks, the gravest first.
pub(super) fn check(rules: &Rules, event: &AcquireEvent<'_>) -> Vec<Violation> {
    let taken = &event.taken;
    let violation = |kind, held: Option<&Held>| Violation {
        kind,
        ctx: event.ctx,
        taken: Node::of_held(taken),
        lock: taken.lock,
        site: taken.site,
        held: held.map(|h| (Node::of_held(h), h.lock, h.site)),
        under: None,
    };
    let mut broken = Vec::new();
    if !taken.tried && taken.lock.is_some() {
        let again = event.held.iter().find(|h| h.lock == taken.lock);
        broken.extend(again.map(|h| violation(ViolationKind::Recursion, Some(h))));
    }
    if taken.class.wait_type() == WaitType::Sleep {
        let spinning = event.held.iter().find(|h| h.class.wait_type() == WaitType::Spin);
        // A try-lock does not sleep. A handler may not even try: a sleeping lock belongs to a task.
        if event.kind == CtxKind::Handler {
            broken.push(violation(ViolationKind::SleepInHandler, None));
        } else if spinning.is_some() && !taken.tried {
            broken.push(violation(ViolationKind::WaitTypeInversion, spinning));
        } else if event.atomic && !taken.tried {
            broken.push(violation(ViolationKind::SleepInAtomic, None));
        }
    }
    if let Some(under) = event.under
        && !event.held.iter().any(|h| h.class == under)
    {
        let missing = Some(Node::of(under));
        broken
            .push(Violation { under: missing, ..violation(ViolationKind::NestLockNotHeld, None) });
    }
    if let Some(table) = &rules.nestings {
        for held in event.held {
            let allowed =
                table.iter().any(|(outer, inner)| *outer == held.class && *inner == taken.class);
            // An annotation that gives another name to a lock which is held is no nesting, and
            // taking a lock again is reported as what it is.
            let same =
                held.class == taken.class && (taken.lock.is_none() || held.lock == taken.lock);
            if !allowed && !same {
                broken.push(violation(ViolationKind::NestingNotAllowed, Some(held)));
            }
        }
    }
    broken
}

/// An assertion that a lock of `class` is held, `lock` itself if it is given.
pub(super) fn check_held(
    ctx: CtxId,
    held: &[Held],
    lock: Option<ObjId>,
    class: &'static LockClass,
    site: Site,
) -> Option<Violation> {
    let found = held.iter().any(|h| h.class == class && (lock.is_none() || h.lock == lock));
    (!found).then(|| Violation {
        kind: ViolationKind::NotHeld,
        ctx,
        taken: Node::of(class),
        lock,
        site,
        held: None,
        under: None,
    })
}
