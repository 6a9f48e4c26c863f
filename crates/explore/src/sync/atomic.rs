//! Atomic words and pointers, shaped as those of `std::sync::atomic`.
//!
//! Orderings are taken, and all count as `SeqCst`. What differs: `new` is no `const fn`, because
//! traces name a word after the line that makes it. A static begins as `ZERO`.

use doorbell_platform::{Atomic as _, AtomicInt as _, AtomicPtr as _};

use crate::sim::{SimAtomic, SimAtomicPtr};

pub use std::sync::atomic::Ordering;

macro_rules! forward {
    ($value:ty: $($name:ident: $doc:literal),*) => {$(
        #[doc = $doc]
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn $name(&self, value: $value, order: Ordering) -> $value {
            self.0.$name(value, order)
        }
    )*};
}

/// What words and pointers have in common.
macro_rules! common {
    ($value:ty) => {
        /// Creates a word that holds `value`.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn new(value: $value) -> Self {
            Self(Inner::new(value))
        }

        /// Returns the word, called `name` in traces.
        ///
        /// # Context
        /// Any.
        #[must_use]
        pub fn named(mut self, name: &'static str) -> Self {
            self.0.set_name(name);
            self
        }

        /// Reads the word.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn load(&self, order: Ordering) -> $value {
            self.0.load(order)
        }

        /// Writes the word.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn store(&self, value: $value, order: Ordering) {
            self.0.store(value, order);
        }

        forward!($value: swap: "Writes the word and returns what it held.");

        /// Writes `new` if the word holds `current`.
        ///
        /// # Errors
        /// Returns what the word holds, if that is not `current`.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn compare_exchange(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.0.compare_exchange(current, new, success, failure)
        }

        /// Writes `new` if the word holds `current`, or fails for nothing.
        ///
        /// # Errors
        /// Returns what the word holds, if nothing was written.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn compare_exchange_weak(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.0.compare_exchange_weak(current, new, success, failure)
        }

        /// Writes what `f` makes of the value, until nobody has come between or `f` says `None`.
        ///
        /// # Errors
        /// Returns what the word holds when `f` says `None`.
        ///
        /// # Context
        /// Any.
        #[inline]
        #[track_caller]
        pub fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            f: impl FnMut($value) -> Option<$value>,
        ) -> Result<$value, $value> {
            self.0.fetch_update(set, fetch, f)
        }
    };
}

macro_rules! word {
    ($name:ident, $value:ty, $($more:tt)*) => {
        #[doc = concat!("An atomic `", stringify!($value), "`.")]
        #[derive(Debug)]
        pub struct $name(SimAtomic<$value>);

        impl $name {
            /// A word that holds zero, for statics.
            #[expect(clippy::declare_interior_mutable_const, reason = "a word for statics")]
            pub const ZERO: Self = $name(<SimAtomic<$value> as doorbell_platform::Atomic>::ZERO);
        }

        const _: () = {
            type Inner = SimAtomic<$value>;
            impl $name {
                common!($value);
                forward!($value:
                    fetch_or: "Ors `value` into the word and returns what it held.",
                    fetch_and: "Ands `value` into the word and returns what it held.",
                    fetch_xor: "Exclusive-ors `value` into the word and returns what it held.",
                    fetch_nand: "Ands `value` into the word, inverts that, and returns what it held."
                );
                forward!($value: $($more)*);
            }
        };

        impl Default for $name {
            #[track_caller]
            fn default() -> Self {
                $name::new(<$value>::default())
            }
        }
    };
}

macro_rules! ints {
    ($($name:ident: $value:ty),*) => {$(
        word!($name, $value,
            fetch_add: "Adds `value`, wrapping, and returns what the word held.",
            fetch_sub: "Subtracts `value`, wrapping, and returns what the word held.",
            fetch_max: "Writes the greater of `value` and what it held, and returns that.",
            fetch_min: "Writes the lesser of `value` and what it held, and returns that.");
    )*};
}

word!(AtomicBool, bool,);
ints!(
    AtomicU8: u8,
    AtomicU16: u16,
    AtomicU32: u32,
    AtomicU64: u64,
    AtomicU128: u128,
    AtomicUsize: usize,
    AtomicI8: i8,
    AtomicI16: i16,
    AtomicI32: i32,
    AtomicI64: i64,
    AtomicIsize: isize
);

/// An atomic pointer. Addresses are compared, and never shown: those of one execution are not those
/// of the next. So what a program reuses, it reuses itself, and does not leave to an allocator.
#[derive(Debug)]
pub struct AtomicPtr<T>(SimAtomicPtr<T>);

const _: () = {
    type Inner<T> = SimAtomicPtr<T>;
    impl<T: 'static> AtomicPtr<T> {
        common!(*mut T);
    }
};

/// Does nothing: the machine is sequentially consistent.
///
/// # Context
/// Any.
#[inline]
pub fn fence(order: Ordering) {
    let _ = order;
}
