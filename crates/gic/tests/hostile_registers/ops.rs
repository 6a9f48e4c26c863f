//! What a hostile guest, its devices and its host do: drawn from numbers, random ones or a
//! fuzzer's.

use doorbell_gic::{Frame, SgiRegister, VcpuId, Width};
use doorbell_hardware::gic::spec::Group;

/// Where numbers come from.
pub trait Numbers {
    /// Returns some 56 bits.
    fn bits(&mut self) -> u64;

    /// Returns a number below `end`, which is not 0.
    fn below(&mut self, end: u32) -> u32;

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// A VM, and the CPUs that it runs on.
#[derive(Clone, Debug)]
pub struct Setup {
    pub vcpus: usize,
    pub spis: u32,
    pub list_registers: u8,
    pub priority_bits: u8,
    pub preemption_bits: u8,
    /// What ICH_VTR_EL2.TDS says.
    pub traps_dir: bool,
    /// EOIcount counts EOIs of what was never acknowledged, too.
    pub counts_strays: bool,
    /// Every third SPI and every fifth PPI is backed by a physical interrupt.
    pub physical: bool,
    /// In the end the guest clears the active priorities of its first vCPU, as a kernel that is
    /// booted by another one does; or that vCPU is powered off and on like the others.
    pub boots_by_itself: bool,
    /// All priorities are the highest at first.
    pub one_priority: bool,
    /// Nobody is powered off, and the state is not restored.
    pub steady: bool,
    /// The guest that behaves ends interrupts by EOI and DIR.
    pub drops_only: bool,
}

/// An access to a register.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub frame: Frame,
    pub offset: u32,
    pub width: Width,
    pub written: Option<u64>,
}

/// What a vCPU does in the guest.
#[derive(Clone, Copy, Debug)]
pub enum Guest {
    /// Acknowledges an interrupt of that group, or else of the other one.
    Iar(Group),
    /// Ends what was acknowledged last.
    EndLast,
    /// Deactivates what was acknowledged so many acknowledgements ago.
    DeactivateRecent(usize),
    Eoir(Group, u32),
    Dir(u32),
    Ctlr(u64),
    Bpr(Group, u8),
    Igrpen(Group, bool),
    Pmr(u8),
    Rpr,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// The vCPU is in the guest: it was scheduled.
    Enter(usize),
    /// The vCPU leaves the guest: for a kick or a maintenance interrupt, late or not, or for
    /// nothing.
    Leave(usize),
    /// Kicks and maintenance interrupts arrive, until there are none.
    Settle,
    Guest(usize, Guest),
    Access(usize, Access),
    Sgi(usize, SgiRegister, u64),
    /// A source of an interrupt, of that vCPU if it is private, gives a level.
    Level(usize, u32, u32, bool),
    Edge(usize, u32),
    Power(usize, bool),
    /// The vCPU waits for an interrupt.
    Wfi(usize),
    /// Something is requested of the vCPU.
    Request(usize),
    /// The vCPU comes to another CPU.
    Moves(usize),
    /// All leave, and the state is saved, replaced and restored; or one that was changed is
    /// restored.
    Saves(Option<u64>),
}

/// What a kind of operation is drawn for, of 64.
const ENTERS: u32 = 4;
const LEAVES: u32 = 8;
const SETTLES: u32 = 9;
const GUEST: u32 = 37;
const ACCESSES: u32 = 47;
const SGIS: u32 = 49;
const LEVELS: u32 = 53;
const EDGES: u32 = 60;

fn one_of<T: Copy>(numbers: &mut impl Numbers, of: &[T]) -> T {
    of[numbers.below(of.len() as u32) as usize]
}

/// INTIDs that are used: few, so that they meet; sometimes any.
fn id(numbers: &mut impl Numbers) -> u32 {
    const USED: [u32; 16] = [0, 1, 15, 16, 17, 27, 31, 32, 33, 34, 35, 36, 37, 62, 63, 64];
    let any = numbers.below(17) as usize;
    USED.get(any).copied().unwrap_or_else(|| numbers.below(1024))
}

