//! A small hypervisor at EL2, on the crates of Doorbell, and its test images.
//!
//! What needs EL2 is built for the bare-metal target only; the rest is a library with tests that
//! run on the host.

#![no_std]

extern crate alloc;

pub mod bundle;
pub mod deadlines;
pub mod device_tree;
pub mod fifo;
pub mod pl011;
pub mod pl031;
pub mod psci;
pub mod random;
pub mod registers;
pub mod run_queue;
pub mod stage2;
pub mod timer;
pub mod trace;
pub mod trap;
pub mod watchdog;

#[cfg(target_os = "none")]
pub mod atomic;
#[cfg(target_os = "none")]
pub mod bare;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod check;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod exits;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
pub mod hypervisor;
#[cfg(target_os = "none")]
mod ich;
#[cfg(target_os = "none")]
mod id_registers;
#[cfg(target_os = "none")]
mod input;
#[cfg(target_os = "none")]
pub mod irq;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
pub mod scheduler;
#[cfg(target_os = "none")]
mod stall;
#[cfg(target_os = "none")]
mod switch;
#[cfg(target_os = "none")]
mod sysreg;
#[cfg(target_os = "none")]
pub mod task;
#[cfg(target_os = "none")]
pub mod time;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vectors;
#[cfg(target_os = "none")]
mod vm;
