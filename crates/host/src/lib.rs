#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod amd;
mod binding;
mod bypass;
mod desc;
mod invalidate;
pub mod irte;
mod posted;
mod switch;
mod table;

pub use amd::AmdInterrupt;
pub use binding::{Binding, Bound, LookAgain, NotBound, Posting, Target};
pub use bypass::{AlreadyRegistered, Bypass, Consumer, Consumes, Producer, Produces, Token};
pub use desc::{AffinityChange, AffinityError, AffinityNotifier, CpuSet, HasThread, IrqDesc, ThreadWork, WakeThread};
pub use invalidate::Invalidate;
pub use posted::{Descriptor, IntelInterrupt, Misaligned, PostedBinding};
pub use table::{Entries, Entry, IrteIndex, Retired, Table, TableFull};
