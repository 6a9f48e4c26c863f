//! References that are counted by steps.

use std::ops::Deref;
use std::panic::Location;

use crate::sim::{Life, Model};

/// A counted reference, shaped as that of `std`. To clone and to drop one are steps, so what depends
/// on who drops the last one is explored; and [`Machine::assert_no_leaks`] sees those that stay.
///
/// [`Machine::assert_no_leaks`]: crate::Machine::assert_no_leaks
pub struct Arc<T>(std::sync::Arc<Counted<T>>);

doorbell_platform::opaque_debug!([T] Arc<T>);

struct Counted<T> {
    value: T,
    count: Model<usize>,
    life: Life,
}

impl<T> Arc<T> {
    /// Creates the first reference to `value`.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(value: T) -> Self {
        let life = Life::begin("reference", Location::caller());
        Arc(std::sync::Arc::new(Counted { value, count: Model::new("references", 1), life }))
    }

    /// Returns how many references there are.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn strong_count(this: &Self) -> usize {
        this.0.count.observe(|count| *count)
    }

    /// Returns whether both refer to the same value.
    ///
    /// # Context
    /// Any.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&this.0, &other.0)
    }

    /// Returns the value, if this is its last reference.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        let last = this.0.count.observe(|count| *count == 1);
        std::sync::Arc::get_mut(&mut this.0).filter(|_| last).map(|counted| &mut counted.value)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.0.count.change(|count| *count += 1);
        Arc(std::sync::Arc::clone(&self.0))
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        let last = self.0.count.change(|count| {
            *count -= 1;
            *count == 0
        });
        if last {
            self.0.life.end();
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}
