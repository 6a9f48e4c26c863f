//! Message-signalled interrupts: the messages, the table of MSI-X that a guest writes, and who
//! consumes a line's interrupts.

mod consumer;
mod message;
mod msix;
pub mod spec;
mod update;

pub use consumer::{
    ConsumerSwitch, Drain, FreedLine, LineNotRequested, MsiConsumer, RequestedLine, Signal,
};
pub use message::{DestinationIds, MessageError, MsiMessage};
pub(crate) use msix::TABLE;
pub use msix::{Msix, MsixSignalled, MsixWritten, NoEntry, Opened, Reroute, TableSize};
pub use update::{CheckIrr, MessageUpdate, NeedsMask, Step, Word};
