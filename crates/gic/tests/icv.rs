//! Registers of the CPU interface that are trapped, and done by software: a guest cannot tell that
//! from a CPU interface which does not trap them.

mod random;
mod registers;

use doorbell_gic::icv::{self, Access, Direction, Register};
use doorbell_gic::spec::{Vtr, ctlr, vmcr};
use doorbell_gic::{Group, IntId, ListRegisters};
use doorbell_hardware::gic::spec::{self as hw, ListRegister};
use doorbell_hardware::gic::{Trapped, VirtualInterface};

use random::Random;
use registers::Registers;

/// The ISS of an access with X0.
fn iss(register: Register, direction: Direction) -> u32 {
    let write = match register {
        Register::Pmr => 0x30_100c,
        Register::Dir => 0x32_3016,
        Register::Rpr => 0x36_3016,
        Register::Sgi1r => 0x3a_3016,
        Register::Asgi1r => 0x3c_3016,
        Register::Sgi0r => 0x3e_3016,
        Register::Ctlr => 0x38_3018,
    };
    write | (direction == Direction::Read) as u32
}

const ACCESSES: [(Register, Direction); 9] = [
    (Register::Pmr, Direction::Read),
    (Register::Pmr, Direction::Write),
    (Register::Dir, Direction::Write),
    (Register::Rpr, Direction::Read),
    (Register::Sgi1r, Direction::Write),
    (Register::Asgi1r, Direction::Write),
    (Register::Sgi0r, Direction::Write),
    (Register::Ctlr, Direction::Read),
    (Register::Ctlr, Direction::Write),
];

/// A CPU interface that traps, and the hypervisor that reads and writes in the guest's place.
struct Emulated {
    registers: Registers,
    vtr: Vtr,
}

impl Emulated {
    fn is_trapped(&mut self, trapped: bool) {
        let interface = &mut self.registers.0;
        interface.set_hcr(hw::hcr::TC.put(interface.hcr(), trapped.into()));
    }

    fn traps(&mut self, register: Register, direction: Direction, value: u64) -> u64 {
        let access = Access::from_iss(iss(register, direction)).expect("it is trapped");
        let registers = &mut self.registers;
        match (access.register, access.direction) {
            (Register::Ctlr, Direction::Read) => return icv::read_ctlr(registers, self.vtr),
            (Register::Ctlr, Direction::Write) => icv::write_ctlr(registers, value),
            (Register::Pmr, Direction::Read) => return icv::read_pmr(registers),
            (Register::Pmr, Direction::Write) => icv::write_pmr(registers, self.vtr, value),
            (Register::Rpr, _) => return icv::read_rpr(registers, self.vtr),
            (Register::Dir, _) => {
                if let Some(id) = icv::write_dir(registers, self.vtr, value) {
                    self.deactivates(id);
                }
            }
            (Register::Sgi0r | Register::Sgi1r | Register::Asgi1r, _) => unreachable!("{access:?}"),
        }
        0
    }

    /// Deactivates as the CPU interface does.
    fn deactivates(&mut self, id: IntId) {
        self.is_trapped(false);
        let intid = hw::IntId::new(id.number()).expect("it is small");
        let _ = self.registers.0.write_dir(intid).expect("it is not trapped");
        self.is_trapped(true);
    }
}

/// The same guest on a CPU interface that traps nothing, and on one that traps what both groups
/// share.
struct Twins {
    plain: VirtualInterface,
    emulated: Emulated,
}

impl Twins {
    fn new(random: &mut Random) -> Self {
        let bits = [(5, 5), (6, 5), (6, 6), (7, 5), (7, 6), (7, 7), (8, 5), (8, 6), (8, 7)];
        let (priority_bits, preemption_bits) = bits[random.below(bits.len() as u32) as usize];
        let lrs = 4 + random.below(13) as u8;
        let mut implementation =
            hw::Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal");
        if random.one_in(2) {
            implementation = implementation.with_long_ids();
        }
        if random.one_in(2) {
            implementation = implementation.without_tds();
        }
        let mut plain = VirtualInterface::new(implementation);
        plain.set_hcr(hw::hcr::EN.mask());
        plain.set_vmcr(random.bits() | 0b11);
        plain.write_pmr(hw::Priority(0xff)).expect("it is not trapped");
        let registers = Registers(plain.clone());
        let mut emulated = Emulated { registers, vtr: Vtr::from_bits(implementation.vtr()) };
        emulated.is_trapped(true);
        Twins { plain, emulated }
    }

    /// Does the same to both, which no bit traps.
    fn both<R: PartialEq + std::fmt::Debug>(
        &mut self,
        access: impl Fn(&mut VirtualInterface) -> R,
    ) {
        let (plain, emulated) = (access(&mut self.plain), access(&mut self.emulated.registers.0));
        assert_eq!(plain, emulated);
    }

