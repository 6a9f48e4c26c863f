//! Registers of devices.
//!
//! By instructions that a hypervisor can do in the guest's place: those with one register and no
//! writeback, which a compiler does not promise.

use core::arch::asm;

/// Reads 32 bits.
pub fn read(address: usize) -> u32 {
    let value: u32;
    // SAFETY: a device is there, whose registers change nothing that Rust knows of.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes 32 bits.
pub fn write(address: usize, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Writes 8 bits.
pub fn write_byte(address: usize, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}

/// Writes 64 bits.
pub fn write_double(address: usize, value: u64) {
    // SAFETY: as above.
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}