impl Setup {
    pub fn draw(numbers: &mut impl Numbers) -> Setup {
        let (priority_bits, preemption_bits) = one_of(numbers, &[(5, 5), (6, 5), (7, 6), (8, 7)]);
        let flags = numbers.below(128);
        let flag = |bit: u32| flags >> bit & 1 != 0;
        let few = if numbers.one_in(2) { 4 } else { 16 };
        Setup {
            vcpus: 1 + numbers.below(4) as usize,
            spis: one_of(numbers, &[0, 32, 64, 64, 64, 64, 64, 96]),
            list_registers: 1 + numbers.below(few) as u8,
            priority_bits,
            preemption_bits,
            traps_dir: flag(0),
            counts_strays: flag(1),
            physical: flag(2),
            boots_by_itself: flag(3),
            drops_only: flag(4),
            one_priority: flag(5),
            steady: flag(6),
        }
    }
}

impl Op {
    pub fn draw(numbers: &mut impl Numbers, setup: &Setup) -> Op {
        let by = numbers.below(setup.vcpus as u32) as usize;
        match numbers.below(64) {
            0..ENTERS => Op::Enter(by),
            ENTERS..LEAVES => Op::Leave(by),
            LEAVES..SETTLES => Op::Settle,
            SETTLES..GUEST => Op::Guest(by, guest(numbers)),
            GUEST..ACCESSES => Op::Access(by, access(numbers, setup.vcpus)),
            ACCESSES..SGIS => sgi(numbers, by),
            SGIS..LEVELS => Op::Level(by, id(numbers), numbers.below(3) * 15, !numbers.one_in(3)),
            LEVELS..EDGES => Op::Edge(by, id(numbers)),
            EDGES | 63 if setup.steady => Op::Edge(by, id(numbers)),
            EDGES => Op::Power(by, !numbers.one_in(4)),
            61 => Op::Wfi(by),
            62 if numbers.one_in(2) => Op::Request(by),
            62 => Op::Moves(by),
            _ if numbers.one_in(4) => Op::Saves(numbers.one_in(2).then(|| numbers.bits())),
            _ => Op::Enter(by),
        }
    }
}

fn guest(numbers: &mut impl Numbers) -> Guest {
    let group = one_of(numbers, &[Group::Zero, Group::One, Group::One]);
    match numbers.below(24) {
        0..=7 => Guest::Iar(group),
        8..=12 => Guest::EndLast,
        13 | 14 => Guest::DeactivateRecent(numbers.below(4) as usize),
        15 => Guest::Eoir(group, id(numbers)),
        16 => Guest::Dir(if numbers.one_in(4) {
            numbers.bits() as u32 & 0xff_ffff
        } else {
            id(numbers)
        }),
        17 | 18 => Guest::Ctlr(numbers.below(4).into()),
        19 => Guest::Bpr(group, numbers.below(8) as u8),
        20 => Guest::Igrpen(group, !numbers.one_in(4)),
        21 | 22 => Guest::Pmr(if numbers.one_in(6) { numbers.bits() as u8 } else { 0xff }),
        _ => Guest::Rpr,
    }
}

fn sgi(numbers: &mut impl Numbers, by: usize) -> Op {
    let register = one_of(numbers, &[SgiRegister::Sgi0R, SgiRegister::Sgi1R, SgiRegister::Asgi1R]);
    // Affinities are 0 to 3: mostly those.
    let value = match numbers.below(4) {
        0 => numbers.bits() | numbers.bits() << 32,
        1 => 1 << 40 | u64::from(numbers.below(16)) << 24,
        _ => u64::from(numbers.below(16)) << 24 | u64::from(numbers.below(16)),
    };
    Op::Sgi(by, register, value)
}

