//! The virtual CPU interface of GICv3: what a guest acknowledges and ends without an exit, and what
//! the hypervisor finds of it afterwards (Arm IHI 0069H, chapter 6; the registers in chapter 12, by
//! their names: `ICV_*` are the guest's, `ICH_*_EL2` the hypervisor's).
//!
//! [`VirtualInterface`] is the registers of one CPU, as a value: [`spec`] says where their fields
//! are, `state` what the hypervisor reads and writes, `guest` what the guest does, `maintenance`
//! what asserts the maintenance interrupt. [`CpuInterface`] puts them on a CPU of the explorer,
//! where each use is a visible step.
//!
//! What is left out: memory-mapped access, sending SGIs, the guest's own access to active
//! priorities, LPIs and SGIs that GICv4 injects directly, non-maskable interrupts, SErrors. An LPI
//! in a list register is here.

mod cpu;
#[cfg(test)]
mod explored;
mod guest;
mod maintenance;
#[cfg(test)]
mod random;
pub mod spec;
mod state;

pub use cpu::{CpuInterface, Misuse};
pub use guest::{Physical, Trapped};
pub use state::{Undefined, Unpredictable, VirtualInterface};
