//! From the first instruction to Rust, with the MMU on.
//!
//! Before the MMU is on, all memory is device memory, where exclusives, and so atomics, are not
//! defined (Arm DDI 0487, section B2.17). Rust runs after that only.

use core::arch::global_asm;

use doorbell_platform::CpuId;

use crate::task::{self, Task};
use crate::{bare, cpu, machine, scheduler};

/// The translation table of EL2: 512 blocks of 1 GiB, mapped to themselves.
#[repr(C, align(4096))]
struct Table([u64; 512]);

/// Fields of a block descriptor (Arm DDI 0487, section D8.3.1).
mod block {
    /// A block, with the access flag, and with AP\[1\], which is RES1 where there is one privilege
    /// level.
    pub const BLOCK: u64 = 1 << 0 | 1 << 6 | 1 << 10;
    /// Attribute 0 of [`MAIR`](super::MAIR), never executed.
    pub const DEVICE: u64 = 1 << 54;
    /// Attribute 1 of [`MAIR`](super::MAIR), inner shareable.
    pub const NORMAL: u64 = 1 << 2 | 3 << 8;
}

/// Devices are in the first GiB of the virt machine, and RAM in the next 255.
static TABLE: Table = Table({
    let mut entries = [0; 512];
    entries[0] = block::BLOCK | block::DEVICE;
    let mut gib = 1;
    while gib < 256 {
        entries[gib as usize] = gib << 30 | block::BLOCK | block::NORMAL;
        gib += 1;
    }
    entries
});

/// MAIR_EL2: Device-nGnRE, and normal memory that is written back.
const MAIR: u64 = 0xff04;
/// TCR_EL2, E2H 0: 39 bits of address, walks cacheable and inner shareable, 40 bits of output, and
/// the bits that are RES1.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 2 << 16 | 1 << 23 | 1 << 31;
/// SCTLR_EL2: the bits that are RES1, MMU, caches, and checks of the stack's alignment.
const SCTLR: u64 = 0x30c5_0830 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12;

// The header is that of an arm64 Image (Linux, Documentation/arch/arm64/booting.rst), so that QEMU
// passes the device tree, in X0, and places an initrd.
global_asm!(
    ".pushsection .head, \"ax\"",
    ".global image_head",
    "image_head:",
    "   b 1f",
    "   .long 0",
    "   .quad 0",
    "   .quad image_size",
    "   .quad 0xa",
    "   .quad 0, 0, 0",
    "   .ascii \"ARM\\x64\"",
    "   .long 0",
    "1: mov x20, x0",
    "   mrs x1, CurrentEL",
    "   cmp x1, #8",
    "   b.ne no_el2",
    "   bl mmu_on",
    "   adrp x1, bss_start",
    "   adrp x2, bss_end",
    "2: cmp x1, x2",
    "   b.hs 3f",
    "   stp xzr, xzr, [x1], #16",
    "   b 2b",
    // On the stack of its idle task.
    "3: adrp x1, {stacks}",
    "   add x1, x1, :lo12:{stacks}",
    "   ldr x2, ={first_stack}",
    "   add sp, x1, x2",
    "   mov x0, x20",
    "   bl {start}",
    "halt: wfi",
    "   b halt",
    // Writes a line to the PL011, and turns the machine off, by PSCI: HVC where there is no EL2.
    "no_el2: adr x1, no_el2_line",
    "   mov x2, #{uart}",
    "4: ldrb w3, [x1], #1",
    "   cbz w3, 5f",
    "   strb w3, [x2]",
    "   b 4b",
    "5: ldr w0, =0x84000008",
    "   hvc #0",
    "   b halt",
    "no_el2_line: .asciz \"no VM: the machine has no EL2: -machine virtualization=on\\n\"",
    "   .balign 4",
    // Changes X1 and X2.
    ".global mmu_on",
    "mmu_on:",
    "   msr daifset, #0xf",
    "   msr spsel, #1",
    "   ldr x1, ={mair}",
    "   msr mair_el2, x1",
    "   ldr x1, ={tcr}",
    "   msr tcr_el2, x1",
    "   adrp x1, {table}",
    "   msr ttbr0_el2, x1",
    "   isb",
    "   tlbi alle2",
    "   dsb nsh",
    "   isb",
    "   ldr x1, ={sctlr}",
    "   msr sctlr_el2, x1",
    "   isb",
    "   adrp x1, {vectors}",
    "   add x1, x1, :lo12:{vectors}",
    "   msr vbar_el2, x1",
    "   isb",
    "   ret",
    "   .ltorg",
    ".popsection",
    uart = const crate::console::UART,
    stacks = sym task::STACKS,
    first_stack = const task::FIRST_IDLE_STACK_TOP,
    start = sym start,
    table = sym TABLE,
    mair = const MAIR,
    tcr = const TCR,
    sctlr = const SCTLR,
    vectors = sym crate::vectors::vectors,
);

unsafe extern "Rust" {
    /// What an image does, on its first CPU: see [`image!`](crate::image).
    safe fn image_main();
}

/// Makes a function the main function of an image.
#[macro_export]
macro_rules! image {
    ($main:path) => {
        // SAFETY: each image has one function of that name, and it has the type that the library
        // declares.
        #[unsafe(export_name = "image_main")]
        fn image_main() {
            let main: fn() = $main;
            main()
        }
    };
}

/// Begins, on the first CPU.
extern "C" fn start(device_tree: usize) -> ! {
    cpu::begin();
    // SAFETY: the bootloader has passed this address, and nobody else uses the memory that it left.
    unsafe { machine::init(device_tree) };
    cpu::start();
    bare::init();
    let main = Task::spawn(CpuId(0), || {
        image_main();
        machine::power_off()
    });
    assert!(main.is_some(), "there is room for the first tasks");
    scheduler::idle()
}
