//! Message-signalled interrupts: the messages, and how a device's is changed.

mod message;
pub mod spec;
mod update;

pub use message::{DestinationIds, Message, MessageError};
pub use update::{CheckIrr, MessageUpdate, NeedsMask, Step, Word};
