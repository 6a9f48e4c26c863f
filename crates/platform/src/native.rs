//! The machine's own atomics.

use core::sync::atomic::{self, Ordering};

use crate::{Atomic, AtomicInt, AtomicPtr};

macro_rules! atomic {
    ($word:ty, $value:ty, $zero:expr, $lock_free:expr) => {
        impl Atomic for $word {
            type Value = $value;
            const ZERO: Self = <$word>::new($zero);
            #[inline]
            fn is_lock_free() -> bool {
                $lock_free
            }
            #[inline(always)]
            fn new(value: $value) -> Self {
                <$word>::new(value)
            }
            #[inline(always)]
            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }
            #[inline(always)]
            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order)
            }
            #[inline(always)]
            fn swap(&self, value: $value, order: Ordering) -> $value {
                self.swap(value, order)
            }
            #[inline(always)]
            fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
            #[inline(always)]
            fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange_weak(current, new, success, failure)
            }
            #[inline(always)]
            fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.fetch_or(value, order)
            }
            #[inline(always)]
            fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.fetch_and(value, order)
            }
            #[inline(always)]
            fn fetch_xor(&self, value: $value, order: Ordering) -> $value {
                self.fetch_xor(value, order)
            }
        }
    };
}

macro_rules! atomic_int {
    ($word:ty, $value:ty) => {
        atomic!($word, $value, 0, true);
        impl AtomicInt for $word {
            #[inline(always)]
            fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.fetch_add(value, order)
            }
            #[inline(always)]
            fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.fetch_sub(value, order)
            }
            #[inline(always)]
            fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.fetch_max(value, order)
            }
            #[inline(always)]
            fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                self.fetch_min(value, order)
            }
        }
    };
}

atomic!(atomic::AtomicBool, bool, false, true);
atomic_int!(atomic::AtomicU8, u8);
atomic_int!(atomic::AtomicU16, u16);
atomic_int!(atomic::AtomicU32, u32);
atomic_int!(atomic::AtomicU64, u64);
atomic_int!(atomic::AtomicUsize, usize);
atomic_int!(atomic::AtomicI8, i8);
atomic_int!(atomic::AtomicI16, i16);
atomic_int!(atomic::AtomicI32, i32);
atomic_int!(atomic::AtomicI64, i64);
atomic_int!(atomic::AtomicIsize, isize);
atomic!(portable_atomic::AtomicU128, u128, 0, portable_atomic::AtomicU128::is_lock_free());

impl<T> AtomicPtr<T> for atomic::AtomicPtr<T> {
    #[inline(always)]
    fn new(ptr: *mut T) -> Self {
        atomic::AtomicPtr::new(ptr)
    }
    #[inline(always)]
    fn load(&self, order: Ordering) -> *mut T {
        self.load(order)
    }
    #[inline(always)]
    fn store(&self, ptr: *mut T, order: Ordering) {
        self.store(ptr, order)
    }
    #[inline(always)]
    fn swap(&self, ptr: *mut T, order: Ordering) -> *mut T {
        self.swap(ptr, order)
    }
    #[inline(always)]
    fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        self.compare_exchange(current, new, success, failure)
    }
    #[inline(always)]
    fn compare_exchange_weak(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        self.compare_exchange_weak(current, new, success, failure)
    }
}
