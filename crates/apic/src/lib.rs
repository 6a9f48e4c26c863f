#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod avic;
mod locks;
mod map;
mod message;
mod postable;
mod vector;
pub mod vmx;

pub use locks::LOCKS;
pub use map::{ApicMap, DuplicateId, LogicalIds, Registers, Table, Who};
pub use message::{Delivery, DestinationIds, DestinationMode, Message, NotAMessage, Trigger};
pub use postable::{Eoi, Posted, Remapped, postable};
pub use vector::GuestVector;
