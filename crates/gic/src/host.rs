//! What a host does for its guest's interrupt controller.
//!
//! Every call comes when nothing is held, and in the context of the call that has caused it: the
//! host may call the controller again. A vCPU's [`enter`](crate::CpuInterface::enter) and
//! [`exit`](crate::CpuInterface::exit) call with interrupts off.

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

/// Somebody who hears of the ends of interrupts, too.
pub trait Host: Kick {
    /// Hears that an interrupt has ended: a level from a task, with interrupts on, and a physical
    /// interrupt on the CPU that has it, if it is private to that CPU.
    fn ended(&mut self, ended: Ended);
}
