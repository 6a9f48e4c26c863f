//! What the host has set up for posted interrupts.

use alloc::boxed::Box;

use doorbell_platform::{CpuId, Vector};
use doorbell_post::Destination;

/// The host's vectors for posted interrupts, and how its CPUs are addressed.
pub struct Host {
    notify: Vector,
    wake_up: Vector,
    cpus: Box<[Destination]>,
}

impl Host {
    /// A host whose CPUs are in x2APIC mode: their APIC ids, in the order of [`CpuId`].
    ///
    /// `notify` is the posted-interrupt notification vector in the VMCS of every vCPU; as an interrupt of the host it has
    /// nothing to do. The handler of `wake_up` is [`Sleepers::wake_up`](super::Sleepers::wake_up).
    pub fn x2apic(notify: Vector, wake_up: Vector, ids: impl IntoIterator<Item = u32>) -> Self {
        Host { notify, wake_up, cpus: ids.into_iter().map(Destination::x2apic).collect() }
    }

    /// [`x2apic`](Host::x2apic), of CPUs in xAPIC mode.
    pub fn xapic(notify: Vector, wake_up: Vector, ids: impl IntoIterator<Item = u8>) -> Self {
        Host { notify, wake_up, cpus: ids.into_iter().map(Destination::xapic).collect() }
    }

    /// The notification vector of a vCPU that runs.
    pub fn notify(&self) -> Vector {
        self.notify
    }

    /// The notification vector of a vCPU that sleeps.
    pub fn wake_up(&self) -> Vector {
        self.wake_up
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// How a CPU is addressed in a descriptor.
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
        let (notify, wake_up) = (Vector(0xf2), Vector(0xf1));
        let host = Host::xapic(notify, wake_up, [0, 4]);
        assert_eq!((host.destination(CpuId(1)).bits(), host.cpus()), (0x400, 2));
        let host = Host::x2apic(notify, wake_up, [0, 0x1234]);
        assert_eq!(host.destination(CpuId(1)).bits(), 0x1234);
        assert_eq!((host.notify(), host.wake_up()), (notify, wake_up));
    }
}
