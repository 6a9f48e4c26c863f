#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod actions;
mod aim;
mod amd;
mod binding;
mod bypass;
mod cpus;
mod desc;
mod flow;
mod handling;
mod handover;
pub mod intx;
mod invalidate;
pub mod irte;
mod locks;
pub mod msi;
mod posted;
mod switch;
mod table;
mod threaded;
mod tokens;
pub mod vector;

pub use actions::{Claim, Freed, Handler, LineTaken, NotRequested, Requested, Sharing};
pub use amd::AmdInterrupt;
pub use binding::{Binding, Bound, LookAgain, NotBound, Posting, Target};
pub use bypass::{AlreadyRegistered, Bypass, Connection, Consumer, Consumes, Followed, Producer, Produces, Token};
pub use cpus::CpuSet;
pub use desc::{AffinityChange, AffinityError, AffinityNotifier, HasThread, IrqDesc, WakeThread};
pub use handling::{Enabled, Handling, NotDisabled};
pub use invalidate::Invalidate;
pub use locks::LOCKS;
pub use posted::{Descriptor, IntelInterrupt, Misaligned, PostedBinding};
pub use table::{Entries, Entry, IrteIndex, NotLockFree, Retired, Table, TableFull};
pub use threaded::ThreadWork;
