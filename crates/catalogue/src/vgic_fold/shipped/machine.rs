//! A VM on Doorbell's GIC: three vCPUs, and two CPUs for them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use doorbell_explore::sim::{Model, fail, note};
use doorbell_explore::{Machine, Sim};
use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, CpuInterface, Ended, Frame, Gic, Group, Host, IntId, Kick, ListRegisters, State,
    VcpuId, Width,
};
use doorbell_hardware::cpu::Cpu;
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec::{self as hw, ListRegister};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::Notice;

/// An SPI of an edge.
pub(super) const EDGE: IntId = IntId::new(32).unwrap();
/// Another one.
pub(super) const OTHER: IntId = IntId::new(33).unwrap();
/// The SPI of a level.
pub(super) const LEVEL: IntId = IntId::new(34).unwrap();
const SPIS: [IntId; 3] = [EDGE, OTHER, LEVEL];

/// The number of vCPUs.
pub(super) const VCPUS: usize = 3;

const GICD_CTLR: u32 = 0x0000;
const ISENABLER: u32 = 0x0104;
pub(super) const ICENABLER: u32 = 0x0184;
pub(super) const ICPENDR: u32 = 0x0284;
const IPRIORITYR: u32 = 0x0400;
const ICFGR: u32 = 0x0c08;
const IROUTER: u32 = 0x6000;
pub(super) const WAKER: u32 = 0x0014;
pub(super) const PROCESSOR_SLEEP: u64 = 1 << 1;

/// Returns the bit of an SPI in a register that has one for each.
pub(super) fn bit(id: IntId) -> u64 {
    1 << (id.number() - 32)
}

fn vcpu(number: usize) -> VcpuId {
    VcpuId::new(number as u32).expect("it is small")
}

fn index(intid: u32) -> usize {
    intid as usize - 32
}

/// A VM.
pub(super) struct Vm {
    pub gic: Gic<Sim>,
    implementation: hw::Implementation,
    /// The CPUs: vCPU 1 has one of its own, the others share one.
    cpus: [Cpu; 2],
    /// The vCPU that has each SPI in a list register.
    listed: [Model<Option<usize>>; SPIS.len()],
    /// How often each SPI was acknowledged, and by which vCPU last.
    acknowledged: RefCell<[(u32, Option<usize>); SPIS.len()]>,
    /// How often its source was told that it has ended.
    pub told: Cell<u32>,
}

struct Hears<'a>(&'a Vm);

/// What somebody beside the vCPUs does.
type Other = fn(&Vm);

impl Kick for Hears<'_> {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        match notice {
            Notice::Kick(cpu) => self.0.cpus[cpu.0 as usize].kick(),
            other => fail(format!("vCPU {} gets {other:?}", vcpu.number())),
        }
    }
}

impl Host for Hears<'_> {
    fn ended(&mut self, ended: Ended) {
        if ended == Ended::Level(LEVEL) {
            note(|| "the source of the level is told".to_owned());
            self.0.told.set(self.0.told.get() + 1);
        } else {
            fail(format!("{ended:?}"));
        }
    }
}

impl Vm {
    /// Creates one whose guest has set everything up. The SPIs are routed to vCPU 0.
    pub(super) fn new(list_registers: u8) -> Rc<Vm> {
        let implementation = hw::Implementation::new(list_registers, 5, 5).expect("it is legal");
        let affinities: [_; VCPUS] = std::array::from_fn(|number| Affinity(number as u32));
        let vm = Vm {
            gic: Gic::new(Vtr::from_bits(implementation.vtr()), 32, &affinities)
                .expect("there can be such a GIC"),
            implementation,
            cpus: ["CPU0", "CPU1"].map(Cpu::new),
            listed: SPIS.map(|_| Model::new("list registers", None)),
            acknowledged: RefCell::default(),
            told: Cell::new(0),
        };
        vm.write(GICD_CTLR, 0b11);
        (0..VCPUS).for_each(|number| vm.write_redistributor(number, WAKER, 0));
        vm.write(ICFGR, 0b1010);
        vm.write(ISENABLER, SPIS.into_iter().map(bit).sum());
        Rc::new(vm)
    }

    pub(super) fn write(&self, offset: u32, value: u64) {
        let access =
            self.gic.write(Frame::Distributor, offset, Width::Word, value, &mut Hears(self));
        let _ = access.wait(&mut Hears(self));
    }

