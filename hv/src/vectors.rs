//! The exception vectors of EL2.

use core::arch::global_asm;

use crate::sysreg::read_sysreg;

unsafe extern "C" {
    /// The table, in the order of Arm DDI 0487, section D1.3.1.
    pub(crate) fn vectors();
}

/// What a Rust function may change, and where an exception came from.
#[repr(C)]
pub(crate) struct Saved {
    /// X0 to X18, and X30.
    x: [u64; 20],
    elr: u64,
    spsr: u64,
}

global_asm!(
    ".macro save",
    "   sub sp, sp, #176",
    "   stp x0, x1, [sp]",
    "   stp x2, x3, [sp, #16]",
    "   stp x4, x5, [sp, #32]",
    "   stp x6, x7, [sp, #48]",
    "   stp x8, x9, [sp, #64]",
    "   stp x10, x11, [sp, #80]",
    "   stp x12, x13, [sp, #96]",
    "   stp x14, x15, [sp, #112]",
    "   stp x16, x17, [sp, #128]",
    "   stp x18, x30, [sp, #144]",
    "   mrs x0, elr_el2",
    "   mrs x1, spsr_el2",
    "   stp x0, x1, [sp, #160]",
    ".endm",
    ".macro unexpected number",
    "   .balign 0x80",
    "   save",
    "   mov x0, sp",
    "   mov x1, #\\number",
    "   b {unexpected}",
    ".endm",
    ".pushsection .text.vectors, \"ax\"",
    ".balign 0x800",
    ".global vectors",
    "vectors:",
    ".irp number, 0, 1, 2, 3, 4",
    "   unexpected \\number",
    ".endr",
    ".balign 0x80",
    "   b el2_irq",
    "   unexpected 6",
    "   unexpected 7",
    // From a guest, in AArch64 and in AArch32: what `guest_run` returns, which has pushed its frame
    // and where it goes on.
    ".irp number, 0, 1, 2, 3, 0, 1, 2, 3",
    ".balign 0x80",
    "   stp x0, x1, [sp, #-16]!",
    "   ldp x0, x1, [sp, #32]",
    "   stp x2, x3, [x0, #16]",
    "   mov x2, #\\number",
    "   br x1",
    ".endr",
    "el2_irq:",
    "   save",
    "   bl {interrupted}",
    "   ldp x0, x1, [sp, #160]",
    "   msr elr_el2, x0",
    "   msr spsr_el2, x1",
    "   ldp x0, x1, [sp]",
    "   ldp x2, x3, [sp, #16]",
    "   ldp x4, x5, [sp, #32]",
    "   ldp x6, x7, [sp, #48]",
    "   ldp x8, x9, [sp, #64]",
    "   ldp x10, x11, [sp, #80]",
    "   ldp x12, x13, [sp, #96]",
    "   ldp x14, x15, [sp, #112]",
    "   ldp x16, x17, [sp, #128]",
    "   ldp x18, x30, [sp, #144]",
    "   add sp, sp, #176",
    "   eret",
    ".popsection",
    unexpected = sym unexpected,
    interrupted = sym crate::irq::interrupted,
);

/// Reports an exception that nothing here causes.
extern "C" fn unexpected(saved: &Saved, vector: u64) -> ! {
    panic!(
        "exception by vector {vector}: ESR {:#x}, ELR {:#x}, FAR {:#x}, SPSR {:#x}, X0 to X18 and X30 {:x?}",
        read_sysreg!("esr_el2"),
        saved.elr,
        read_sysreg!("far_el2"),
        saved.spsr,
        saved.x,
    );
}
