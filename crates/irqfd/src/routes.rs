//! Routes that several edit: one GSI at a time, and put in force together.
//!
//! ```text
//!   an editor                         who publishes
//!   reads what is staged              reads what is staged, with its edition
//!   makes another of it, outside of   replaces the table, unless a later edition is in force
//!   the lock, of the next edition     waits for the sections that use the former table
//!   puts it there, unless somebody    gives free GSIs back that this edition has no more
//!   else has: then once more
//! ```
//!
//! Nobody waits for a grace period with a lock held, so two that publish may meet: the later
//! edition has the edits of the earlier one, and stays.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use doorbell_platform::{Lock, LockClass, Platform, WaitType};

use crate::{Controller, Error, Gsi, Irqfds, Owed, Rerouted, Route, RoutingTable};

pub(crate) static ROUTES: LockClass = LockClass::new("irqfd.routes", WaitType::Spin).leaf();

/// The routes of a VM, edited one GSI at a time: what a VMM has around its routing table.
///
/// Edits are staged until one of the editors [publishes](Routes::publish) them: a batch costs one
/// grace period. Share it by reference or `Arc`, and replace the table by nothing else meanwhile: a
/// table that [`Irqfds::reroute`] puts in force is there until the next publication.
///
/// ```
/// # use doorbell_irqfd::*;
/// # use doorbell_platform::Std;
/// # struct Chip;
/// # impl Controller for Chip {
/// #     type Delivery = ();
/// #     fn pins(&self, _: u16) -> u32 { 24 }
/// #     fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
/// #     fn edge(&self, _: Pin) {}
/// #     fn msi(&self, _: Msi) {}
/// # }
/// # let vm = Irqfds::<Std, _>::new(Chip, Limits::default());
/// // The first 24 are the IOAPIC's pins.
/// let routes = Routes::new(&vm, Gsi(24)..Gsi(4096));
/// for pin in 0..24 {
///     routes.set(Gsi(pin), &[Route::Pin(Pin::new(0, pin))])?;
/// }
/// let gsi = routes.allocate()?;
/// routes.set(gsi, &[Route::Msi(Msi::new(0xfee0_0000, 0x41))])?;
/// let rerouted = routes.publish()?;
/// assert_eq!(rerouted.gsis().count(), 25);
/// rerouted.follow(&NoBypass); // or the one that there is
///
/// routes.free(gsi)?;
/// assert_eq!(routes.unpublished(), [gsi]);
/// # Ok::<(), Error>(())
/// ```
pub struct Routes<P: Platform, C: Controller> {
    vm: Irqfds<P, C>,
    pool: Range<u32>,
    staged: Lock<P, Arc<Staged>>,
}

doorbell_platform::opaque_debug!([P: Platform, C: Controller] Routes<P, C>; pool);

/// What is staged. Editors replace it as a whole.
#[derive(Clone, Default)]
struct Staged {
    edition: u64,
    /// Sorted.
    routes: Vec<(Gsi, Route)>,
    /// GSIs of the pool that are given out. Sorted.
    allocated: Vec<Gsi>,
    /// Freed, each with the first edition without its routes: given out again when that is in force
    /// and nobody delivers by an earlier one.
    leaving: Vec<(Gsi, u64)>,
}

impl<P: Platform, C: Controller> Routes<P, C> {
    /// Creates an editor of the routes that are in force. The pool is what
    /// [`allocate`](Routes::allocate) gives out; it ends at the VM's limit.
    ///
    /// # Context
    /// Any task; does not sleep.
    #[track_caller]
    pub fn new(vm: &Irqfds<P, C>, pool: Range<Gsi>) -> Self {
        let in_force = vm.table();
        let pool = pool.start.0..pool.end.0.min(vm.shared.limits.gsis);
        let routes: Vec<_> = in_force.iter().collect();
        let mut allocated: Vec<Gsi> = routes.iter().map(|(gsi, _)| *gsi).collect();
        allocated.retain(|gsi| pool.contains(&gsi.0));
        allocated.dedup();
        let staged = Arc::new(Staged { routes, allocated, ..Staged::default() });
        Routes { vm: vm.clone(), pool, staged: Lock::new(&ROUTES, staged) }
    }

    /// Gives out the lowest GSI of the pool that is free and has no routes.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`NoFreeGsi`](Error::NoFreeGsi).
    pub fn allocate(&self) -> Result<Gsi, Error> {
        self.edit(|staged| {
            let is_free = |gsi: &Gsi| {
                staged.allocated.binary_search(gsi).is_err()
                    && staged.leaving.iter().all(|(leaving, _)| leaving != gsi)
                    && staged.of(*gsi).is_empty()
            };
            let gsi = self.pool.clone().map(Gsi).find(is_free).ok_or(Error::NoFreeGsi)?;
            let at = staged.allocated.partition_point(|of| *of < gsi);
            staged.allocated.insert(at, gsi);
            Ok(gsi)
        })
    }

