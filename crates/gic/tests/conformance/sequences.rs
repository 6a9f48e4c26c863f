//! What is done, and when.

use std::ops::AddAssign;

use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{IrqGuard, Std};

use crate::architecture::predictable::Reason;
use crate::architecture::sgi::SgiRegister;
use crate::architecture::{Access, Frame, Gic as Model, PRIVATE};
use crate::machine::{self, Machine, hardware};
use crate::random::Random;

/// INTIDs that are used: few, so that they meet.
const USED: [u32; 14] = [0, 1, 15, 16, 17, 31, 32, 33, 34, 35, 36, 37, 63, 64];
const SPIS: u32 = 64;
/// Backed by a physical interrupt.
const BACKED: u32 = 36;

/// How often what was done.
#[derive(Default, Debug)]
pub struct Done {
    acknowledged: u64,
    ended: u64,
    deactivated: u64,
    generated: u64,
    read: u64,
    written: u64,
    powered: u64,
    moved: u64,
    exits: u64,
}

impl Done {
    pub fn is_all(&self) -> bool {
        let Done {
            acknowledged,
            ended,
            deactivated,
            generated,
            read,
            written,
            powered,
            moved,
            exits,
        } = *self;
        [acknowledged, ended, deactivated, generated, read, written, powered, moved, exits]
            .iter()
            .all(|&n| n > 0)
    }
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.acknowledged += other.acknowledged;
        self.ended += other.ended;
        self.deactivated += other.deactivated;
        self.generated += other.generated;
        self.read += other.read;
        self.written += other.written;
        self.powered += other.powered;
        self.moved += other.moved;
        self.exits += other.exits;
    }
}

fn one_of(random: &mut Random, ids: &[u32]) -> u32 {
    ids[random.below(ids.len() as u32) as usize]
}

/// Runs a sequence of so many operations.
pub fn run(seed: u64, operations: u32) -> Done {
    let mut random = Random::new(seed);
    let pes = 1 + random.below(4) as usize;
    let lrs = 1 + random.below(if seed.is_multiple_of(2) { 4 } else { 16 }) as u8;
    let (priority_bits, preemption_bits) =
        [(5, 5), (6, 5), (7, 6), (8, 7)][random.below(4) as usize];
    let implementation =
        hw::Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal");
    let affinities: Vec<_> = [0, 0x18, 0x1_0000, 0x8301_8f17][..pes].to_vec();
    let gic = machine::gic(implementation, SPIS, &affinities);
    let irqs_off = IrqGuard::<Std>::new();
    let model = Model::new(&affinities, SPIS, priority_bits.into(), preemption_bits.into());
    let mut machine = Machine::new(&gic, &irqs_off, implementation, model);
    let mut done = Done::default();
    prepare(&mut machine, &mut random);
    for _ in 0..operations {
        step(&mut machine, &mut random, &mut done);
    }
    machine.compares();
    drain(&mut machine);
    machine.compares();
    done.exits += u64::from(machine.exits);
    done
}

/// Enables most of everything, as a guest's driver does.
fn prepare(machine: &mut Machine<'_>, random: &mut Random) {
    let few = random.one_in(2);
    machine.accesses(0, &Access::write(Frame::Distributor, 0, 4, 3));
    if random.one_in(2) {
        machine.backs(BACKED);
    }
    for pe in 0..machine.model.pes.len() {
        machine.accesses(0, &Access::write(Frame::RdBase(pe), 0x14, 4, 0));
        let drops_only = random.one_in(2);
        let guest = machine.guest(pe);
        guest.write_ctlr(u64::from(drops_only) << 1).expect("it is not trapped");
        machine.model.pes[pe].interface.drops_only = drops_only;
        mask(machine, pe, 0xff);
        (0..2).for_each(|group| enable(machine, pe, group, true));
        for id in USED.into_iter().filter(|&id| id < PRIVATE) {
            configure(machine, random, Frame::SgiBase(pe), id, few);
        }
        machine.accesses(0, &Access::write(Frame::SgiBase(pe), 0x100, 4, 0xffff_ffff));
    }
    for id in USED.into_iter().filter(|&id| id >= PRIVATE) {
        configure(machine, random, Frame::Distributor, id, few);
        route(machine, random, 0, id);
    }
    for word in 1..3 {
        machine.accesses(0, &Access::write(Frame::Distributor, 0x100 + 4 * word, 4, 0xffff_ffff));
    }
    if random.one_in(2) {
        come_at_once(machine, random);
    }
}

