//! The VM: its vCPUs are in the guest, outside of it, powered off, asleep, or wait for an access;
//! they leave the guest later than they are kicked, and a maintenance interrupt comes late.

use std::ops::AddAssign;

use doorbell_gic::icv;
use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Access, Affinity, CpuInterface, Ended, Gic, GicState, Host, IntId, Kick, Line, PhysicalIntId,
    VcpuId,
};
use doorbell_hardware::gic::spec as hw;
use doorbell_hardware::gic::{Physical, Trapped, VirtualInterface};
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Std};
use doorbell_post::{Blocked, InGuest, Mode, Notice, Requests};

use super::ops::{self, Guest, Op, Setup};
use super::registers::Registers;

pub type P = Counting<Std>;

/// The most vCPUs of a VM.
const VCPUS: usize = 4;
/// How often the vCPUs may kick each other out of the guest before none is kicked any more.
const ROUNDS: u32 = 8;

/// What the controller has asked of its host.
#[derive(Default)]
pub struct Asked {
    /// The senders whose interrupt has not arrived yet, by vCPU,
    kicked: u32,
    /// or whose task has not run yet.
    woken: u32,
    /// On which CPU a vCPU is.
    cpus: [u32; VCPUS],
    /// The levels whose ends were told, and how often, by INTID.
    pub told: Box<[u32]>,
    /// The physical SPIs that are active on the host, by INTID.
    pub active: Box<[bool]>,
}

impl Kick for Asked {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        let number = vcpu.number();
        match notice {
            Notice::Kick(CpuId(cpu)) => {
                assert_eq!(
                    cpu, self.cpus[number as usize],
                    "vCPU {number} is kicked on a CPU where it is not"
                );
                self.kicked |= 1 << number;
            }
            Notice::Wake => self.woken |= 1 << number,
            other => unreachable!("a notice that there is not: {other:?}"),
        }
    }
}

impl Host for Asked {
    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Level(id) => self.told[id.number() as usize] += 1,
            Ended::Physical(id) => self.active[id.number() as usize] = false,
        }
    }
}

enum At<'a> {
    Host,
    Guest(InGuest<'a, P>),
    Off,
    Asleep(Blocked<'a, P>),
    Waits(Access<'a, P>),
}

struct Vcpu<'a> {
    interface: CpuInterface,
    registers: Registers,
    at: At<'a>,
    /// What the guest has acknowledged and not ended by [`Guest::EndLast`], the last one at the
    /// end.
    acknowledged: Vec<(hw::Group, u32)>,
}

/// How often what was done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Done {
    pub acknowledged: u64,
    pub waited: u64,
    pub trapped: u64,
    pub slept: u64,
    pub woken: u64,
    pub restored: u64,
    pub rounds: u32,
    /// The most that one access has taken.
    pub access: u64,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.acknowledged += other.acknowledged;
        self.waited += other.waited;
        self.trapped += other.trapped;
        self.slept += other.slept;
        self.woken += other.woken;
        self.restored += other.restored;
        self.rounds = self.rounds.max(other.rounds);
        self.access = self.access.max(other.access);
    }
}

pub struct Vm<'a> {
    pub gic: &'a Gic<P>,
    irqs_off: &'a IrqGuard<P>,
    implementation: hw::Implementation,
    vcpus: Vec<Vcpu<'a>>,
    pub asked: Asked,
    pub done: Done,
}

pub fn vcpu(number: usize) -> VcpuId {
    VcpuId::new(number as u32).expect("it is small")
}

