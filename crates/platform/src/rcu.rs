//! Read-copy update: read sections, grace periods, and a cell that is replaced as a whole.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

use crate::{AtomicPtr, Platform};

/// A domain of read sections. A grace period has passed when every read section that had begun
/// before it has ended.
///
/// # Safety
/// For every read section R and every call S of [`synchronize`](ReadDomain::synchronize) or
/// [`synchronize_expedited`](ReadDomain::synchronize_expedited), at least one of the two holds:
///
/// - what was written before S is seen by the `SeqCst` loads of R, or
/// - R ends, and its end happens before S returns.
///
/// The same is true of a call of [`call`](ReadDomain::call), where "returns" is "runs its callback,
/// or drops it". (Loads of a weaker ordering may be early on some machines: what leads a reader to
/// a protected object is loaded `SeqCst`, which costs a reader nothing where loads are ordered
/// anyway.)
///
/// A section whose guard or token is forgotten has not ended, however many there are: safe code may
/// forget as many as it has time for, so a domain that counts them must not let the count wrap.
/// Grace periods then do not end, and what is retired leaks; nothing is freed early. A domain that
/// is leaked, or dropped while tokens are left, owes nothing.
pub unsafe trait ReadDomain: Send + Sync + 'static {
    /// What a read section hands from its begin to its end.
    type Token: Copy;

    /// Creates a domain without readers. `name` is for traces.
    #[track_caller]
    fn new(name: &'static str) -> Self;

    /// Begins a read section; they nest. Prefer [`read`](ReadDomain::read).
    #[track_caller]
    fn read_lock(&self) -> Self::Token;

    /// Ends the read section that returned `token`.
    ///
    /// # Safety
    /// `token` came from [`read_lock`](ReadDomain::read_lock) of this domain in this context, and
    /// is used up by this call. (Ending a section twice would end somebody else's.)
    #[track_caller]
    unsafe fn read_unlock(&self, token: Self::Token);

    /// Begins a read section that ends with the guard.
    #[inline]
    #[track_caller]
    fn read(&self) -> ReadGuard<'_, Self>
    where
        Self: Sized,
    {
        ReadGuard { domain: self, token: self.read_lock(), not_send: PhantomData }
    }

    /// Sleeps for a grace period. Never from a read section of the domain, nor under a lock.
    #[track_caller]
    fn synchronize(&self);

    /// Waits as [`synchronize`](ReadDomain::synchronize) does, and spends CPU time to be over
    /// sooner.
    #[track_caller]
    fn synchronize_expedited(&self);

    /// Calls `f` in task context after a grace period, without waiting for it.
    #[track_caller]
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>);

    /// Waits until all that was handed to [`call`](ReadDomain::call) before has run. Never from
    /// such a callback.
    #[track_caller]
    fn barrier(&self);
}

/// A read section; ends when dropped.
#[must_use = "the read section ends as soon as the guard is dropped"]
pub struct ReadGuard<'a, D: ReadDomain> {
    domain: &'a D,
    pub(crate) token: D::Token,
    not_send: PhantomData<*mut ()>,
}

crate::opaque_debug!(['a, D: ReadDomain] ReadGuard<'a, D>);

impl<D: ReadDomain> ReadGuard<'_, D> {
    /// Returns whether this is a read section of `domain`.
    #[inline]
    pub fn is_of(&self, domain: &D) -> bool {
        ptr::eq(self.domain, domain)
    }
}

impl<D: ReadDomain> Drop for ReadGuard<'_, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the token is of this domain and is used here only; the guard is `!Send`, so this
        // is the context that began the section.
        unsafe { self.domain.read_unlock(self.token) }
    }
}

