//! What the hooks of the scheduler do for a vCPU.
//!
//! ```text
//!   load: runs on this CPU            put: is preempted        put: sleeps
//!   leaves the bitmap it is in        suppresses               enters the CPU's bitmap
//!   NV and NDST: this CPU; SN off       notifications (SN)     NV: the wake-up vector
//!   looks for bits posted under SN                             looks at ON: notifies itself
//! ```
//!
//! Devices post while the hooks run. `load` undoes what `put` has written down that it did, and
//! evaluates no condition a second time.

use alloc::sync::Arc;

use doorbell_platform::{CpuId, Platform};
use doorbell_post::{Layout, Mode, SelfNotify};

use super::wakeup_vcpus::Former;
use super::{PiVcpu, WakeupVcpus};

/// The owner's half of a vCPU that is registered with [`WakeupVcpus`]: the hooks of its scheduler.
///
/// [`put`](PiHooks::put) enters the vCPU among those who sleep whenever it does, whether or not a
/// device is assigned to it: two read-modify-writes on lines that nobody else wants buy that
/// devices may come and go at any moment, and nobody has to be told. [`load`](PiHooks::load) undoes
/// what `put` has written down here that it did, and evaluates no condition a second time (known
/// race X03: one that had changed meanwhile left a vCPU on a list for good).
///
/// When it is dropped, the vCPU leaves the map that it is in, and its slot is free again; the vCPU
/// itself is dropped after a grace period. What is pending then stays pending. Senders have to be
/// told before: an IRTE that posts to the descriptor must not outlive it.
#[doc(alias = "Seat")]
pub struct PiHooks<P: Platform, V: PiVcpu<P>> {
    wakeup_vcpus: Arc<WakeupVcpus<P, V>>,
    vcpu: Arc<V>,
    slot: usize,
    at: At,
    /// What the slot held before. It waits here for the grace period that the vCPU needs when it
    /// goes, so that to create vCPUs asks for none.
    before: Option<Former<P, V>>,
}

doorbell_platform::opaque_debug!([P: Platform, V: PiVcpu<P>] PiHooks<P, V>; slot);

/// What the hooks did last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Nothing yet.
    New,
    /// Notifications go to this CPU.
    Loaded(CpuId),
    /// They are suppressed.
    Suppressed,
    /// They go to this CPU's wake-up handler, in whose map the vCPU is.
    Listed(CpuId),
}

impl<P: Platform, V: PiVcpu<P>> PiHooks<P, V> {
    pub(super) fn new(
        wakeup_vcpus: Arc<WakeupVcpus<P, V>>,
        slot: usize,
        vcpu: Arc<V>,
        before: Former<P, V>,
    ) -> Self {
        PiHooks { wakeup_vcpus, vcpu, slot, at: At::New, before: Some(before) }
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &Arc<V> {
        &self.vcpu
    }

    /// Says that the vCPU's task runs on `cpu`: notifications go there.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off and any locks held; does not sleep.
    ///
    /// # Panics
    /// If the host has no such CPU.
    pub fn load(&mut self, cpu: CpuId) {
        if self.at == At::Loaded(cpu) {
            return;
        }
        let host = self.wakeup_vcpus.host();
        let destination = host.destination(cpu);
        if let At::Listed(listed) = self.at {
            self.wakeup_vcpus.remove(listed, self.slot);
        }
        let post = self.vcpu.descriptor();
        post.gate().run_on(destination, host.notification_vector(), || post.layout().any());
        post.run_state().resumed();
        self.at = At::Loaded(cpu);
    }

    /// Says that the vCPU's task is switched away from, on the CPU that it was loaded on,
    /// `preempted` or because it sleeps.
    ///
    /// If the answer is yes, the CPU must send the wake-up vector to itself. That is all that this
    /// may ask for: there is nobody to wake here, nothing to wait for, and nothing to free.
    ///
    /// A vCPU that sleeps for anything but an interrupt (for a page, for a lock) counts as one that
    /// waits for a CPU: it looks before it enters the guest.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with interrupts off and any locks held; does not sleep.
    pub fn put(&mut self, preempted: bool) -> SelfNotify {
        let At::Loaded(cpu) = self.at else { return SelfNotify(false) };
        let post = self.vcpu.descriptor();
        if preempted || post.run_state().mode() != Mode::Blocked {
            post.gate().suppress();
            post.run_state().preempted();
            self.at = At::Suppressed;
            return SelfNotify(false);
        }
        // Before notifications come here: the handler must find it for each of them.
        self.wakeup_vcpus.add(cpu, self.slot);
        self.at = At::Listed(cpu);
        let host = self.wakeup_vcpus.host();
        post.gate().wake_with(host.destination(cpu), host.wakeup_vector(), || post.layout().any())
    }

    /// Returns the CPU in whose map the vCPU is, if it is in one.
    pub fn sleeps_on(&self) -> Option<CpuId> {
        match self.at {
            At::Listed(cpu) => Some(cpu),
            At::New | At::Loaded(_) | At::Suppressed => None,
        }
    }
}

impl<P: Platform, V: PiVcpu<P>> Drop for PiHooks<P, V> {
    fn drop(&mut self) {
        if let At::Listed(cpu) = self.at {
            self.wakeup_vcpus.remove(cpu, self.slot);
        }
        if let Some(before) = self.before.take() {
            self.wakeup_vcpus.vacate(self.slot, before);
        }
    }
}
