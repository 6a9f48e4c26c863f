//! The list of the tasks that wait: nodes on the waiting tasks' own stacks, so that waiting
//! allocates nothing.

use core::cell::UnsafeCell;
use core::ptr;

use crate::Platform;

/// A task on its way to or from a [`WaitList`].
pub(super) struct Waiter<P: Platform> {
    task: P::Task,
    /// Read and written under the lock of the list only, by whichever context holds it.
    links: UnsafeCell<Links<P>>,
}

struct Links<P: Platform> {
    prev: *const Waiter<P>,
    next: *const Waiter<P>,
    number: u64,
    listed: bool,
}

impl<P: Platform> Waiter<P> {
    pub(super) fn new(task: P::Task) -> Self {
        let links = Links { prev: ptr::null(), next: ptr::null(), number: 0, listed: false };
        Waiter { task, links: UnsafeCell::new(links) }
    }
}

/// Waiting tasks, first come first served. Lives behind a lock, which also guards the links of its
/// nodes.
pub(super) struct WaitList<P: Platform> {
    head: *const Waiter<P>,
    tail: *const Waiter<P>,
    len: u32,
    last_number: u64,
}

// SAFETY: the nodes behind the pointers stay where they are while they are listed (by the contract
// of `push`), their links are reached through the list only, and their tasks are `Sync`.
unsafe impl<P: Platform> Send for WaitList<P> {}

impl<P: Platform> WaitList<P> {
    pub(super) const EMPTY: Self =
        WaitList { head: ptr::null(), tail: ptr::null(), len: 0, last_number: 0 };

    /// How many tasks wait.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The number of the task that came last; numbers rise.
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Appends `waiter` unless it is listed.
    ///
    /// # Safety
    /// `waiter` is on no other list, and is removed from this one before it moves or dies.
    pub(super) unsafe fn push(&mut self, waiter: &Waiter<P>) {
        // SAFETY: `&mut self` means that this context holds the lock that guards all links of this
        // list.
        let links = unsafe { &mut *waiter.links.get() };
        if links.listed {
            return;
        }
        self.last_number += 1;
        *links =
            Links { prev: self.tail, next: ptr::null(), number: self.last_number, listed: true };
        match self.tail.is_null() {
            true => self.head = waiter,
            // SAFETY: the tail is listed, hence alive, and is another node than `waiter`, which was
            // not listed.
            false => unsafe { (*(*self.tail).links.get()).next = waiter },
        }
        self.tail = waiter;
        self.len += 1;
    }

    /// Takes `waiter` off the list if it is listed.
    ///
    /// # Safety
    /// `waiter` is on no other list.
    pub(super) unsafe fn remove(&mut self, waiter: &Waiter<P>) {
        // SAFETY: `&mut self` means that this context holds the lock that guards all links of this
        // list.
        let links = unsafe { &mut *waiter.links.get() };
        if !links.listed {
            return;
        }
        links.listed = false;
        match links.prev.is_null() {
            true => self.head = links.next,
            // SAFETY: the neighbour is listed, hence alive, and is another node than `waiter`.
            false => unsafe { (*(*links.prev).links.get()).next = links.next },
        }
        match links.next.is_null() {
            true => self.tail = links.prev,
            // SAFETY: as above.
            false => unsafe { (*(*links.next).links.get()).prev = links.prev },
        }
        self.len -= 1;
    }

    /// Takes the first task off the list if its number is not above `limit`. From here on, its node
    /// may die.
    pub(super) fn pop(&mut self, limit: u64) -> Option<P::Task> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: the head is listed, hence alive at least until it is removed, which takes `&mut
        // self`.
        let first = unsafe { &*self.head };
        // SAFETY: `&mut self` means that this context holds the lock that guards all links of this
        // list.
        if unsafe { (*first.links.get()).number } > limit {
            return None;
        }
        let task = first.task.clone();
        // SAFETY: it is the head of this list.
        unsafe { self.remove(first) };
        Some(task)
    }
}