    /// The hypervisor writes a list register, each of which has an INTID of its own.
    fn fills(&mut self, random: &mut Random) {
        let number = random.below(self.plain.implementation().list_registers() as u32);
        let first = if random.one_in(4) { 8192 } else { 32 };
        let group = if random.one_in(2) { hw::Group::Zero } else { hw::Group::One };
        let states = [hw::State::Pending, hw::State::Active, hw::State::PendingAndActive];
        let intid = hw::IntId::new(first + number).expect("it is small");
        let lr = ListRegister::new(intid, hw::Priority(random.bits() as u8), group);
        let lr = if random.one_in(4) { lr.in_state(states[random.below(3) as usize]) } else { lr };
        self.both(|interface| interface.set_lr(number as usize, lr));
    }

    /// The guest accesses a register that is not trapped.
    fn uses(&mut self, random: &mut Random) {
        let group = if random.one_in(2) { hw::Group::Zero } else { hw::Group::One };
        let (what, bits) = (random.below(8), random.bits());
        let intid = hw::IntId::new(self.some_intid(random)).expect("it is small");
        match what {
            0..=3 => self.both(|interface| interface.read_iar(group)),
            4..=5 => self.both(|interface| interface.write_eoir(group, intid)),
            6 => self.both(|interface| interface.write_bpr(group, bits as u8)),
            _ => self.both(|interface| interface.write_igrpen(group, !bits.is_multiple_of(4))),
        }
    }

    /// An INTID of those in the list registers, most of the time.
    fn some_intid(&self, random: &mut Random) -> u32 {
        let lrs = self.plain.implemented_lrs();
        match random.below(8) {
            0 => 1020 + random.below(4),
            1 => 8192 + random.below(0xe000),
            _ => lrs[random.below(lrs.len() as u32) as usize].intid().number(),
        }
    }

    /// The guest accesses a register that is trapped in one of them.
    fn accesses(&mut self, random: &mut Random) {
        const COMMON: &str = "it is not trapped";
        let bits = random.bits();
        let trapped = &mut self.emulated.registers.0;
        match random.below(6) {
            0 => {
                assert_eq!(trapped.read_pmr(), Err(Trapped::Common));
                let value = self.emulated.traps(Register::Pmr, Direction::Read, 0);
                assert_eq!(value, u64::from(self.plain.read_pmr().expect(COMMON).0));
            }
            1 => {
                let value = if random.one_in(3) { bits } else { bits | 0xc0 };
                self.plain.write_pmr(hw::Priority(value as u8)).expect(COMMON);
                self.emulated.traps(Register::Pmr, Direction::Write, value);
            }
            2 => {
                assert_eq!(trapped.read_rpr(), Err(Trapped::Common));
                let value = self.emulated.traps(Register::Rpr, Direction::Read, 0);
                assert_eq!(value, u64::from(self.plain.read_rpr().expect(COMMON).0));
            }
            3 => {
                assert_eq!(trapped.read_ctlr(), Err(Trapped::Common));
                let value = self.emulated.traps(Register::Ctlr, Direction::Read, 0);
                assert_eq!(value, self.plain.read_ctlr().expect(COMMON));
            }
            4 => {
                self.plain.write_ctlr(bits).expect(COMMON);
                self.emulated.traps(Register::Ctlr, Direction::Write, bits);
            }
            _ => {
                // Bits that are not implemented are ignored.
                let extra = if random.one_in(4) { random.below(1 << 8) << 16 } else { 0 };
                let number = self.some_intid(random) | extra;
                let intid = hw::IntId::new(number).expect("it is small");
                let _ = self.plain.write_dir(intid).expect(COMMON);
                self.emulated.traps(
                    Register::Dir,
                    Direction::Write,
                    u64::from(number) | bits << 24,
                );
            }
        }
    }

    fn compare(&self) {
        let mut released = self.emulated.registers.0.clone();
        released.set_hcr(released.hcr() & !hw::hcr::TC.mask());
        assert_eq!(released, self.plain);
    }
}

