//! Atomic words whose order QEMU keeps.
//!
//! A sequentially consistent store is STLR, and such a load is LDAR; the architecture keeps an LDAR
//! behind an STLR that comes before it (Arm DDI 0487, section B2.3). QEMU 7.2 with a thread for
//! each CPU does not, on x86: it has a barrier before the one and after the other, and none
//! between. Two CPUs that each write and then look at what the other writes may both see nothing,
//! and a wake-up is lost. So a barrier follows the store here, where hardware needs none.

use core::sync::atomic::Ordering::{self, SeqCst};
use core::sync::atomic::{self, fence};

use doorbell_platform::{Atomic, AtomicInt};

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $value:ty) => {
        $(#[$doc])*
        pub struct $name($inner);

        impl Atomic for $name {
            type Value = $value;
            const ZERO: Self = $name(<$inner as Atomic>::ZERO);
            fn is_lock_free() -> bool {
                true
            }
            #[inline(always)]
            fn new(value: $value) -> Self {
                $name(<$inner>::new(value))
            }
            #[inline(always)]
            fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }
            #[inline(always)]
            fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                if order == SeqCst {
                    fence(SeqCst);
                }
            }
            #[inline(always)]
            fn swap(&self, value: $value, order: Ordering) -> $value {
                self.0.swap(value, order)
            }
            #[inline(always)]
            fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, success, failure)
            }
            #[inline(always)]
            fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_or(value, order)
            }
            #[inline(always)]
            fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_and(value, order)
            }
        }
    };
}

macro_rules! int {
    ($name:ident, $value:ty) => {
        impl AtomicInt for $name {
            #[inline(always)]
            fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_add(value, order)
            }
            #[inline(always)]
            fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.0.fetch_sub(value, order)
            }
        }
    };
}

word!(
    /// An atomic flag.
    AtomicBool,
    atomic::AtomicBool,
    bool
);
word!(
    /// An atomic 32-bit word.
    AtomicU32,
    atomic::AtomicU32,
    u32
);
word!(
    /// An atomic 64-bit word.
    AtomicU64,
    atomic::AtomicU64,
    u64
);
int!(AtomicU32, u32);
int!(AtomicU64, u64);