/// Edges come at once, while nothing else is to be done: all of them, so that each has been listed
/// once since it was configured, and when they are handled some of them again.
fn come_at_once(machine: &mut Machine<'_>, random: &mut Random) {
    let triggers = machine.model.read(Frame::Distributor, 0xc08, 4);
    let edges = (0..6).filter(|at| triggers >> (2 * at + 1) & 1 != 0);
    let edges = edges.fold(0, |bits, at| bits | 1 << at);
    machine.accesses(0, &Access::write(Frame::Distributor, 0x204, 4, edges));
    drain(machine);
    let some = edges & random.bits();
    machine.accesses(0, &Access::write(Frame::Distributor, 0x204, 4, some));
}

fn configure(machine: &mut Machine<'_>, random: &mut Random, frame: Frame, id: u32, few: bool) {
    let priority = random.below(if few { 4 } else { 32 }) << 3;
    machine.accesses(0, &Access::write(frame, 0x400 + id, 1, priority.into()));
    let groups = machine.model.read(frame, 0x80 + id / 32 * 4, 4);
    let group = u64::from(!random.one_in(4));
    let value = groups & !(1 << (id % 32)) | group << (id % 32);
    machine.accesses(0, &Access::write(frame, 0x80 + id / 32 * 4, 4, value));
    let edge = id == BACKED || random.one_in(2);
    let triggers = machine.model.read(frame, 0xc00 + id / 16 * 4, 4);
    let value = triggers & !(3 << (id % 16 * 2)) | u64::from(edge) << (id % 16 * 2 + 1);
    machine.accesses(0, &Access::write(frame, 0xc00 + id / 16 * 4, 4, value));
}

fn route(machine: &mut Machine<'_>, random: &mut Random, by: usize, id: u32) {
    let affinities: Vec<_> = machine.model.pes.iter().map(|pe| pe.affinity).collect();
    let affinity = u64::from(if random.one_in(8) { 0x77 } else { one_of(random, &affinities) });
    let value =
        (affinity & 0xff00_0000) << 8 | affinity & 0xff_ffff | u64::from(random.one_in(3)) << 31;
    machine.accesses(by, &Access::write(Frame::Distributor, 0x6000 + 8 * id, 8, value));
}

fn mask(machine: &mut Machine<'_>, pe: usize, mask: u8) {
    machine.log(|| format!("{pe}: mask {mask:x}"));
    let guest = machine.guest(pe);
    guest.write_pmr(hw::Priority(mask)).expect("it is not trapped");
    let mask = guest.read_pmr().expect("it is not trapped").0;
    machine.model.pes[pe].interface.mask = mask;
}

fn enable(machine: &mut Machine<'_>, pe: usize, group: usize, on: bool) {
    machine.log(|| format!("{pe}: group {group} is on: {on}"));
    machine.guest(pe).write_igrpen(hardware(group), on).expect("it is not trapped");
    machine.model.pes[pe].interface.enabled[group] = on;
    // A maintenance interrupt may tell the host.
    machine.settles();
}