pub fn intid(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

/// Returns the CPUs of a VM.
fn implementation(setup: &Setup) -> hw::Implementation {
    let Setup { list_registers, priority_bits, preemption_bits, .. } = *setup;
    let one = hw::Implementation::new(list_registers, priority_bits, preemption_bits)
        .expect("it is legal");
    let one = if setup.traps_dir { one } else { one.without_tds() };
    if setup.counts_strays { one.counting_strays() } else { one }
}

/// Returns whether a physical interrupt backs an interrupt of such a VM: the one of the same INTID.
pub fn is_physical(setup: &Setup, id: u32) -> bool {
    setup.physical && if id < 32 { id >= 16 && id.is_multiple_of(5) } else { id.is_multiple_of(3) }
}

/// Returns a new controller for such a VM.
pub fn gic(setup: &Setup) -> Gic<P> {
    let affinities: Vec<_> = (0..setup.vcpus as u32).map(Affinity).collect();
    let vtr = Vtr::from_bits(implementation(setup).vtr());
    let gic = Gic::new(vtr, setup.spis, &affinities).expect("there can be one");
    for id in (0..32 + setup.spis).filter(|&id| is_physical(setup, id)) {
        let physical = PhysicalIntId::new(id);
        if id < 32 {
            (0..setup.vcpus).for_each(|of| {
                gic.private(vcpu(of), intid(id)).expect("it is one").set_physical(physical)
            });
        } else {
            gic.spi(intid(id)).expect("it is one").set_physical(physical);
        }
    }
    gic
}

impl<'a> Vm<'a> {
    /// A VM as after a reset, with its vCPUs in the host.
    pub fn new(gic: &'a Gic<P>, irqs_off: &'a IrqGuard<P>, setup: &Setup) -> Self {
        let implementation = implementation(setup);
        let vcpus = (0..setup.vcpus).map(|number| Vcpu {
            interface: gic.cpu_interface(vcpu(number)).expect("nobody has it"),
            registers: Registers(VirtualInterface::new(implementation)),
            at: At::Host,
            acknowledged: Vec::with_capacity(16),
        });
        let (told, active) = (vec![0; 1020].into(), vec![false; 1020].into());
        let asked = Asked { told, active, cpus: [0, 1, 2, 3], ..Asked::default() };
        Vm { gic, irqs_off, implementation, vcpus: vcpus.collect(), asked, done: Done::default() }
    }

    pub fn count(&self) -> usize {
        self.vcpus.len()
    }

    fn vtr(&self) -> Vtr {
        Vtr::from_bits(self.implementation.vtr())
    }

    pub fn line(&self, of: usize, id: u32) -> Option<Line<'a, P>> {
        let id = IntId::new(id)?;
        if id.is_spi() { self.gic.spi(id).ok() } else { self.gic.private(vcpu(of), id).ok() }
    }

    /// A vCPU enters the guest, if it is in the host. Returns whether it is in the guest.
    pub fn enter(&mut self, of: usize) -> bool {
        self.goes_on(of);
        let cpu = CpuId(self.asked.cpus[of]);
        let Vcpu { interface, registers, at, .. } = &mut self.vcpus[of];
        if !matches!(at, At::Host) {
            return matches!(at, At::Guest(_));
        }
        match interface.enter(self.gic, self.irqs_off, cpu, registers, &mut self.asked) {
            Err(Requests(requests)) => {
                assert_ne!(requests, 0, "it stays in the host for nothing");
                return false;
            }
            Ok(in_guest) => *at = At::Guest(in_guest),
        }
        registers.0.check().expect("a guest may be entered with it");
        assert_eq!(registers.0.misr(), 0, "a condition is asserted that the entry does not clear");
        assert_eq!(registers.0.hcr() >> 27 & 0x1f, 0, "EOIcount is not zero at an entry");
        self.in_one_list_register();
        true
    }

    /// No SPI is in the list registers of two vCPUs.
    fn in_one_list_register(&self) {
        let mut there = [0u64; 16];
        for vcpu in self.vcpus.iter().filter(|vcpu| matches!(vcpu.at, At::Guest(_))) {
            for lr in vcpu
                .registers
                .0
                .implemented_lrs()
                .iter()
                .filter(|lr| lr.state() != hw::State::Inactive)
            {
                let id = lr.intid().number();
                let (word, bit) = (&mut there[id as usize / 64], 1 << (id % 64));
                assert!(id < 32 || *word & bit == 0, "{id} is in two list registers");
                *word |= bit;
            }
        }
    }

    /// A vCPU leaves the guest, if it is there; whatever it was kicked for is done.
    pub fn leave(&mut self, of: usize) {
        let Vcpu { interface, registers, at, .. } = &mut self.vcpus[of];
        let in_guest = match std::mem::replace(at, At::Host) {
            At::Guest(in_guest) => in_guest,
            other => {
                *at = other;
                return;
            }
        };
        if interface.exit(self.gic, in_guest, registers, &mut self.asked) {
            interface.tell_ended(&mut self.asked);
        }
        self.asked.kicked &= !(1 << of);
    }

    /// A vCPU that was woken is awake, and one that waits for an access looks whether it is
    /// complete.
    fn goes_on(&mut self, of: usize) {
        match std::mem::replace(&mut self.vcpus[of].at, At::Host) {
            At::Asleep(asleep) if self.asked.woken >> of & 1 != 0 => {
                assert!(!asleep.asleep(), "it is woken, and sleeps on");
                self.done.woken += 1;
                drop(asleep);
                self.awakes(of);
            }
            At::Waits(access) => self.completes(of, access),
            other => self.vcpus[of].at = other,
        }
    }

    fn awakes(&mut self, of: usize) {
        self.vcpus[of].at = At::Host;
        self.asked.woken &= !(1 << of);
    }

    /// A vCPU goes on when an access is complete.
    fn completes(&mut self, of: usize, access: Access<'a, P>) {
        if let Err(access) = access.complete(&mut self.asked) {
            let leaves = |other: usize| {
                matches!(self.vcpus[other].at, At::Guest(_)) && self.asked.kicked >> other & 1 != 0
            };
            assert!(
                (0..self.count()).any(leaves),
                "an access waits, and nobody is on the way out of the guest"
            );
            self.vcpus[of].at = At::Waits(access);
            self.done.waited += 1;
        }
    }

    /// A vCPU is outside of the guest, and can do something. Returns whether it is.
    pub fn is_out(&mut self, of: usize) -> bool {
        self.goes_on(of);
        self.leave(of);
        matches!(self.vcpus[of].at, At::Host)
    }

    /// Kicks and maintenance interrupts arrive, until there are none.
    pub fn settles(&mut self) {
        for round in 0.. {
            self.done.rounds = self.done.rounds.max(round);
            assert!(round <= ROUNDS, "the vCPUs kick each other for ever");
            let mut leaves = 0u32;
            for (number, vcpu) in self.vcpus.iter().enumerate() {
                let run_state = self
                    .gic
                    .redistributor(vcpu.interface.vcpu())
                    .expect("there is one")
                    .news()
                    .run_state();
                let kicked = self.asked.kicked >> number & 1 != 0;
                assert!(
                    kicked || run_state.mode() != Mode::Kicked,
                    "vCPU {number} was kicked, and nobody does it"
                );
                let in_guest = matches!(vcpu.at, At::Guest(_));
                leaves |=
                    u32::from(in_guest && (kicked || vcpu.registers.0.maintenance())) << number;
            }
            let all = 0..self.count();
            // (An access that is complete may kick somebody whom another one waits for.)
            if leaves == 0 && !all.clone().any(|of| matches!(self.vcpus[of].at, At::Waits(_))) {
                break;
            }
            all.clone().filter(|of| leaves >> of & 1 != 0).for_each(|of| self.leave(of));
            all.clone().for_each(|of| self.goes_on(of));
            all.filter(|of| leaves >> of & 1 != 0).for_each(|of| _ = self.enter(of));
        }
        (0..self.count()).for_each(|of| self.sleeps_for_a_reason(of));
    }

    /// Whoever sleeps and is not woken has nothing to wake up for.
    fn sleeps_for_a_reason(&mut self, of: usize) {
        let Vcpu { interface, registers, at, .. } = &mut self.vcpus[of];
        if matches!(at, At::Asleep(_)) && self.asked.woken >> of & 1 == 0 {
            assert!(
                !interface.signals(self.gic, registers, &mut self.asked),
                "vCPU {of} sleeps on"
            );
        }
    }

    /// Does one thing.
    pub fn does(&mut self, op: Op) {
        match op {
            Op::Enter(of) => {
                // Something else has woken it, or a timer.
                if matches!(self.vcpus[of].at, At::Asleep(_)) {
                    self.awakes(of);
                }
                let _ = self.enter(of);
            }
            Op::Leave(of) => self.leave(of),
            Op::Settle => self.settles(),
            Op::Guest(of, guest) => {
                if self.enter(of) {
                    self.guest_does(of, guest);
                }
            }
            Op::Access(of, access) => {
                if self.is_out(of) {
                    self.accesses(of, &access);
                }
            }
            Op::Sgi(of, register, value) => {
                if self.is_out(of) {
                    self.gic
                        .generate_sgi(vcpu(of), register, value, &mut self.asked)
                        .expect("there is such a vCPU");
                }
            }
            Op::Level(of, id, source, high) => {
                let Some(line) = self.line(of, id) else { return };
                // The host injects what a physical interrupt backs as an edge, or knows its level.
                if !line.state().is_physical() || id < 32 {
                    line.set_level(source, high, &mut self.asked);
                }
            }
            Op::Edge(of, id) => self.edge(of, id),
            Op::Power(of, on) => self.powers(of, on),
            Op::Wfi(of) => self.waits_for_interrupt(of),
            Op::Request(of) => {
                let run_state =
                    self.gic.redistributor(vcpu(of)).expect("there is one").news().run_state();
                match run_state.request(Requests(1)) {
                    Notice::Nothing => {}
                    notice => self.asked.notice(vcpu(of), notice),
                }
            }
            Op::Moves(of) => self.moves(of),
            Op::Saves(change) => self.saves(change),
        }
    }

    /// A device sends an edge; a physical one does when it is not active.
    pub fn edge(&mut self, of: usize, id: u32) {
        let Some(line) = self.line(of, id) else { return };
        if line.state().is_physical() && id >= 32 {
            if self.asked.active[id as usize] {
                return;
            }
            self.asked.active[id as usize] = true;
        }
        line.edge(&mut self.asked);
    }

    /// A vCPU that is outside of the guest accesses a register.
    pub fn accesses(&mut self, of: usize, access: &ops::Access) -> Counts {
        let ops::Access { frame, offset, width, written } = *access;
        let (access, counts) = P::measure(|| match written {
            Some(value) => self.gic.write(frame, offset, width, value, &mut self.asked),
            None => self.gic.read(frame, offset, width, &mut self.asked),
        });
        self.done.access =
            self.done.access.max(counts.loads + counts.stores + counts.rmws + counts.fences);
        self.completes(of, access);
        counts
    }

    /// A vCPU does something in the guest; what is trapped is done in its place.
    fn guest_does(&mut self, of: usize, guest: Guest) {
        let Vcpu { registers, acknowledged, .. } = &mut self.vcpus[of];
        let icv = &mut registers.0;
        let deactivated = match guest {
            Guest::DeactivateRecent(back) => {
                acknowledged.iter().nth_back(back).map(|&(_, number)| number)
            }
            Guest::Dir(number) => Some(number),
            _ => None,
        };
        let id = |number: u32| hw::IntId::new(number).expect("it is small");
        let result = match guest {
            Guest::Iar(group) => {
                let other = if group == hw::Group::Zero { hw::Group::One } else { hw::Group::Zero };
                for group in [group, other] {
                    let got = icv.read_iar(group).expect("it is not trapped").number();
                    if got < 1020 {
                        if acknowledged.len() == 16 {
                            acknowledged.remove(0);
                        }
                        acknowledged.push((group, got));
                        self.done.acknowledged += 1;
                        break;
                    }
                }
                return;
            }
            Guest::EndLast => {
                let Some((group, number)) = acknowledged.pop() else { return };
                icv.write_eoir(group, id(number))
            }
            Guest::Eoir(group, number) => icv.write_eoir(group, id(number)),
            Guest::DeactivateRecent(_) | Guest::Dir(_) => match deactivated {
                Some(number) => icv.write_dir(id(number)),
                None => return,
            },
            Guest::Ctlr(value) => icv.write_ctlr(value).map(|()| Physical::Untouched),
            Guest::Bpr(group, value) => icv.write_bpr(group, value).map(|()| Physical::Untouched),
            Guest::Igrpen(group, on) => icv.write_igrpen(group, on).map(|()| Physical::Untouched),
            Guest::Pmr(mask) => icv.write_pmr(hw::Priority(mask)).map(|()| Physical::Untouched),
            Guest::Rpr => icv.read_rpr().map(|_| Physical::Untouched),
        };
        match result {
            Ok(Physical::Untouched) => {}
            Ok(Physical::Deactivated(id)) => self.asked.active[usize::from(id.number())] = false,
            Err(Trapped::Group(_)) => unreachable!("nothing traps the registers of a group"),
            Err(Trapped::Common | Trapped::Deactivation) => {
                self.done.trapped += 1;
                self.leave(of);
                self.trapped(of, guest, deactivated);
            }
        }
    }

    fn trapped(&mut self, of: usize, guest: Guest, deactivated: Option<u32>) {
        let vtr = self.vtr();
        let Vcpu { interface, registers, .. } = &mut self.vcpus[of];
        match guest {
            Guest::Ctlr(value) => icv::write_ctlr(registers, value),
            Guest::Pmr(mask) => icv::write_pmr(registers, vtr, mask.into()),
            Guest::Rpr => _ = icv::read_rpr(registers, vtr),
            _ => {
                let written =
                    deactivated.and_then(|number| icv::write_dir(registers, vtr, number.into()));
                if let Some(id) = written {
                    let access = interface.deactivate(self.gic, id, registers, &mut self.asked);
                    self.completes(of, access);
                }
            }
        }
    }

    pub fn powers(&mut self, of: usize, on: bool) {
        if on && matches!(self.vcpus[of].at, At::Off) {
            self.vcpus[of].registers.0 = VirtualInterface::new(self.implementation);
            let Vcpu { interface, registers, at, .. } = &mut self.vcpus[of];
            interface.power_on(self.gic, registers, &mut self.asked);
            *at = At::Host;
        } else if !on && self.is_out(of) {
            let Vcpu { interface, at, acknowledged, .. } = &mut self.vcpus[of];
            interface.power_off(self.gic, &mut self.asked);
            *at = At::Off;
            acknowledged.clear();
        }
    }

    fn waits_for_interrupt(&mut self, of: usize) {
        if !self.is_out(of) {
            return;
        }
        let Vcpu { interface, registers, at, .. } = &mut self.vcpus[of];
        if interface.signals(self.gic, registers, &mut self.asked) {
            return;
        }
        let news = self.gic.redistributor(vcpu(of)).expect("there is one").news();
        match news.block() {
            Ok(asleep) => {
                *at = At::Asleep(asleep);
                self.done.slept += 1;
            }
            Err(_) => _ = news.run_state().take_requests(),
        }
    }

    /// A vCPU comes to a CPU whose list registers are another vCPU's.
    pub fn moves(&mut self, of: usize) {
        if !self.is_out(of) {
            return;
        }
        self.asked.cpus[of] += 4;
        let Vcpu { interface, registers, .. } = &mut self.vcpus[of];
        let foreign = hw::IntId::new(1021).expect("it is small");
        for number in 0..registers.0.implemented_lrs().len() {
            let left = hw::ListRegister::new(foreign, hw::Priority(0), hw::Group::One);
            registers.0.set_lr(number, left).expect("it is there");
        }
        // A private physical interrupt is what `each` says, whatever it was elsewhere.
        let active = &mut self.asked.active;
        interface
            .load(self.gic, |physical, is_active| active[physical.number() as usize] = is_active);
    }

    /// All leave the guest, what waits is complete, and who sleeps is woken.
    pub fn all_leave(&mut self) {
        for of in 0..self.count() {
            self.leave(of);
            if matches!(self.vcpus[of].at, At::Asleep(_)) {
                self.awakes(of);
            }
        }
        (0..self.count()).for_each(|of| self.goes_on(of));
        let there = |vcpu: &Vcpu<'_>| matches!(vcpu.at, At::Host | At::Off);
        assert!(
            self.vcpus.iter().all(there),
            "nobody is in the guest, and an access is not complete"
        );
    }

    pub fn saved(&mut self) -> GicState {
        let interfaces = self.vcpus.iter_mut().map(|vcpu| &mut vcpu.interface);
        self.gic.save(interfaces).expect("all are stopped")
    }

    fn restore(&mut self, state: &GicState) {
        let vcpus = self.vcpus.iter_mut().map(|vcpu| (&mut vcpu.interface, &vcpu.registers));
        self.gic.restore(state, vcpus, &mut self.asked).expect("it is of such a controller");
        for (vcpu, saved) in self.vcpus.iter_mut().zip(&state.redistributors) {
            vcpu.at = if saved.off { At::Off } else { At::Host };
        }
        self.done.restored += 1;
    }

    /// The state is saved, and another one restored in its place; then it again, unless it is
    /// changed to what its host makes of it.
    fn saves(&mut self, change: Option<u64>) {
        self.all_leave();
        let state = self.saved();
        let other =
            changed(&state, change.unwrap_or_default(), self.implementation.priority_mask());
        self.restore(&other);
        if change.is_some() {
            for (id, spi) in (32..).zip(&other.spis) {
                self.asked.active[id] = spi.physical.is_some() && (spi.latched || spi.active);
            }
            return;
        }
        self.restore(&state);
        let again = self.saved();
        for (one, other) in again.spis.iter().zip(&state.spis) {
            // What is active stays, and anything else has come to where it is routed, at the latest
            // by the restoration.
            let holder = match (one.active, one.one_of_n) {
                (true, _) => other.holder,
                (false, true) => one.holder,
                (false, false) => {
                    self.gic.vcpu_of(Affinity(one.affinity)).map(|vcpu| vcpu.number() as u16)
                }
            };
            let mut other = other.clone();
            other.holder = holder;
            assert_eq!(*one, other, "it is not what was saved");
        }
        equals(&again, &state);
    }

    /// The guest writes the registers of a CPU interface, before it uses it.
    pub fn prepares(&mut self, of: usize, drops_only: bool) {
        let registers = &mut self.vcpus[of].registers.0;
        registers.set_vmcr(0xff << 24 | u64::from(drops_only) << 9 | 0b11);
        for group in [hw::Group::Zero, hw::Group::One] {
            for number in 0..self.implementation.active_priority_registers() {
                registers.set_active_priorities(group, number, 0).expect("it is there");
            }
        }
        self.vcpus[of].acknowledged.clear();
    }

    /// The guest acknowledges what is signalled.
    pub fn acknowledges(&mut self, of: usize) -> u32 {
        self.vcpus[of].registers.0.read_iar(hw::Group::One).expect("it is not trapped").number()
    }

    /// The guest ends what it has acknowledged, and deactivates it if its EOI does not. Returns
    /// whether it is still in the guest.
    pub fn ends(&mut self, of: usize, id: u32, drops_only: bool) -> bool {
        self.guest_does(of, Guest::Eoir(hw::Group::One, id));
        if drops_only {
            self.guest_does(of, Guest::Dir(id));
        }
        matches!(self.vcpus[of].at, At::Guest(_))
    }

    /// Returns whether a maintenance interrupt is asserted.
    pub fn is_maintained(&self, of: usize) -> bool {
        self.vcpus[of].registers.0.maintenance()
    }

    /// Returns what it costs to enter the guest and leave it again with nothing to do.
    pub fn idle_cost(&mut self, of: usize) -> Counts {
        let (entered, entry) = P::measure(|| self.enter(of));
        assert!(entered, "it enters");
        let ((), exit) = P::measure(|| self.leave(of));
        entry + exit
    }
}

