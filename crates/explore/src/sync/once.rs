//! What is done once.

use std::cell::UnsafeCell;

use crate::sim::Model;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Runs,
    Done,
    /// Whoever did it panicked.
    Poisoned,
}

/// Something that is done once, however many ask for it, shaped as that of `std`.
pub struct Once(Model<State>);

doorbell_platform::opaque_debug!([] Once);

impl Default for Once {
    #[track_caller]
    fn default() -> Self {
        Once::new()
    }
}

impl Once {
    /// Creates one that has not been done.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new() -> Self {
        Once(Model::new("once", State::New))
    }

    /// Calls `f` if nobody has; waits for whoever does.
    ///
    /// # Panics
    /// If whoever did it panicked.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn call_once(&self, f: impl FnOnce()) {
        let ready = |state: &State| *state != State::Runs;
        let begin = |state: &mut State| match *state {
            State::New => std::mem::replace(state, State::Runs),
            other => other,
        };
        match self.0.take(ready, begin) {
            State::New => {}
            State::Poisoned => panic!("whoever did this once panicked"),
            State::Runs | State::Done => return,
        }
        let mut ends = Ends { once: self, state: State::Poisoned };
        f();
        ends.state = State::Done;
    }

    /// Returns whether it is done.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn is_completed(&self) -> bool {
        self.0.observe(|state| *state == State::Done)
    }
}

/// Says how it ended, also if that is by a panic.
struct Ends<'a> {
    once: &'a Once,
    state: State,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let end = self.state;
        self.once.0.change(|state| *state = end);
    }
}

/// A cell that is set once, shaped as that of `std`.
pub struct OnceLock<T> {
    once: Once,
    value: UnsafeCell<Option<T>>,
}

doorbell_platform::opaque_debug!([T] OnceLock<T>);

// SAFETY: the value is written by whoever does the `once`, alone, and read by whoever finds it done.
// One OS thread at a time takes the steps of that, which `Stamp` sees to.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> Default for OnceLock<T> {
    #[track_caller]
    fn default() -> Self {
        OnceLock::new()
    }
}

impl<T> OnceLock<T> {
    /// Creates an empty cell.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new() -> Self {
        OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
    }

    /// Returns the value, if there is one.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the `once` is done, so nobody writes the value any more.
        if self.once.is_completed() { unsafe { (*self.value.get()).as_ref() } } else { None }
    }

    /// Returns the value, which `f` makes if nobody has.
    ///
    /// # Panics
    /// If whoever made it panicked.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
        self.once.call_once(|| {
            let value = f();
            // SAFETY: one caller is here, once, and nobody reads before the `once` is done.
            unsafe { *self.value.get() = Some(value) };
        });
        // SAFETY: as in `get`.
        unsafe { (*self.value.get()).as_ref() }.expect("it was made")
    }

    /// Sets the value.
    ///
    /// # Errors
    /// Returns `value` if there was one.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("it is made once"));
        value.map_or(Ok(()), Err)
    }
}
