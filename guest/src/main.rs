//! A bare-metal guest at EL1 that exercises its interrupt controller. It writes a line for each
//! check, one that counts, and ends by PSCI.
//!
//! The MMU is off, so that all memory is device memory: atomics are loaded and stored only, and
//! each word is written by one CPU.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod checks;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod gic;
#[cfg(target_os = "none")]
mod handler;
#[cfg(target_os = "none")]
mod hostile;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
mod others;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod stall;
#[cfg(target_os = "none")]
mod sysreg;

#[cfg(not(target_os = "none"))]
fn main() {}
