//! Atomics as traits, so that the same source runs on the machine's atomics, counted ones, and
//! explored ones.

use core::sync::atomic::Ordering;

/// One atomic word. Orderings mean what they mean in [`core::sync::atomic`].
///
/// Words that are shared with hardware are always accessed through one object of one width.
pub trait Atomic: Send + Sync + 'static {
    /// What the word holds.
    type Value: Copy + Eq + Send;

    /// A word that holds zero (`false`), for statics.
    const ZERO: Self;

    /// Creates a word that holds `value`.
    #[track_caller]
    fn new(value: Self::Value) -> Self;

    /// Returns whether each access is done by the machine itself, whole, and so is seen whole by
    /// hardware and by interrupt handlers.
    ///
    /// Words of up to 64 bits usually are. One of 128 bits may fall back to a lock: for hardware an
    /// entry could then be torn, and a handler could wait for whom it interrupts. Nothing is taken
    /// for granted: an implementation says so, and one that wraps another says what that one says.
    fn is_lock_free() -> bool;

    /// Says what traces call the word. Where there are no traces, this does nothing.
    #[inline]
    fn set_name(&mut self, name: &'static str) {
        let _ = name;
    }

    /// Returns the word, with a [name](Atomic::set_name).
    #[inline]
    #[must_use]
    fn named(mut self, name: &'static str) -> Self
    where
        Self: Sized,
    {
        self.set_name(name);
        self
    }

    /// Reads the word.
    #[track_caller]
    fn load(&self, order: Ordering) -> Self::Value;

    /// Writes the word.
    #[track_caller]
    fn store(&self, value: Self::Value, order: Ordering);

    /// Writes the word and returns what it held.
    #[track_caller]
    fn swap(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Writes `new` if the word holds `current`; returns what it held, as `Ok` if it was written.
    #[track_caller]
    fn compare_exchange(
        &self,
        current: Self::Value,
        new: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value>;

    /// Ors `value` into the word and returns what it held.
    #[track_caller]
    fn fetch_or(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Ands `value` into the word and returns what it held.
    #[track_caller]
    fn fetch_and(&self, value: Self::Value, order: Ordering) -> Self::Value;
}

/// An atomic word that can count. Arithmetic wraps.
pub trait AtomicInt: Atomic {
    /// Adds `value` and returns what the word held.
    #[track_caller]
    fn fetch_add(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Subtracts `value` and returns what the word held.
    #[track_caller]
    fn fetch_sub(&self, value: Self::Value, order: Ordering) -> Self::Value;
}

/// One atomic pointer.
pub trait AtomicPtr<T>: Send + Sync {
    /// Creates a word that holds `ptr`.
    #[track_caller]
    fn new(ptr: *mut T) -> Self;

    /// Says what traces call the word. Where there are no traces, this does nothing.
    #[inline]
    fn set_name(&mut self, name: &'static str) {
        let _ = name;
    }

    /// Reads the pointer.
    #[track_caller]
    fn load(&self, order: Ordering) -> *mut T;

    /// Writes the pointer.
    #[track_caller]
    fn store(&self, ptr: *mut T, order: Ordering);

    /// Writes the pointer and returns the former one.
    #[track_caller]
    fn swap(&self, ptr: *mut T, order: Ordering) -> *mut T;
}
