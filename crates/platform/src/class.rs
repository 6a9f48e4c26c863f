//! Lock classes: what a lock validator knows about a lock before it is ever taken.

use core::fmt;

/// What a context that waits for a lock does meanwhile, and hence what may be held around it.
///
/// The order is that of kernel lockdep: a lock may be taken under locks whose wait type is the same
/// or weaker (a spin lock under a mutex), never the other way round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WaitType {
    /// Spins with preemption off, also on kernels where ordinary spin locks sleep.
    Spin,
    /// Sleeps: never from an interrupt handler, with interrupts off, or under a spin lock.
    Sleep,
}

/// A lock class: all locks that are created with the same static obey the same rules.
///
/// Classes are compared by address, so each belongs in a `static`.
///
/// ```
/// use doorbell_platform::{LockClass, WaitType};
/// static ROUTES: LockClass = LockClass::new("irqfd.routes", WaitType::Sleep);
/// assert_eq!(ROUTES.name(), "irqfd.routes");
/// ```
pub struct LockClass {
    name: &'static str,
    wait: WaitType,
    leaf: bool,
}

impl LockClass {
    /// Creates a class of that name; `wait` must match the locks that are created with it.
    pub const fn new(name: &'static str, wait: WaitType) -> Self {
        LockClass { name, wait, leaf: false }
    }

    /// Makes it a class of leaves: whoever holds one decides, and acts when it is gone.
    ///
    /// A context that holds a leaf takes no other lock (nor tries to), wakes nobody, sends no IPI,
    /// does not sleep, neither asks nor waits for a grace period, queues no work and ends no read
    /// section, whether or not that is inside of another one: a grace period may wait for the inner
    /// one alone, and then its end does all of that. To begin a section is allowed, and so is what
    /// interrupts the holder. Every exploration fails where that is broken; natively nothing is
    /// checked.
    ///
    /// ```
    /// use doorbell_platform::{LockClass, WaitType};
    /// static PENDING: LockClass = LockClass::new("example.pending", WaitType::Spin).leaf();
    /// assert!(PENDING.is_leaf());
    /// ```
    #[must_use]
    pub const fn leaf(self) -> Self {
        LockClass { leaf: true, ..self }
    }

    /// The name, as traces and reports show it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how locks of the class wait.
    pub const fn wait_type(&self) -> WaitType {
        self.wait
    }

    /// Returns whether locks of the class are [leaves](LockClass::leaf).
    pub const fn is_leaf(&self) -> bool {
        self.leaf
    }
}

impl fmt::Debug for LockClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockClass({})", self.name)
    }
}

impl PartialEq for LockClass {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for LockClass {}

/// Distinguishes acquisitions of one class that are known not to deadlock with each other, 0 to 7.
/// 0 is the usual one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Subclass(u8);

impl Subclass {
    /// The subclass of an acquisition that names none.
    pub const DEFAULT: Subclass = Subclass(0);

    /// Subclass `n`.
    ///
    /// # Panics
    /// If `n` is above 7; in a `const` that is a compile-time error.
    pub const fn new(n: u8) -> Self {
        assert!(n < 8, "a lock has the subclasses 0 to 7");
        Subclass(n)
    }

    /// The number, 0 to 7.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How a lock is being taken: what the validator is told. Natively it vanishes.
#[derive(Clone, Copy, Debug)]
pub struct Acquire {
    /// The lock's class.
    pub class: &'static LockClass,
    /// The subclass of this acquisition.
    pub subclass: Subclass,
    /// The class of a lock, held by the caller, that serialises every nesting of locks of `class`.
    pub under: Option<&'static LockClass>,
}

impl Acquire {
    /// Creates an acquisition with the default subclass and no outer lock.
    pub const fn of(class: &'static LockClass) -> Self {
        Acquire { class, subclass: Subclass::DEFAULT, under: None }
    }
}
