//! Into the guest, and out of it.
//!
//! EL2 has nothing in the FP registers, and the EL1 registers are the guest's while its vCPU is
//! loaded: the general registers are all that changes hands.

use core::arch::asm;

/// The general registers of a vCPU that is not in the guest. The order is that of the assembly.
#[repr(C)]
pub(crate) struct Frame {
    /// X0 to X30.
    pub(crate) x: [u64; 31],
    /// Where it goes on,
    pub(crate) pc: u64,
    /// and PSTATE, as SPSR_EL2 has it.
    pub(crate) pstate: u64,
}

/// Why the guest was left: the vectors from AArch64, in their order.
pub(crate) const SYNCHRONOUS: u64 = 0;
pub(crate) const INTERRUPT: u64 = 1;

/// Runs the guest until there is an exception. Returns which of the four vectors it took.
///
/// What the compiler keeps in registers is not saved by a function of its own: the block says that
/// it changes all of them, and the caller keeps the few that it needs. X19 and X29 are the
/// compiler's own.
///
/// # Safety
/// Interrupts are off, and EL1, stage 2 and the virtual CPU interface are those of the vCPU.
#[inline(always)]
pub(crate) unsafe fn guest_run(frame: &mut Frame) -> u64 {
    let why;
    // SAFETY: the caller's promise. The guest changes its own memory alone, the vector goes on at
    // the label with this stack, and what is pushed is popped.
    unsafe {
        asm!(
            "stp x19, x29, [sp, #-32]!",
            "adr x1, 2f",
            "stp x0, x1, [sp, #16]",
            "ldp x1, x2, [x0, #248]",
            "msr elr_el2, x1",
            "msr spsr_el2, x2",
            "ldr x30, [x0, #240]",
            "ldp x28, x29, [x0, #224]",
            "ldp x26, x27, [x0, #208]",
            "ldp x24, x25, [x0, #192]",
            "ldp x22, x23, [x0, #176]",
            "ldp x20, x21, [x0, #160]",
            "ldp x18, x19, [x0, #144]",
            "ldp x16, x17, [x0, #128]",
            "ldp x14, x15, [x0, #112]",
            "ldp x12, x13, [x0, #96]",
            "ldp x10, x11, [x0, #80]",
            "ldp x8, x9, [x0, #64]",
            "ldp x6, x7, [x0, #48]",
            "ldp x4, x5, [x0, #32]",
            "ldp x2, x3, [x0, #16]",
            "ldp x0, x1, [x0]",
            "eret",
            // The vector has pushed X0 and X1, and saved X2 and X3: X0 is the frame, and X2 the
            // number of the vector.
            "2:",
            "stp x4, x5, [x0, #32]",
            "ldp x4, x5, [sp], #16",
            "stp x4, x5, [x0]",
            "stp x6, x7, [x0, #48]",
            "stp x8, x9, [x0, #64]",
            "stp x10, x11, [x0, #80]",
            "stp x12, x13, [x0, #96]",
            "stp x14, x15, [x0, #112]",
            "stp x16, x17, [x0, #128]",
            "stp x18, x19, [x0, #144]",
            "stp x20, x21, [x0, #160]",
            "stp x22, x23, [x0, #176]",
            "stp x24, x25, [x0, #192]",
            "stp x26, x27, [x0, #208]",
            "stp x28, x29, [x0, #224]",
            "str x30, [x0, #240]",
            "mrs x4, elr_el2",
            "mrs x5, spsr_el2",
            "stp x4, x5, [x0, #248]",
            "ldp x19, x29, [sp], #32",
            inout("x0") frame => _,
            lateout("x2") why,
            out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _,
            out("x25") _, out("x26") _, out("x27") _, out("x28") _,
            clobber_abi("C"),
        );
    }
    why
}
