//! A mutex. It is never poisoned: a panic that nobody expects ends the run.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{LazyLock, LockResult, PoisonError, TryLockError, TryLockResult};

use doorbell_platform::{LockClass, LockGuard, WaitType};

use crate::Sim;
use crate::sim::SimMutex;

/// The lock classes of mutexes: one for each place that creates some.
static CLASSES: LazyLock<std::sync::Mutex<HashMap<Place, &'static LockClass>>> =
    LazyLock::new(Default::default);

type Place = (&'static Location<'static>, &'static str);

/// Returns the class of what is created there and called so. As many are leaked as there are places.
fn class(place: Place) -> &'static LockClass {
    let mut classes = CLASSES.lock().unwrap_or_else(PoisonError::into_inner);
    classes.entry(place).or_insert_with(|| {
        let name = match place.1 {
            "" => crate::ids::site(place.0).leak(),
            name => name,
        };
        Box::leak(Box::new(LockClass::new(name, WaitType::Sleep)))
    })
}

/// A mutex, shaped as that of `std`. The lock validator takes those that one line creates for a
/// class.
pub struct Mutex<T> {
    lock: doorbell_platform::Mutex<Sim, T>,
    created: &'static Location<'static>,
}

doorbell_platform::opaque_debug!([T] Mutex<T>; created);

impl<T> Mutex<T> {
    /// Creates a free mutex around `value`.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(value: T) -> Self {
        let created = Location::caller();
        Mutex { lock: doorbell_platform::Mutex::new(class((created, "")), value), created }
    }

    /// Returns the mutex, called `name` in traces.
    ///
    /// # Context
    /// Any.
    #[must_use]
    #[track_caller]
    pub fn named(self, name: &'static str) -> Self {
        let class = class((self.created, name));
        Mutex { lock: doorbell_platform::Mutex::new(class, self.lock.into_inner()), ..self }
    }

    /// Takes the mutex.
    ///
    /// # Errors
    /// Never: the result is that of `std`.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        Ok(self.take())
    }

    #[track_caller]
    pub(super) fn take(&self) -> MutexGuard<'_, T> {
        MutexGuard { guard: self.lock.lock(), mutex: self }
    }

    /// Takes the mutex if it is free.
    ///
    /// # Errors
    /// Returns `WouldBlock` if it is not.
    ///
    /// # Context
    /// Any task. It does not sleep.
    #[track_caller]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guard = self.lock.try_lock().ok_or(TryLockError::WouldBlock)?;
        Ok(MutexGuard { guard, mutex: self })
    }

    /// Returns the value, which nobody else can reach.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Context
    /// Any.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        Ok(self.lock.get_mut())
    }

    /// Returns the value, taken out.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Context
    /// Any.
    pub fn into_inner(self) -> LockResult<T> {
        Ok(self.lock.into_inner())
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

/// Holds a [`Mutex`], and releases it when dropped.
#[must_use = "the mutex is released as soon as the guard is dropped"]
pub struct MutexGuard<'a, T> {
    guard: LockGuard<'a, Sim, T, SimMutex>,
    mutex: &'a Mutex<T>,
}

doorbell_platform::opaque_debug!(['a, T] MutexGuard<'a, T>; mutex);

impl<'a, T> MutexGuard<'a, T> {
    /// Releases the mutex, and returns it.
    #[track_caller]
    pub(super) fn release(self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
