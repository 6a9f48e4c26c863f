//! What a crate says of the locks that it has.

use crate::LockClass;
use crate::epoch::GRACE;
use crate::park::{POOL, WAITERS};

/// A row of the table of a crate's locks: a class, how its locks are taken, and what for.
#[derive(Clone, Copy, Debug)]
pub struct LockUse {
    /// The class.
    pub class: &'static LockClass,
    /// In which contexts its locks are taken, and how.
    pub taken: &'static str,
    /// What they are for.
    pub purpose: &'static str,
    /// What else is taken under them. A leaf has nothing here.
    pub nests: Option<Nests>,
}

/// What may be taken under a lock that is no leaf, and why.
#[derive(Clone, Copy, Debug)]
pub struct Nests {
    /// The locks that are taken.
    pub inner: &'static str,
    /// Why they are taken there.
    pub reason: &'static str,
}

impl LockUse {
    /// Describes a class of leaves.
    ///
    /// # Panics
    /// If the class does not [say](LockClass::leaf) that it is one; in a `static` that is a
    /// compile-time error.
    pub const fn leaf(
        class: &'static LockClass,
        taken: &'static str,
        purpose: &'static str,
    ) -> Self {
        assert!(class.is_leaf(), "a class of leaves says so");
        LockUse { class, taken, purpose, nests: None }
    }

    /// Describes a class whose locks are held while others are taken.
    ///
    /// # Panics
    /// If the class says that it is one of leaves; in a `static` that is a compile-time error.
    pub const fn outer(
        class: &'static LockClass,
        taken: &'static str,
        purpose: &'static str,
        nests: Nests,
    ) -> Self {
        assert!(!class.is_leaf(), "under a leaf nothing is taken");
        LockUse { class, taken, purpose, nests: Some(nests) }
    }
}

/// All locks of this crate.
pub static LOCKS: &[LockUse] = &[
    LockUse::leaf(
        &GRACE,
        "interrupts off, one for each domain",
        "how far a grace period of an epoch domain has come",
    ),
    LockUse::leaf(
        &WAITERS,
        "interrupts off, one for each queue",
        "who sleeps in a wait queue, completion or mutex",
    ),
    LockUse::leaf(
        &POOL,
        "interrupts off, one for each pool",
        "which work of a pool is queued, and which runs",
    ),
    #[cfg(feature = "std")]
    LockUse::leaf(
        &crate::std::IPIS,
        "interrupts off, one for the process",
        "IPIs of `Std` that have not arrived",
    ),
];