fn step(machine: &mut Machine<'_>, random: &mut Random, done: &mut Done) {
    let pe = random.below(machine.model.pes.len() as u32) as usize;
    if !machine.is_running(pe) {
        if random.one_in(3) {
            machine.power(pe, true);
            // As firmware does.
            mask(machine, pe, 0xff);
            (0..2).for_each(|group| enable(machine, pe, group, true));
            done.powered += 1;
        }
        return;
    }
    let group = usize::from(!random.one_in(3));
    match random.below(32) {
        0..=6 => done.acknowledged += u64::from(machine.acknowledges(pe, group)),
        7..=10 => done.ended += u64::from(machine.ends(pe)),
        11 => {
            let dropped = machine.model.dropped(pe);
            if !dropped.is_empty() {
                let id = one_of(random, &dropped);
                machine.deactivates(pe, id);
                done.deactivated += 1;
            }
        }
        12 => {
            let to = if random.one_in(3) { (random.below(32) << 3) as u8 } else { 0xff };
            mask(machine, pe, to);
        }
        13 => {
            let on = !random.one_in(3);
            enable(machine, pe, group, on);
        }
        14 => {
            let point = random.below(8) as u8;
            if machine.model.nothing_active(pe) {
                machine.guest(pe).write_bpr(hardware(group), point).expect("it is not trapped");
                machine.model.pes[pe].interface.set_binary_point(group, point);
            }
        }
        15 | 16 => {
            generate(machine, random, pe);
            done.generated += 1;
        }
        17..=22 => {
            let id = one_of(random, &USED);
            // A physical interrupt that is still asserted at its end comes again.
            if id == BACKED || id < 16 || random.one_in(3) {
                machine.edge(pe, id);
            } else {
                let source = one_of(random, &[0, 7, 31]);
                machine.line(pe, id, source, random.one_in(2));
            }
        }
        23..=28 => {
            let access = access(machine, random);
            if is_determined(&machine.model, &access) {
                machine.accesses(pe, &access);
                *(if access.written.is_some() { &mut done.written } else { &mut done.read }) += 1;
            }
        }
        29 => {
            let id = one_of(random, &USED[6..]);
            route(machine, random, pe, id);
        }
        30 => {
            if random.one_in(4) && machine.model.pes[pe].interface.last_acknowledged().is_none() {
                machine.power(pe, false);
            } else {
                machine.compares();
            }
        }
        _ => {
            machine.moves();
            done.moved += 1;
        }
    }
}

fn generate(machine: &mut Machine<'_>, random: &mut Random, pe: usize) {
    let to = random.below(machine.model.pes.len() as u32) as usize;
    let affinity = u64::from(machine.model.pes[to].affinity);
    let id = u64::from(one_of(random, &USED[..3]));
    let list = 1 << (affinity & 0xf) | random.bits() & 0xffff & random.bits();
    // What is RES0.
    let value = if random.one_in(2) { random.bits() << 8 & 0xff00_0e00_f000_0000 } else { 0 };
    let value = value
        | if random.one_in(4) {
            1 << 40
        } else {
            (affinity >> 24) << 48
                | (affinity >> 16 & 0xff) << 32
                | (affinity >> 8 & 0xff) << 16
                | (affinity >> 4 & 0xf) << 44
        };
    let register =
        [SgiRegister::Sgi1R, SgiRegister::Sgi1R, SgiRegister::Sgi0R, SgiRegister::Asgi1R];
    machine.generates(pe, register[random.below(4) as usize], value | list | id << 24);
}

/// Returns whether the model says what an access does: also where the manual leaves that open, and
/// the controller chooses what the model does.
///
/// Of a guest that makes inactive what it is running, the model knows by whom that was acknowledged
/// when the guest ends it, and the interface does not.
fn is_determined(model: &Model, access: &Access) -> bool {
    !model.reasons(access).contains(&Reason::InactiveWhileRunning)
}