/// Returns an access to a register of one interrupt that matters, mostly.
fn access(numbers: &mut impl Numbers, vcpus: usize) -> Access {
    // One frame more than there is.
    let of = numbers.below(vcpus as u32 + 1);
    let vcpu = VcpuId::new(if of == vcpus as u32 && !numbers.one_in(8) { 0 } else { of });
    let redistributor = Frame::Redistributor(vcpu.expect("it is small"));
    let written = numbers.below(4) != 0;
    let id = id(numbers);
    let bits = match numbers.below(4) {
        0 => u64::from(u32::MAX),
        1 => numbers.bits(),
        _ => 1 << (id % 32),
    };
    let (frame, base) = if id < 32 { (redistributor, 0x1_0000) } else { (Frame::Distributor, 0) };
    let at = |offset: u32, width: Width, value: u64| Access {
        frame,
        offset: base + offset,
        width,
        written: written.then_some(value),
    };
    match numbers.below(24) {
        kind @ 0..=13 => at(0x80 * (1 + kind / 2) + id / 32 * 4, Width::Word, bits),
        14 => at(0x400 + id, Width::Byte, numbers.bits() & 0xff),
        15 => at(0x400 + id / 4 * 4, Width::Word, numbers.bits()),
        16 => at(0xc00 + id / 16 * 4, Width::Word, numbers.bits()),
        17 => {
            let (frame, offset, any) =
                (Frame::Distributor, 0x6000 + 8 * id, u64::from(numbers.one_in(2)) << 31);
            let affinity = u64::from(numbers.below(5));
            match numbers.below(4) {
                0 => Access {
                    frame,
                    offset: offset + 4,
                    width: Width::Word,
                    written: written.then_some(affinity / 4),
                },
                1 => Access {
                    frame,
                    offset,
                    width: Width::Word,
                    written: written.then_some(any | affinity),
                },
                _ => Access {
                    frame,
                    offset,
                    width: Width::Double,
                    written: written.then_some(any | affinity),
                },
            }
        }
        18 => {
            let enables = if !numbers.one_in(4) { 3 } else { u64::from(numbers.below(4)) };
            Access {
                frame: Frame::Distributor,
                offset: 0,
                width: Width::Word,
                written: written.then_some(enables),
            }
        }
        19 => {
            let dpg = u64::from(numbers.below(8)) << 24;
            Access {
                frame: redistributor,
                offset: 0,
                width: Width::Word,
                written: written.then_some(dpg),
            }
        }
        20 => {
            let sleeps = u64::from(numbers.one_in(5)) << 1;
            Access {
                frame: redistributor,
                offset: 0x14,
                width: Width::Word,
                written: written.then_some(sleeps),
            }
        }
        kind => {
            let frame = if kind == 21 { Frame::Distributor } else { redistributor };
            anywhere(numbers, frame)
        }
    }
}

/// Returns an access at any offset, also one that is not in the frame, of any width.
fn anywhere(numbers: &mut impl Numbers, frame: Frame) -> Access {
    let offset = match numbers.below(6) {
        0 => numbers.bits() as u32,
        1 => 0xff00 + numbers.below(0x200),
        2 => 0x1_0000 + numbers.below(0x1000),
        3 => 0x5f00 + numbers.below(0x2200),
        _ => numbers.below(0x1100),
    };
    let width = one_of(numbers, &[Width::Byte, Width::Half, Width::Word, Width::Double]);
    let offset = if numbers.one_in(4) { offset } else { offset / width.bytes() * width.bytes() };
    Access {
        frame,
        offset,
        width,
        written: numbers.one_in(2).then(|| numbers.bits() | numbers.bits() << 32),
    }
}

/// Returns what makes most of a VM work: hostile guests begin as others do.
pub fn begins(setup: &Setup) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut write = |frame, offset, value| {
        ops.push(Op::Access(0, Access { frame, offset, width: Width::Word, written: Some(value) }));
    };
    write(Frame::Distributor, 0, 3);
    let private = (0..setup.vcpus)
        .filter_map(|of| Some((Frame::Redistributor(VcpuId::new(of as u32)?), 0x1_0000, 0)));
    let spis = (1..setup.spis / 32 + 1).map(|word| (Frame::Distributor, 0, word));
    for (frame, base, word) in private.chain(spis) {
        if word == 0 {
            write(frame, 0x14, 0);
        }
        write(frame, base + 0x100 + 4 * word, 0xffff_ffff);
        write(frame, base + 0xc00 + 8 * word, 0x2222_2222);
        for n in if setup.one_priority { 0..0 } else { 0..8 } {
            write(
                frame,
                base + 0x400 + 32 * word + 4 * n,
                0x60_4020_8000_2060 >> (8 * (n % 4)) & 0xffff_ffff,
            );
        }
    }
    for of in 0..setup.vcpus {
        for guest in
            [Guest::Pmr(0xff), Guest::Igrpen(Group::Zero, true), Guest::Igrpen(Group::One, true)]
        {
            ops.push(Op::Guest(of, guest));
        }
    }
    ops
}
