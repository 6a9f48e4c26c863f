#![doc = include_str!("README.md")]

mod exits;
mod icr;
mod log;
mod page;
pub mod spec;
mod table;
mod vcpu;

use core::ops::Deref;

use doorbell_platform::Platform;
use doorbell_post::Mirror;

pub use exits::{
    IncompleteIpi, UnacceleratedAccess, Unemulated, WrittenRegister, access, incomplete_ipi,
};
pub use icr::{Icr, Shorthand};
pub(crate) use log::TAGS;
pub use log::{Former, Full, GaLog, GaTag, Members, NoSuchVcpu, Reset, VmTag};
pub use page::{BackingPage, Irr};
pub use table::{
    Kind, LogicalError, LogicalSlot, LogicalTable, Model, PhysicalId, PhysicalTable, TableError,
};
pub use vcpu::{AvicVcpu, Retiring, Sleeping, Vmrun};

/// What a host gives: its platform, the pages that it shares with hardware, and the IRTEs that it
/// posts by.
///
/// The pages are handles of any kind (a box, an [`Arc`](alloc::sync::Arc), a reference to a static)
/// to memory whose physical address the host knows and tells the VMCB and the tables.
pub trait Avic: Sized + 'static {
    /// The platform.
    type Platform: Platform;
    /// A vCPU's backing page.
    type Page: Deref<Target = BackingPage<Self::Platform>> + Send + Sync + 'static;
    /// The pages of a physical ID table.
    type Physical: Deref<Target = [AtomicU64<Self>]> + Send + Sync + 'static;
    /// The page of a logical ID table.
    type Logical: Deref<Target = [AtomicU32<Self>]> + Send + Sync + 'static;
    /// An IRTE that can be in guest mode.
    type Irte: Mirror;
}

type AtomicU64<A> = <<A as Avic>::Platform as Platform>::AtomicU64;
type AtomicU32<A> = <<A as Avic>::Platform as Platform>::AtomicU32;
