//! What a vCPU does about the exits of its guest.

use core::ops::ControlFlow;

use doorbell_gic::icv::{self, Access, Direction};
use doorbell_gic::{Affinity, SgiRegister};

use crate::cpu::Cpu;
use crate::ich::{self, Ich};
use crate::psci::{self, Call};
use crate::registers::{self, Register};
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::trap::{Memory, Trap};
use crate::vcpu::Vcpu;
use crate::vm::End;
use crate::{id_registers, time};

impl Vcpu {
    /// Does what an exit asks for. By its task, with the vCPU loaded since the exit. Breaks if the
    /// vCPU does not go on.
    #[inline(always)]
    pub(crate) fn handle(&mut self, trap: Trap) -> ControlFlow<()> {
        match trap {
            Trap::Wait => {
                self.skip();
                self.wait();
            }
            Trap::Hvc => return self.call(),
            // SMC as where there is no EL3.
            Trap::Undefined | Trap::Smc => self.undefined(),
            Trap::SystemRegister(iss) => self.system_register(iss),
            Trap::Memory(access) => return self.memory(access),
            Trap::Other => {
                let (esr, far) = (read_sysreg!("esr_el2"), read_sysreg!("far_el2"));
                self.fails(format_args!("an exception, ESR {esr:#x}, FAR {far:#x}"));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Goes on after the instruction that has trapped.
    #[inline]
    fn skip(&mut self) {
        /// PSTATE.SS: a step of a debugger is done.
        const SS: u64 = 1 << 21;
        self.frame.pc += 4;
        self.frame.pstate &= !SS;
    }

    #[inline(always)]
    fn call(&mut self) -> ControlFlow<()> {
        let [x0, x1, x2, x3, ..] = self.frame.x;
        match Call::from_registers([x0, x1, x2, x3]) {
            Call::Unknown => {
                self.frame.x[0] = psci::NOT_SUPPORTED;
                ControlFlow::Continue(())
            }
            call => self.answer(call),
        }
    }

    #[inline(never)]
    fn answer(&mut self, call: Call) -> ControlFlow<()> {
        self.frame.x[0] = match call {
            Call::Version => psci::VERSION,
            Call::Features(function) => psci::features(function),
            Call::CpuOn { mpidr, start } => self.turn_on(mpidr, start),
            Call::AffinityInfo { mpidr, level } => self.info(mpidr, level),
            Call::SystemOff => {
                self.vm.stop(End::Off, format_args!("SYSTEM_OFF"));
                return ControlFlow::Break(());
            }
            Call::SystemReset => {
                self.vm.stop(End::Reset, format_args!("SYSTEM_RESET"));
                return ControlFlow::Break(());
            }
            Call::CpuOff => {
                self.turns_off();
                return ControlFlow::Break(());
            }
            Call::CpuSuspend => {
                self.wait();
                0
            }
            Call::Exits => Cpu::this().trace.count(),
            Call::Unknown => psci::NOT_SUPPORTED,
        };
        ControlFlow::Continue(())
    }

    #[cold]
    fn turn_on(&self, mpidr: u64, start: psci::Start) -> u64 {
        if !self.vm.has_ram(start.entry) {
            return psci::INVALID_ADDRESS;
        }
        let vcpu = self.vm.gic.vcpu_of(Affinity::from_mpidr(mpidr));
        vcpu.and_then(|vcpu| self.vm.turn_on(vcpu, start)).unwrap_or(psci::INVALID_PARAMETERS)
    }

    #[cold]
    fn info(&self, mpidr: u64, level: u64) -> u64 {
        let vcpu = self.vm.gic.vcpu_of(Affinity::from_mpidr(mpidr)).filter(|_| level == 0);
        vcpu.and_then(|vcpu| self.vm.power(vcpu))
            .map_or(psci::INVALID_PARAMETERS, |power| power.info())
    }

    #[inline(always)]
    fn memory(&mut self, access: Memory) -> ControlFlow<()> {
        let value = access.truncate(self.register(access.register()));
        let Some(read) = self.vm.access(self.id, &access, value) else {
            self.fails(format_args!("an access to {:#x}, where nothing is", access.address));
            return ControlFlow::Break(());
        };
        if !access.is_write() {
            self.set_register(access.register(), access.extend(read));
        }
        self.skip();
        ControlFlow::Continue(())
    }

    #[inline(never)]
    fn system_register(&mut self, iss: u32) {
        let (rt, read) = ((iss >> 5 & 31) as u8, iss & 1 != 0);
        if let Some(access) = Access::from_iss(iss) {
            self.interface_register(access);
        } else if let Some(value) = id_registers::read(iss) {
            self.set_register(rt, value);
        } else if let Some(register) = Register::from_iss(iss) {
            if read {
                let value = self.read(register);
                self.set_register(rt, value);
            } else {
                self.write(register, self.register(rt));
            }
        } else {
            return self.undefined();
        }
        self.skip();
    }

    fn read(&self, register: Register) -> u64 {
        match register {
            Register::PhysicalTimer(which) => which.read(&self.physical_timer, time::now()),
            Register::Mdscr => read_sysreg!("mdscr_el1"),
            Register::OsLockStatus => registers::OS_LOCK_STATUS,
            Register::Ignored => 0,
        }
    }

    fn write(&mut self, register: Register, value: u64) {
        match register {
            Register::PhysicalTimer(which) => {
                which.write(&mut self.physical_timer, time::now(), value);
                self.physical_timer_changes();
            }
            // SAFETY: it concerns EL1 and EL0, which are the guest's.
            Register::Mdscr => unsafe { write_sysreg!("mdscr_el1", value) },
            Register::OsLockStatus | Register::Ignored => {}
        }
    }

    fn interface_register(&mut self, access: Access) {
        let (vm, vcpu, vtr) = (&*self.vm, self.id, ich::vtr());
        let value = self.register(access.rt);
        let sgi = |register| {
            // There is this vCPU.
            let _ = vm.gic.generate_sgi(vcpu, register, value, &mut &*vm);
        };
        match (access.register, access.direction) {
            (icv::Register::Sgi1r, _) => sgi(SgiRegister::Sgi1R),
            (icv::Register::Asgi1r, _) => sgi(SgiRegister::Asgi1R),
            (icv::Register::Sgi0r, _) => sgi(SgiRegister::Sgi0R),
            (icv::Register::Dir, _) => {
                if let Some(id) = icv::write_dir(&Ich, vtr, value) {
                    let host = &mut &*vm;
                    let _ = self.interface.deactivate(&vm.gic, id, &Ich, host).wait(host);
                }
            }
            (icv::Register::Pmr, Direction::Write) => icv::write_pmr(&mut Ich, vtr, value),
            (icv::Register::Ctlr, Direction::Write) => icv::write_ctlr(&mut Ich, value),
            (icv::Register::Pmr, Direction::Read) => {
                self.set_register(access.rt, icv::read_pmr(&Ich))
            }
            (icv::Register::Ctlr, Direction::Read) => {
                self.set_register(access.rt, icv::read_ctlr(&Ich, vtr))
            }
            (icv::Register::Rpr, _) => self.set_register(access.rt, icv::read_rpr(&Ich, vtr)),
        }
    }
}
