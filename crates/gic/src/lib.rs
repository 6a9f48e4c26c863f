#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod ap_list;
mod flush;
mod fold;
mod holders;
mod id_set;
mod ids;
mod interrupt;
mod levels;
mod lists;
pub mod spec;

pub use ap_list::{ApList, Interrupts};
pub use fold::Ended;
pub use ids::{Group, IntId, PhysicalIntId, Priority};
pub use interrupt::{Interrupt, State, Trigger};
pub use lists::ListRegisters;
