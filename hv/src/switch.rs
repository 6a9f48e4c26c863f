//! The registers of a vCPU that a CPU keeps while its task runs: what EL1 and EL0 have, FP, PAuth,
//! the virtual timer and the virtual CPU interface.
//!
//! They stay on the CPU, also while it idles or runs other tasks, until another vCPU needs it or
//! the vCPU goes elsewhere. General registers are not among them: they change hands at each exit.

use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_platform::{IrqGuard, Lock, LockClass, WaitType};

use crate::bare::Bare;
use crate::cpu::{Cpu, NONE};
use crate::ich::{self, Saved};
use crate::irq;
use crate::run_queue::RunQueue;
use crate::stage2;
use crate::sysreg::{isb, read_sysreg, write_sysreg};
use crate::task::Task;
use crate::time;
use crate::timer::Timer;

/// HCR_EL2 while a guest runs: stage 2, interrupts to EL2 and virtual ones to the guest, what
/// broadcasts is inner shareable, and traps for WFI, SMC, and registers that identify, are not
/// switched, or depend on the implementation; PAuth is the guest's.
const HCR: u64 = 1 << 0 // VM
    | 1 << 1 // SWIO
    | 1 << 3 | 1 << 4 | 1 << 5 // FMO, IMO, AMO
    | 1 << 9 | 1 << 10 // FB, BSU
    | 1 << 13 // TWI
    | 1 << 18 // TID3
    | 1 << 19 // TSC
    | 1 << 20 | 1 << 21 // TIDCP, TACR
    | 1 << 31 // RW
    | 1 << 35 // TLOR
    | 1 << 40 | 1 << 41; // APK, API
/// CPTR_EL2: the bits that are RES1, of which TZ traps SVE, and TTA and TAM. FP is the guest's.
const CPTR: u64 = 0x33ff | 1 << 20 | 1 << 30;
/// MDCR_EL2: traps for debug registers (TDA, TDOSA, TDRA), PMU, SPE and trace.
const MDCR: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 19;
/// CNTHCTL_EL2: the guest reads the physical counter; its timer traps.
const CNTHCTL: u64 = 1 << 0;
/// SCTLR_EL1 after a reset: the bits that are RES1.
const SCTLR_EL1: u64 = 0x30d0_0800;

