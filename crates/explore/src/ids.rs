//! Newtyped identifiers of the simulated machine, and what else is known by a name: places and
//! runs. Identifiers count from 0 in creation order, so a replay sees the same ones.

use std::fmt;
use std::panic::Location;

use serde::Serialize;

/// A context: a task, a handler of one CPU and vector, or a piece of hardware. At most 64 in one
/// program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct CtxId(pub u8);

impl CtxId {
    /// The context's bit in a [`CtxSet`].
    #[inline]
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CtxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A shared object: an atomic, a lock, a wait queue, a CPU's interrupt token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ObjId(pub u32);

impl ObjId {
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of contexts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CtxSet(pub u64);

impl CtxSet {
    /// The empty set.
    pub const EMPTY: CtxSet = CtxSet(0);

    /// Returns whether `ctx` is in the set.
    #[inline]
    pub fn contains(self, ctx: CtxId) -> bool {
        self.0 & ctx.bit() != 0
    }

    /// Adds `ctx`.
    #[inline]
    pub fn insert(&mut self, ctx: CtxId) {
        self.0 |= ctx.bit();
    }

    /// Takes `ctx` out.
    #[inline]
    pub fn remove(&mut self, ctx: CtxId) {
        self.0 &= !ctx.bit();
    }

    /// Returns whether the set is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns how many contexts are in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Returns the context with the lowest number.
    #[inline]
    pub fn first(self) -> Option<CtxId> {
        (self.0 != 0).then(|| CtxId(self.0.trailing_zeros() as u8))
    }

    /// Returns all of them, by rising number.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = CtxId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let first = CtxSet(rest).first()?;
            rest &= rest - 1;
            Some(first)
        })
    }
}

/// `file:line` of a place in the source.
pub(crate) fn site(location: &Location<'_>) -> String {
    format!("{}:{}", location.file(), location.line())
}

/// FNV-1a: the hash must be the same for every build, which those of the standard library do not
/// promise.
pub(crate) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
