#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

extern crate alloc;

mod bypass;
mod cpus;
mod handover;
pub mod intx;
mod irq;
mod locks;
pub mod msi;
mod remap;
mod tokens;
pub mod vector;

pub use bypass::{
    AlreadyRegistered, Bypass, Connection, Consumer, Consumes, Followed, Producer, Produces, Token,
};
pub use cpus::CpuSet;
pub use irq::{
    AffinityChange, AffinityError, AffinityNotifier, Enabled, Freed, Handler, Handling, HasThread,
    IrqDesc, IrqReturn, LineTaken, NotDisabled, NotRequested, Requested, Sharing, ThreadWork,
    WakeThread,
};
pub use locks::LOCKS;
pub use remap::amd::{AmdBinding, AmdInterrupt, AvicTarget, Bound, Posting, RescanRequired};
pub use remap::intel::{IntelBinding, IntelInterrupt, Misaligned, PiTarget};
pub use remap::{
    Invalidate, IrteIndex, IrteMemory, IrteSlot, NoBlock, NotBound, NotLockFree, RemapTable,
    RetiredIrte, TableFull,
};

/// Interrupt remapping table entries: what their bits say.
pub mod irte {
    pub use crate::remap::amd::irte as amd;
    pub use crate::remap::intel::irte as intel;
}
