//! The thread-local state through which the explored code finds the simulated machine of its OS
//! thread, and by which one at a time uses it.

use std::cell::{Cell, UnsafeCell};
use std::ops::Deref;
use std::rc::Rc;

use crate::machine::coroutine::Runners;
use crate::machine::flags::{recording, removing, writes_down};
use crate::machine::lent::{panicked_at, panics_at};
use crate::machine::strays;
use crate::machine::world::World;

thread_local! {
    static CURRENT: Cell<*const WorldCell> = const { Cell::new(std::ptr::null()) };
}

/// A world that the contexts which run in it can reach, one at a time.
pub(crate) struct WorldCell {
    pub runners: Runners,
    world: UnsafeCell<World>,
    busy: Cell<bool>,
}

impl WorldCell {
    pub(crate) fn new(world: World, stack_bytes: usize) -> Rc<Self> {
        Rc::new(WorldCell {
            runners: Runners::new(stack_bytes),
            world: UnsafeCell::new(world),
            busy: Cell::new(false),
        })
    }

    /// The world, of whoever has the cell alone.
    pub(crate) fn world(&mut self) -> &mut World {
        self.world.get_mut()
    }

    /// Makes this the world of the OS thread until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered {
            outer: CURRENT.replace(self),
            recording: recording(),
            removing: removing(),
            _cell: self,
        }
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut inside = self.inside();
        let result = f(inside.world());
        inside.leave();
        result
    }

    /// Begins to use the world. [`with`](WorldCell::with) is this for whole closures, which may not
    /// be inlined.
    #[inline(always)]
    pub(crate) fn inside(&self) -> Inside<'_> {
        assert!(
            !self.busy.replace(true),
            "the simulated machine was entered again by a condition that it evaluates"
        );
        Inside(self)
    }
}

/// The world, in use. Dropped only when a panic leaves the machine: whoever used it unwinds now,
/// and uses it again while it does.
pub(crate) struct Inside<'a>(&'a WorldCell);

impl Inside<'_> {
    #[inline(always)]
    pub(crate) fn world(&mut self) -> &mut World {
        // SAFETY: the cell belongs to one OS thread (it is not `Sync`), and the flag is set once,
        // by the one `Inside` that there is until it takes the flag back; so this is the only
        // reference while it lives.
        unsafe { &mut *self.0.world.get() }
    }

    /// Ends the use.
    #[inline(always)]
    pub(crate) fn leave(self) {
        self.0.busy.set(false);
        std::mem::forget(self);
    }
}

impl Drop for Inside<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.busy.set(false);
        let site = panicked_at();
        if self.0.runners.is_running() {
            self.0.with(|w| w.panics(site));
        }
    }
}

/// For the panic hook: a panic inside of the machine, which nobody can look at before it is left.
/// Whether it is told by a report, as one of a context; `None` if the machine is not being used.
pub(crate) fn panics_inside(site: &Option<String>) -> Option<bool> {
    let cell = CURRENT.get();
    // SAFETY: as in `with`.
    let cell = unsafe { cell.as_ref() }?;
    cell.busy.get().then(|| panics_at(site.clone()) || cell.runners.is_running())
}

/// See [`WorldCell::enter`].
pub(crate) struct Entered<'a> {
    outer: *const WorldCell,
    recording: bool,
    removing: bool,
    _cell: &'a WorldCell,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        writes_down(self.recording, self.removing);
    }
}

/// Returns whether this OS thread explores.
#[inline]
pub(crate) fn exploring() -> bool {
    !CURRENT.get().is_null()
}

/// [`with`] for the panic hook, which may come from anywhere.
pub(crate) fn try_with<R>(f: impl FnOnce(&mut World) -> R) -> Option<R> {
    let cell = CURRENT.get();
    // SAFETY: as in `with`.
    let cell = unsafe { cell.as_ref() }?;
    (!cell.busy.get()).then(|| cell.with(f))
}

/// The name of this OS thread's context at whose stack the address is, and how large that is: for a
/// signal handler.
#[cfg(unix)]
pub(crate) fn faulted(address: usize) -> Option<(&'static str, usize)> {
    // SAFETY: as in `here`, and a context that runs has a name until it ends; this one never goes
    // on.
    unsafe {
        let (name, bytes) = CURRENT.get().as_ref()?.runners.owner(address)?;
        Some((&*name, bytes))
    }
}

/// Calls `f` with this OS thread's world.
///
/// # Panics
/// If there is none: simulated objects exist in explorations only.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    here().with(f)
}

/// The cell of this OS thread's world, for as long as that is entered: it is not to be kept any
/// longer than a step.
pub(crate) struct Here(*const WorldCell);

impl Deref for Here {
    type Target = WorldCell;

    #[inline(always)]
    fn deref(&self) -> &WorldCell {
        // SAFETY: `enter` set the pointer and its guard, which borrows the cell, takes it back
        // before the cell goes.
        unsafe { &*self.0 }
    }
}

/// See [`Here`].
#[inline(always)]
pub(crate) fn here() -> Here {
    let cell = CURRENT.get();
    if cell.is_null() {
        strays::refuse();
    }
    Here(cell)
}
