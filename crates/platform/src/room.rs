//! Lists under locks grow by memory that is allocated, and freed, while nobody holds the lock.

use alloc::vec::Vec;
use core::mem;
use core::ops::{Deref, DerefMut};

/// Takes a lock when the list under it has room for one more element: who then adds one, and no
/// more, does not allocate.
///
/// `lock` takes the lock. `list` says which list grows, or that none has to; it is asked under the
/// lock, so that it sees what others have done meanwhile, and must not wait, wake or free anything.
///
/// An allocator takes locks of its own, may wait for memory, and takes long: none of that is to
/// happen under a spin lock. So the lock is released to allocate, and taken again; if others have
/// filled the room in between, once more.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use doorbell_platform::{Lock, LockClass, Std, WaitType, lock_reserving};
/// static LISTENERS: LockClass = LockClass::new("example.listeners", WaitType::Spin);
///
/// let listeners = Lock::<Std, Vec<u32>>::new(&LISTENERS, Vec::new());
/// let mut list = lock_reserving(|| listeners.lock(), |list| Some(list));
/// list.push(7);
/// # }
/// ```
#[doc(alias = "lock_with_room")]
pub fn lock_reserving<G: DerefMut, T>(
    lock: impl Fn() -> G,
    mut list: impl FnMut(&mut G::Target) -> Option<&mut Vec<T>>,
) -> WithRoom<G, T> {
    let mut room = Vec::new();
    loop {
        let mut guard = lock();
        let Some(full) = list(&mut guard).filter(|list| list.len() == list.capacity()) else {
            return WithRoom { guard, _left: room };
        };
        if room.capacity() > full.len() {
            room.append(full);
            mem::swap(&mut room, full);
            return WithRoom { guard, _left: room };
        }
        let wanted = (full.len() * 2).max(4);
        drop(guard);
        room = Vec::with_capacity(wanted);
    }
}

/// A guard from [`lock_reserving`]: releases the lock when it is dropped, then frees what the list
/// has grown out of.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct WithRoom<G, T> {
    // Dropped in this order.
    guard: G,
    _left: Vec<T>,
}

crate::opaque_debug!([G, T] WithRoom<G, T>);

impl<G, T> WithRoom<G, T> {
    /// The lock's own guard.
    pub fn guard(&self) -> &G {
        &self.guard
    }
}

impl<G: Deref, T> Deref for WithRoom<G, T> {
    type Target = G::Target;
    #[inline]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut, T> DerefMut for WithRoom<G, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}
