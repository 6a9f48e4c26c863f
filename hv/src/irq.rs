//! The machine's own interrupts: its GICv3, and who handles what.
//!
//! EOImode is 1: the end drops the priority, and what backs a guest's interrupt is deactivated by
//! the guest.

use alloc::boxed::Box;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use arm_gic::UniqueMmioPointer;
use arm_gic::gicv3::{GicCpuInterface, GicV3};
use doorbell_platform::{CpuId, Lock, LockClass, OnceCell, Platform, Vector, WaitType};

use crate::bare::Bare;
use crate::cpu::{CPUS, Cpu};
use crate::scheduler;
use crate::sysreg::{isb, read_sysreg, write_sysreg};
use crate::task::Task;

/// The PPI of the EL2 physical timer (Arm BSA, "PPI assignments").
pub const HYPERVISOR_TIMER: u32 = 26;
/// The PPI of the virtual timer.
pub const VIRTUAL_TIMER: u32 = 27;
/// The PPI of the EL1 physical timer, which a guest's emulated one has.
pub const PHYSICAL_TIMER: u32 = 30;
/// The PPI that the virtual CPU interface asserts.
pub const MAINTENANCE: u32 = 25;
/// The vector that makes a vCPU leave the guest.
pub const KICK: Vector = Vector(0);

/// How many INTIDs may have a handler.
const HANDLERS: usize = 96;
/// All interrupts have this priority: none interrupts another.
const PRIORITY: u8 = 0x80;

/// What a handler does with an interrupt, before the CPU takes the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    /// The interrupt is deactivated.
    Done,
    /// The interrupt stays active: it backs one of a guest, which deactivates it.
    Passed,
}

/// What is called when an interrupt has come: in hard-interrupt context, interrupts off.
pub type Handler = fn() -> Handled;

static TABLE: [OnceCell<Bare, Handler>; HANDLERS] = [const { OnceCell::new() }; HANDLERS];

static DRIVER: LockClass = LockClass::new("hv.gic", WaitType::Spin).leaf();
static GIC: Lock<Bare, Option<GicV3<'static>>> = Lock::constant(&DRIVER, None);

/// Where the redistributors are.
static REDISTRIBUTORS: AtomicUsize = AtomicUsize::new(0);

/// The SGIs that the hypervisor sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sgi {
    /// Somebody waits for the CPU: SGI 8.
    Resched,
    /// A vector of the platform: SGIs 0 to 7.
    Vector(Vector),
}

/// Sets the distributor up. On the first CPU, before [`init_this`].
pub(crate) fn init(distributor: usize, redistributors: usize) {
    let distributor = NonNull::new(core::ptr::with_exposed_provenance_mut(distributor));
    let redistributors = NonNull::new(core::ptr::with_exposed_provenance_mut(redistributors));
    let (distributor, redistributors) =
        distributor.zip(redistributors).expect("the GIC is not at 0");
    // SAFETY: the device tree says that they are there, mapped as device memory for ever, and this
    // is their one driver.
    let gic = unsafe {
        GicV3::new(UniqueMmioPointer::new(distributor), redistributors, Cpu::count() as usize)
    };
    let mut gic = gic.expect("the GIC is a GICv3");
    GicCpuInterface::enable_system_register_el2(true);
    gic.setup(0);
    *GIC.lock() = Some(gic);
    REDISTRIBUTORS.store(redistributors.addr().get(), Relaxed);
    handle(HYPERVISOR_TIMER, crate::time::timer);
    handle(RESCHED, || {
        scheduler::resched_here();
        Handled::Done
    });
}

const RESCHED: u32 = 8;
/// How large the frames of a redistributor are, where the second one is, and GICR_ISACTIVER0 and
/// GICR_ICACTIVER0 in it (Arm IHI 0069H, section 12.10).
const FRAMES: usize = 0x2_0000;
const ISACTIVER: usize = 0x1_0300;
const ICACTIVER: usize = 0x1_0380;

/// Sets up what this CPU has of its own.
pub(crate) fn init_this(cpu: CpuId) {
    GicCpuInterface::enable_system_register_el2(true);
    if let Some(gic) = &mut *GIC.lock() {
        gic.init_cpu(cpu.0 as usize);
        let mut redistributor = gic.redistributor(cpu.0 as usize).expect("each CPU has one");
        for intid in 0..32 {
            let intid = intid_of(intid);
            let _ = redistributor.set_interrupt_priority(intid, PRIORITY);
            // What is of the guests is enabled always: it comes only while one is loaded.
            let enabled = u32::from(intid) <= RESCHED
                || [MAINTENANCE, VIRTUAL_TIMER].contains(&u32::from(intid));
            let _ = redistributor.enable_interrupt(intid, enabled);
        }
    }
    // EOImode.
    // SAFETY: nothing that Rust knows of changes.
    unsafe { write_sysreg!("icc_ctlr_el1", 1 << 1) };
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
    isb();
}

