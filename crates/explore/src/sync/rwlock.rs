//! A lock for one writer or any number of readers.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};

use crate::sim::Model;

/// The holders of a lock.
#[derive(Clone, Copy, Default)]
struct Held {
    readers: u32,
    writer: bool,
}

/// A lock for one writer or any number of readers, shaped as that of `std`. Whoever waits may be
/// next: neither readers nor writers come first.
pub struct RwLock<T> {
    held: Model<Held>,
    value: UnsafeCell<T>,
}

doorbell_platform::opaque_debug!([T] RwLock<T>);

// SAFETY: the value is reached through guards only. `held` lets a writer in alone, and each of its
// steps is done by one OS thread at a time, which `Stamp` sees to.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// Creates a free lock around `value`.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(value: T) -> Self {
        RwLock { held: Model::new("rwlock", Held::default()), value: UnsafeCell::new(value) }
    }

    /// Takes the lock to read.
    ///
    /// # Errors
    /// Never: the result is that of `std`.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.held.take(|held| !held.writer, |held| held.readers += 1);
        Ok(RwLockReadGuard(self))
    }

    /// Takes the lock to write.
    ///
    /// # Errors
    /// Never: the result is that of `std`.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.held.take(|held| !held.writer && held.readers == 0, |held| held.writer = true);
        Ok(RwLockWriteGuard(self))
    }

    /// Takes the lock to read, if no writer has it.
    ///
    /// # Errors
    /// Returns `WouldBlock` if one has.
    ///
    /// # Context
    /// Any task. It does not sleep.
    #[track_caller]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let mut taken = false;
        self.held.change_if(|held| {
            taken = !held.writer;
            held.readers += u32::from(taken);
            taken
        });
        if taken { Ok(RwLockReadGuard(self)) } else { Err(TryLockError::WouldBlock) }
    }

    /// Takes the lock to write, if nobody has it.
    ///
    /// # Errors
    /// Returns `WouldBlock` if somebody has.
    ///
    /// # Context
    /// Any task. It does not sleep.
    #[track_caller]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let mut taken = false;
        self.held.change_if(|held| {
            taken = !held.writer && held.readers == 0;
            held.writer |= taken;
            taken
        });
        if taken { Ok(RwLockWriteGuard(self)) } else { Err(TryLockError::WouldBlock) }
    }

    /// Returns the value, taken out.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Context
    /// Any.
    pub fn into_inner(self) -> LockResult<T> {
        Ok(self.value.into_inner())
    }
}

/// Holds an [`RwLock`] to read, and releases it when dropped.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockReadGuard<'a, T>(&'a RwLock<T>);

doorbell_platform::opaque_debug!(['a, T] RwLockReadGuard<'a, T>);

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock to read, so there is no writer's guard.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.0.held.change(|held| held.readers -= 1);
    }
}

/// Holds an [`RwLock`] to write, and releases it when dropped.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockWriteGuard<'a, T>(&'a RwLock<T>);

doorbell_platform::opaque_debug!(['a, T] RwLockWriteGuard<'a, T>);

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock to write, so there is no other guard.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.0.held.change(|held| held.writer = false);
    }
}
