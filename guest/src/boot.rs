//! From the first instruction to Rust, the exception vectors, and the calls to the firmware.

use core::arch::{asm, global_asm};

use fdt::Fdt;

use crate::checks::Check;
use crate::console::line;
use crate::cpu::MOST_CPUS;
use crate::sysreg::read_sysreg;
use crate::{hostile, stall};

global_asm!(
    ".pushsection .head, \"ax\"",
    ".global guest_head",
    "guest_head:",
    "   mov x20, x0",
    "   adrp x1, bss_start",
    "   adrp x2, bss_end",
    "1: cmp x1, x2",
    "   b.hs 2f",
    "   stp xzr, xzr, [x1], #16",
    "   b 1b",
    "2: mov x19, #0",
    "   bl guest_cpu",
    "   mov x0, x20",
    "   bl {main}",
    // X0 is the number of the CPU, which the one that has turned it on says.
    ".global guest_secondary",
    "guest_secondary:",
    "   mov x19, x0",
    "   bl guest_cpu",
    "   bl {secondary}",
    // Gives a CPU its number, in X19, its stack and the vectors.
    "guest_cpu:",
    "   msr tpidr_el1, x19",
    "   adrp x1, {stacks}",
    "   add x1, x1, :lo12:{stacks}",
    "   mov x2, #{size}",
    "   madd x1, x19, x2, x1",
    "   add x1, x1, x2",
    "   mov sp, x1",
    "   adrp x1, guest_vectors",
    "   add x1, x1, :lo12:guest_vectors",
    "   msr vbar_el1, x1",
    "   isb",
    "   ret",
    ".popsection",
    ".macro enter to",
    "   .balign 0x80",
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
    "   mrs x0, elr_el1",
    "   mrs x1, spsr_el1",
    "   stp x0, x1, [sp, #160]",
    "   add x0, sp, #160",
    "   bl \\to",
    "   b guest_return",
    ".endm",
    ".pushsection .text.vectors, \"ax\"",
    ".balign 0x800",
    "guest_vectors:",
    ".irp vector, 0, 1, 2, 3",
    "   enter {unexpected}",
    ".endr",
    "   enter {synchronous}",
    "   enter {irq}",
    "   enter {unexpected}",
    "   enter {unexpected}",
    // From EL0: its SVC ends `guest_at_el0`, with interrupts masked.
    ".balign 0x80",
    "   ret",
    "   enter {irq}",
    ".balign 0x80",
    "guest_return:",
    "   ldp x0, x1, [sp, #160]",
    "   msr elr_el1, x0",
    "   msr spsr_el1, x1",
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
    // At EL0, until the time in X0.
    ".global guest_at_el0",
    "guest_at_el0:",
    "   adr x1, 1f",
    "   msr elr_el1, x1",
    "   msr spsr_el1, xzr",
    "   eret",
    "1: mrs x1, cntvct_el0",
    "   cmp x1, x0",
    "   b.lo 1b",
    "   svc #0",
    ".popsection",
    stacks = sym STACKS,
    size = const SIZE,
    main = sym main,
    secondary = sym crate::others::secondary,
    unexpected = sym unexpected,
    synchronous = sym crate::handler::synchronous,
    irq = sym crate::handler::irq,
);

/// How large the stack of a CPU is: handlers nest 16 deep.
const SIZE: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack([u8; SIZE]);

static mut STACKS: [Stack; MOST_CPUS] = [const { Stack([0; SIZE]) }; MOST_CPUS];

/// The checks that are done alone, by the words that ask for them.
const ALONE: [(&str, &str, Check); 6] = [
    ("garbage", "garbage in every register is stood", hostile::writes_garbage),
    ("timely", "a timer is never later than a time slice", hostile::is_never_late),
    ("all-spin", "all CPUs spin", stall::all_spin),
    ("one-spins", "one CPU spins", stall::one_spins),
    ("all-wait", "all CPUs wait", stall::all_wait),
    ("slow", "what is slow gets done", stall::is_slow),
];

extern "C" fn main(device_tree: usize) -> ! {
    // SAFETY: whoever has started this has put it there, and nobody writes to it.
    let tree = unsafe { Fdt::from_ptr(core::ptr::with_exposed_provenance(device_tree)) };
    let words = tree.as_ref().map_or("", |tree| tree.chosen().bootargs().unwrap_or_default());
    let told = |what: &str| words.split(' ').any(|word| word == what);
    if told("bench") {
        crate::bench::all();
    } else if let Some((_, name, check)) = ALONE.iter().find(|(word, ..)| told(word)) {
        crate::checks::one(name, *check);
    } else {
        crate::checks::all();
    }
    power_off()
}

extern "C" fn unexpected() -> ! {
    panic!("an exception that nothing here causes, ELR {:#x}", read_sysreg!("elr_el1"));
}

/// Returns where the others begin.
pub fn secondary_entry() -> u64 {
    unsafe extern "C" {
        fn guest_secondary();
    }
    (guest_secondary as *const ()).expose_provenance() as u64
}

/// Calls the firmware.
pub fn call(function: u32, arguments: [u64; 3]) -> u64 {
    let result;
    // SAFETY: no function that is called here changes memory.
    unsafe {
        asm!("hvc #0", inout("x0") u64::from(function) => result, inout("x1") arguments[0] => _,
            inout("x2") arguments[1] => _, inout("x3") arguments[2] => _, options(nostack));
    }
    result
}

/// Ends the VM.
pub fn power_off() -> ! {
    call(0x8400_0008, [0; 3]);
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line(format_args!(
        "panic: {}, at {}",
        info.message(),
        info.location().map_or(0, |place| place.line())
    ));
    power_off()
}
