//! The GICv3, as its driver sees it (Arm IHI 0069H, sections 12.9 to 12.11).

use crate::sysreg::write_sysreg;
use crate::{cpu, mmio};

pub const GICD: usize = 0x0800_0000;
pub const GICR: usize = 0x080a_0000;

pub const GICD_CTLR: usize = 0x0000;
pub const GICD_TYPER: usize = 0x0004;
pub const GICD_IIDR: usize = 0x0008;
pub const GICD_PIDR2: usize = 0xffe8;
const GICR_WAKER: usize = 0x0014;
/// Where the registers of private interrupts are: SGI_base.
const SGI_BASE: usize = 0x1_0000;

const IGROUPR: usize = 0x080;
const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const ISPENDR: usize = 0x200;
const ICPENDR: usize = 0x280;
const ISACTIVER: usize = 0x300;
const IPRIORITYR: usize = 0x400;
const ICFGR: usize = 0xc00;
const IROUTER: usize = 0x6000;
const GICR_TYPER: usize = 0x0008;
/// How large the frames of a redistributor are.
const REDISTRIBUTOR: usize = 0x2_0000;

/// Reads a register of the distributor.
pub fn read(offset: usize) -> u32 {
    mmio::read(GICD + offset)
}

/// Writes a register of the distributor.
pub fn write(offset: usize, value: u32) {
    mmio::write(GICD + offset, value);
}

/// Returns where a register of an interrupt is that has so many bits of each.
fn of(intid: u32, base: usize, bits: u32) -> usize {
    let frame = if intid < 32 { redistributor() + SGI_BASE } else { GICD };
    frame + base + (intid * bits / 32 * 4) as usize
}

fn set_bit(intid: u32, base: usize) {
    mmio::write(of(intid, base, 1), 1 << (intid % 32));
}

fn bit(intid: u32, base: usize) -> bool {
    mmio::read(of(intid, base, 1)) >> (intid % 32) & 1 != 0
}

/// Makes an interrupt pending, and up to 31 that follow.
pub fn pend_all(first: u32, bits: u32) {
    mmio::write(of(first, ISPENDR, 1), bits);
}

pub fn pend(intid: u32) {
    set_bit(intid, ISPENDR);
}

pub fn unpend(intid: u32) {
    set_bit(intid, ICPENDR);
}

/// Reads which of 32 interrupts are pending.
pub fn pending(first: u32) -> u32 {
    mmio::read(of(first, ISPENDR, 1))
}

pub fn is_pending(intid: u32) -> bool {
    bit(intid, ISPENDR)
}

pub fn is_active(intid: u32) -> bool {
    bit(intid, ISACTIVER)
}

pub fn enable(intid: u32) {
    set_bit(intid, ISENABLER);
}

pub fn disable(intid: u32) {
    set_bit(intid, ICENABLER);
}

/// Puts an interrupt into group 1.
fn set_group_1(intid: u32) {
    let register = of(intid, IGROUPR, 1);
    mmio::write(register, mmio::read(register) | 1 << (intid % 32));
}

/// Sets the priority.
pub fn set_priority(intid: u32, priority: u8) {
    mmio::write_byte(of(intid, IPRIORITYR, 8) + intid as usize % 4, priority);
}

/// Makes an interrupt edge-triggered.
pub fn set_edge(intid: u32) {
    let register = of(intid, ICFGR, 2);
    mmio::write(register, mmio::read(register) | 2 << (intid % 16 * 2));
}

/// Sends an SGI to this CPU.
pub fn sgi_to_self(intid: u32) {
    send_sgi(cpu::number(), intid);
}

/// Sends an SGI to a CPU.
pub fn send_sgi(to: usize, intid: u32) {
    // What was written before is seen by who is interrupted.
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack)) };
    write_sysreg!("icc_sgi1r_el1", u64::from(intid) << 24 | 1 << to);
}

/// Where an SPI goes.
#[derive(Clone, Copy)]
pub enum Route {
    /// To this CPU.
    Cpu(usize),
    /// To any CPU.
    Any,
}

/// Routes an SPI.
pub fn route(intid: u32, to: Route) {
    let affinity = match to {
        Route::Cpu(number) => number as u64,
        Route::Any => 1 << 31,
    };
    mmio::write_double(GICD + IROUTER + intid as usize * 8, affinity);
}

/// Waits until writes have taken effect that take a while: GICD_CTLR.RWP.
pub fn wait_for_writes() {
    while read(GICD_CTLR) & 1 << 31 != 0 {}
}

/// Returns how many CPUs there are: the last redistributor says that it is.
pub fn count_cpus() -> usize {
    let is_last = |number| mmio::read(GICR + number * REDISTRIBUTOR + GICR_TYPER) & 1 << 4 != 0;
    (0..cpu::MOST_CPUS - 1).find(|&number| is_last(number)).unwrap_or(cpu::MOST_CPUS - 1) + 1
}

/// Returns where the redistributor of this CPU is.
fn redistributor() -> usize {
    GICR + cpu::number() * REDISTRIBUTOR
}

/// Enables group 1 and the SPIs that are used: edges, of one priority. By the first CPU.
pub fn init() {
    write(GICD_CTLR, 1 << 4 | 1 << 1);
    for intid in 64..128 {
        set_group_1(intid);
        set_priority(intid, 0x80);
        set_edge(intid);
        route(intid, Route::Cpu(0));
        enable(intid);
    }
    init_this();
}

/// Wakes the redistributor of this CPU, and enables its private interrupts.
pub fn init_this() {
    mmio::write(redistributor() + GICR_WAKER, 0);
    while mmio::read(redistributor() + GICR_WAKER) & 1 << 2 != 0 {}
    for intid in (0..16).chain([27, 30]) {
        set_group_1(intid);
        set_priority(intid, 0x80);
        enable(intid);
    }
    write_sysreg!("icc_sre_el1", 1);
    write_sysreg!("icc_pmr_el1", 0xff);
    write_sysreg!("icc_bpr1_el1", 0);
    write_sysreg!("icc_ctlr_el1", 0);
    write_sysreg!("icc_igrpen1_el1", 1);
}
