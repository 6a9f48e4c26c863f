//! A vCPU: the task that runs it.

use alloc::boxed::Box;

use doorbell_gic::icv::{self, Access, Direction, Register};
use doorbell_gic::{CpuInterface, ListRegisters, SgiRegister};
use doorbell_platform::{IrqGuard, OnceCell, Platform};

use crate::bare::Bare;
use crate::cpu::CPUS;
use crate::entry::{self, Frame, guest_enter};
use crate::ich::{self, Ich};
use crate::irq::{self, Handled};
use crate::psci::{self, Call};
use crate::stage2;
use crate::sysreg::{isb, read_sysreg, write_sysreg};
use crate::trap::{Memory, Trap};
use crate::vm::{FIRST, Vm};
use crate::{id_registers, scheduler};

/// HCR_EL2 while a guest runs: stage 2, interrupts to EL2 and virtual ones to the guest, what
/// broadcasts is inner shareable, and traps for WFI, SMC and the identification registers; PAuth is
/// the guest's.
const HCR: u64 = 1 << 0 // VM
    | 1 << 1 // SWIO
    | 1 << 3 | 1 << 4 | 1 << 5 // FMO, IMO, AMO
    | 1 << 9 | 1 << 10 // FB, BSU
    | 1 << 13 // TWI
    | 1 << 18 // TID3
    | 1 << 19 // TSC
    | 1 << 31 // RW
    | 1 << 40 | 1 << 41; // APK, API
/// CPTR_EL2: the bits that are RES1; of these, TZ traps SVE. FP is the guest's.
const CPTR: u64 = 0x33ff;
/// CNTHCTL_EL2: the guest reads the physical counter; its timer traps.
const CNTHCTL: u64 = 1 << 0;
/// SCTLR_EL1 after a reset: the bits that are RES1.
const SCTLR_EL1: u64 = 0x30d0_0800;
/// PSTATE at the start: EL1h, everything masked.
const PSTATE: u64 = 0x3c5;
/// Of VBAR_EL1, the vector of a synchronous exception from EL1h.
const VECTOR_EL1H: u64 = 0x200;

/// A vCPU, of the task that runs it.
pub struct Vcpu {
    vm: &'static Vm,
    frame: Frame,
    interface: CpuInterface,
}

/// Sets up what all vCPUs need: the interrupts of guests. On the first CPU, before a vCPU runs.
pub fn init() {
    // What interrupts a guest has made it leave, and that is all.
    irq::handle(irq::KICK.0.into(), || Handled::Done);
    irq::handle(irq::MAINTENANCE, || {
        // It is a level, and nothing else lowers it before the next entry, which writes this
        // anyway.
        Ich.set_hcr(0);
        Handled::Done
    });
    irq::handle(irq::VIRTUAL_TIMER, timer);
}

