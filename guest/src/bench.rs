//! What operations cost, in instructions: the virtual counter of a QEMU that counts them ticks
//! every 16.

use core::sync::atomic::Ordering::Relaxed;

use crate::boot::call;
use crate::console::line;
use crate::gic;
use crate::handler::{NESTS_DOWN_TO, forget, irqs_off, irqs_on, taken};
use crate::sysreg::{read_sysreg, write_sysreg};

/// How many instructions a tick of the counter is.
const TICK: u64 = 16;
/// The function by which the hypervisor says how many exits there were.
const EXITS: u32 = 0xc600_0001;

type Operation = fn();

const OPERATIONS: &[(&str, u32, Operation)] = &[
    ("HVC, unknown function", 1000, unknown_call),
    ("read GICD_IIDR", 1000, read_iidr),
    ("read ISPENDR", 1000, read_ispendr),
    ("write ISENABLER", 1000, write_isenabler),
    ("SGI to self", 1000, sgi_to_self),
    ("SPI to self", 1000, spi_to_self),
    ("virtual timer fires", 1000, timer_fires),
    ("burst of 4 SPIs", 200, burst_of_4),
    ("burst of 32 SPIs", 200, burst_of_32),
    ("EOImode 1, 32 active, then DIR all", 200, thirty_two_active),
    ("nested preemption, depth 16", 200, nested),
];

/// Measures all operations, and writes a line for each.
pub fn all() {
    gic::init();
    irqs_on();
    for &(name, rounds, operation) in OPERATIONS {
        begin(name);
        let empty = measure(rounds, || ());
        // The first time, caches of the machine are filled.
        measure(rounds, operation);
        let [instructions, exits] = measure(rounds, operation);
        let of_each = |total: u64, more: u64| total.saturating_sub(more) / u64::from(rounds);
        let instructions = of_each(instructions * TICK, empty[0] * TICK);
        line(format_args!(
            "bench {name}: {instructions} instructions, {} exits",
            of_each(exits, empty[1])
        ));
        end();
    }
    irqs_off();
    line(format_args!("result: 0 passed, 0 failed"));
}

/// Does an operation again and again. Returns how many ticks and exits that has taken.
fn measure(rounds: u32, operation: impl Fn()) -> [u64; 2] {
    let (exits, begin) = (call(EXITS, [0; 3]), read_sysreg!("cntvct_el0"));
    for _ in 0..rounds {
        operation();
    }
    let ticks = read_sysreg!("cntvct_el0") - begin;
    [ticks, call(EXITS, [0; 3]).wrapping_sub(exits)]
}

fn begin(name: &str) {
    if name.starts_with("EOImode 1") {
        write_sysreg!("icc_ctlr_el1", 1 << 1);
    }
    if name.starts_with("nested") {
        for intid in 64..80 {
            gic::set_priority(intid, (intid - 64) as u8 * 8 + 8);
        }
        NESTS_DOWN_TO.store(64, Relaxed);
    }
}

fn end() {
    write_sysreg!("icc_ctlr_el1", 0);
    NESTS_DOWN_TO.store(u32::MAX, Relaxed);
    for intid in 64..80 {
        gic::set_priority(intid, 0x80);
    }
}

fn unknown_call() {
    call(0xc600_ff01, [0; 3]);
}

fn read_iidr() {
    gic::read(gic::GICD_IIDR);
}

fn read_ispendr() {
    gic::pending(64);
}

fn write_isenabler() {
    gic::enable(64);
}

/// Waits until so many interrupts were taken.
fn wait_for(count: usize) {
    while taken() < count {}
}

fn sgi_to_self() {
    forget();
    gic::sgi_to_self(1);
    wait_for(1);
}

fn spi_to_self() {
    forget();
    gic::pend(64);
    wait_for(1);
}

fn timer_fires() {
    forget();
    write_sysreg!("cntv_tval_el0", 0);
    write_sysreg!("cntv_ctl_el0", 1);
    wait_for(1);
}

fn burst_of_4() {
    forget();
    gic::pend_all(64, 0xf);
    wait_for(4);
}

fn burst_of_32() {
    forget();
    gic::pend_all(64, u32::MAX);
    wait_for(32);
}

fn thirty_two_active() {
    burst_of_32();
    for intid in 64..96 {
        write_sysreg!("icc_dir_el1", intid);
    }
}

fn nested() {
    forget();
    gic::pend(79);
    wait_for(16);
}
