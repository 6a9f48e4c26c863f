//! What of KVM takes eventfds, and which of them it can take.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::{Gsi, Route, RoutingTable};

/// Where a VM's interrupt controllers are, and so what KVM can deliver.
///
/// | | a message | a pin, plain | a pin, resampling | the guest's EOI |
/// |---|---|---|---|---|
/// | [`User`](Irqchip::User) | the loop | the loop | the loop | the VMM's own local APIC |
/// | [`Split`](Irqchip::Split) | KVM | the loop | the loop | `KVM_EXIT_IOAPIC_EOI` |
/// | [`Kernel`](Irqchip::Kernel) | KVM | KVM | KVM | KVM signals the resamplefd |
///
/// What has no route at the moment is the loop's, which keeps events until there is one: KVM would
/// take them and drop them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Irqchip {
    /// All are in user space: KVM takes neither eventfds nor routes.
    User,
    /// Local APICs are KVM's, and an IOAPIC with so many pins is the VMM's
    /// (`KVM_CAP_SPLIT_IRQCHIP`).
    ///
    /// To KVM, GSIs below that number are the IOAPIC's redirection entries, by which it knows whose
    /// EOIs to tell of: see [`Offload::redirect`](super::Offload::redirect). A message that is
    /// routed from one of them is the loop's.
    Split {
        /// How many routes are reserved for the IOAPIC: `args[0]` of the capability.
        pins: u32,
    },
    /// All are KVM's (`KVM_CREATE_IRQCHIP`). A [`Pin`](crate::Pin)'s chip is that of
    /// `KVM_IRQ_ROUTING_IRQCHIP`, and its trigger mode the guest's, whatever kind of route it has.
    Kernel,
}

impl Irqchip {
    /// The routes of a table by which KVM can deliver.
    pub(super) fn image(self, table: &RoutingTable) -> RoutingTable {
        let is_kvms = |(gsi, route): &(Gsi, Route)| match self {
            Irqchip::User => false,
            Irqchip::Split { pins } => matches!(route, Route::Msi(_)) && gsi.0 >= pins,
            Irqchip::Kernel => true,
        };
        let routes: Vec<_> = table.iter().filter(is_kvms).collect();
        // A part of a table is one; if it were not, the loop would serve all.
        RoutingTable::new(&routes).unwrap_or_else(|_| RoutingTable::empty())
    }

    /// Whether KVM can resample on GSIs with these routes.
    pub(super) fn resamples<'a>(self, mut routes: impl Iterator<Item = &'a Route>) -> bool {
        self == Irqchip::Kernel && routes.all(|route| route.pin().is_some())
    }
}

/// The ioctls of a KVM VM by which it takes eventfds. With the feature `kvm`, `VmFd` of
/// `kvm-ioctls` has them.
///
/// # Errors
/// Functions return what the ioctl says, as [`io::Error::from_raw_os_error`].
pub trait KvmVm: Send + Sync + 'static {
    /// Assigns an eventfd to a GSI (`KVM_IRQFD`), with `KVM_IRQFD_FLAG_RESAMPLE` if there is a
    /// resamplefd. An event that is in it is injected.
    ///
    /// # Errors
    /// `EBUSY` if KVM has the eventfd already, `EINVAL` if it has no interrupt controller, or not
    /// the one that resamples.
    fn register_irqfd(
        &self,
        event: BorrowedFd<'_>,
        gsi: Gsi,
        resample: Option<BorrowedFd<'_>>,
    ) -> io::Result<()>;

    /// Deassigns an eventfd (`KVM_IRQFD_FLAG_DEASSIGN`). When it returns, KVM delivers nothing of
    /// it any more, and what it has not delivered is in the eventfd.
    ///
    /// # Errors
    /// `EBADF` if the descriptor is not open.
    fn unregister_irqfd(&self, event: BorrowedFd<'_>, gsi: Gsi) -> io::Result<()>;

    /// Replaces the routing table (`KVM_SET_GSI_ROUTING`). When it returns, KVM delivers nothing by
    /// the former one.
    ///
    /// # Errors
    /// `EINVAL` if KVM has no interrupt controller, or not that of a pin; nothing has changed then.
    fn set_gsi_routing(&self, routes: &[(Gsi, Route)]) -> io::Result<()>;
}

impl<K: KvmVm + ?Sized> KvmVm for Arc<K> {
    fn register_irqfd(
        &self,
        event: BorrowedFd<'_>,
        gsi: Gsi,
        resample: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        (**self).register_irqfd(event, gsi, resample)
    }
    fn unregister_irqfd(&self, event: BorrowedFd<'_>, gsi: Gsi) -> io::Result<()> {
        (**self).unregister_irqfd(event, gsi)
    }
    fn set_gsi_routing(&self, routes: &[(Gsi, Route)]) -> io::Result<()> {
        (**self).set_gsi_routing(routes)
    }
}

#[cfg(all(
    feature = "kvm",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
mod vm_fd {
    use doorbell_platform::fd::with_eventfd;
    use kvm_bindings::{
        KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, KvmIrqRouting,
        kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
    };
    use kvm_ioctls::VmFd;

    use super::*;
    use crate::Msi;

    fn said(error: kvm_ioctls::Error) -> io::Error {
        io::Error::from_raw_os_error(error.errno())
    }

    fn entry(gsi: Gsi, route: Route) -> kvm_irq_routing_entry {
        let mut entry = kvm_irq_routing_entry { gsi: gsi.0, ..Default::default() };
        match route {
            Route::Msi(Msi { message, device }) => {
                entry.type_ = KVM_IRQ_ROUTING_MSI;
                let mut msi = kvm_irq_routing_msi {
                    address_lo: message.address as u32,
                    address_hi: (message.address >> 32) as u32,
                    data: message.data,
                    ..Default::default()
                };
                if let Some(device) = device {
                    entry.flags = KVM_MSI_VALID_DEVID;
                    msi.__bindgen_anon_1.devid = device;
                }
                entry.u.msi = msi;
            }
            Route::Edge(pin) | Route::Level(pin) | Route::Pin(pin) => {
                entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
                entry.u.irqchip =
                    kvm_irq_routing_irqchip { irqchip: pin.chip.into(), pin: pin.number };
            }
        }
        entry
    }

    impl KvmVm for VmFd {
        fn register_irqfd(
            &self,
            event: BorrowedFd<'_>,
            gsi: Gsi,
            resample: Option<BorrowedFd<'_>>,
        ) -> io::Result<()> {
            let registered = with_eventfd(event, |event| match resample {
                None => VmFd::register_irqfd(self, event, gsi.0),
                Some(resample) => with_eventfd(resample, |resample| {
                    self.register_irqfd_with_resample(event, resample, gsi.0)
                }),
            });
            registered.map_err(said)
        }

        fn unregister_irqfd(&self, event: BorrowedFd<'_>, gsi: Gsi) -> io::Result<()> {
            with_eventfd(event, |event| VmFd::unregister_irqfd(self, event, gsi.0)).map_err(said)
        }

        fn set_gsi_routing(&self, routes: &[(Gsi, Route)]) -> io::Result<()> {
            let entries: Vec<_> = routes.iter().map(|(gsi, route)| entry(*gsi, *route)).collect();
            let routing = KvmIrqRouting::from_entries(&entries)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            VmFd::set_gsi_routing(self, &routing).map_err(said)
        }
    }
}