/// The VM whose vCPU each CPU has the registers of.
static LOADED: [OnceCell<Bare, &'static Vm>; CPUS] = [const { OnceCell::new() }; CPUS];

/// Returns that of this CPU. With interrupts off.
fn loaded_here() -> &'static OnceCell<Bare, &'static Vm> {
    &LOADED[Bare::current_cpu().0 as usize % CPUS]
}

/// Handles the virtual timer: passes it to the vCPU that is loaded here.
fn timer() -> Handled {
    match loaded_here().get() {
        Some(vm) => {
            vm.set_timer(FIRST, true);
            Handled::Passed
        }
        None => Handled::Done,
    }
}

impl Vcpu {
    /// Returns the first vCPU of a VM, as after a reset. By the task that is to run it.
    ///
    /// # Errors
    /// Says in a line what is wrong.
    pub fn new(vm: &'static Vm) -> Result<Self, &'static str> {
        let interface = vm.gic.cpu_interface(FIRST).map_err(|_| "the vCPU runs already")?;
        vm.runs(FIRST, Bare::current_task());
        let (pc, device_tree) = vm.begin;
        let mut frame = Frame { x: [0; 31], pc, pstate: PSTATE };
        frame.x[0] = device_tree;
        Ok(Vcpu { vm, frame, interface })
    }

    /// Runs the guest until its VM is off. By its task, on a CPU that runs no other vCPU.
    pub fn run(&mut self) {
        self.load();
        while !self.vm.is_off() {
            if let Some(trap) = self.enter() {
                self.handle(trap);
            }
            scheduler::preempt_point();
        }
        // SAFETY: no guest runs here any more.
        unsafe { write_sysreg!("cntv_ctl_el0", 0) };
    }

    /// Runs the guest until it leaves. Returns why, if its vCPU has to do something about it.
    fn enter(&mut self) -> Option<Trap> {
        let mut host = self.vm;
        let irqs_off = IrqGuard::<Bare>::new();
        let cpu = Bare::current_cpu();
        let in_guest = self.interface.enter(&self.vm.gic, &irqs_off, cpu, &mut Ich, &mut host).ok()?;
        // SAFETY: interrupts are off, and this vCPU is loaded here.
        let why = unsafe { guest_enter(&mut self.frame) };
        if self.interface.exit(&self.vm.gic, in_guest, &mut Ich, &mut host) {
            // Before the next interrupt is handled, which may be the same level again. (Nobody who
            // hears of it here sleeps.)
            self.interface.tell_ended(&mut host);
        }
        self.sample_timer();
        match why {
            entry::SYNCHRONOUS => {
                let [esr, far, hpfar] = [read_sysreg!("esr_el2"), read_sysreg!("far_el2"), read_sysreg!("hpfar_el2")];
                Some(Trap::from_syndrome(esr, far, hpfar))
            }
            entry::INTERRUPT => {
                irq::dispatch();
                None
            }
            other => panic!("a guest was left by vector {other}"),
        }
    }

    /// Takes the timer's interrupt back if the timer does not give it any more, and the guest has
    /// not acknowledged it. With interrupts off.
    fn sample_timer(&self) {
        const ASSERTED: u64 = 0b101;
        let Some(line) = self.vm.timer(FIRST) else { return };
        let state = line.state();
        if state.sources() == 0 || state.is_active() || read_sysreg!("cntv_ctl_el0") & 0b111 == ASSERTED {
            return;
        }
        self.vm.set_timer(FIRST, false);
        irq::deactivate(irq::VIRTUAL_TIMER);
    }

    fn handle(&mut self, trap: Trap) {
        match trap {
            Trap::Wait => {
                self.skip();
                self.wait();
            }
            Trap::Hvc => self.call(),
            // As where there is no EL3.
            Trap::Smc => self.undefined(),
            Trap::SystemRegister(iss) => self.system_register(iss),
            Trap::Memory(access) => self.memory(access),
            Trap::Other => self.vm.power_off(format_args!(
                "its vCPU has left by an exception, ESR {:#x}, FAR {:#x}, PC {:#x}",
                read_sysreg!("esr_el2"),
                read_sysreg!("far_el2"),
                self.frame.pc
            )),
        }
    }

    /// Goes on after the instruction that has trapped.
    fn skip(&mut self) {
        self.frame.pc += 4;
    }

    /// Waits for an interrupt.
    fn wait(&mut self) {
        let mut host = self.vm;
        if self.interface.signals(&self.vm.gic, &Ich, &mut host) {
            return;
        }
        if let Ok(redistributor) = self.vm.gic.redistributor(FIRST)
            && let Ok(blocked) = redistributor.news().block()
        {
            blocked.wait();
        }
    }

    fn call(&mut self) {
        self.frame.x[0] = match Call::from_registers(self.frame.x[0], self.frame.x[1]) {
            Call::Version => psci::VERSION,
            Call::Features(function) => psci::features(function),
            Call::SystemOff => return self.vm.power_off(format_args!("SYSTEM_OFF")),
            Call::SystemReset => return self.vm.power_off(format_args!("SYSTEM_RESET")),
            Call::CpuOff => return self.vm.power_off(format_args!("CPU_OFF of its last vCPU")),
            Call::CpuSuspend => {
                self.wait();
                0
            }
            Call::Unknown => psci::NOT_SUPPORTED,
        };
    }

    fn memory(&mut self, access: Memory) {
        let value = access.truncate(self.register(access.register));
        match self.vm.access(&access, value) {
            Some(read) => {
                if !access.write {
                    self.set_register(access.register, access.extend(read));
                }
                self.skip();
            }
            None => self.vm.power_off(format_args!("nothing is at {:#x}, PC {:#x}", access.address, self.frame.pc)),
        }
    }

    fn system_register(&mut self, iss: u32) {
        let rt = (iss >> 5 & 31) as u8;
        if let Some(access) = Access::from_iss(iss) {
            self.interface_register(access);
        } else if let Some(value) = id_registers::read(iss) {
            self.set_register(rt, value);
        } else {
            return self.undefined();
        }
        self.skip();
    }

    fn interface_register(&mut self, access: Access) {
        let (gic, mut host, vtr) = (&self.vm.gic, self.vm, ich::vtr());
        let value = self.register(access.rt);
        let sgi = |register| {
            // There is this vCPU.
            let _ = gic.generate_sgi(FIRST, register, value, &mut &*self.vm);
        };
        match (access.register, access.direction) {
            (Register::Sgi1r, _) => sgi(SgiRegister::Sgi1R),
            (Register::Asgi1r, _) => sgi(SgiRegister::Asgi1R),
            (Register::Sgi0r, _) => sgi(SgiRegister::Sgi0R),
            (Register::Dir, _) => {
                if let Some(id) = icv::write_dir(&Ich, vtr, value) {
                    let _ = self.interface.deactivate(gic, id, &Ich, &mut host).wait(&mut host);
                }
            }
            (Register::Pmr, Direction::Write) => icv::write_pmr(&mut Ich, vtr, value),
            (Register::Ctlr, Direction::Write) => icv::write_ctlr(&mut Ich, value),
            (Register::Pmr, Direction::Read) => self.set_register(access.rt, icv::read_pmr(&Ich)),
            (Register::Ctlr, Direction::Read) => self.set_register(access.rt, icv::read_ctlr(&Ich, vtr)),
            (Register::Rpr, _) => self.set_register(access.rt, icv::read_rpr(&Ich, vtr)),
        }
    }

    /// Makes the instruction UNDEFINED: the guest takes an exception to EL1 (Arm DDI 0487,
    /// AArch64.TakeException).
    fn undefined(&mut self) {
        let (mode, stack) = (self.frame.pstate >> 2 & 3, self.frame.pstate & 1);
        let offset = match (mode, stack) {
            (1, 0) => VECTOR_EL1H - 0x200,
            (1, _) => VECTOR_EL1H,
            _ => VECTOR_EL1H + 0x200,
        };
        // SAFETY: the registers are the guest's.
        unsafe {
            write_sysreg!("elr_el1", self.frame.pc);
            write_sysreg!("spsr_el1", self.frame.pstate);
            write_sysreg!("esr_el1", 1 << 25);
        }
        self.frame.pc = read_sysreg!("vbar_el1") + offset;
        self.frame.pstate = PSTATE;
    }

    fn register(&self, number: u8) -> u64 {
        self.frame.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    fn set_register(&mut self, number: u8, value: u64) {
        if let Some(register) = self.frame.x.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// Gives the CPU the registers of this vCPU, as after a reset.
    fn load(&mut self) {
        let irqs_off = IrqGuard::<Bare>::new();
        ich::reset();
        let (now, midr) = (read_sysreg!("cntpct_el0"), read_sysreg!("midr_el1"));
        // SAFETY: no guest runs here, and stage 2 holds RAM of this VM only.
        unsafe {
            write_sysreg!("vtcr_el2", stage2::VTCR);
            write_sysreg!("vttbr_el2", self.vm.vttbr());
            write_sysreg!("hcr_el2", HCR);
            write_sysreg!("cptr_el2", CPTR);
            write_sysreg!("hstr_el2", 0);
            write_sysreg!("cnthctl_el2", CNTHCTL);
            write_sysreg!("cntvoff_el2", now);
            write_sysreg!("cntv_ctl_el0", 0);
            write_sysreg!("vpidr_el2", midr);
            write_sysreg!("vmpidr_el2", 1 << 31);
            write_sysreg!("sctlr_el1", SCTLR_EL1);
            write_sysreg!("cpacr_el1", 0);
            isb();
            core::arch::asm!("tlbi vmalls12e1", "dsb nsh", "isb", options(nostack));
        }
        let _ = loaded_here().set(Box::new(self.vm));
        irq::enable(irq::MAINTENANCE);
        irq::enable(irq::VIRTUAL_TIMER);
        if let Some(line) = self.vm.timer(FIRST) {
            line.set_physical(doorbell_gic::PhysicalIntId::new(irq::VIRTUAL_TIMER));
        }
        let mut host = self.vm;
        self.interface.load(&self.vm.gic, |_, _| ());
        self.interface.power_on(&self.vm.gic, &Ich, &mut host);
        drop(irqs_off);
    }
}
