//! Atomics as traits, so that the same source runs on the machine's atomics, counted ones, and
//! explored ones.

use core::ops::{BitAnd, BitOr, BitXor, Not};
use core::sync::atomic::Ordering;

/// One atomic word. Orderings mean what they mean in [`core::sync::atomic`].
///
/// Words that are shared with hardware are always accessed through one object of one width.
pub trait Atomic: Send + Sync + 'static {
    /// What the word holds.
    type Value: Copy
        + Eq
        + Send
        + BitAnd<Output = Self::Value>
        + BitOr<Output = Self::Value>
        + BitXor<Output = Self::Value>
        + Not<Output = Self::Value>;

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

    /// Does what [`compare_exchange`](Atomic::compare_exchange) does, and may fail though the word
    /// holds `current`: for loops that try again anyway.
    #[inline]
    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: Self::Value,
        new: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value> {
        self.compare_exchange(current, new, success, failure)
    }

    /// Ors `value` into the word and returns what it held.
    #[track_caller]
    fn fetch_or(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Ands `value` into the word and returns what it held.
    #[track_caller]
    fn fetch_and(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Exclusive-ors `value` into the word and returns what it held.
    #[inline]
    #[track_caller]
    fn fetch_xor(&self, value: Self::Value, order: Ordering) -> Self::Value {
        modify(self, order, |old| old ^ value)
    }

    /// Ands `value` into the word, inverts that, and returns what the word held.
    #[inline]
    #[track_caller]
    fn fetch_nand(&self, value: Self::Value, order: Ordering) -> Self::Value {
        modify(self, order, |old| !(old & value))
    }

    /// Writes what `f` makes of the value, until nobody has come between or `f` says `None`. `f`
    /// may be called several times.
    ///
    /// # Errors
    /// Returns what the word holds when `f` says `None`.
    #[inline]
    #[track_caller]
    fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut f: impl FnMut(Self::Value) -> Option<Self::Value>,
    ) -> Result<Self::Value, Self::Value>
    where
        Self: Sized,
    {
        let mut held = self.load(fetch);
        while let Some(new) = f(held) {
            match self.compare_exchange_weak(held, new, set, fetch) {
                Ok(old) => return Ok(old),
                Err(other) => held = other,
            }
        }
        Err(held)
    }
}

/// Changes a word that has no instruction for `f`.
#[inline]
#[track_caller]
fn modify<A: Atomic + ?Sized>(
    word: &A,
    order: Ordering,
    f: impl Fn(A::Value) -> A::Value,
) -> A::Value {
    let mut held = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange_weak(held, f(held), order, Ordering::Relaxed) {
            Ok(old) => return old,
            Err(other) => held = other,
        }
    }
}

/// An atomic word that can count. Arithmetic wraps.
pub trait AtomicInt: Atomic<Value: Ord> {
    /// Adds `value` and returns what the word held.
    #[track_caller]
    fn fetch_add(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Subtracts `value` and returns what the word held.
    #[track_caller]
    fn fetch_sub(&self, value: Self::Value, order: Ordering) -> Self::Value;

    /// Writes the greater of `value` and what the word holds, and returns what it held.
    #[inline]
    #[track_caller]
    fn fetch_max(&self, value: Self::Value, order: Ordering) -> Self::Value {
        modify(self, order, |old| old.max(value))
    }

    /// Writes the lesser of `value` and what the word holds, and returns what it held.
    #[inline]
    #[track_caller]
    fn fetch_min(&self, value: Self::Value, order: Ordering) -> Self::Value {
        modify(self, order, |old| old.min(value))
    }
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

    /// Writes `new` if the word holds `current`; returns what it held, as `Ok` if it was written.
    ///
    /// Pointers are compared by address: that of an object that is freed may be that of another one
    /// soon after.
    ///
    /// # Errors
    /// Returns what the word holds, if that is not `current`.
    #[track_caller]
    fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T>;

    /// Does what [`compare_exchange`](AtomicPtr::compare_exchange) does, and may fail though the
    /// word holds `current`: for loops that try again anyway.
    ///
    /// # Errors
    /// Returns what the word holds, if nothing was written.
    #[inline]
    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        self.compare_exchange(current, new, success, failure)
    }

    /// Writes what `f` makes of the pointer, until nobody has come between or `f` says `None`. `f`
    /// may be called several times.
    ///
    /// # Errors
    /// Returns what the word holds when `f` says `None`.
    #[inline]
    #[track_caller]
    fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut f: impl FnMut(*mut T) -> Option<*mut T>,
    ) -> Result<*mut T, *mut T>
    where
        Self: Sized,
    {
        let mut held = self.load(fetch);
        while let Some(new) = f(held) {
            match self.compare_exchange_weak(held, new, set, fetch) {
                Ok(old) => return Ok(old),
                Err(other) => held = other,
            }
        }
        Err(held)
    }
}
