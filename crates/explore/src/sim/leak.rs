//! What must not be left when all is over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ids::site;
use crate::machine::Machine;
use crate::machine::cell::{exploring, with};

/// What lives in an execution, by number: its name, and where it was made.
#[derive(Clone, Default)]
struct Alive(Rc<RefCell<Lives>>);

#[derive(Default)]
struct Lives {
    next: u64,
    lives: BTreeMap<u64, (&'static str, &'static Location<'static>)>,
}

/// The life of something that must end, where that is asked for.
pub(crate) struct Life(AtomicU64);

/// The number of what is not counted, or has ended.
const NONE: u64 = 0;

impl Life {
    pub(crate) fn begin(name: &'static str, at: &'static Location<'static>) -> Life {
        let number = alive().map_or(NONE, |alive| {
            let mut all = alive.0.borrow_mut();
            all.next += 1;
            let number = all.next;
            all.lives.insert(number, (name, at));
            number
        });
        Life(AtomicU64::new(number))
    }

    pub(crate) fn end(&self) {
        let number = self.0.swap(NONE, Relaxed);
        if number != NONE
            && let Some(alive) = alive()
        {
            alive.0.borrow_mut().lives.remove(&number);
        }
    }
}

fn alive() -> Option<Alive> {
    if !exploring() {
        return None;
    }
    with(|w| w.kept.get::<Alive>().cloned())
}

impl Machine {
    /// Demands that nothing that was made from here on is left when all is over: each
    /// [`Ghost`](crate::sim::Ghost) is freed, and of each [`Arc`](crate::sync::Arc) the last
    /// reference is dropped. Otherwise the run fails
    /// ([`FailureKind::Leak`](crate::trace::FailureKind::Leak)), and says which, and where they were
    /// made.
    ///
    /// It is looked at when all contexts have ended, what they returned is dropped, and the
    /// conditions of quiescence have been checked.
    ///
    /// ```
    /// use doorbell_explore::{Explore, Machine, sync::Arc, trace::FailureKind};
    ///
    /// let report = Explore::new("a reference that stays").run(|m: &Machine| {
    ///     m.assert_no_leaks();
    ///     let value = Arc::new(1);
    ///     m.task("keeps", move || std::mem::forget(value.clone()));
    /// });
    /// report.assert_found(FailureKind::Leak);
    /// ```
    pub fn assert_no_leaks(&self) {
        let alive = Alive::default();
        let lives = Rc::clone(&alive.0);
        let left = move || {
            let lives = lives.borrow();
            let told = lives.lives.values().map(|(name, at)| format!("{name} ({})", site(at)));
            told.collect()
        };
        with(|w| {
            w.kept.put(alive);
            w.extras().left = Some(Box::new(left));
        });
    }
}