#[test]
fn a_guest_finds_the_same_registers_trapped_and_not_trapped() {
    for seed in 0..20_000 {
        let run = std::panic::catch_unwind(|| {
            let mut random = Random::new(seed);
            let mut twins = Twins::new(&mut random);
            for _ in 0..64 {
                match random.below(8) {
                    0..=1 => twins.fills(&mut random),
                    2..=4 => twins.uses(&mut random),
                    _ => twins.accesses(&mut random),
                }
                twins.compare();
            }
        });
        if let Err(panic) = run {
            eprintln!("in sequence {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// What was saved of the registers: words that keep what is written.
#[derive(Default)]
struct Saved {
    vmcr: u64,
    active: [[u32; 4]; 2],
}

impl ListRegisters for Saved {
    fn vmcr(&self) -> u64 {
        self.vmcr
    }

    fn set_vmcr(&mut self, value: u64) {
        self.vmcr = value;
    }

    fn hcr(&self) -> u64 {
        unreachable!("it is not needed")
    }

    fn set_hcr(&mut self, _: u64) {
        unreachable!("it is not needed")
    }

    fn list_register(&self, _: usize) -> u64 {
        unreachable!("it is not needed")
    }

    fn set_list_register(&mut self, _: usize, _: u64) {
        unreachable!("it is not needed")
    }

    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        self.active[group as usize][number]
    }
}

fn vtr(priority_bits: u64, preemption_bits: u64) -> Vtr {
    Vtr::from_bits((priority_bits - 1) << 29 | (preemption_bits - 1) << 26 | 3)
}

#[test]
fn bits_of_the_mask_that_are_not_implemented_stay_zero_also_in_what_was_saved() {
    for (priority_bits, kept) in [(5, 0xf8), (6, 0xfc), (7, 0xfe), (8, 0xff)] {
        let mut saved = Saved { vmcr: 0x12_3456_0003, ..Saved::default() };
        icv::write_pmr(&mut saved, vtr(priority_bits, 5), 0xfff);
        assert_eq!(saved.vmcr, 0x12_0056_0003 | kept << 24);
        assert_eq!(icv::read_pmr(&saved), kept);
    }
}

#[test]
fn a_write_of_ctlr_changes_two_bits_and_no_others() {
    let ones = !(vmcr::VCBPR | vmcr::VEOIM);
    for (value, set) in
        [(0, 0), (ctlr::CBPR, vmcr::VCBPR), (ctlr::EOIMODE, vmcr::VEOIM), (!0, !ones)]
    {
        for before in [0, ones, !0] {
            let mut saved = Saved { vmcr: before, ..Saved::default() };
            icv::write_ctlr(&mut saved, value);
            assert_eq!(saved.vmcr, before & ones | set);
        }
    }
}

#[test]
fn ctlr_says_what_ich_vtr_el2_and_the_host_say() {
    let read = |vtr| icv::read_ctlr(&Saved::default(), vtr);
    assert_eq!(read(vtr(5, 5)), 4 << 8);
    assert_eq!(read(vtr(8, 7)), 7 << 8);
    let all = Vtr::from_bits(1 << 23 | 1 << 22 | 1 << 21 | 4 << 29 | 4 << 26);
    assert_eq!(read(all), 4 << 8 | 1 << 11 | 1 << 14 | 1 << 15);
    assert_eq!(read(vtr(5, 5).with_ctlr(1 << 18)), 4 << 8 | 1 << 18);
    assert_eq!(read(vtr(5, 5).with_ctlr(1 << 19)), 4 << 8 | 1 << 19);
    assert_eq!(
        read(vtr(5, 5).with_ctlr(!(3 << 18))),
        4 << 8,
        "the modes of the host are not the guest's"
    );
}

#[test]
fn the_running_priority_is_the_highest_of_both_groups_with_all_bits_of_preemption() {
    let mut saved = Saved::default();
    assert_eq!(icv::read_rpr(&saved, vtr(8, 7)), 0xff, "nothing is active");
    saved.active = [[0, 0, 0, 1 << 31], [0, 0, 1 << 3, 0]];
    assert_eq!(icv::read_rpr(&saved, vtr(8, 7)), (64 + 3) << 1);
    saved.active[0][2] = 1 << 2;
    assert_eq!(icv::read_rpr(&saved, vtr(8, 7)), (64 + 2) << 1);
    saved.active = [[1 << 31, 0, 0, 0], [0; 4]];
    assert_eq!(icv::read_rpr(&saved, vtr(8, 5)), 0xf8);
}

#[test]
fn a_write_of_dir_deactivates_what_is_kept_by_the_distributor_and_only_with_eoimode_1() {
    let writes = |vmcr, value| {
        icv::write_dir(&Saved { vmcr, ..Saved::default() }, vtr(5, 5), value).map(IntId::number)
    };
    for number in [0, 15, 31, 32, 1019] {
        assert_eq!(writes(vmcr::VEOIM, number), Some(number as u32));
        assert_eq!(
            writes(vmcr::VEOIM, number | !0xffff),
            Some(number as u32),
            "16 bits are implemented"
        );
        assert_eq!(writes(!vmcr::VEOIM, number), None);
    }
    for number in [1020, 1023, 1024, 5119, 8191, 8192, 0xffff] {
        assert_eq!(writes(vmcr::VEOIM, number), None, "{number}");
    }
    let long = Vtr::from_bits(1 << 23);
    let saved = Saved { vmcr: vmcr::VEOIM, ..Saved::default() };
    assert_eq!(icv::write_dir(&saved, long, 1 << 16 | 32), None, "an LPI");
    assert_eq!(
        icv::write_dir(&saved, long, 1 << 24 | 32),
        IntId::new(32),
        "24 bits are implemented"
    );
}

#[test]
fn each_access_is_found_in_its_iss_with_its_general_purpose_register() {
    for (register, direction) in ACCESSES {
        for rt in 0..32 {
            let found = Access::from_iss(iss(register, direction) | rt << 5);
            assert_eq!(found, Some(Access { register, direction, rt: rt as u8 }));
        }
    }
}

#[test]
fn no_other_iss_is_an_access_that_is_done_here() {
    let found = (0..1 << 22).filter(|&iss| Access::from_iss(iss).is_some()).count();
    assert_eq!(found, 32 * ACCESSES.len());
}
