//! What a host does for its guest's interrupt controller.
//!
//! Every call comes when nothing is held, and in the context of the call that has caused it: the
//! host may call the controller again. A vCPU's [`enter`](crate::CpuInterface::enter) and
//! [`exit`](crate::CpuInterface::exit) call with interrupts off.

use core::fmt;

use doorbell_platform::CpuId;
use doorbell_post::Notice;

use crate::{Ended, VcpuId};

/// Somebody who kicks and wakes vCPUs: a function does.
pub trait Kick {
    /// Kicks a vCPU out of the guest, on the CPU that the notice says, or wakes its task.
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>);
}

impl<F: FnMut(VcpuId, Notice<CpuId>)> Kick for F {
    #[inline]
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        self(vcpu, notice);
    }
}

/// The memory of a guest, where its tables of LPIs are. What the guest has there is the guest's:
/// any byte may be there, and change.
pub trait GuestMemory {
    /// Reads as many bytes as there is room for, from an address on.
    ///
    /// # Errors
    /// If there is no memory, or not all of it. What `bytes` has then is not looked at.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), NoMemory>;

    /// Writes bytes, from an address on.
    ///
    /// # Errors
    /// If there is no memory that can be written, or not all of it.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), NoMemory>;
}

/// The guest has no memory there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest has no memory there")
    }
}

impl core::error::Error for NoMemory {}

/// Somebody who hears of the ends of interrupts, too.
pub trait Host: Kick {
    /// Returns the memory of the guest, which a controller that [has LPIs](crate::Gic::with_lpis)
    /// reads and writes. Without any, its tables are as if they could not be read.
    fn memory(&mut self) -> Option<&mut dyn GuestMemory> {
        None
    }

    /// Hears that an interrupt has ended: a level from a task, with interrupts on, and a physical
    /// interrupt on the CPU that has it, if it is private to that CPU.
    fn ended(&mut self, ended: Ended);
}
