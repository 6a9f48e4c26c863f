//! The heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;

use doorbell_platform::{Lock, LockClass, WaitType};
use linked_list_allocator::Heap;

use crate::bare::Bare;

static CLASS: LockClass = LockClass::new("hv.heap", WaitType::Spin).leaf();

/// The heap, behind a lock. What the hypervisor allocates once a guest runs is nothing.
struct Allocator(Lock<Bare, Heap>);

#[global_allocator]
static HEAP: Allocator = Allocator(Lock::constant(&CLASS, Heap::empty()));

/// Gives memory to the heap. On the first CPU, once.
///
/// # Safety
/// Nobody uses that memory.
pub(crate) unsafe fn init(memory: Range<usize>) {
    let start = core::ptr::with_exposed_provenance_mut(memory.start);
    // SAFETY: by the caller's promise.
    unsafe { HEAP.0.lock_irqsave().init(start, memory.len()) };
}

// SAFETY: the heap hands memory out once, under a lock.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = self.0.lock_irqsave().allocate_first_fit(layout);
        memory.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: it is from `alloc`, by the caller's promise.
            unsafe { self.0.lock_irqsave().deallocate(memory, layout) };
        }
    }
}
