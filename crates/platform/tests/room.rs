//! Lists under locks: memory is allocated and freed while nobody holds the lock. (In a process of
//! its own, because it has the process's allocator.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, TryLockError};

use doorbell_platform::lock_reserving;

struct Watching;

thread_local! {
    /// Whether this thread holds the lock.
    static HELD: Cell<bool> = const { Cell::new(false) };
    /// How often it has allocated or freed, without the lock and with it.
    static USES: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

fn used() {
    let mut uses = USES.get();
    uses[usize::from(HELD.get())] += 1;
    USES.set(uses);
}

// SAFETY: everything is the system allocator's; the thread-locals need neither memory nor a
// destructor.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        used();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        used();
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

struct Guard<'a>(MutexGuard<'a, Vec<u32>>);

impl Guard<'_> {
    fn of(list: &Mutex<Vec<u32>>) -> Guard<'_> {
        let guard = list.lock().unwrap();
        HELD.set(true);
        Guard(guard)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

impl Deref for Guard<'_> {
    type Target = Vec<u32>;
    fn deref(&self) -> &Vec<u32> {
        &self.0
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u32> {
        &mut self.0
    }
}

#[test]
fn a_list_grows_without_an_allocation_or_a_free_under_the_lock() {
    let list = Mutex::new(Vec::new());
    USES.set([0; 2]);
    for number in 0..100 {
        lock_reserving(|| Guard::of(&list), |list| Some(list)).push(number);
    }
    let [without, with] = USES.get();
    assert_eq!(with, 0);
    // 4, 8, 16, 32, 64, 128: each is allocated, and freed for the next one.
    assert_eq!(without, 6 + 5);
    assert!(list.lock().unwrap().iter().copied().eq(0..100));
}

#[test]
fn room_that_others_have_filled_meanwhile_is_made_anew() {
    let list = Mutex::new(Vec::new());
    let taken = Cell::new(0);
    let lock = || {
        taken.set(taken.get() + 1);
        // Whoever comes second has missed four others.
        if taken.get() == 2 {
            list.lock().unwrap().extend(0..4);
        }
        Guard::of(&list)
    };
    let mut grown = lock_reserving(lock, |list| Some(list));
    assert_eq!((grown.as_slice(), taken.get()), (&[0, 1, 2, 3][..], 3));
    assert!(grown.guard().capacity() > 4);
    grown.push(4);
    assert!(
        matches!(list.try_lock(), Err(TryLockError::WouldBlock)),
        "it is held until the guard is dropped"
    );
    drop(grown);
    assert_eq!(list.try_lock().unwrap().len(), 5);
}

#[test]
fn a_list_that_has_room_or_does_not_grow_is_left_as_it_is() {
    let list = Mutex::new(Vec::with_capacity(1));
    USES.set([0; 2]);
    lock_reserving(|| Guard::of(&list), |list| Some(list)).push(1);
    let full = lock_reserving(|| Guard::of(&list), |_| None::<&mut Vec<u32>>);
    assert_eq!((full.len(), full.capacity(), USES.get()), (1, 1, [0; 2]));
}