/// A value that readers of a domain see whole and writers replace as a whole.
///
/// A reader is in a read section of the cell's domain: its own ([`read`](RcuCell::read)), or one
/// that it is in already ([`get`](RcuCell::get)). Writers are serialised by their caller (two that
/// race are safe, but one of them replaces a value that it has not looked at).
///
/// ```
/// # #[cfg(feature = "std")] {
/// use doorbell_platform::{Platform, RcuCell, ReadDomain, Std};
/// use std::sync::Arc;
///
/// let domain = Arc::new(<Std as Platform>::Srcu::new("routes"));
/// let routes = RcuCell::<Std, _, _>::new(&domain, Box::new(vec![32, 33]));
/// assert_eq!(routes.read()[1], 33);
/// let former = routes.replace(Box::new(vec![40]));
/// assert_eq!(routes.read()[0], 40);
/// assert_eq!(*former.synchronize(), [32, 33]);
/// # }
/// ```
pub struct RcuCell<P: Platform, D: ReadDomain, T: Send + Sync + 'static> {
    ptr: P::AtomicPtr<T>,
    domain: Arc<D>,
    owns: PhantomData<Box<T>>,
}

crate::opaque_debug!([P: Platform, D: ReadDomain, T: Send + Sync + 'static] RcuCell<P, D, T>);

impl<P: Platform, D: ReadDomain, T: Send + Sync + 'static> RcuCell<P, D, T> {
    /// Creates a cell that holds `value`, for readers of `domain`.
    #[track_caller]
    pub fn new(domain: &Arc<D>, value: Box<T>) -> Self {
        RcuCell {
            ptr: P::AtomicPtr::new(Box::into_raw(value)),
            domain: domain.clone(),
            owns: PhantomData,
        }
    }

    /// Returns the cell, under a name for traces.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.ptr.set_name(name);
        self
    }

    /// The domain whose readers may look into the cell.
    #[inline]
    pub fn domain(&self) -> &Arc<D> {
        &self.domain
    }

    /// Returns the value, in a read section of its own.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> RcuRef<'_, D, T> {
        let section = self.domain.read();
        RcuRef { value: self.load(), section, borrows: PhantomData }
    }

    /// Returns the value, in a read section that the caller is in.
    ///
    /// # Panics
    /// If `section` is of another domain.
    #[inline]
    #[track_caller]
    pub fn get<'a>(&'a self, section: &'a ReadGuard<'_, D>) -> &'a T {
        assert!(
            section.is_of(&self.domain),
            "a read section of another domain does not protect this cell"
        );
        // SAFETY: the value was in the cell after the section began, so whoever retires it waits
        // for the section, which cannot end while it is borrowed; the cell cannot be dropped while
        // it is borrowed.
        unsafe { self.load().as_ref() }
    }

    /// Puts `value` into the cell. Readers may still see the former one until a grace period has
    /// passed.
    #[inline]
    #[track_caller]
    pub fn replace(&self, value: Box<T>) -> Retired<D, T> {
        // SeqCst, and the grace period that follows begins with a SeqCst fence: see `load`. It also
        // releases the value's initialisation to readers.
        let former = self.ptr.swap(Box::into_raw(value), Ordering::SeqCst);
        // SAFETY: the cell never holds null.
        Retired { ptr: unsafe { NonNull::new_unchecked(former) }, domain: self.domain.clone() }
    }

    /// The value, which nobody else sees while the cell is borrowed mutably.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: readers and writers borrow the cell, so there are none; the pointer is the only
        // owner of the box.
        unsafe { &mut *self.ptr.load(Ordering::Relaxed) }
    }

    /// SeqCst, because of the store-buffering pattern between a reader and a grace period:
    ///
    /// ```text
    ///   reader                          writer
    ///   read_lock: counts itself        replace: writes the pointer
    ///   load: reads the pointer         grace period: reads the count
    /// ```
    ///
    /// All four being SeqCst, a reader that the grace period does not see has seen the new pointer.
    /// The load acquires what `replace` released.
    #[inline]
    #[track_caller]
    fn load(&self) -> NonNull<T> {
        // SAFETY: the cell never holds null.
        unsafe { NonNull::new_unchecked(self.ptr.load(Ordering::SeqCst)) }
    }
}

