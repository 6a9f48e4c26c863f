//! The one lock type: a raw lock of the platform, a class, and the data.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::{Acquire, LockClass, Platform, Subclass};

/// A lock without data.
///
/// # Safety
/// Between the return of `lock` (or of a `try_lock` that said `true`) and the matching `unlock`, no
/// other call of `lock` on the same object returns and no `try_lock` says `true`; an `unlock`
/// happens before the acquisition that follows it. A guard that is forgotten is no `unlock`: the
/// lock stays taken for good, and no number of them changes that.
pub unsafe trait RawLock: Send + Sync + 'static {
    /// An unlocked lock, for statics.
    const INIT: Self;

    /// Creates an unlocked lock of `class`: [`INIT`](RawLock::INIT), unless the platform keeps
    /// account of its locks.
    #[inline(always)]
    #[track_caller]
    fn new(class: &'static LockClass) -> Self
    where
        Self: Sized,
    {
        let _ = class;
        Self::INIT
    }

    /// Takes the lock, waiting for it.
    #[track_caller]
    fn lock(&self, how: Acquire);

    /// Takes the lock if it is free.
    #[track_caller]
    fn try_lock(&self, how: Acquire) -> bool;

    /// Releases the lock.
    ///
    /// # Safety
    /// The caller holds the lock, and took it in this context.
    #[track_caller]
    unsafe fn unlock(&self);

    /// Complains if the calling context does not hold the lock, where the platform can tell.
    #[inline(always)]
    #[track_caller]
    fn assert_held(&self) {}

    /// Says that the calling context, which holds the lock, changes what the lock protects: for
    /// platforms that watch accesses.
    #[inline(always)]
    fn changes(&self) {}
}

/// Data behind a spin lock (or, as [`Mutex`], behind a sleeping one).
///
/// Every lock of Doorbell is a [leaf](LockClass::leaf) unless ARCHITECTURE.md says otherwise:
/// compute under it what must happen, and act when it is gone.
pub struct Lock<P: Platform, T, R: RawLock = <P as Platform>::RawSpin> {
    raw: R,
    class: &'static LockClass,
    platform: PhantomData<fn() -> P>,
    data: UnsafeCell<T>,
}

crate::opaque_debug!([P: Platform, T, R: RawLock] Lock<P, T, R>; class);

/// Data behind a sleeping lock.
pub type Mutex<P, T> = Lock<P, T, <P as Platform>::RawMutex>;

// SAFETY: the data is reached through a guard only, and `RawLock` gives out one at a time; it is
// handed from thread to thread, hence `T: Send`.
unsafe impl<P: Platform, T: Send, R: RawLock> Sync for Lock<P, T, R> {}
// SAFETY: as for any owner of a `T` and an `R`, both of which may be sent.
unsafe impl<P: Platform, T: Send, R: RawLock> Send for Lock<P, T, R> {}

impl<P: Platform, T, R: RawLock> Lock<P, T, R> {
    /// Creates a free lock of `class` around `data`.
    #[inline]
    #[track_caller]
    pub fn new(class: &'static LockClass, data: T) -> Self {
        Lock { raw: R::new(class), class, platform: PhantomData, data: UnsafeCell::new(data) }
    }

    /// Creates a free lock of `class` around `data` as [`new`](Lock::new) does, for statics.
    pub const fn constant(class: &'static LockClass, data: T) -> Self {
        Lock { raw: R::INIT, class, platform: PhantomData, data: UnsafeCell::new(data) }
    }

    /// Takes the lock.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, P, T, R> {
        self.acquire(Acquire::of(self.class))
    }

    /// Takes the lock with a subclass: this acquisition is known not to deadlock with those of
    /// other subclasses.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, subclass: Subclass) -> LockGuard<'_, P, T, R> {
        self.acquire(Acquire { subclass, ..Acquire::of(self.class) })
    }

    /// Takes the lock under `outer`, which everyone holds who takes several locks of this class.
    #[inline]
    #[track_caller]
    pub fn lock_under<U, S: RawLock>(
        &self,
        outer: &LockGuard<'_, P, U, S>,
    ) -> LockGuard<'_, P, T, R> {
        self.acquire(Acquire { under: Some(outer.lock.class), ..Acquire::of(self.class) })
    }

    /// Takes the lock if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<LockGuard<'_, P, T, R>> {
        self.raw.try_lock(Acquire::of(self.class)).then(|| self.guard())
    }

    /// Complains if the calling context does not hold the lock, where the platform can tell
    /// (natively it can't).
    #[inline]
    #[track_caller]
    pub fn assert_held(&self) {
        self.raw.assert_held();
    }

    /// The class that the lock was created with.
    pub const fn class(&self) -> &'static LockClass {
        self.class
    }

    /// The data, which nobody else can reach while it is borrowed mutably.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Returns the data, taken out.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }

    #[inline]
    #[track_caller]
    fn acquire(&self, how: Acquire) -> LockGuard<'_, P, T, R> {
        self.raw.lock(how);
        self.guard()
    }

    #[inline]
    fn guard(&self) -> LockGuard<'_, P, T, R> {
        LockGuard { lock: self, not_send: PhantomData }
    }
}

impl<P: Platform, T> Lock<P, T> {
    /// Turns interrupts off, then takes the lock: for locks that interrupt handlers take too.
    #[inline]
    #[track_caller]
    pub fn lock_irqsave(&self) -> IrqLockGuard<'_, P, T> {
        self.lock_irqsave_nested(Subclass::DEFAULT)
    }

    /// Locks as [`lock_irqsave`](Lock::lock_irqsave) does, with a subclass.
    #[inline]
    #[track_caller]
    pub fn lock_irqsave_nested(&self, subclass: Subclass) -> IrqLockGuard<'_, P, T> {
        let irq = P::irq_save();
        IrqLockGuard { guard: ManuallyDrop::new(self.lock_nested(subclass)), irq }
    }
}

/// Holds a lock; releases it when dropped. It stays in the context that took it.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard<'a, P: Platform, T, R: RawLock = <P as Platform>::RawSpin> {
    lock: &'a Lock<P, T, R>,
    not_send: PhantomData<*mut ()>,
}

crate::opaque_debug!(['a, P: Platform, T, R: RawLock] LockGuard<'a, P, T, R>);

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<P: Platform, T: Sync, R: RawLock> Sync for LockGuard<'_, P, T, R> {}

impl<P: Platform, T, R: RawLock> Deref for LockGuard<'_, P, T, R> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so no other guard exists.
        unsafe { &*self.lock.data.get() }
    }
}

impl<P: Platform, T, R: RawLock> DerefMut for LockGuard<'_, P, T, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.lock.raw.changes();
        // SAFETY: the guard holds the lock and is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<P: Platform, T, R: RawLock> Drop for LockGuard<'_, P, T, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard holds the lock and is `!Send`, so this is the context that took it.
        unsafe { self.lock.raw.unlock() }
    }
}

/// Holds a spin lock with interrupts off; when dropped, releases the lock, then restores
/// interrupts.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct IrqLockGuard<'a, P: Platform, T> {
    guard: ManuallyDrop<LockGuard<'a, P, T>>,
    irq: P::IrqState,
}

crate::opaque_debug!(['a, P: Platform, T] IrqLockGuard<'a, P, T>);

impl<P: Platform, T> Deref for IrqLockGuard<'_, P, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<P: Platform, T> DerefMut for IrqLockGuard<'_, P, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<P: Platform, T> Drop for IrqLockGuard<'_, P, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here only, once; the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.guard) }
        P::irq_restore(self.irq);
    }
}
