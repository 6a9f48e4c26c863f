//! Why a vector is refused.

use core::fmt;

use doorbell_platform::CpuId;

use super::irq::Irq;
use crate::CpuSet;

/// Why a vector was refused. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VectorError {
    /// There are not that many interrupts.
    NoSuchIrq(Irq),
    /// There are not that many CPUs.
    NoSuchCpu(CpuId),
    /// The interrupt has a vector.
    Active(Irq),
    /// The interrupt has no vector.
    Inactive(Irq),
    /// The interrupt is being moved, or this CPU has not yet said that it is clear of the former
    /// vector.
    Moving(CpuId),
    /// What was to be done to a managed interrupt can be done to others only, or the other way
    /// round.
    Managed(Irq),
    /// No move of that interrupt is under way.
    NotMoving(Irq),
    /// There is no vector.
    Full {
        /// On which CPUs; `None` is all.
        of: Option<CpuSet>,
        /// How many more are free, but reserved for others.
        reserved: u32,
    },
    /// The CPU is online already, or the only one.
    Online(CpuId),
    /// The CPU is offline.
    Offline(CpuId),
    /// An interrupt still goes to that CPU.
    Occupied(Irq),
    /// There are to be more CPUs than this.
    TooManyCpus(u32),
    /// There are to be more interrupts than this.
    TooManyIrqs(u32),
}

impl fmt::Display for VectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VectorError::NoSuchIrq(irq) => write!(f, "there is no {irq}"),
            VectorError::NoSuchCpu(cpu) => write!(f, "there is no {cpu}"),
            VectorError::Active(irq) => write!(f, "{irq} has a vector already"),
            VectorError::Inactive(irq) => write!(f, "{irq} has no vector"),
            VectorError::Moving(cpu) => {
                write!(f, "{cpu} has not seen the end of the interrupt's former vector yet")
            }
            VectorError::Managed(irq) => {
                write!(f, "{irq} is managed, or is not, and this needs the contrary")
            }
            VectorError::NotMoving(irq) => write!(f, "{irq} is not being moved"),
            VectorError::Full { of: None, reserved } => {
                write!(f, "no CPU has a free vector ({reserved} are reserved for others)")
            }
            VectorError::Full { of: Some(cpus), reserved } => {
                write!(f, "none of {cpus} has a free vector ({reserved} are reserved for others)")
            }
            VectorError::Online(cpu) => write!(f, "{cpu} is online"),
            VectorError::Offline(cpu) => write!(f, "{cpu} is offline"),
            VectorError::Occupied(irq) => write!(f, "{irq} still goes to that CPU"),
            VectorError::TooManyCpus(limit) => write!(f, "more than {limit} CPUs"),
            VectorError::TooManyIrqs(limit) => write!(f, "more than {limit} interrupts"),
        }
    }
}

impl core::error::Error for VectorError {}