/// Sets the handler of an interrupt, once for all CPUs; an SGI or SPI is enabled, a PPI is by
/// [`enable`]. By any task; does not sleep.
///
/// # Panics
/// If it has one.
pub fn handle(intid: u32, handler: Handler) {
    let set = TABLE[intid as usize].set(Box::new(handler));
    assert!(set.is_ok(), "INTID {intid} has a handler already");
}

/// Enables a private interrupt of this CPU, or an SPI. By any task, pinned; does not sleep.
pub fn enable(intid: u32) {
    let cpu = Bare::current_cpu().0 as usize;
    if let Some(gic) = &mut *GIC.lock_irqsave() {
        let enabled = gic.enable_interrupt(intid_of(intid), Some(cpu), true);
        assert!(enabled.is_ok(), "INTID {intid} can be enabled");
    }
}

fn intid_of(number: u32) -> arm_gic::IntId {
    match number {
        0..16 => arm_gic::IntId::sgi(number),
        16..32 => arm_gic::IntId::ppi(number - 16),
        _ => arm_gic::IntId::spi(number - 32),
    }
}

/// Sends an SGI. By anybody, in any context; does not sleep.
pub(crate) fn send(cpu: CpuId, sgi: Sgi) {
    let intid = match sgi {
        Sgi::Resched => RESCHED,
        Sgi::Vector(vector) => u32::from(vector.0 & 7),
    };
    let mpidr = Cpu::of(cpu).mpidr();
    // ICC_SGI1R_EL1 (Arm IHI 0069H, section 12.2.19): affinities, INTID, and one target of 16.
    let affinities =
        (mpidr >> 32 & 0xff) << 48 | (mpidr >> 16 & 0xff) << 32 | (mpidr >> 8 & 0xff) << 16;
    let value = affinities | (mpidr >> 4 & 0xf) << 44 | u64::from(intid) << 24 | 1 << (mpidr & 0xf);
    // What was written before is seen by who is interrupted.
    // SAFETY: a barrier, and an interrupt, whose handler keeps to the locks.
    unsafe {
        asm!("dsb ishst", options(nostack, preserves_flags));
        write_sysreg!("icc_sgi1r_el1", value);
    }
    isb();
}

/// Handles what has interrupted this CPU. With interrupts off: by the vector, and by who has left a
/// guest because of an interrupt.
#[inline(never)]
pub(crate) fn dispatch() {
    let task = Task::current();
    task.in_hardirq.store(true, Relaxed);
    loop {
        // Signals are in order with the acknowledge (Arm IHI 0069H, section 4.1.1).
        let intid = read_sysreg!("icc_iar1_el1");
        // SAFETY: a barrier.
        unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
        if intid >= 1020 {
            break;
        }
        // SAFETY: drops the priority of what was acknowledged.
        unsafe { write_sysreg!("icc_eoir1_el1", intid) };
        let handler = TABLE.get(intid as usize).and_then(OnceCell::get);
        if handler.map_or(Handled::Done, |handler| handler()) == Handled::Done {
            // SAFETY: deactivates it.
            unsafe { write_sysreg!("icc_dir_el1", intid) };
        }
    }
    task.in_hardirq.store(false, Relaxed);
}

/// Handles an interrupt that has come at EL2.
pub(crate) extern "C" fn interrupted() {
    dispatch();
    scheduler::preempt_point();
}

/// Deactivates an interrupt that was [passed](Handled::Passed) on. On the CPU that has it, if it is
/// private.
pub(crate) fn deactivate(intid: u32) {
    // SAFETY: it concerns that interrupt only.
    unsafe { write_sysreg!("icc_dir_el1", intid.into()) };
}

/// Makes a private interrupt of this CPU active, so that it does not come, or not active. With
/// interrupts off.
pub(crate) fn set_active(intid: u32, active: bool) {
    let register = register_of_this(if active { ISACTIVER } else { ICACTIVER });
    // SAFETY: the register is there, and for one bit at a time, so nobody else's write is undone.
    unsafe {
        register.write_volatile(1 << (intid % 32));
        asm!("dsb sy", options(nostack, preserves_flags));
    }
}

/// Returns whether a private interrupt of this CPU is active. With interrupts off.
pub(crate) fn is_active(intid: u32) -> bool {
    // SAFETY: the register is there, and reading it changes nothing.
    unsafe { register_of_this(ISACTIVER).read_volatile() >> (intid % 32) & 1 != 0 }
}

/// Returns where a register of this CPU's redistributor is. (They are in the order of the CPUs on
/// the virt machine.)
fn register_of_this(offset: usize) -> *mut u32 {
    let frames = REDISTRIBUTORS.load(Relaxed) + Bare::current_cpu().0 as usize % CPUS * FRAMES;
    core::ptr::with_exposed_provenance_mut(frames + offset)
}
