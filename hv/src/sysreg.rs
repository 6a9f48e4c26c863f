//! System registers, by the names that the assembler knows.

/// Reads a system register. By anybody.
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a register changes no memory, and no register that is read here is one
        // whose read has an effect on what Rust knows.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register. A register may change what memory is; hence `unsafe` is the caller's.
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags));
    }};
}

/// Makes what was written to system registers take effect before the next instruction. By anybody.
#[inline(always)]
pub(crate) fn isb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
}

pub(crate) use {read_sysreg, write_sysreg};
