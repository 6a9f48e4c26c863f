//! Plain memory whose accesses are checked: two that nothing orders are a data race.

use std::cell::UnsafeCell;
use std::panic::Location;

use crate::ids::{ObjId, site};
use crate::machine::cell::{exploring, with};
use crate::machine::flags::recording;
use crate::machine::object::ObjKind;
use crate::machine::record::remark;
use crate::machine::stamp::Stamp;

/// Plain memory that contexts share, as loom's `UnsafeCell` is: who reads or writes it must be
/// ordered after whoever wrote it, and who writes it after whoever read it. Otherwise the run fails
/// ([`FailureKind::DataRace`]), and names both places.
///
/// An access is no step, and costs the search nothing: two that can come at once are found in
/// whichever order they come. What orders accesses is what orders steps: locks, words, spawn and
/// join, parking and waking, IPIs, interrupts that are off, grace periods, models. A handler's
/// access races with that of the task that it interrupts, unless that has interrupts off.
///
/// Words order as if each access were `SeqCst`: a word that is stored `Relaxed` and publishes the
/// cell is not found out. What is found is what races on a machine that is sequentially consistent.
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::{Explore, Machine, sim::RaceCell, trace::FailureKind};
///
/// let report = Explore::new("two writers").run(|m: &Machine| {
///     let cell = Arc::new(RaceCell::new(0));
///     let other = Arc::clone(&cell);
///     m.task("one", move || cell.set(1));
///     m.task("two", move || other.set(2));
/// });
/// report.assert_found(FailureKind::DataRace);
/// ```
///
/// [`FailureKind::DataRace`]: crate::trace::FailureKind::DataRace
pub struct RaceCell<T> {
    stamp: Stamp,
    name: &'static str,
    created: &'static Location<'static>,
    value: UnsafeCell<T>,
}

doorbell_platform::opaque_debug!([T] RaceCell<T>; name);

// SAFETY: `get` and `set` are done by one OS thread at a time: each first has the cell's stamp, and
// `Stamp` refuses a second execution that runs. All else hands out raw pointers.
unsafe impl<T: Send> Sync for RaceCell<T> {}

impl<T> RaceCell<T> {
    /// Creates a cell that holds `value`.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(value: T) -> Self {
        let this = RaceCell {
            stamp: Stamp::new(),
            name: "cell",
            created: Location::caller(),
            value: UnsafeCell::new(value),
        };
        if exploring() {
            this.id();
        }
        this
    }

    /// Returns the cell, called `name` in traces.
    ///
    /// # Context
    /// Any.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        if exploring() {
            with(|w| {
                if let Some(id) = self.stamp.get(w) {
                    let obj = w.obj_mut(id);
                    (obj.kind, obj.name) = (ObjKind::Model, name.into());
                }
            });
        }
        self
    }

    fn id(&self) -> ObjId {
        let kind = if self.name == "cell" { ObjKind::Atomic } else { ObjKind::Model };
        with(|w| self.stamp.get(w))
            .unwrap_or_else(|| self.stamp.register(kind, self.name, self.created))
    }

    /// Notes an access at `at`.
    fn access(&self, writes: bool, at: &'static Location<'static>) {
        let id = self.id();
        with(|w| w.accesses(id, writes, at));
        if recording() {
            let name = with(|w| w.name(id));
            let verb = if writes { "writes" } else { "reads" };
            remark(|| format!("{verb} {name}, at {}", site(at)));
        }
    }

    /// Notes that an access lasts until now.
    fn ends(&self, writes: bool, at: &'static Location<'static>) {
        let id = self.id();
        with(|w| w.accesses(id, writes, at));
    }

    /// Calls `f` with a pointer to the value, to read it.
    ///
    /// # Context
    /// Any. If `f` takes steps, the access lasts from before the first until after the last.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        let at = Location::caller();
        self.access(false, at);
        let result = f(self.value.get());
        self.ends(false, at);
        result
    }

    /// Calls `f` with a pointer to the value, to write it.
    ///
    /// # Context
    /// Any. If `f` takes steps, the access lasts from before the first until after the last.
    #[track_caller]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        let at = Location::caller();
        self.access(true, at);
        self.stamp.change();
        let result = f(self.value.get());
        self.ends(true, at);
        result
    }

    /// Returns the value.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn get(&self) -> T
    where
        T: Copy,
    {
        self.access(false, Location::caller());
        // SAFETY: this OS thread alone uses the cell (see `Sync`), and nobody has a reference that
        // this function or `set` made.
        unsafe { *self.value.get() }
    }

    /// Writes the value.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn set(&self, value: T)
    where
        T: Copy,
    {
        self.access(true, Location::caller());
        self.stamp.change();
        // SAFETY: as in `get`.
        unsafe { *self.value.get() = value };
    }

    /// Returns a reference to the value of a cell that nobody else has.
    ///
    /// # Context
    /// Any.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Returns the value of a cell that nobody else has.
    ///
    /// # Context
    /// Any.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}