    pub(super) fn write_redistributor(&self, number: usize, offset: u32, value: u64) {
        let frame = Frame::Redistributor(vcpu(number));
        let _ = self
            .gic
            .write(frame, offset, Width::Word, value, &mut Hears(self))
            .wait(&mut Hears(self));
    }

    /// Routes an SPI to a vCPU.
    pub(super) fn route(&self, id: IntId, to: usize) {
        let offset = IROUTER + 8 * id.number();
        let access =
            self.gic.write(Frame::Distributor, offset, Width::Double, to as u64, &mut Hears(self));
        let _ = access.wait(&mut Hears(self));
    }

    /// Routes an SPI to any vCPU.
    pub(super) fn route_to_any(&self, id: IntId) {
        self.route(id, 1 << 31);
    }

    pub(super) fn inject(&self, id: IntId) {
        self.gic.spi(id).expect("it is there").edge(&mut Hears(self));
    }

    /// Writes the priority of an SPI.
    pub(super) fn set_priority(&self, id: IntId, priority: u64) {
        let offset = IPRIORITYR + id.number();
        let access =
            self.gic.write(Frame::Distributor, offset, Width::Byte, priority, &mut Hears(self));
        let _ = access.wait(&mut Hears(self));
    }

    /// Raises the level, or lowers it.
    pub(super) fn set_level(&self, high: bool) {
        self.gic.spi(LEVEL).expect("it is there").set_level(0, high, &mut Hears(self));
    }

    pub(super) fn state(&self, id: IntId) -> State {
        self.gic.spi(id).expect("it is there").state()
    }

    /// Returns how often an SPI was acknowledged, and by which vCPU last.
    pub(super) fn acknowledged(&self, id: IntId) -> (u32, Option<usize>) {
        self.acknowledged.borrow()[index(id.number())]
    }

    /// Sets the tasks of the vCPUs up, which each do something once, and those of others.
    pub(super) fn tasks(
        self: &Rc<Self>,
        m: &Machine,
        first: impl Fn(&mut Vcpu) + Copy + 'static,
        others: &[(&str, Other)],
    ) -> Vcpus {
        let vcpus: Vcpus =
            std::array::from_fn(|number| Rc::new(RefCell::new(Vcpu::new(self, number))));
        for (number, vcpu) in vcpus.iter().enumerate() {
            let vcpu = Rc::clone(vcpu);
            m.task(format!("vCPU {number}"), move || first(&mut vcpu.borrow_mut()));
        }
        for (name, act) in others {
            let (vm, act) = (Rc::clone(self), *act);
            m.task((*name).to_owned(), move || act(&vm));
        }
        vcpus
    }
}

/// The vCPUs, each as its task has it.
pub(super) type Vcpus = [Rc<RefCell<Vcpu>>; VCPUS];

/// The registers of a CPU while a vCPU is there.
struct Registers {
    icv: VirtualInterface,
    number: usize,
    vm: Rc<Vm>,
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
        self.vm.listed[index(lr.intid().number())].change(|listed| *listed = None);
        lr.bits()
    }

    fn set_list_register(&mut self, number: usize, value: u64) {
        let lr = ListRegister::from_bits(value);
        if lr.state() != hw::State::Inactive {
            let id = lr.intid().number();
            let before = self.vm.listed[index(id)].change(|listed| listed.replace(self.number));
            note(|| format!("INTID {id} goes into a list register of vCPU {}", self.number));
            if let Some(before) = before.filter(|before| *before != self.number) {
                fail(format!(
                    "INTID {id} is in list registers of vCPU {before} and of vCPU {}",
                    self.number
                ));
            }
        }
        self.icv.set_lr(number, lr).expect("it is there");
    }

    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        let group = [hw::Group::Zero, hw::Group::One][group as usize];
        self.icv.active_priorities(group, number).expect("it is there")
    }
}

/// A vCPU, as its task has it.
pub(super) struct Vcpu {
    pub vm: Rc<Vm>,
    pub number: usize,
    interface: CpuInterface,
    registers: Registers,
    /// What the guest has acknowledged and not ended.
    unended: Vec<hw::IntId>,
    leaves_in_handler: bool,
}

