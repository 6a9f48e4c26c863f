//! The model of a GICv3, clause by clause (Arm IHI 0069H).

#[path = "../architecture/mod.rs"]
mod architecture;

mod access;
mod predictable;
mod registers;
mod routing;
mod sgi;
mod states;

use architecture::{Frame, Gic};

const DISTRIBUTOR: Frame = Frame::Distributor;

const GICD_CTLR: u32 = 0x0000;
const GICR_CTLR: u32 = 0x0000;
const GICR_WAKER: u32 = 0x0014;
const IGROUPR: u32 = 0x0080;
const ISENABLER: u32 = 0x0100;
const ICENABLER: u32 = 0x0180;
const ISPENDR: u32 = 0x0200;
const ICPENDR: u32 = 0x0280;
const ISACTIVER: u32 = 0x0300;
const ICACTIVER: u32 = 0x0380;
const IPRIORITYR: u32 = 0x0400;
const ICFGR: u32 = 0x0c00;
const IROUTER: u32 = 0x6000;

/// Returns a GIC of that many PEs, 0.0.0.0 and up, after a reset, with 64 SPIs.
fn reset(pes: u32) -> Gic {
    Gic::new(&(0..pes).collect::<Vec<_>>(), 64, 5, 5)
}

/// Returns the same as its software uses it: all PEs awake, both groups enabled, nothing masked.
fn in_use(pes: u32) -> Gic {
    let mut gic = reset(pes);
    gic.write(DISTRIBUTOR, GICD_CTLR, 4, 0b11);
    for pe in 0..gic.pes.len() {
        gic.write(Frame::RdBase(pe), GICR_WAKER, 4, 0);
        gic.pes[pe].interface.mask = 0xf8;
        gic.pes[pe].interface.enabled = [true; 2];
    }
    gic
}

/// Writes the bit of an interrupt in a register of 32.
fn write_bit(gic: &mut Gic, register: u32, pe: usize, id: u32) {
    let frame = if id < 32 { Frame::SgiBase(pe) } else { DISTRIBUTOR };
    gic.write(frame, register + id / 32 * 4, 4, 1 << (id % 32));
}

/// Enables an interrupt of group 0 with a priority.
fn enable(gic: &mut Gic, pe: usize, id: u32, priority: u8) {
    let frame = if id < 32 { Frame::SgiBase(pe) } else { DISTRIBUTOR };
    gic.write(frame, IPRIORITYR + id, 1, priority.into());
    write_bit(gic, ISENABLER, pe, id);
}
