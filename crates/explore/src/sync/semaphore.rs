//! A counting semaphore.

use crate::sim::Model;

/// A number of permits, of which each is one task's at a time.
pub struct Semaphore(Model<usize>);

doorbell_platform::opaque_debug!([] Semaphore);

impl Semaphore {
    /// Creates a semaphore with so many permits.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(permits: usize) -> Self {
        Semaphore(Model::new("semaphore", permits))
    }

    /// Takes a permit, and waits for one.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        self.0.take(|permits| *permits > 0, |permits| *permits -= 1);
        Permit(self)
    }

    /// Takes a permit if there is one.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        let mut taken = false;
        self.0.change_if(|permits| {
            taken = *permits > 0;
            *permits -= usize::from(taken);
            taken
        });
        taken.then_some(Permit(self))
    }

    /// Adds permits.
    ///
    /// # Context
    /// Any. It does not sleep.
    #[track_caller]
    pub fn add_permits(&self, permits: usize) {
        self.0.change(|there| *there += permits);
    }
}

/// A permit of a [`Semaphore`], which is given back when it is dropped.
#[must_use = "the permit is given back as soon as it is dropped"]
pub struct Permit<'a>(&'a Semaphore);

doorbell_platform::opaque_debug!(['a] Permit<'a>);

impl Permit<'_> {
    /// Takes the permit away for good.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}