    /// Takes the routes of a GSI away, and gives it back to the pool once that is in force.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// [`NotAllocated`](Error::NotAllocated).
    pub fn free(&self, gsi: Gsi) -> Result<(), Error> {
        self.edit(|staged| {
            let at = staged.allocated.binary_search(&gsi).map_err(|_| Error::NotAllocated(gsi))?;
            staged.allocated.remove(at);
            staged.put(gsi, &[]);
            staged.leaving.push((gsi, staged.edition));
            Ok(())
        })
    }

    /// Stages the routes of a GSI, instead of what it has; none takes them away.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// What [`RoutingTable::new`] and [`Irqfds::reroute`] say of these routes alone, and
    /// [`TooManyRoutes`](Error::TooManyRoutes) if there would be too many.
    pub fn set(&self, gsi: Gsi, routes: &[Route]) -> Result<(), Error> {
        let limits = &self.vm.shared.limits;
        let mut sorted: Vec<_> = routes.iter().map(|route| (gsi, *route)).collect();
        sorted.sort_unstable();
        RoutingTable::new(&sorted)?.check(self.vm.controller(), limits.gsis, limits.routes)?;
        self.edit(|staged| {
            staged.put(gsi, &sorted);
            let fits = staged.routes.len() <= limits.routes;
            fits.then_some(()).ok_or(Error::TooManyRoutes(limits.routes))
        })
    }

    /// Puts what is staged in force, as [`Irqfds::reroute`] does. When this returns, each edit that
    /// was staged when it was called is, and no delivery uses a table without it.
    ///
    /// Of several that publish at once, whoever is first to do so takes along what is staged by
    /// then. What [`Rerouted`] says is what this call has changed: hardware that posts by a route
    /// that another call has put in force is told by that one.
    ///
    /// # Context
    /// Any task, with no lock held, from no notification and no deferred work; may sleep, for a
    /// grace period.
    ///
    /// # Errors
    /// [`SharedSource`](Error::SharedSource), [`Closed`](Error::Closed); the edits stay staged.
    pub fn publish(&self) -> Result<Rerouted<Owed<C>>, Error> {
        let staged = self.snapshot();
        let table = RoutingTable::new(&staged.routes)?;
        // Edition 0 is what was in force at first.
        let rerouted = self.vm.shared.reroute(table, Some(staged.edition))?;
        if staged.leaving.iter().any(|(_, edition)| *edition <= staged.edition) {
            self.edit(|now| {
                now.leaving.retain(|(_, edition)| *edition > staged.edition);
                Ok(())
            })?;
        }
        Ok(rerouted)
    }

    /// Returns the table that would be published now.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// As [`RoutingTable::new`].
    pub fn staged(&self) -> Result<RoutingTable, Error> {
        RoutingTable::new(&self.snapshot().routes)
    }

    /// Returns the GSIs whose staged routes are others than those in force.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn unpublished(&self) -> Vec<Gsi> {
        let (staged, in_force) = (self.snapshot(), self.vm.table());
        let gsis = staged.routes.iter().copied().chain(in_force.iter()).map(|(gsi, _)| gsi);
        let mut gsis: Vec<Gsi> = gsis.collect();
        gsis.sort_unstable();
        gsis.dedup();
        gsis.retain(|gsi| {
            !staged.of(*gsi).iter().map(|(_, route)| route).eq(in_force.routes(*gsi))
        });
        gsis
    }

    fn snapshot(&self) -> Arc<Staged> {
        Arc::clone(&self.staged.lock())
    }

    /// Makes the next edition of what is staged. What is made and freed is so outside of the lock.
    fn edit<T>(&self, mut f: impl FnMut(&mut Staged) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let before = self.snapshot();
            let mut next = Staged { edition: before.edition + 1, ..Staged::clone(&before) };
            let result = f(&mut next)?;
            let mut next = Arc::new(next);
            let is_next = {
                let mut staged = self.staged.lock();
                let is_next = Arc::ptr_eq(&staged, &before);
                if is_next {
                    mem::swap(&mut *staged, &mut next);
                }
                is_next
            };
            if is_next {
                return Ok(result);
            }
        }
    }
}

impl Staged {
    fn range(&self, gsi: Gsi) -> Range<usize> {
        let start = self.routes.partition_point(|(of, _)| *of < gsi);
        start..self.routes.partition_point(|(of, _)| *of <= gsi)
    }

    fn of(&self, gsi: Gsi) -> &[(Gsi, Route)] {
        self.routes.get(self.range(gsi)).unwrap_or_default()
    }

    fn put(&mut self, gsi: Gsi, routes: &[(Gsi, Route)]) {
        let range = self.range(gsi);
        self.routes.splice(range, routes.iter().copied());
    }
}