/// Two states are the same but for their SPIs: or the first difference is shown.
pub fn equals(one: &GicState, other: &GicState) {
    for (number, (one, other)) in one.redistributors.iter().zip(&other.redistributors).enumerate() {
        for (id, (one, other)) in one.private.iter().zip(&other.private).enumerate() {
            assert_eq!(one, other, "INTID {id} of vCPU {number}");
        }
        assert_eq!(one.active_priorities, other.active_priorities, "vCPU {number}");
        assert!(one == other, "vCPU {number} is {one:?} and not {other:?}");
    }
    assert_eq!(one.enabled_groups, other.enabled_groups);
}

/// Returns a state that differs in what any host may make different.
fn changed(state: &GicState, change: u64, priorities: u8) -> GicState {
    let mut state = state.clone();
    let mut left = change;
    let mut next = |end: u64| {
        left = left.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (left >> 33) % end
    };
    state.enabled_groups = next(4) as u32;
    let (vcpus, interrupts) = (state.redistributors.len() as u64, 32 + state.spis.len() as u64);
    for redistributor in &mut state.redistributors {
        (redistributor.asleep, redistributor.off, redistributor.dpg) =
            (next(4) == 0, next(4) == 0, next(4) as u32);
        redistributor.active_priorities.clear();
        for _ in 0..next(4) {
            redistributor.active_priorities.push((
                next(interrupts) as u16,
                next(2) as u8,
                (next(32) << 3) as u8,
            ));
        }
    }
    let spis = state.spis.iter_mut().map(|spi| (true, spi));
    let private = state
        .redistributors
        .iter_mut()
        .flat_map(|one| &mut one.private)
        .map(|private| (false, private));
    for (is_spi, interrupt) in spis.chain(private) {
        (interrupt.latched, interrupt.active, interrupt.enabled) =
            (next(4) == 0, next(8) == 0, next(4) != 0);
        (interrupt.group, interrupt.priority) =
            (u8::from(next(4) != 0), next(256) as u8 & priorities);
        interrupt.sources = if next(4) == 0 { 1 << next(32) } else { 0 };
        if is_spi {
            (interrupt.edge, interrupt.one_of_n) = (next(2) == 0, next(2) == 0);
            interrupt.holder = (next(4) != 0).then_some(next(vcpus) as u16);
            interrupt.affinity = next(5) as u32;
        }
    }
    state
}
