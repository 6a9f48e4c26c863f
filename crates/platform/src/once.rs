//! A cell that is set once.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::{Atomic, Platform};

const EMPTY: u32 = 0;
/// Somebody writes the pointer.
const SETTING: u32 = 1;
const SET: u32 = 2;

/// A cell that is set once and read by anybody, for the price of one load: what is never replaced
/// needs no read section.
///
/// A table that grows and never shrinks is an array of these, one for each part. In a static, a
/// cell is where a host without `std` keeps what there is one of, such as its
/// [`SystemQueue`](crate::SystemQueue).
///
/// ```
/// # #[cfg(feature = "std")] {
/// use doorbell_platform::{OnceCell, Std};
///
/// static ROUTES: OnceCell<Std, Vec<u32>> = OnceCell::new();
///
/// assert_eq!(ROUTES.get(), None);
/// assert_eq!(ROUTES.set(Box::new(vec![32, 33])), Ok(&vec![32, 33]));
/// assert_eq!(ROUTES.set(Box::new(vec![40])), Err(Box::new(vec![40])));
/// assert_eq!(ROUTES.get().map(Vec::len), Some(2));
/// # }
/// ```
pub struct OnceCell<P: Platform, T> {
    state: P::AtomicU32,
    /// From [`Box::into_raw`] once the state is `SET`. Written by whoever has made the state
    /// `SETTING`, and by nobody else.
    value: UnsafeCell<*mut T>,
}

// SAFETY: the cell owns a `T` and hands out references to it, on any thread; the pointer is written
// by one thread only, before the state says so.
unsafe impl<P: Platform, T: Send + Sync> Sync for OnceCell<P, T> {}
// SAFETY: as a `Box<T>`.
unsafe impl<P: Platform, T: Send> Send for OnceCell<P, T> {}

impl<P: Platform, T> OnceCell<P, T> {
    /// Returns an empty cell.
    pub const fn new() -> Self {
        OnceCell { state: P::AtomicU32::ZERO, value: UnsafeCell::new(ptr::null_mut()) }
    }

    /// Returns the value, if the cell is set. By anybody, anywhere; waits for nobody.
    #[inline]
    #[track_caller]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Acquire) != SET {
            return None;
        }
        // SAFETY: the state is `SET`, which is stored after the pointer, and the pointer is never
        // written again; so it points to the value, which lives until the cell is dropped. (A
        // simulated word of a static is empty again in another execution. If the cell is set there,
        // the former value is leaked, so references to it stay good.)
        Some(unsafe { &**self.value.get() })
    }

    /// Sets the cell. By anybody, anywhere; waits for nobody.
    ///
    /// # Errors
    /// Gives the value back if the cell is set already, or is being set by somebody else.
    #[track_caller]
    pub fn set(&self, value: Box<T>) -> Result<&T, Box<T>> {
        if self.state.compare_exchange(EMPTY, SETTING, Acquire, Relaxed).is_err() {
            return Err(value);
        }
        let value = Box::into_raw(value);
        // SAFETY: the exchange succeeds once, here, and nobody reads the pointer before the state
        // is `SET`. What it points to is not freed before the cell is dropped.
        let value = unsafe {
            *self.value.get() = value;
            &*value
        };
        self.state.store(SET, Release);
        Ok(value)
    }
}

impl<P: Platform, T> Default for OnceCell<P, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform, T> Drop for OnceCell<P, T> {
    fn drop(&mut self) {
        if self.state.load(Acquire) == SET {
            // SAFETY: the pointer came from `Box::into_raw`, and nobody else has the cell, nor a
            // reference out of it.
            drop(unsafe { Box::from_raw(*self.value.get_mut()) });
        }
    }
}

impl<P: Platform, T: fmt::Debug> fmt::Debug for OnceCell<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.get()).finish()
    }
}
