//! A VM beside its model: everything is done to both.

use std::collections::{BTreeMap, BTreeSet};

use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, CpuInterface, Ended, Frame, Gic, Host, IntId, Kick, Line, PhysicalIntId, SgiRegister,
    VcpuId, Width,
};
use doorbell_hardware::gic::spec as hw;
use doorbell_hardware::gic::{Physical, VirtualInterface};
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::{InGuest, Notice};

use crate::architecture::{self, Access, Gic as Model, PRIVATE};
use crate::registers::Registers;

/// Physical interrupts that back some.
const FIRST_PHYSICAL: u32 = 500;

/// What the controller asked its host for.
#[derive(Default)]
struct Asked {
    kicked: Vec<VcpuId>,
    ended: Vec<Ended>,
}

impl Kick for Asked {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        assert!(matches!(notice, Notice::Kick(CpuId(cpu)) if cpu == vcpu.number()), "{notice:?}");
        self.kicked.push(vcpu);
    }
}

impl Host for Asked {
    fn ended(&mut self, ended: Ended) {
        self.ended.push(ended);
    }
}

pub struct Vcpu<'a> {
    interface: CpuInterface,
    registers: Registers,
    in_guest: Option<InGuest<'a, Std>>,
}

pub struct Machine<'a> {
    gic: &'a Gic<Std>,
    irqs_off: &'a IrqGuard<Std>,
    pub model: Model,
    vcpus: Vec<Vcpu<'a>>,
    asked: Asked,
    implementation: hw::Implementation,
    /// Ends of levels that the host was told of, as the model counts them.
    told: BTreeSet<(usize, u32)>,
    /// Those of them whose trigger was set since: they were a level or not when they ended.
    retriggered: BTreeSet<(usize, u32)>,
    /// The level that each device gives.
    sources: BTreeMap<(usize, u32), u32>,
    pub exits: u32,
    logs: bool,
}

pub fn hardware(group: usize) -> hw::Group {
    [hw::Group::Zero, hw::Group::One][group]
}

fn vcpu(number: usize) -> VcpuId {
    VcpuId::new(number as u32).expect("it is small")
}

