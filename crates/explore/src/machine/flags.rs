//! What each step of an OS thread asks, without entering the machine.

use std::cell::Cell;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static REMOVING: Cell<bool> = const { Cell::new(false) };
    static TASKS_END: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the run is written down.
#[inline]
pub(crate) fn recording() -> bool {
    RECORDING.get()
}

/// Returns whether something is taken out of the explored code, or it is found out what could be.
#[inline]
pub(crate) fn removing() -> bool {
    REMOVING.get()
}

/// Says whether the run is written down, and whether something is taken out of the explored code.
pub(crate) fn writes_down(record: bool, remove: bool) {
    RECORDING.set(record);
    REMOVING.set(remove);
}

/// Returns whether some task of this OS thread has ever had something to be done at its end.
#[inline]
pub(crate) fn do_tasks_end() -> bool {
    TASKS_END.get()
}

/// Says that one has.
pub(crate) fn a_task_ends() {
    TASKS_END.set(true);
}
