//! An access to a register that may have to wait for a vCPU to fold.

use core::fmt;

use doorbell_platform::Platform;

use crate::registers::interrupts::Bank;
use crate::vcpu_set::VcpuSet;
use crate::{Gic, Host, IntId};

/// What is to be done when all have folded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Value(u64),
    ReadActive { bank: Bank, first: u32 },
    WriteActive { bank: Bank, first: u32, bits: u32, active: bool },
    Deactivate { bank: Bank, id: IntId },
}

/// An access to a register, which takes effect when the vCPUs have folded that know more than
/// memory does: most take effect at once.
///
/// The vCPUs were kicked before. One that is not in the guest is not waited for; so two vCPUs that
/// wait for each other do not, nor does one that has the interrupt itself.
#[must_use = "what has not taken effect must be waited for"]
pub struct Access<'a, P: Platform> {
    gic: &'a Gic<P>,
    what: What,
    recalled: VcpuSet,
}

impl<'a, P: Platform> Access<'a, P> {
    pub(crate) fn new(gic: &'a Gic<P>, what: What, recalled: VcpuSet) -> Self {
        Access { gic, what, recalled }
    }

    pub(crate) fn done(gic: &'a Gic<P>, value: u64) -> Self {
        Access::new(gic, What::Value(value), VcpuSet::EMPTY)
    }

    /// Lets the access take effect, if all have folded. By any task, with nothing held; waits for
    /// nobody. Returns the value that was read, or zero for a write.
    ///
    /// # Errors
    /// Gives the access back if somebody has not folded yet.
    pub fn complete(mut self, host: &mut impl Host) -> Result<u64, Self> {
        self.recalled = self.gic.still_kicked(self.recalled);
        if self.recalled.is_empty() { Ok(self.gic.recalled(self.what, host)) } else { Err(self) }
    }

    /// Waits, without sleeping, until all have folded, for as long as their CPUs take to leave the
    /// guest, and lets the access take effect. From a task, outside of the guest, with interrupts
    /// on and nothing held. Returns the value that was read, or zero for a write.
    pub fn wait(self, host: &mut impl Host) -> u64 {
        let mut access = self;
        loop {
            match access.complete(host) {
                Ok(value) => return value,
                Err(again) => access = again,
            }
            P::cpu_relax();
        }
    }
}

impl<P: Platform> fmt::Debug for Access<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("what", &self.what)
            .field("complete", &self.recalled.is_empty())
            .finish_non_exhaustive()
    }
}
