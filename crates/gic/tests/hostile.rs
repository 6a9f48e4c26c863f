//! Guests that do what is UNPREDICTABLE: they end what they have not acknowledged, in any order,
//! and change EOImode and binary points while something is active, trapped or not; beside them
//! hosts that change words without telling the vCPU. Nothing panics, and every entry is one that
//! hardware allows.

mod random;
mod registers;

use doorbell_gic::icv::{self, Access, Direction, Register};
use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    ApList, Group, IntId, Interrupt, Interrupts, PhysicalIntId, Priority, Trigger, VcpuId,
};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::Std;

use random::Random;
use registers::Registers;

const VCPU: VcpuId = VcpuId::new(0).unwrap();

const COUNT: u32 = 64;

struct Table(Vec<Interrupt<Std>>);

impl Interrupts<Std> for Table {
    fn interrupt(&self, id: IntId) -> &Interrupt<Std> {
        &self.0[id.number() as usize]
    }
}

fn id(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

/// What a guest does, whatever comes of it.
fn guest(random: &mut Random, interface: &mut VirtualInterface) {
    let group = [hw::Group::Zero, hw::Group::One][random.below(2) as usize];
    let number = if random.one_in(8) { random.below(1 << 24) } else { random.below(COUNT) };
    let intid = hw::IntId::new(number).expect("it is small");
    let bits = random.bits();
    match random.below(10) {
        0..=2 => _ = interface.read_iar(group),
        3..=4 => _ = interface.write_eoir(group, intid),
        5 => _ = interface.write_dir(intid),
        6 => _ = interface.write_ctlr(bits),
        7 => _ = interface.write_bpr(group, bits as u8),
        8 => _ = interface.write_igrpen(group, !bits.is_multiple_of(4)),
        _ => _ = interface.write_pmr(hw::Priority(bits as u8 | 0x80)),
    }
}

/// What anybody does to the word of an interrupt, with or without telling the vCPU.
fn host(random: &mut Random, interrupt: &Interrupt<Std>) {
    let bits = random.bits();
    let _ = match random.below(7) {
        0..=2 => interrupt.latch(),
        3 => interrupt.set_level(bits as u32, bits & 64 != 0),
        4 => interrupt.set_enabled(!bits.is_multiple_of(4)),
        5 => interrupt.set_active(bits.is_multiple_of(4)),
        _ => {
            let group = if bits & 1 != 0 { Group::One } else { Group::Zero };
            let before = interrupt.state();
            interrupt.configure(Priority((bits >> 8) as u8), group, interrupt.physical());
            before
        }
    };
}

/// What a guest does that is trapped, with any ISS and value.
fn trapped(
    random: &mut Random,
    list: &mut ApList,
    table: &Table,
    registers: &mut Registers,
    vtr: Vtr,
) {
    let near = [0x30_100c, 0x32_3016, 0x36_3016, 0x38_3018][random.below(4) as usize];
    let iss = if random.one_in(8) { random.bits() as u32 } else { near | random.below(2) };
    let Some(Access { register, direction, .. }) = Access::from_iss(iss) else { return };
    let value = if random.one_in(2) { random.bits() } else { random.below(COUNT).into() };
    match (register, direction) {
        (Register::Ctlr, Direction::Read) => _ = icv::read_ctlr(registers, vtr),
        (Register::Ctlr, Direction::Write) => icv::write_ctlr(registers, value),
        (Register::Pmr, Direction::Read) => _ = icv::read_pmr(registers),
        (Register::Pmr, Direction::Write) => icv::write_pmr(registers, vtr, value | 0x80),
        (Register::Rpr, _) => _ = icv::read_rpr(registers, vtr),
        (Register::Dir, _) => {
            let vmcr = registers.0.vmcr();
            let kept = icv::write_dir(registers, vtr, value).filter(|id| id.number() < COUNT);
            kept.into_iter().for_each(|id| _ = list.deactivate(table, id, vmcr));
        }
        (Register::Sgi0r | Register::Sgi1r | Register::Asgi1r, _) => {}
    }
}

fn lives(seed: u64) {
    let mut random = Random::new(seed);
    let (priority_bits, preemption_bits) =
        [(5, 5), (6, 5), (7, 6), (8, 7)][random.below(4) as usize];
    let lrs = 1 + random.below(16) as u8;
    let implementation =
        hw::Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal");
    let implementation =
        if random.one_in(2) { implementation.counting_strays() } else { implementation };
    let mut registers = Registers(VirtualInterface::new(implementation));
    registers.0.set_vmcr(0xff << 24 | 0b11);
    let triggers = [Trigger::Edge, Trigger::Level];
    let table = Table(
        (0..COUNT).map(|number| Interrupt::new(triggers[number as usize % 2], VCPU)).collect(),
    );
    for number in 0..COUNT {
        let physical =
            (number >= 48).then(|| PhysicalIntId::new(100 + number).expect("it is small"));
        table.interrupt(id(number)).configure(Priority((number * 8) as u8), Group::One, physical);
        table.interrupt(id(number)).set_enabled(true);
    }
    let mut list = ApList::new(Vtr::from_bits(implementation.vtr()), VCPU);
    for _ in 0..128 {
        list.fold(&table, &mut registers);
        list.take_ended(&table, |_| ());
        let vmcr = registers.0.vmcr();
        for _ in 0..random.below(3) {
            let number = random.below(COUNT);
            host(&mut random, table.interrupt(id(number)));
            if !random.one_in(8) {
                list.look(&table, id(number), vmcr);
            }
        }
        if random.one_in(4) {
            list.deactivate(&table, id(random.below(COUNT)), vmcr);
        }
        if random.one_in(4) {
            trapped(
                &mut random,
                &mut list,
                &table,
                &mut registers,
                Vtr::from_bits(implementation.vtr()),
            );
        }
        let groups = [!random.one_in(8), !random.one_in(8)];
        // What changes behind the vCPU's back may be seen by the one and not by the other.
        let _ = list.signals(&table, &registers, groups);
        list.flush(&table, &mut registers, groups);
        registers.0.check().expect("a guest may be entered with it");
        assert_eq!(registers.0.misr(), 0, "a condition is asserted that the entry does not clear");
        (0..random.below(8)).for_each(|_| guest(&mut random, &mut registers.0));
    }
}

#[test]
fn nothing_that_a_guest_does_panics_or_makes_an_entry_that_hardware_does_not_allow() {
    let lives_of =
        std::env::var("DOORBELL_LIVES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    for seed in 0..lives_of {
        if let Err(panic) = std::panic::catch_unwind(|| lives(seed)) {
            eprintln!("in life {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
