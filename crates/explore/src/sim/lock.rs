//! Simulated locks.

use std::panic::Location;

use doorbell_platform::{Acquire, LockClass, RawLock, Subclass, WaitType};

use crate::ids::ObjId;
use crate::machine::cell::{exploring, with};
use crate::machine::flags::removing;
use crate::machine::leaf::acts;
use crate::machine::object::ObjKind;
use crate::machine::stamp::Stamp;
use crate::machine::step::step;
use crate::machine::world::Mode;
use crate::op::{Op, OpKind};
use crate::sim::sleep::sleep;
use crate::trace::FailureKind;
use crate::validate::Held;

macro_rules! raw_lock {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        pub struct $name(Stamp);

        doorbell_platform::opaque_debug!([] $name);

        // SAFETY: the machine lets `Lock` and a successful `TryLock` pass only while nobody holds
        // the object, one context runs at a time, and all contexts of an execution run on one OS
        // thread. In another execution the lock is another object, which is free; it becomes one
        // only when no execution runs in which it has been taken (see `Stamp`), and whoever held it
        // at the end of one never goes on.
        unsafe impl RawLock for $name {
            const INIT: Self = $name(Stamp::new());

            #[track_caller]
            fn new(class: &'static LockClass) -> Self {
                let this = Self::INIT;
                if exploring() {
                    register(&this.0, $kind, class, true);
                }
                this
            }

            #[inline]
            #[track_caller]
            fn lock(&self, how: Acquire) {
                let obj = to_take(&self.0, $kind, &how);
                let takes = Op { how: Some(how), ..Op::new(OpKind::Lock, obj) };
                if $kind == ObjKind::Spin {
                    step(takes);
                } else {
                    sleep(takes.site, || gets_at_once(takes), || step(takes));
                }
            }

            #[inline]
            #[track_caller]
            fn try_lock(&self, how: Acquire) -> bool {
                let obj = to_take(&self.0, $kind, &how);
                step(Op { how: Some(how), ..Op::new(OpKind::TryLock, obj) });
                with(|w| if w.mode == Mode::Running { w.ctx(w.current).got } else { w.alone_got })
            }

            #[inline]
            #[track_caller]
            unsafe fn unlock(&self) {
                unlock(&self.0);
            }

            #[track_caller]
            fn assert_held(&self) {
                assert_held(&self.0);
            }

            #[inline]
            fn changes(&self) {
                self.0.change();
                if removing() {
                    with(|w| self.0.get(w).into_iter().for_each(|lock| w.changes_under(lock)));
                }
            }
        }
    };
}

raw_lock!(
    /// A spin lock of the simulated machine. Nothing that holds one may sleep.
    SimSpin,
    ObjKind::Spin
);
raw_lock!(
    /// A sleeping lock of the simulated machine.
    SimMutex,
    ObjKind::Mutex
);

impl SimSpin {
    /// The lock as an object of this execution.
    #[track_caller]
    pub(crate) fn obj(&self, class: &'static LockClass) -> ObjId {
        id(&self.0, ObjKind::Spin, &Acquire::of(class))
    }
}

#[inline]
#[track_caller]
fn id(stamp: &Stamp, kind: ObjKind, how: &Acquire) -> ObjId {
    // A static becomes an object when it is first taken.
    with(|w| stamp.get(w)).unwrap_or_else(|| register(stamp, kind, how.class, false))
}

/// [`id`] of a lock that the current context is about to take, or to try.
#[inline]
#[track_caller]
fn to_take(stamp: &Stamp, kind: ObjKind, how: &Acquire) -> ObjId {
    let obj = id(stamp, kind, how);
    acts(|| format!("takes {}", with(|w| w.name(obj))));
    obj
}

#[cold]
#[track_caller]
fn register(stamp: &Stamp, kind: ObjKind, class: &'static LockClass, created: bool) -> ObjId {
    let id = stamp.register(kind, class.name(), Location::caller());
    with(|w| {
        if let Some(mismatch) = mismatch(kind, class) {
            w.fail_here(FailureKind::LockRule, mismatch);
        }
        let creator =
            if created && w.mode == Mode::Running { Some(w.creates_lock()) } else { None };
        let obj = w.obj_mut(id);
        (obj.class, obj.creator) = (Some(class), creator);
        id
    })
}

/// Says so if a lock waits in another way than its class does: whoever asks the class is told the
/// wrong thing.
fn mismatch(kind: ObjKind, class: &'static LockClass) -> Option<String> {
    let (lock, wrong, right) = match (kind, class.wait_type()) {
        (ObjKind::Spin, WaitType::Sleep) => ("a spin lock", "WaitType::Sleep", "WaitType::Spin"),
        (ObjKind::Mutex, WaitType::Spin) => ("a mutex", "WaitType::Spin", "WaitType::Sleep"),
        _ => return None,
    };
    let name = class.name();
    Some(format!(
        "the class {name} of {lock} says that it is one of {wrong}: create the class as one of {right}"
    ))
}

fn gets_at_once(takes: Op) -> bool {
    step(Op { kind: OpKind::TryLock, or_waits: true, ..takes });
    with(|w| w.ctx(w.current).got)
}

#[inline]
#[track_caller]
fn unlock(stamp: &Stamp) {
    // Guards may be dropped when all is over: by a panic of the machine itself.
    if !exploring() {
        return;
    }
    let mut site = Location::caller();
    let obj = with(|w| {
        let obj = stamp.get(w)?;
        if w.mode == Mode::Running {
            // A guard's drop has no caller: the line that took the lock says more than one of the
            // guard's own.
            let held = w.ctx(w.current).held.iter().rfind(|held| held.lock == Some(obj));
            site = held.map_or(site, |held| held.site);
        }
        Some(obj)
    });
    if let Some(obj) = obj {
        step(Op { site, ..Op::new(OpKind::Unlock, obj) });
    }
}

#[track_caller]
fn assert_held(stamp: &Stamp) {
    let site = Location::caller();
    with(|w| {
        if w.mode != Mode::Running {
            return;
        }
        let me = w.current;
        let obj = stamp.get(w);
        if !w.ctx(me).held.iter().any(|held| held.lock == obj && obj.is_some()) {
            let name =
                obj.map_or_else(|| "a lock that was never taken".to_owned(), |obj| w.name(obj));
            let message =
                format!("{} must hold {name} at {}", w.ctx(me).name, crate::ids::site(site));
            w.fail_here(FailureKind::LockRule, message);
        }
    });
}

#[track_caller]
pub(crate) fn annotate_acquire(class: &'static LockClass, subclass: Subclass) {
    let site = Location::caller();
    acts(|| format!("takes {}", class.name()));
    with(|w| {
        if w.mode != Mode::Running {
            return;
        }
        let me = w.current;
        let irqs_on = w.ctx(me).cpu.is_some_and(|cpu| w.cpus[cpu.0 as usize].irqs_on);
        w.note_acquire(me, Held { lock: None, class, subclass, tried: false, irqs_on, site }, None);
    });
}

pub(crate) fn annotate_release(class: &'static LockClass, subclass: Subclass) {
    with(|w| {
        if w.mode != Mode::Running {
            return;
        }
        let me = w.current;
        let ctx = w.ctx_mut(me);
        let annotated =
            |held: &Held| held.lock.is_none() && held.class == class && held.subclass == subclass;
        match ctx.held.iter().rposition(annotated) {
            Some(place) => {
                ctx.let_go(place);
            }
            None => w.fail_here(
                FailureKind::LockRule,
                format!("{} is released, but was not annotated", class.name()),
            ),
        }
    });
}