fn intid(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

/// Returns a controller for these vCPUs.
pub fn gic(implementation: hw::Implementation, spis: u32, affinities: &[u32]) -> Gic<Std> {
    let affinities: Vec<_> = affinities.iter().copied().map(Affinity).collect();
    Gic::new(Vtr::from_bits(implementation.vtr()), spis, &affinities).expect("there can be one")
}

/// Makes the groups what they are after a reset, which is UNKNOWN.
pub fn resets_groups(model: &mut Model) {
    for (pe, id) in model.interrupts() {
        model.interrupt_mut(pe, id).group = 1;
    }
}

/// Returns the frame and the offset of an access.
pub fn place(access: &Access) -> (Frame, u32) {
    match access.frame {
        architecture::Frame::Distributor => (Frame::Distributor, access.offset),
        architecture::Frame::RdBase(pe) => (Frame::Redistributor(vcpu(pe)), access.offset),
        architecture::Frame::SgiBase(pe) => {
            (Frame::Redistributor(vcpu(pe)), 0x1_0000 + access.offset)
        }
    }
}

impl<'a> Machine<'a> {
    /// A VM as after a reset, with its vCPUs in the guest. The model is new.
    pub fn new(
        gic: &'a Gic<Std>,
        irqs_off: &'a IrqGuard<Std>,
        implementation: hw::Implementation,
        mut model: Model,
    ) -> Self {
        resets_groups(&mut model);
        let vcpus = (0..model.pes.len()).map(|number| Vcpu {
            interface: gic.cpu_interface(vcpu(number)).expect("nobody has it"),
            registers: Registers(VirtualInterface::new(implementation)),
            in_guest: None,
        });
        let vcpus = vcpus.collect();
        let mut machine = Machine {
            gic,
            irqs_off,
            model,
            vcpus,
            asked: Asked::default(),
            implementation,
            told: BTreeSet::new(),
            retriggered: BTreeSet::new(),
            sources: BTreeMap::new(),
            exits: 0,
            logs: std::env::var_os("DOORBELL_SEQUENCE").is_some(),
        };
        machine.all_enter();
        machine
    }

    /// Says what is done, if somebody looks at one sequence.
    pub fn log(&self, what: impl Fn() -> String) {
        if self.logs {
            println!("{}", what());
        }
    }

    pub fn guest(&mut self, pe: usize) -> &mut VirtualInterface {
        &mut self.vcpus[pe].registers.0
    }

    fn enter(&mut self, pe: usize) {
        if !self.model.pes[pe].on || self.vcpus[pe].in_guest.is_some() {
            return;
        }
        let Vcpu { interface, registers, in_guest } = &mut self.vcpus[pe];
        let entered =
            interface.enter(self.gic, self.irqs_off, CpuId(pe as u32), registers, &mut self.asked);
        *in_guest = Some(entered.expect("nothing is requested"));
        registers.0.check().expect("a guest may be entered with it");
        assert_eq!(registers.0.misr(), 0, "a condition is asserted that the entry does not clear");
    }

    fn exit(&mut self, pe: usize) {
        let Vcpu { interface, registers, in_guest } = &mut self.vcpus[pe];
        let Some(in_guest) = in_guest.take() else { return };
        self.exits += 1;
        if interface.exit(self.gic, in_guest, registers, &mut self.asked) {
            interface.tell_ended(&mut self.asked);
            assert!(matches!(self.asked.ended.last(), Some(Ended::Level(_))), "no level has ended");
        }
        self.hears(pe);
    }

    /// Takes note of the ends that a vCPU has told.
    fn hears(&mut self, pe: usize) {
        for ended in std::mem::take(&mut self.asked.ended) {
            match ended {
                Ended::Level(id) => {
                    let owner = if id.number() < PRIVATE { pe } else { 0 };
                    self.told.insert((owner, id.number()));
                }
                Ended::Physical(id) => self.deactivated(pe, id.number() - FIRST_PHYSICAL),
            }
        }
    }

    fn deactivated(&mut self, pe: usize, id: u32) {
        let owner = if id < PRIVATE { pe } else { 0 };
        let count = self.model.deactivated.entry((owner, id)).or_default();
        *count = count.checked_sub(1).expect("it was deactivated physically once too often");
    }

    /// Delivers kicks and maintenance interrupts until there are none.
    pub fn settles(&mut self) {
        for round in 0.. {
            assert!(round < 100, "the vCPUs kick each other for ever");
            let mut leaves: Vec<_> =
                self.asked.kicked.drain(..).map(|vcpu| vcpu.number() as usize).collect();
            let maintained = |pe: &usize| {
                self.vcpus[*pe].in_guest.is_some() && self.vcpus[*pe].registers.0.maintenance()
            };
            leaves.extend((0..self.vcpus.len()).filter(maintained));
            if leaves.is_empty() {
                break;
            }
            leaves.iter().for_each(|&pe| self.exit(pe));
            leaves.iter().for_each(|&pe| self.enter(pe));
        }
        self.in_one_list_register();
    }

    /// No SPI is in two list registers.
    fn in_one_list_register(&self) {
        let mut there = BTreeSet::new();
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.in_guest.is_some()) {
            for lr in vcpu
                .registers
                .0
                .implemented_lrs()
                .iter()
                .filter(|lr| lr.state() != hw::State::Inactive)
            {
                let id = lr.intid().number();
                assert!(id < PRIVATE || there.insert(id), "{id} is in two list registers");
            }
        }
    }

    fn all_enter(&mut self) {
        (0..self.vcpus.len()).for_each(|pe| self.enter(pe));
        self.settles();
    }

    /// All leave, and what the words say is what the architecture says.
    pub fn compares(&mut self) {
        self.log(|| "compares".into());
        (0..self.vcpus.len()).for_each(|pe| self.exit(pe));
        for (pe, id) in self.model.interrupts() {
            let state = self.device(pe, id).state();
            assert_eq!(
                (state.is_pending(), state.is_active()),
                self.model.state(pe, id),
                "pending and active, of {id} on {pe}: {state:?} {:?}",
                self.model.interrupt(pe, id)
            );
        }
        (0..self.vcpus.len()).for_each(|pe| self.waits(pe));
        // Every end is told, though several may be told at once.
        let open = std::mem::take(&mut self.retriggered);
        let [told, mut ended] =
            [&mut self.told, &mut self.model.ended].map(|ends| &std::mem::take(ends) - &open);
        // That of a level which a physical interrupt backs is, if a source gave it at that time.
        ended
            .retain(|&(pe, id)| !self.model.interrupt(pe, id).physical || told.contains(&(pe, id)));
        assert_eq!(told, ended, "told of the ends");
        self.model.deactivated.retain(|_, count| *count > 0);
        assert!(
            self.model.deactivated.is_empty(),
            "not deactivated physically: {:?}",
            self.model.deactivated
        );
        self.all_enter();
    }

    /// A vCPU that is outside of the guest waits for an interrupt: it is told whether there is one.
    fn waits(&mut self, pe: usize) {
        if !self.model.pes[pe].on {
            return;
        }
        let Vcpu { interface, registers, .. } = &mut self.vcpus[pe];
        if interface.signals(self.gic, registers, &mut self.asked) {
            let signalled = (0..2).any(|group| !self.model.signalled(pe, group).is_empty());
            assert!(signalled, "{pe} is told that an interrupt is signalled");
        } else {
            let spurious = (0..2).all(|group| self.model.may_be_spurious(pe, group));
            assert!(spurious, "{pe} is told that nothing is signalled");
        }
    }

    pub fn is_running(&self, pe: usize) -> bool {
        self.vcpus[pe].in_guest.is_some()
    }

    /// A vCPU acknowledges what is signalled of a group. Returns whether that was something.
    pub fn acknowledges(&mut self, pe: usize, group: usize) -> bool {
        self.log(|| format!("{pe} acknowledges of group {group}"));
        let got = self.guest(pe).read_iar(hardware(group)).expect("it is not trapped").number();
        let legal = self.model.signalled(pe, group);
        if got == 1023 {
            // Of one priority, the interface may have picked one of the other group.
            let spurious = self.model.may_be_spurious(pe, group);
            assert!(
                spurious,
                "1023 on {pe}, and not one of {legal:?}: {:x?} {:?} {:?}",
                self.vcpus[pe].registers.0,
                self.model.interrupt(pe, legal[0]),
                self.gic.spi(intid(legal[0]))
            );
        } else {
            assert!(
                legal.contains(&got),
                "{got} on {pe}, and not one of {legal:?}: {:x?}",
                self.vcpus[pe].registers.0
            );
            self.model.acknowledge(pe, got);
        }
        self.settles();
        got != 1023
    }

    /// A vCPU ends what it has acknowledged last. Returns whether there was something.
    pub fn ends(&mut self, pe: usize) -> bool {
        let Some((id, group)) = self.model.pes[pe].interface.last_acknowledged() else {
            return false;
        };
        self.log(|| format!("{pe} ends {id}"));
        // Before the host can be told.
        self.model.end(pe, id);
        let intid = hw::IntId::new(id).expect("it is small");
        let physical =
            self.guest(pe).write_eoir(hardware(group), intid).expect("it is not trapped");
        self.deactivated_by_hardware(pe, physical);
        self.settles();
        true
    }

    /// A vCPU deactivates an interrupt that was dropped, here or elsewhere.
    pub fn deactivates(&mut self, pe: usize, id: u32) {
        self.log(|| format!("{pe} deactivates {id}"));
        self.model.deactivate(pe, id);
        match self.guest(pe).write_dir(hw::IntId::new(id).expect("it is small")) {
            Ok(physical) => self.deactivated_by_hardware(pe, physical),
            Err(_) => {
                self.exit(pe);
                let Vcpu { interface, registers, .. } = &mut self.vcpus[pe];
                let access = interface.deactivate(self.gic, intid(id), registers, &mut self.asked);
                self.completes(pe, access);
                self.enter(pe);
            }
        }
        self.settles();
    }

    fn deactivated_by_hardware(&mut self, pe: usize, physical: Physical) {
        if let Physical::Deactivated(id) = physical {
            self.deactivated(pe, u32::from(id.number()) - FIRST_PHYSICAL);
        }
    }

    /// Completes an access of a vCPU that is outside of the guest.
    fn completes(&mut self, pe: usize, access: doorbell_gic::Access<'a, Std>) -> u64 {
        let value = match access.complete(&mut self.asked) {
            Ok(value) => value,
            Err(access) => {
                assert!(
                    !self.asked.kicked.is_empty(),
                    "somebody is waited for, and nobody was kicked"
                );
                self.settles();
                access.complete(&mut self.asked).expect("all have left")
            }
        };
        self.hears(pe);
        value
    }

    /// A vCPU accesses a register.
    pub fn accesses(&mut self, pe: usize, access: &Access) {
        self.log(|| format!("{pe}: {access:x?}"));
        let known = self.model.known_bits(access.frame, access.offset, access.size);
        let before = self.model.clone();
        let expected = self.model.access(access);
        let triggers = |(pe, id)| [&before, &self.model].map(|model| model.interrupt(pe, id).edge);
        let changed =
            self.model.interrupts().into_iter().filter(|&of| triggers(of)[0] != triggers(of)[1]);
        self.retriggered.extend(changed);
        self.exit(pe);
        let (frame, offset) = place(access);
        let width = Width::from_bytes(access.size as usize).expect("it is a power of two");
        if let Some(value) = access.written {
            let access = self.gic.write(frame, offset, width, value, &mut self.asked);
            self.completes(pe, access);
        } else {
            // What is pending may lag, but not the second time.
            let access = self.gic.read(frame, offset, width, &mut self.asked);
            self.completes(pe, access);
            self.settles();
            let second = self.gic.read(frame, offset, width, &mut self.asked);
            let value = self.completes(pe, second);
            assert_eq!(
                value & known,
                expected & known,
                "{access:x?}",
                access = (frame, offset, width)
            );
        }
        self.enter(pe);
        self.settles();
    }

    /// A vCPU generates SGIs.
    pub fn generates(&mut self, pe: usize, register: architecture::sgi::SgiRegister, value: u64) {
        self.log(|| format!("{pe}: {register:?} {value:x}"));
        use architecture::sgi::SgiRegister as Of;
        self.model.generate(pe, register, value);
        let register = match register {
            Of::Sgi0R => SgiRegister::Sgi0R,
            Of::Sgi1R => SgiRegister::Sgi1R,
            Of::Asgi1R => SgiRegister::Asgi1R,
        };
        self.exit(pe);
        self.gic
            .generate_sgi(vcpu(pe), register, value, &mut self.asked)
            .expect("there is such a vCPU");
        self.enter(pe);
        self.settles();
    }

    /// A device sets its line, of several that an interrupt has.
    pub fn line(&mut self, pe: usize, id: u32, source: u32, high: bool) {
        self.log(|| format!("line {id} of {pe}: {source} {high}"));
        let owner = if id < PRIVATE { pe } else { 0 };
        let sources = self.sources.entry((owner, id)).or_default();
        let was = *sources;
        *sources = if high { was | 1 << source } else { was & !(1 << source) };
        let interrupt = self.model.interrupt_mut(pe, id);
        // The rise of each is an edge.
        interrupt.latch |= interrupt.edge && high && was >> source & 1 == 0;
        interrupt.line = *sources != 0;
        self.device(pe, id).set_level(source, high, &mut self.asked);
        self.settles();
    }

    /// A device sends an edge.
    pub fn edge(&mut self, pe: usize, id: u32) {
        self.log(|| format!("edge {id} of {pe}"));
        self.model.latch(pe, id);
        self.device(pe, id).edge(&mut self.asked);
        self.settles();
    }

    fn device(&self, pe: usize, id: u32) -> Line<'a, Std> {
        let line = if id < PRIVATE {
            self.gic.private(vcpu(pe), intid(id))
        } else {
            self.gic.spi(intid(id))
        };
        line.expect("there is one")
    }

    /// Backs an interrupt by a physical one.
    pub fn backs(&mut self, id: u32) {
        self.model.interrupt_mut(0, id).physical = true;
        let physical = PhysicalIntId::new(FIRST_PHYSICAL + id);
        self.gic.spi(intid(id)).expect("there is one").set_physical(physical);
    }

    /// A vCPU leaves the guest, and does something to its registers there, as its guest's access
    /// that comes next does.
    pub fn power(&mut self, pe: usize, on: bool) {
        self.log(|| format!("power of {pe}: {on}"));
        if self.model.pes[pe].on == on {
            return;
        }
        self.exit(pe);
        self.model.set_power(pe, on);
        let Vcpu { interface, registers, .. } = &mut self.vcpus[pe];
        if on {
            registers.0 = VirtualInterface::new(self.implementation);
            interface.power_on(self.gic, registers, &mut self.asked);
        } else {
            interface.power_off(self.gic, &mut self.asked);
        }
        self.enter(pe);
        self.settles();
    }

    /// All leave, the state is written and read, everything is forgotten, and restored.
    pub fn moves(&mut self) {
        self.log(|| "moves".into());
        (0..self.vcpus.len()).for_each(|pe| self.exit(pe));
        let save = |machine: &mut Self| {
            let interfaces = machine.vcpus.iter_mut().map(|vcpu| &mut vcpu.interface);
            machine.gic.save(interfaces).expect("all are stopped")
        };
        let restore = |machine: &mut Self, state| {
            let vcpus = machine.vcpus.iter_mut().map(|vcpu| (&mut vcpu.interface, &vcpu.registers));
            machine
                .gic
                .restore(state, vcpus, &mut machine.asked)
                .expect("it is of such a controller");
        };
        let state = save(self);
        let bytes = postcard::to_allocvec(&state).expect("there is room");
        let mut other = state.clone();
        for interrupt in other
            .spis
            .iter_mut()
            .chain(other.redistributors.iter_mut().flat_map(|one| &mut one.private))
        {
            (interrupt.latched, interrupt.active, interrupt.enabled) =
                (true, !interrupt.active, true);
        }
        other.redistributors.iter_mut().for_each(|one| one.active_priorities.clear());
        restore(self, &other);
        restore(self, &postcard::from_bytes(&bytes).expect("it is whole"));
        let again = save(self);
        for (one, other) in again.spis.iter().zip(&state.spis) {
            // Who takes part is found out once more.
            let holder = if one.one_of_n && !one.active { one.holder } else { other.holder };
            let mut other = other.clone();
            other.holder = holder;
            assert_eq!(*one, other);
        }
        assert_eq!(again.redistributors, state.redistributors);
        assert_eq!(again.enabled_groups, state.enabled_groups);
        self.asked.kicked.clear();
        self.all_enter();
    }
}
