#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod ap_list;
mod choices;
mod counts;
mod cpu_interface;
mod flush;
mod fold;
mod gic;
mod groups;
mod holders;
mod host;
pub mod icv;
mod id_set;
mod ids;
mod interrupt;
mod levels;
mod lists;
mod lpi_lists;
mod lpi_tables;
mod lpi_work;
mod lpis;
mod pins;
mod redistributor;
mod registers;
mod route;
mod running;
mod sgi;
mod signals;
mod slot;
pub mod spec;
mod state;
mod vcpu_set;

pub use access::Access;
pub use ap_list::{ApList, Interrupts};
pub use cpu_interface::{CpuInterface, NotToBeHad};
pub use fold::Ended;
pub use gic::{BuildError, Gic, Line, News, NoSuch};
pub use host::{GuestMemory, Host, Kick, NoMemory};
pub use ids::{Affinity, Group, IntId, PhysicalIntId, Priority, VcpuId};
pub use interrupt::{Interrupt, State, Trigger};
pub use lists::ListRegisters;
pub use lpis::{Lpi, LpiConfig, LpiMapping, LpiSpace, NotMapped, Sent};
pub use pins::{Notices, Pins, Told};
pub use redistributor::Redistributor;
pub use registers::{Frame, Width};
pub use sgi::SgiRegister;
pub use state::{GicState, InterruptState, RedistributorState, StateError};
