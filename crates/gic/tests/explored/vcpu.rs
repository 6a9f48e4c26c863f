//! A vCPU: the task that runs it, and what its guest does.

use std::sync::Arc;

use doorbell_explore::sim::fail;
use doorbell_explore::{Machine, Sim};
use doorbell_gic::{Access, CpuInterface, Group, IntId, ListRegisters};
use doorbell_hardware::gic::spec::{self as hw, ListRegister};
use doorbell_hardware::gic::{Physical, VirtualInterface};
use doorbell_platform::{CpuId, IrqGuard};

use crate::machine::{
    EDGE, ENABLE_LPIS, GICR_CTLR, Hears, LEVEL, LPIS, SPIS, Vm, implementation, vcpu,
};

/// ICH_VMCR_EL2: no priority is masked, and both groups are enabled; and EOImode 1.
const VMCR: u64 = 0xf8 << 24 | 0b11;
const EOI_MODE: u64 = 1 << 9;

/// The registers of the CPU: what is written to a list register is in it until it is read.
pub struct Registers {
    icv: VirtualInterface,
    number: usize,
    vm: Arc<Vm>,
}

impl ListRegisters for Registers {
    fn vmcr(&self) -> u64 {
        self.icv.vmcr()
    }

    fn set_vmcr(&mut self, value: u64) {
        self.icv.set_vmcr(value);
    }

    fn hcr(&self) -> u64 {
        self.icv.hcr()
    }

    fn set_hcr(&mut self, value: u64) {
        self.icv.set_hcr(value);
    }

    fn list_register(&self, number: usize) -> u64 {
        let lr = self.icv.lr(number).expect("it is there");
        self.vm.unlists(lr.intid().number());
        lr.bits()
    }

    fn set_list_register(&mut self, number: usize, value: u64) {
        let lr = ListRegister::from_bits(value);
        if lr.state() != hw::State::Inactive {
            let pending = lr.state() != hw::State::Active;
            self.vm.lists(self.number, lr.intid().number(), pending);
        }
        self.icv.set_lr(number, lr).expect("it is there");
    }

    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        let group = [hw::Group::Zero, hw::Group::One][group as usize];
        self.icv.active_priorities(group, number).expect("it is there")
    }
}

/// What the guest's handler does beside.
type Handler = Box<dyn FnOnce(&Vm)>;

/// Why the guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// A kick or a maintenance interrupt has come.
    Interrupted,
    /// The guest has nothing to do.
    Halted,
    /// Nothing more can happen.
    Over,
}

/// What a guest does that has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// The vCPU stays in the guest.
    Waits,
    /// The guest halts, which is an exit.
    Halts,
}

/// A vCPU, as its task has it.
pub struct Vcpu {
    pub vm: Arc<Vm>,
    pub number: usize,
    interface: CpuInterface,
    registers: Registers,
    /// What the guest has acknowledged and not ended.
    unended: Option<hw::IntId>,
    /// The guest has acknowledged something since this was last cleared.
    handled: bool,
    /// The moment for which the guest waits in its next run.
    waits_for: Option<usize>,
    /// The guest leaves in the middle of the next handler.
    pub leaves_in_handler: bool,
    /// What is to be done in the handler of the edge, the first time.
    pub in_handler: Option<Handler>,
}

impl Vcpu {
    /// The guest does nothing in its next run until a moment has come.
    pub fn waits_in_guest(&mut self, moment: usize) {
        self.waits_for = Some(moment);
    }

    /// Returns one that has looked at what the set-up has told it.
    pub fn new(vm: &Arc<Vm>, number: usize) -> Self {
        let mut icv = VirtualInterface::new(implementation(vm.list_registers));
        icv.set_vmcr(VMCR);
        let registers = Registers { icv, number, vm: Arc::clone(vm) };
        let mut interface = vm.gic.cpu_interface(vcpu(number)).expect("nobody has it");
        for _ in 0..2 {
            let _ = interface.signals(&vm.gic, &registers, &mut Hears(vm));
        }
        Vcpu {
            vm: Arc::clone(vm),
            number,
            interface,
            registers,
            unended: None,
            handled: false,
            waits_for: None,
            leaves_in_handler: false,
            in_handler: None,
        }
    }

    /// Sets the EOI mode to 1.
    pub fn drops_and_deactivates(&mut self) {
        self.registers.icv.set_vmcr(VMCR | EOI_MODE);
    }

    /// Masks all priorities, or none.
    pub fn masks(&mut self, masks: bool) {
        let mask = if masks { 0 } else { 0xf8 << 24 };
        self.registers.icv.set_vmcr(self.registers.icv.vmcr() & !(0xff << 24) | mask);
    }

    /// Enables group 1 in the CPU interface, or disables it.
    pub fn set_group_enabled(&mut self, enabled: bool) {
        self.registers.icv.set_vmcr(if enabled { VMCR } else { VMCR & !0b10 });
    }

    /// Runs the guest once.
    pub fn run(&mut self, idle: Idle) -> Left {
        let vm = Arc::clone(&self.vm);
        let cpu = &vm.cpus[self.number];
        let irqs_off = IrqGuard::<Sim>::new();
        cpu.irqs_off();
        let on = CpuId(self.number as u32);
        let in_guest =
            self.interface.enter(&vm.gic, &irqs_off, on, &mut self.registers, &mut Hears(&vm));
        let in_guest = in_guest.expect("nothing is requested");
        let left = cpu.enter(false, || self.guest(idle));
        cpu.leave();
        let levels = self.interface.exit(&vm.gic, in_guest, &mut self.registers, &mut Hears(&vm));
        cpu.irqs_on();
        if levels {
            self.interface.tell_ended(&mut Hears(&vm));
        }
        left
    }