/// Returns an access: mostly to a register that matters.
fn access(machine: &Machine<'_>, random: &mut Random) -> Access {
    let pe = random.below(machine.model.pes.len() as u32) as usize;
    let id = one_of(random, &USED);
    let frame = if id < PRIVATE { Frame::SgiBase(pe) } else { Frame::Distributor };
    let (word, bit) = (id / 32 * 4, 1 << (id % 32));
    let used = USED
        .iter()
        .filter(|&&used| used / 32 == id / 32)
        .fold(0, |bits, used| bits | 1 << (used % 32));
    let bits = if random.one_in(2) { bit } else { used & random.bits() };
    let written = |value: u64, random: &mut Random| (!random.one_in(3)).then_some(value);
    match random.below(20) {
        0 => Access {
            frame,
            offset: 0x80 + word,
            size: 4,
            written: written(random.bits() & 0xffff_ffff, random),
        },
        1 | 2 => Access { frame, offset: 0x100 + word, size: 4, written: written(bits, random) },
        3 | 4 => Access { frame, offset: 0x180 + word, size: 4, written: written(bits, random) },
        5 | 6 => Access { frame, offset: 0x200 + word, size: 4, written: written(bits, random) },
        7 | 8 => Access { frame, offset: 0x280 + word, size: 4, written: written(bits, random) },
        9 | 10 => Access { frame, offset: 0x300 + word, size: 4, written: written(bits, random) },
        11 | 12 => Access { frame, offset: 0x380 + word, size: 4, written: written(bits, random) },
        13 => Access {
            frame,
            offset: 0x400 + id,
            size: 1,
            written: written(random.bits() & 0xff, random),
        },
        14 => Access {
            frame,
            offset: 0x400 + id / 4 * 4,
            size: 4,
            written: written(random.bits() & 0xffff_ffff, random),
        },
        15 => Access {
            frame,
            offset: 0xc00 + id / 16 * 4,
            size: 4,
            written: written(random.bits() & 0xffff_ffff, random),
        },
        16 => {
            let enables = if random.one_in(2) { 3 } else { random.bits() & 3 };
            Access {
                frame: Frame::Distributor,
                offset: 0,
                size: 4,
                written: written(enables, random),
            }
        }
        17 => {
            let dpg = (random.bits() & 7) << 24;
            Access { frame: Frame::RdBase(pe), offset: 0, size: 4, written: written(dpg, random) }
        }
        18 => {
            let sleeps = u64::from(random.one_in(4)) << 1;
            Access {
                frame: Frame::RdBase(pe),
                offset: 0x14,
                size: 4,
                written: written(sleeps, random),
            }
        }
        _ => {
            let frame = [Frame::Distributor, Frame::RdBase(pe), Frame::SgiBase(pe)]
                [random.below(3) as usize];
            let offset = match random.below(4) {
                0 => random.below(0x1_0000),
                1 => 0xffc0 + random.below(0x40),
                2 => 0x6000 + random.below(0x800),
                _ => random.below(0x100),
            };
            Access {
                frame,
                offset,
                size: 1 << random.below(4),
                written: random.one_in(2).then_some(random.bits()),
            }
        }
    }
}

/// Nothing is masked, and everything is acknowledged and ended until nothing is signalled: then
/// there is nothing that any vCPU should have.
fn drain(machine: &mut Machine<'_>) {
    let pes = machine.model.pes.len();
    for pe in 0..pes {
        machine.power(pe, true);
        machine.accesses(pe, &Access::write(Frame::RdBase(pe), 0x14, 4, 0));
        machine.accesses(pe, &Access::write(Frame::RdBase(pe), 0, 4, 0));
        (0..2).for_each(|group| enable(machine, pe, group, true));
        mask(machine, pe, 0xff);
        while machine.ends(pe) {}
    }
    machine.accesses(0, &Access::write(Frame::Distributor, 0, 4, 3));
    for (pe, id) in machine.model.interrupts() {
        if machine.model.interrupt(pe, id).line {
            [0, 7, 31].into_iter().for_each(|source| machine.line(pe, id, source, false));
        }
    }
    let mut more = true;
    while std::mem::take(&mut more) {
        for pe in 0..pes {
            for group in 0..2 {
                while machine.acknowledges(pe, group) {
                    more = true;
                    machine.ends(pe);
                    for id in machine.model.dropped(pe) {
                        machine.deactivates(pe, id);
                    }
                }
            }
        }
    }
    // The lowest priority is masked, whatever the mask.
    for pe in 0..pes {
        let mask = machine.model.pes[pe].interface.mask;
        let left = machine
            .model
            .candidates(pe)
            .into_iter()
            .filter(|&id| machine.model.interrupt(pe, id).priority < mask);
        assert_eq!(left.collect::<Vec<_>>(), [], "still pending for {pe}, and not signalled");
    }
}
