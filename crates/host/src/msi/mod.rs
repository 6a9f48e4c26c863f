//! Message-signalled interrupts: the messages, the MSI-X table and the MSI registers that a guest
//! writes, and who consumes a line's interrupts.

mod consumer;
pub mod message;
mod msix;
pub mod spec;
mod update;

pub use consumer::{
    ConsumerSwitch, Drain, FreedLine, LineNotRequested, MsiConsumer, RequestedLine, Signal,
};
pub use doorbell_platform::MsiMessage;
pub use message::{DestinationIds, MessageError};
pub(crate) use msix::TABLE;
pub use msix::{
    MessageCount, MsiCapability, MsiFeatures, MsiSource, MsiState, MsiWritten, Msix, MsixSignalled,
    MsixState, MsixWritten, NoEntry, Opened, Reroute, Rewrites, TableSize,
};
pub use update::{CheckIrr, MessageUpdate, NeedsMask, Step, Word};
