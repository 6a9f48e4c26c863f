//! An interrupt, the vector that it has on a CPU, and where it may go.

use core::fmt;

use doorbell_platform::{CpuId, Vector};

use crate::CpuSet;

/// The number of an interrupt of the host, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Irq(pub u32);

impl fmt::Display for Irq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "irq {}", self.0)
    }
}

/// A vector of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[doc(alias = "Place")]
pub struct CpuVector {
    /// The CPU.
    pub cpu: CpuId,
    /// The vector, of that CPU.
    pub vector: Vector,
}

/// Where an interrupt may go.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "Where")]
pub enum Affinity<'a> {
    /// To any CPU: the cost does not grow with their number.
    Anywhere,
    /// To one of these: the cost is linear in the size of the set.
    In(&'a CpuSet),
}

impl Affinity<'_> {
    /// Returns whether the interrupt may go to `cpu`.
    pub fn contains(&self, cpu: CpuId) -> bool {
        match self {
            Affinity::Anywhere => true,
            Affinity::In(mask) => mask.contains(cpu),
        }
    }
}
