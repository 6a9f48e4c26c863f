//! Message-signalled interrupts: the messages, the table of MSI-X that a guest writes, and who consumes a line's interrupts.

mod consumer;
mod message;
mod msix;
pub mod spec;
mod update;

pub use consumer::{Consumer, ConsumerSwitch, Drain, Freed, NotRequested, Requested, Signal};
pub use message::{DestinationIds, Message, MessageError};
pub(crate) use msix::TABLE;
pub use msix::{Msix, NoEntry, Opened, Reroute, Signalled, TableSize, Written};
pub use update::{CheckIrr, MessageUpdate, NeedsMask, Step, Word};
