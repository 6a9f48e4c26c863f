//! An access to a register that may have to wait for a vCPU to fold.

use core::fmt;

use doorbell_platform::Platform;

use crate::lpi_tables::Pass;
use crate::registers::interrupts::Bank;
use crate::vcpu_set::VcpuSet;
use crate::{Gic, Host, IntId, VcpuId};

/// What is to be done when all have folded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    ReadActive { bank: Bank, first: u32 },
    WriteActive { bank: Bank, first: u32, bits: u32, active: bool },
    Deactivate { bank: Bank, id: IntId },
    Lpis { vcpu: VcpuId, pass: Pass, next: IntId },
}

/// How far an access is that was to wait.
pub(crate) enum Step {
    /// The access has taken effect. The value that was read, or zero.
    Done(u64),
    /// There is more to be done.
    More(What),
}

/// An access to a register, which takes effect when the vCPUs have folded that know more than
/// memory does: most take effect at once.
///
/// The vCPUs were kicked before. One that is not in the guest is not waited for; so two vCPUs that
/// wait for each other do not, nor does one that has the interrupt itself.
#[must_use = "what has not taken effect must be waited for"]
pub struct Access<'a, P: Platform>(Progress<'a, P>);

/// How far an access is.
enum Progress<'a, P: Platform> {
    /// The access has taken effect. The value that was read, or zero.
    Done(u64),
    /// The access takes effect when these have folded.
    Waits { gic: &'a Gic<P>, what: What, recalled: VcpuSet },
}

impl<'a, P: Platform> Access<'a, P> {
    pub(crate) fn new(gic: &'a Gic<P>, what: What, recalled: VcpuSet) -> Self {
        Access(Progress::Waits { gic, what, recalled })
    }

    #[inline]
    pub(crate) fn done(value: u64) -> Self {
        Access(Progress::Done(value))
    }

    /// Lets the access take effect, if all have folded. By any task, with nothing held; waits for
    /// nobody. Returns the value that was read, or zero for a write.
    ///
    /// # Errors
    /// Gives the access back if somebody has not folded yet, or if more is to be done: what looks
    /// at all LPIs of a vCPU does so for 128 of them at once.
    #[inline]
    pub fn complete(self, host: &mut impl Host) -> Result<u64, Self> {
        match self.0 {
            Progress::Done(value) => Ok(value),
            Progress::Waits { gic, what, recalled } => {
                let recalled = gic.still_kicked(recalled);
                if !recalled.is_empty() {
                    return Err(Access::new(gic, what, recalled));
                }
                match gic.recalled(what, host) {
                    Step::Done(value) => Ok(value),
                    Step::More(what) => Err(Access::new(gic, what, VcpuSet::EMPTY)),
                }
            }
        }
    }

    /// Waits, without sleeping, until all have folded, for as long as their CPUs take to leave the
    /// guest, and lets the access take effect. From a task, outside of the guest, with interrupts
    /// on and nothing held. Returns the value that was read, or zero for a write.
    #[inline]
    pub fn wait(self, host: &mut impl Host) -> u64 {
        // Most have taken effect.
        if let Progress::Done(value) = self.0 { value } else { self.wait_for_recalled(host) }
    }

    #[inline(never)]
    fn wait_for_recalled(self, host: &mut impl Host) -> u64 {
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
        match &self.0 {
            Progress::Done(value) => f.debug_tuple("Done").field(value).finish(),
            Progress::Waits { what, recalled, .. } => f
                .debug_struct("Waits")
                .field("what", what)
                .field("complete", &recalled.is_empty())
                .finish(),
        }
    }
}