    /// The guest handles what it gets. It may have to leave in the middle of a handler.
    fn guest(&mut self, idle: Idle) -> Left {
        if let Some(moment) = self.waits_for.take() {
            self.vm.waits(moment);
            if self.vm.cpus[self.number].is_kicked() {
                return Left::Interrupted;
            }
        }
        loop {
            if let Some(id) = self.unended.take() {
                let ended =
                    self.registers.icv.write_eoir(hw::Group::One, id).expect("it is not trapped");
                if let Physical::Deactivated(id) = ended {
                    self.vm.deactivates(id.number().into());
                }
            }
            if self.registers.icv.maintenance() {
                return Left::Interrupted;
            }
            let id = self.registers.icv.read_iar(hw::Group::One).expect("it is not trapped");
            let cpu = &self.vm.cpus[self.number];
            if id == hw::IntId::SPURIOUS {
                return match idle {
                    Idle::Halts => Left::Halted,
                    Idle::Waits if cpu.hear().is_ok() => Left::Interrupted,
                    Idle::Waits => {
                        self.has_nothing_else();
                        Left::Over
                    }
                };
            }
            self.vm.acknowledges(self.number, id.number());
            (self.unended, self.handled) = (Some(id), true);
            if id.number() == LEVEL.number() {
                self.vm.serve();
            } else if [EDGE, LPIS[0]].iter().any(|of| of.number() == id.number())
                && let Some(does) = self.in_handler.take()
            {
                does(&self.vm);
            }
            let leaves = std::mem::take(&mut self.leaves_in_handler);
            if leaves || self.vm.cpus[self.number].is_kicked() {
                return Left::Interrupted;
            }
        }
    }

    /// Checks that what is left pending in the list register is this vCPU's to signal, for all that
    /// was written: nobody has forgotten to recall it.
    fn has_nothing_else(&self) {
        let lr = self.registers.icv.lr(0).expect("it is there");
        let id = SPIS.into_iter().chain(LPIS).find(|id| id.number() == lr.intid().number());
        let Some(id) =
            id.filter(|_| matches!(lr.state(), hw::State::Pending | hw::State::PendingAndActive))
        else {
            return;
        };
        let state = self.vm.state(id);
        let forwarded =
            !id.is_lpi() || self.vm.read_redistributor(self.number, GICR_CTLR) & ENABLE_LPIS != 0;
        if !(state.is_enabled()
            && forwarded
            && state.holder() == Some(vcpu(self.number))
            && self.vm.is_group_enabled())
        {
            fail(format!("the list register still has INTID {} pending: {state:?}", id.number()));
        }
    }

    /// Runs the guest until nothing more can happen.
    pub fn stays(&mut self) {
        while self.run(Idle::Waits) != Left::Over {}
    }

    /// Runs the guest, and sleeps whenever it has nothing to do, until nothing more can happen.
    pub fn runs_and_sleeps(&mut self) {
        loop {
            self.handled = false;
            let left = self.run(Idle::Halts);
            // What was handled may be pending again by the end of the run. What was not is in the
            // news, or may not be signalled.
            let idle = left == Left::Halted && !self.handled;
            if idle && self.sleeps() == Left::Over {
                return;
            }
        }
    }

    /// Runs the guest until it has nothing to do.
    pub fn runs_until_it_halts(&mut self) {
        while self.run(Idle::Halts) != Left::Halted {}
    }

    /// Sleeps, unless there is news.
    fn sleeps(&self) -> Left {
        let redistributor = self.vm.gic.redistributor(vcpu(self.number)).expect("it is there");
        let Ok(blocked) = redistributor.news().block() else { return Left::Interrupted };
        while blocked.asleep() {
            if self.vm.woken[self.number].serve(|woken| *woken, |woken| *woken = false).is_err() {
                return Left::Over;
            }
        }
        Left::Interrupted
    }

    /// Is switched away from, and runs again.
    pub fn is_preempted(&self) {
        let redistributor = self.vm.gic.redistributor(vcpu(self.number)).expect("it is there");
        redistributor.news().run_state().preempted();
        redistributor.news().run_state().resumed();
    }

    /// Powers the vCPU off.
    pub fn power_off(&mut self) {
        self.interface.power_off(&self.vm.gic, &mut Hears(&self.vm));
    }

    /// Powers the vCPU on.
    pub fn power_on(&mut self) {
        self.interface.power_on(&self.vm.gic, &self.registers, &mut Hears(&self.vm));
    }

    /// Deactivates an SPI, by a write of DIR that was trapped.
    pub fn deactivates(&mut self, id: IntId) {
        let vm = Arc::clone(&self.vm);
        let access: Access<'_, Sim> =
            self.interface.deactivate(&vm.gic, id, &self.registers, &mut Hears(&vm));
        let _ = access.wait(&mut Hears(&vm));
    }
}

/// Sets up the task of a vCPU, on a CPU of its own.
pub fn runs(m: &Machine, vm: &Arc<Vm>, number: usize, run: impl FnOnce(Vcpu) + 'static) {
    let vcpu = Vcpu::new(vm, number);
    m.task_on(CpuId(number as u32), format!("vCPU {number}"), move || run(vcpu));
}

/// Sets up the tasks of all vCPUs, which stay in the guest.
pub fn all_stay(m: &Machine, vm: &Arc<Vm>) {
    for number in 0..vm.gic.vcpus() {
        runs(m, vm, number, |mut vcpu| vcpu.stays());
    }
}
