//! Leaves ([`LockClass::leaf`](doorbell_platform::LockClass::leaf)): what a context must not do
//! while it holds one.
//!
//! Leaves are counted for each context, so whoever interrupts the holder, or preempts it, is free.
//! Destructors of a panic that unwinds are, too: they have to do what the code does not come to any
//! more, and the panic is what is told.

use std::panic::Location;

use crate::ids::{CtxId, site};
use crate::machine::cell::{try_with, with};
use crate::machine::context::Ctx;
use crate::machine::world::{Mode, World};
use crate::trace::FailureKind;
use crate::validate::Held;

impl Ctx {
    /// Adds a lock that was taken.
    #[inline]
    pub(crate) fn hold(&mut self, lock: Held) {
        self.leaves += u32::from(lock.class.is_leaf());
        self.held.push(lock);
    }

    /// Takes out the lock at that place.
    #[inline]
    pub(crate) fn let_go(&mut self, place: usize) -> Held {
        let lock = self.held.remove(place);
        self.leaves -= u32::from(lock.class.is_leaf());
        lock
    }
}

impl World {
    /// Returns whether the current context holds a leaf.
    #[inline]
    fn under_leaf(&self) -> bool {
        self.mode == Mode::Running && self.ctx(self.current).leaves > 0
    }

    /// Has what is done meanwhile not count as done by the context, which is preempted. Returns
    /// what gives it its leaves back.
    pub(crate) fn set_leaves_aside(&mut self, id: CtxId) -> u32 {
        std::mem::take(&mut self.ctx_mut(id).leaves)
    }
}

/// Ends the run as failed if the current context holds a leaf: it does at the caller what `what`
/// says.
#[inline]
#[track_caller]
pub(crate) fn acts(what: impl FnOnce() -> String) {
    acts_at(Location::caller(), what);
}

/// [`acts`] at another place.
#[inline]
pub(crate) fn acts_at(at: &'static Location<'static>, what: impl FnOnce() -> String) {
    if with(|w| w.under_leaf()) {
        breach(&what(), at);
    }
}

/// [`acts`] for code that also runs where nothing is explored, or inside of the machine:
/// destructors.
#[track_caller]
pub(crate) fn assert_none(what: &'static str) {
    if try_with(|w| w.under_leaf()) == Some(true) {
        breach(what, Location::caller());
    }
}

#[cold]
fn breach(what: &str, at: &'static Location<'static>) {
    if std::thread::panicking() {
        return;
    }
    with(|w| {
        let ctx = w.ctx(w.current);
        let leaf = ctx.held.iter().rfind(|held| held.class.is_leaf()).expect("they are counted");
        let name = leaf.lock.map_or_else(|| leaf.class.name().to_owned(), |lock| w.name(lock));
        let message = format!(
            "{} {what} at {} while it holds {name}, a leaf, which it took at {}",
            ctx.name,
            site(at),
            site(leaf.site)
        );
        w.fail_here(FailureKind::UnderLeaf, message);
    });
}

/// A part of what a simulated host hands out: to drop it under a leaf fails the run, which is told
/// as what the text says ("drops a driver").
#[derive(Debug)]
pub struct DropUnlocked(pub &'static str);

impl Drop for DropUnlocked {
    fn drop(&mut self) {
        assert_none(self.0);
    }
}
