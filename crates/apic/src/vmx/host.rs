//! What the host has set up for posted interrupts.

use alloc::boxed::Box;

use doorbell_platform::{CpuId, Vector};
use doorbell_post::Destination;

/// The host's vectors for posted interrupts, and how its CPUs are addressed.
#[doc(alias = "Host")]
pub struct PiHost {
    notification: Vector,
    wakeup: Vector,
    cpus: Box<[Destination]>,
}

doorbell_platform::opaque_debug!([] PiHost; notification, wakeup);

impl PiHost {
    /// Creates a host whose CPUs are in x2APIC mode: `ids` are their APIC ids, in the order of
    /// [`CpuId`].
    ///
    /// `notification` is the posted-interrupt notification vector in the VMCS of every vCPU; as an
    /// interrupt of the host it has nothing to do. The handler of `wakeup` is
    /// [`WakeupVcpus::handle_wakeup`](super::WakeupVcpus::handle_wakeup).
    pub fn x2apic(
        notification: Vector,
        wakeup: Vector,
        ids: impl IntoIterator<Item = u32>,
    ) -> Self {
        PiHost { notification, wakeup, cpus: ids.into_iter().map(Destination::x2apic).collect() }
    }

    /// Creates a host as [`x2apic`](PiHost::x2apic) does, of CPUs in xAPIC mode.
    pub fn xapic(notification: Vector, wakeup: Vector, ids: impl IntoIterator<Item = u8>) -> Self {
        PiHost { notification, wakeup, cpus: ids.into_iter().map(Destination::xapic).collect() }
    }

    /// The notification vector of a vCPU that runs.
    #[doc(alias = "notify")]
    pub fn notification_vector(&self) -> Vector {
        self.notification
    }

    /// The notification vector of a vCPU that sleeps.
    #[doc(alias = "wake_up")]
    pub fn wakeup_vector(&self) -> Vector {
        self.wakeup
    }

    /// Returns how many CPUs there are.
    pub fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Returns how a CPU is addressed in a descriptor.
    ///
    /// # Panics
    /// If there is no such CPU.
    #[inline]
    pub fn destination(&self, cpu: CpuId) -> Destination {
        self.cpus[cpu.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_the_form_of_the_hosts_apic_mode() {
        let (notification, wakeup) = (Vector(0xf2), Vector(0xf1));
        let host = PiHost::xapic(notification, wakeup, [0, 4]);
        assert_eq!((host.destination(CpuId(1)).bits(), host.cpus()), (0x400, 2));
        let host = PiHost::x2apic(notification, wakeup, [0, 0x1234]);
        assert_eq!(host.destination(CpuId(1)).bits(), 0x1234);
        assert_eq!((host.notification_vector(), host.wakeup_vector()), (notification, wakeup));
    }
}