impl Vcpu {
    /// Returns one that has looked at what the set-up has told it.
    fn new(vm: &Rc<Vm>, number: usize) -> Vcpu {
        let mut icv = VirtualInterface::new(vm.implementation);
        icv.set_vmcr(0xf8 << 24 | 0b11);
        let registers = Registers { icv, number, vm: Rc::clone(vm) };
        let mut interface = vm.gic.cpu_interface(vcpu(number)).expect("nobody has it");
        for _ in 0..2 {
            let _ = interface.signals(&vm.gic, &registers, &mut Hears(vm));
        }
        Vcpu {
            vm: Rc::clone(vm),
            number,
            interface,
            registers,
            unended: Vec::new(),
            leaves_in_handler: false,
        }
    }

    /// Runs the guest once. Returns whether it has nothing to do.
    pub(super) fn run(&mut self) -> bool {
        let vm = Rc::clone(&self.vm);
        let number = self.number % 2;
        let cpu = &vm.cpus[number];
        cpu.take();
        let irqs_off = IrqGuard::<Sim>::new();
        cpu.irqs_off();
        let on = CpuId(number as u32);
        let entered =
            self.interface.enter(&vm.gic, &irqs_off, on, &mut self.registers, &mut Hears(&vm));
        let in_guest = entered.expect("nothing is requested");
        let halts = cpu.enter(false, || self.guest());
        cpu.leave();
        let levels = self.interface.exit(&vm.gic, in_guest, &mut self.registers, &mut Hears(&vm));
        cpu.free();
        if levels {
            self.interface.tell_ended(&mut Hears(&vm));
        }
        halts
    }

    /// The guest takes what there is, ends it, and what it was at before, and halts.
    fn guest(&mut self) -> bool {
        let cpu = self.number % 2;
        if self.vm.cpus[cpu].is_kicked() {
            return false;
        }
        loop {
            if self.registers.icv.maintenance() {
                return false;
            }
            let id = self.registers.icv.read_iar(hw::Group::One).expect("it is not trapped");
            if id != hw::IntId::SPURIOUS {
                self.acknowledges(id);
                if self.leaves_in_handler || self.vm.cpus[cpu].is_kicked() {
                    return false;
                }
                continue;
            }
            let Some(id) = self.unended.pop() else { return true };
            let _ = self.registers.icv.write_eoir(hw::Group::One, id).expect("it is not trapped");
        }
    }

    fn acknowledges(&mut self, id: hw::IntId) {
        note(|| format!("the guest of vCPU {} acknowledges INTID {}", self.number, id.number()));
        self.unended.push(id);
        let (times, by) = &mut self.vm.acknowledged.borrow_mut()[index(id.number())];
        *times += 1;
        *by = Some(self.number);
    }

    /// Runs the guest until it is in a handler.
    pub(super) fn run_into_handler(&mut self) {
        self.leaves_in_handler = true;
        let _ = self.run();
        self.leaves_in_handler = false;
    }

    fn runs_until_it_halts(&mut self) {
        while !self.run() {}
    }

    /// Powers the vCPU off, and on.
    pub(super) fn power_off_and_on(&mut self) {
        self.interface.power_off(&self.vm.gic, &mut Hears(&self.vm));
        self.interface.power_on(&self.vm.gic, &self.registers, &mut Hears(&self.vm));
    }
}

/// In the end, when all is enabled and each vCPU has run once more, nothing is pending or active,
/// and each SPI was acknowledged so often.
pub(super) fn is_served(
    m: &Machine,
    vm: &Rc<Vm>,
    vcpus: Vcpus,
    times: &'static [(IntId, std::ops::RangeInclusive<u32>)],
) {
    let vm = Rc::clone(vm);
    m.at_quiescence("when all have run once more, nothing is pending or active", move || {
        vm.write(ISENABLER, SPIS.into_iter().map(bit).sum());
        vcpus.iter().for_each(|vcpu| vcpu.borrow_mut().runs_until_it_halts());
        for (id, times) in times {
            let (state, (acknowledged, _)) = (vm.state(*id), vm.acknowledged(*id));
            if state.is_pending() || state.is_active() || !times.contains(&acknowledged) {
                let number = id.number();
                return Err(format!(
                    "INTID {number} was acknowledged {acknowledged} times, and is {state:?}"
                ));
            }
        }
        Ok(())
    });
}
