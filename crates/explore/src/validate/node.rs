//! What the validator's graph is made of: a class as it is taken, that is, with a subclass.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;

use doorbell_platform::{LockClass, Subclass, WaitType};

use super::feed::Held;

/// A lock class taken with one subclass. To the validator each subclass is a class of its own, with
/// usage of its own.
///
/// Ordered by name, so that whatever lists nodes lists them the same way in every run.
#[derive(Clone, Copy)]
pub struct Node {
    /// The class.
    pub class: &'static LockClass,
    /// The subclass.
    pub subclass: Subclass,
}

impl Node {
    /// Returns the node of an acquisition with the default subclass.
    pub fn of(class: &'static LockClass) -> Self {
        Node { class, subclass: Subclass::DEFAULT }
    }

    /// Returns the node of `class` taken with subclass `n`.
    ///
    /// # Panics
    /// If `n` is above 7.
    pub fn nested(class: &'static LockClass, n: u8) -> Self {
        Node { class, subclass: Subclass::new(n) }
    }

    pub(super) fn of_held(held: &Held) -> Self {
        Node { class: held.class, subclass: held.subclass }
    }

    /// Whether waiting for it spins, so that the waiter keeps its CPU.
    pub(super) fn spins(self) -> bool {
        self.class.wait_type() == WaitType::Spin
    }

    /// The address comes last: it only tells classes of one name apart.
    fn key(&self) -> (&'static str, u8, usize) {
        (self.class.name(), self.subclass.get(), ptr::from_ref(self.class).addr())
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.class, other.class) && self.subclass == other.subclass
    }
}

impl Eq for Node {}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::from_ref(self.class).addr().hash(state);
        self.subclass.hash(state);
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.name())?;
        match self.subclass.get() {
            0 => Ok(()),
            n => write!(f, "/{n}"),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