/// Makes a structure of registers that are saved and restored, and no more.
macro_rules! registers {
    ($(#[$doc:meta])* $all:ident: $($field:ident $name:literal)*) => {
        $(#[$doc])*
        #[derive(Clone)]
        struct $all { $($field: u64),* }

        impl $all {
            const ZERO: $all = $all { $($field: 0),* };

            fn save(&mut self) {
                $(self.$field = read_sysreg!($name);)*
            }

            /// # Safety
            /// No guest runs on this CPU.
            unsafe fn restore(&self) {
                // SAFETY: they concern guests alone.
                unsafe { $(write_sysreg!($name, self.$field);)* }
            }
        }
    };
}

registers! {
    /// What says where the guest's memory is, and what EL1 and EL0 have.
    System:
    vttbr "vttbr_el2" vmpidr "vmpidr_el2" cntvoff "cntvoff_el2"
    sctlr "sctlr_el1" cpacr "cpacr_el1" tcr "tcr_el1" ttbr0 "ttbr0_el1" ttbr1 "ttbr1_el1" mair "mair_el1"
    amair "amair_el1" vbar "vbar_el1" contextidr "contextidr_el1" par "par_el1" csselr "csselr_el1"
    elr "elr_el1" spsr "spsr_el1" esr "esr_el1" far "far_el1" afsr0 "afsr0_el1" afsr1 "afsr1_el1"
    sp_el0 "sp_el0" sp_el1 "sp_el1" tpidr_el0 "tpidr_el0" tpidrro_el0 "tpidrro_el0" tpidr_el1 "tpidr_el1"
    mdscr "mdscr_el1" cntkctl "cntkctl_el1" cntv_cval "cntv_cval_el0" cntv_ctl "cntv_ctl_el0"
}

registers! {
    /// The keys of PAuth, by their encodings: the assembler knows the names of what it is told of.
    Keys:
    apia_low "s3_0_c2_c1_0" apia_high "s3_0_c2_c1_1" apib_low "s3_0_c2_c1_2" apib_high "s3_0_c2_c1_3"
    apda_low "s3_0_c2_c2_0" apda_high "s3_0_c2_c2_1" apdb_low "s3_0_c2_c2_2" apdb_high "s3_0_c2_c2_3"
    apga_low "s3_0_c2_c3_0" apga_high "s3_0_c2_c3_1"
}

/// Returns whether the CPU has PAuth: APA, API, GPA and GPI of ID_AA64ISAR1_EL1, and GPA3 and APA3
/// of ID_AA64ISAR2_EL1, by its encoding.
fn has_pauth() -> bool {
    read_sysreg!("id_aa64isar1_el1") & 0xff00_0ff0 != 0
        || read_sysreg!("s3_0_c0_c6_2") & 0xff00 != 0
}

/// Q0 to Q31, FPSR and FPCR. The order is that of the assembly.
#[derive(Clone)]
#[repr(C, align(16))]
struct Fp([u64; 66]);

unsafe extern "C" {
    /// # Safety
    /// None: the registers are the guest's.
    fn fp_save(to: &mut Fp);
    /// # Safety
    /// The registers are the guest's; EL2 uses none.
    fn fp_restore(from: &Fp);
}

global_asm!(
    ".pushsection .text.fp, \"ax\"",
    ".arch_extension fp",
    ".arch_extension simd",
    ".global fp_save",
    "fp_save:",
    "   stp q0, q1, [x0], #32",
    "   stp q2, q3, [x0], #32",
    "   stp q4, q5, [x0], #32",
    "   stp q6, q7, [x0], #32",
    "   stp q8, q9, [x0], #32",
    "   stp q10, q11, [x0], #32",
    "   stp q12, q13, [x0], #32",
    "   stp q14, q15, [x0], #32",
    "   stp q16, q17, [x0], #32",
    "   stp q18, q19, [x0], #32",
    "   stp q20, q21, [x0], #32",
    "   stp q22, q23, [x0], #32",
    "   stp q24, q25, [x0], #32",
    "   stp q26, q27, [x0], #32",
    "   stp q28, q29, [x0], #32",
    "   stp q30, q31, [x0], #32",
    "   mrs x1, fpsr",
    "   mrs x2, fpcr",
    "   stp x1, x2, [x0]",
    "   ret",
    ".global fp_restore",
    "fp_restore:",
    "   ldp q0, q1, [x0], #32",
    "   ldp q2, q3, [x0], #32",
    "   ldp q4, q5, [x0], #32",
    "   ldp q6, q7, [x0], #32",
    "   ldp q8, q9, [x0], #32",
    "   ldp q10, q11, [x0], #32",
    "   ldp q12, q13, [x0], #32",
    "   ldp q14, q15, [x0], #32",
    "   ldp q16, q17, [x0], #32",
    "   ldp q18, q19, [x0], #32",
    "   ldp q20, q21, [x0], #32",
    "   ldp q22, q23, [x0], #32",
    "   ldp q24, q25, [x0], #32",
    "   ldp q26, q27, [x0], #32",
    "   ldp q28, q29, [x0], #32",
    "   ldp q30, q31, [x0], #32",
    "   ldp x1, x2, [x0]",
    "   msr fpsr, x1",
    "   msr fpcr, x2",
    "   ret",
    ".popsection",
);

/// What is saved of a vCPU.
#[derive(Clone)]
struct Registers {
    system: System,
    fp: Fp,
    keys: Keys,
    interface: Saved,
}

static CLASS: LockClass = LockClass::new("hv.registers", WaitType::Spin).leaf();
/// Those of the vCPU that each task runs.
static SAVED: [Lock<Bare, Registers>; RunQueue::TASKS] = [const {
    let (system, fp, interface) = (System::ZERO, Fp([0; 66]), Saved::RESET);
    Lock::constant(&CLASS, Registers { system, fp, keys: Keys::ZERO, interface })
}; RunQueue::TASKS];

/// Makes the registers of the current task's vCPU what they are after a reset, wherever they are.
/// By that task.
pub(crate) fn reset(vttbr: u64, mpidr: u64, cntvoff: u64) {
    put(&IrqGuard::new());
    let system =
        System { vttbr, vmpidr: 1 << 31 | mpidr, cntvoff, sctlr: SCTLR_EL1, ..System::ZERO };
    let new = Registers { system, fp: Fp([0; 66]), keys: Keys::ZERO, interface: Saved::RESET };
    *SAVED[Task::current().number() % RunQueue::TASKS].lock_irqsave() = new;
}

/// Gives this CPU the registers of the current task's vCPU, unless it has them. Returns whether it
/// had not. By that task.
#[must_use = "what else depends on the CPU has to come, too"]
pub(crate) fn load(_irqs_off: &IrqGuard<Bare>) -> bool {
    let (cpu, task) = (Cpu::this(), Task::current());
    let before = cpu.loaded.load(Relaxed);
    if before == task.number() {
        return false;
    }
    if before != NONE {
        // A vCPU that is preempted or blocked on this CPU.
        save(Task::of(before));
    }
    cpu.loaded.store(task.number(), Relaxed);
    let registers = SAVED[task.number() % RunQueue::TASKS].lock();
    let (mdcr, midr) = (MDCR | read_sysreg!("mdcr_el2") & 0x1f, read_sysreg!("midr_el1"));
    // SAFETY: no guest runs on this CPU, and stage 2 holds RAM of the VM alone.
    unsafe {
        write_sysreg!("vtcr_el2", stage2::VTCR);
        write_sysreg!("hcr_el2", HCR);
        write_sysreg!("cptr_el2", CPTR);
        write_sysreg!("mdcr_el2", mdcr);
        write_sysreg!("hstr_el2", 0);
        write_sysreg!("cnthctl_el2", CNTHCTL);
        write_sysreg!("vpidr_el2", midr);
        registers.system.restore();
        fp_restore(&registers.fp);
        if has_pauth() {
            registers.keys.restore();
        }
        registers.interface.restore();
        isb();
        // Another vCPU of the VM may have used the same ASIDs for other mappings here.
        core::arch::asm!("tlbi vmalle1", "dsb nsh", "isb", options(nostack));
    }
    true
}

/// Takes the registers of the current task's vCPU off this CPU, if it has them: then the vCPU may
/// go elsewhere. By that task.
pub(crate) fn put(_irqs_off: &IrqGuard<Bare>) {
    let (cpu, task) = (Cpu::this(), Task::current());
    if cpu.loaded.load(Relaxed) == task.number() {
        save(task);
        cpu.loaded.store(NONE, Relaxed);
    }
    time::set_deadline(task, None);
}

/// Saves what this CPU has of the vCPU of a task of this CPU, whose virtual timer wakes that task
/// from now on. With interrupts off.
fn save(task: &Task) {
    let mut registers = SAVED[task.number() % RunQueue::TASKS].lock();
    registers.system.save();
    // SAFETY: the registers are a guest's.
    unsafe { fp_save(&mut registers.fp) };
    if has_pauth() {
        registers.keys.save();
    }
    registers.interface = ich::save();
    let timer = Timer::new(registers.system.cntv_ctl, registers.system.cntv_cval);
    // If its interrupt is active, the guest has it, or is about to be told.
    if let Some(due) = timer.due().filter(|_| !irq::is_active(irq::VIRTUAL_TIMER)) {
        time::bring_deadline_forward(task, due.saturating_add(registers.system.cntvoff));
    }
    // SAFETY: no guest runs on this CPU.
    unsafe { write_sysreg!("cntv_ctl_el0", 0) };
    isb();
}