impl<P: Platform, D: ReadDomain, T: Send + Sync + 'static> Drop for RcuCell<P, D, T> {
    fn drop(&mut self) {
        // SAFETY: readers borrow the cell, so there are none; the pointer is the only owner of the
        // box.
        drop(unsafe { Box::from_raw(self.ptr.load(Ordering::Relaxed)) });
    }
}

/// The value of an [`RcuCell`] in a read section of its own.
#[must_use = "the read section ends as soon as this is dropped"]
pub struct RcuRef<'a, D: ReadDomain, T> {
    // Not a reference: that would promise that the value outlives a call that takes `self`, such as
    // `drop`.
    value: NonNull<T>,
    section: ReadGuard<'a, D>,
    borrows: PhantomData<&'a T>,
}

crate::opaque_debug!(['a, D: ReadDomain, T] RcuRef<'a, D, T>);

impl<D: ReadDomain, T> RcuRef<'_, D, T> {
    /// The read section, for looking into further cells of the domain.
    #[inline]
    pub fn section(&self) -> &ReadGuard<'_, D> {
        &self.section
    }
}

impl<D: ReadDomain, T> Deref for RcuRef<'_, D, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value was in the cell after the section began, so whoever retires it waits
        // for the section, which lives as long as `self`; the cell is borrowed.
        unsafe { self.value.as_ref() }
    }
}

/// A value that was taken out of an [`RcuCell`] and that readers may still see: it can be dropped
/// (or used) after a grace period only.
#[must_use = "a retired value leaks unless it is reclaimed after a grace period"]
pub struct Retired<D: ReadDomain, T: Send + Sync + 'static> {
    ptr: NonNull<T>,
    domain: Arc<D>,
}

crate::opaque_debug!([D: ReadDomain, T: Send + Sync + 'static] Retired<D, T>);

// SAFETY: the pointer is the only owner of a box whose value may be sent and shared.
unsafe impl<D: ReadDomain, T: Send + Sync + 'static> Send for Retired<D, T> {}

impl<D: ReadDomain, T: Send + Sync + 'static> Retired<D, T> {
    /// Sleeps for a grace period and returns the value, which nobody else sees any more. Never from
    /// a read section of the domain, nor under a lock.
    #[track_caller]
    pub fn synchronize(self) -> Box<T> {
        self.domain.synchronize();
        // SAFETY: the grace period that has passed began after the value was taken out.
        unsafe { self.unshared() }
    }

    /// Waits as [`synchronize`](Retired::synchronize) does, and spends CPU time to be over sooner.
    #[track_caller]
    pub fn synchronize_expedited(self) -> Box<T> {
        self.domain.synchronize_expedited();
        // SAFETY: the grace period that has passed began after the value was taken out.
        unsafe { self.unshared() }
    }

    /// Drops the value in task context after a grace period, without waiting for it.
    #[track_caller]
    pub fn reclaim_later(self) {
        struct Owned<T>(NonNull<T>);
        // SAFETY: the only owner of a box whose value may be sent.
        unsafe impl<T: Send> Send for Owned<T> {}
        impl<T> Drop for Owned<T> {
            fn drop(&mut self) {
                // SAFETY: the only owner of the box; a domain neither runs nor drops a callback
                // before a grace period has passed.
                drop(unsafe { Box::from_raw(self.0.as_ptr()) });
            }
        }
        // Not a `Box<T>`: readers still see the value, and a box claims that nobody does.
        let owned = Owned(self.ptr);
        self.domain.call(Box::new(move || drop(owned)));
    }

    /// # Safety
    /// A grace period of the domain has passed since the value was taken out.
    unsafe fn unshared(self) -> Box<T> {
        // SAFETY: by the caller; `self` is the only owner and has no drop glue for the value.
        unsafe { Box::from_raw(self.ptr.as_ptr()) }
    }
}
