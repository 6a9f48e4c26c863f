//! The GICv3, as its driver sees it (Arm IHI 0069H, sections 12.9 to 12.11).

use crate::sysreg::write_sysreg;

const GICD: usize = 0x0800_0000;
const GICR: usize = 0x080a_0000;

pub const GICD_CTLR: usize = 0x0000;
pub const GICD_TYPER: usize = 0x0004;
pub const GICD_IIDR: usize = 0x0008;
pub const GICD_PIDR2: usize = 0xffe8;
const GICR_WAKER: usize = 0x0014;
/// Where the registers of private interrupts are: SGI_base.
const SGI_BASE: usize = 0x1_0000;

const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const ISPENDR: usize = 0x200;
const ICPENDR: usize = 0x280;
const ISACTIVER: usize = 0x300;
const IPRIORITYR: usize = 0x400;
const ICFGR: usize = 0xc00;

fn register(address: usize) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(address)
}

/// Reads a register of the distributor.
pub fn read(offset: usize) -> u32 {
    // SAFETY: the distributor is there.
    unsafe { register(GICD + offset).read_volatile() }
}

/// Writes a register of the distributor.
pub fn write(offset: usize, value: u32) {
    // SAFETY: the distributor is there.
    unsafe { register(GICD + offset).write_volatile(value) }
}

/// Returns where a register of an interrupt is that has so many bits of each.
fn of(intid: u32, base: usize, bits: u32) -> *mut u32 {
    let frame = if intid < 32 { GICR + SGI_BASE } else { GICD };
    register(frame + base + (intid * bits / 32 * 4) as usize)
}

fn set_bit(intid: u32, base: usize) {
    // SAFETY: the frames are there.
    unsafe { of(intid, base, 1).write_volatile(1 << (intid % 32)) }
}

fn bit(intid: u32, base: usize) -> bool {
    // SAFETY: the frames are there.
    unsafe { of(intid, base, 1).read_volatile() >> (intid % 32) & 1 != 0 }
}

/// Makes an interrupt pending, and up to 31 that follow.
pub fn pend_all(first: u32, bits: u32) {
    // SAFETY: the frames are there.
    unsafe { of(first, ISPENDR, 1).write_volatile(bits) }
}

pub fn pend(intid: u32) {
    set_bit(intid, ISPENDR);
}

pub fn unpend(intid: u32) {
    set_bit(intid, ICPENDR);
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

/// Sets the priority.
pub fn set_priority(intid: u32, priority: u8) {
    // SAFETY: the frames are there, and bytes may be written.
    unsafe { of(intid, IPRIORITYR, 8).cast::<u8>().add(intid as usize % 4).write_volatile(priority) }
}

/// Makes an interrupt edge-triggered.
pub fn set_edge(intid: u32) {
    // SAFETY: the frames are there.
    unsafe {
        let register = of(intid, ICFGR, 2);
        register.write_volatile(register.read_volatile() | 2 << (intid % 16 * 2));
    }
}

/// Sends an SGI to this CPU.
pub fn sgi_to_self(intid: u32) {
    write_sysreg!("icc_sgi1r_el1", u64::from(intid) << 24 | 1);
}

/// Enables group 1, wakes the redistributor, and enables all interrupts that are used: edges, of
/// one priority.
pub fn init() {
    write(GICD_CTLR, 1 << 4 | 1 << 1);
    // SAFETY: the redistributor is there.
    unsafe {
        register(GICR + GICR_WAKER).write_volatile(0);
        while register(GICR + GICR_WAKER).read_volatile() & 1 << 2 != 0 {}
    }
    for intid in (0..16).chain([27]).chain(64..128) {
        set_priority(intid, 0x80);
        if intid >= 32 {
            set_edge(intid);
        }
        enable(intid);
    }
    write_sysreg!("icc_sre_el1", 1);
    write_sysreg!("icc_pmr_el1", 0xff);
    write_sysreg!("icc_bpr1_el1", 0);
    write_sysreg!("icc_ctlr_el1", 0);
    write_sysreg!("icc_igrpen1_el1", 1);
}
