//! What a vCPU's CPU holds for it, asked back by somebody else.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, CpuId, Platform};

use crate::run::{CPU_SHIFT, kicked};
use crate::{Mode, Notice, RunState};

/// A vCPU that was made to leave the guest and to fold: to take back what its CPU holds for it.
///
/// Complete when it has, once, since the recall began. A vCPU that was not in the guest had folded
/// before, so it is neither woken nor waited for: nor is one that is preempted or blocked, one that
/// recalls this one meanwhile, or the caller's own. It may be in the guest again by the time that
/// somebody looks; then it has seen all that was published before the recall.
#[must_use = "the vCPU may not have folded yet"]
pub struct Recall<'a, P: Platform> {
    /// The vCPU that has not been seen outside of the guest yet.
    leaves: Option<&'a RunState<P>>,
}

doorbell_platform::opaque_debug!(['a, P: Platform] Recall<'a, P>);

impl<P: Platform> RunState<P> {
    /// Asks the vCPU to leave the guest and to fold, and waits for nobody. Returns what the caller
    /// must do first, and then what can be waited for.
    ///
    /// # Context
    /// Any task or hard interrupt that has published before what the vCPU is to see; does not
    /// sleep.
    #[inline]
    pub fn recall<N>(&self) -> (Notice<N>, Recall<'_, P>) {
        let seen = self.mode_word().load(SeqCst);
        let seen = match Mode::from_bits(seen) {
            Mode::Guest(_) => {
                let out = kicked(seen);
                // If this fails, another sender has kicked it, or it has folded meanwhile.
                self.mode_word()
                    .compare_exchange(seen, out, SeqCst, SeqCst)
                    .map_or_else(|now| now, |_| out)
            }
            _ => seen,
        };
        if Mode::from_bits(seen) != Mode::Kicked {
            return (Notice::Nothing, Recall { leaves: None });
        }
        // Also if another sender has kicked it, which may not get to its interrupt for a while.
        (Notice::Kick(CpuId((seen >> CPU_SHIFT) as u32)), Recall { leaves: Some(self) })
    }
}

impl<P: Platform> Recall<'_, P> {
    /// Returns whether the vCPU has folded since the recall began; what it has folded is seen then.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn is_complete(&mut self) -> bool {
        // A vCPU that is kicked out of the guest for the second time looks as if it had not left:
        // the next look may tell.
        self.leaves = self.leaves.filter(|run| run.mode() == Mode::Kicked);
        self.leaves.is_none()
    }

    /// Waits, without sleeping, until the vCPU has folded: for as long as its CPU takes to leave
    /// the guest.
    ///
    /// # Context
    /// Any task, with no lock held, while the vCPU's CPU can take the kick; does not sleep.
    #[inline]
    pub fn wait(mut self) {
        while !self.is_complete() {
            P::cpu_relax();
        }
    }
}
