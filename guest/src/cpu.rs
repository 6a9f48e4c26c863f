//! The CPUs.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::sysreg::read_sysreg;

/// How many CPUs there may be.
pub const MOST_CPUS: usize = 8;

/// Returns the number of this CPU.
pub fn number() -> usize {
    read_sysreg!("tpidr_el1") as usize % MOST_CPUS
}

/// A word for each CPU, which writes its own.
pub struct Each([AtomicU32; MOST_CPUS]);

impl Each {
    pub const fn new() -> Self {
        Each([const { AtomicU32::new(0) }; MOST_CPUS])
    }

    /// Returns that of a CPU.
    pub fn of(&self, cpu: usize) -> u32 {
        self.0[cpu % MOST_CPUS].load(Relaxed)
    }

    /// Sets that of this CPU.
    pub fn set(&self, value: u32) {
        self.0[number()].store(value, Relaxed);
    }

    /// Adds one to that of this CPU.
    pub fn count(&self) {
        self.set(self.of(number()).wrapping_add(1));
    }

    /// Returns the sum of all.
    pub fn sum(&self) -> u32 {
        self.0.iter().fold(0, |sum, word| sum.wrapping_add(word.load(Relaxed)))
    }
}
