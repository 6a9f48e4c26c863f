//! An allocator that counts what each thread has allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting. A test makes it the `#[global_allocator]`.
pub struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Returns what `makes` has made, and how many bytes it has allocated on the way, freed or not.
pub fn bytes<T>(makes: impl FnOnce() -> T) -> (T, usize) {
    let before = BYTES.get();
    let made = makes();
    (made, BYTES.get() - before)
}

// SAFETY: everything is left to the system's allocator; the counter is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
