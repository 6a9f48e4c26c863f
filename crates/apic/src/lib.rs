#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

extern crate alloc;

pub mod avic;
mod locks;
mod map;
mod message;
mod postable;
mod vector;
pub mod vmx;

pub use doorbell_platform::MsiMessage;
pub use locks::LOCKS;
pub use map::{ApicMap, ApicTable, DuplicateId, LogicalIds, Registers, Who};
pub use message::{
    Delivery, DestinationIds, DestinationMode, InterruptMessage, NotAMessage, TriggerMode,
};
pub use postable::{Eoi, NotPostable, PostableMessage, postable};
pub use vector::GuestVector;
