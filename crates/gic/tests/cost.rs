//! What an access to a register costs at most, counted: whatever a guest writes, it is bounded by
//! how many SPIs and vCPUs there are.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{Affinity, CpuInterface, Ended, Frame, Gic, Host, Kick, VcpuId, Width};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec::{Group, Implementation};
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Std};
use doorbell_post::{InGuest, Notice};

use registers::Registers;

type P = Counting<Std>;

struct Quiet;

impl Kick for Quiet {
    fn notice(&mut self, _: VcpuId, _: Notice<CpuId>) {}
}

impl Host for Quiet {
    fn ended(&mut self, _: Ended) {}
}

fn vcpu(number: usize) -> VcpuId {
    VcpuId::new(number as u32).expect("it is small")
}

fn write(gic: &Gic<P>, frame: Frame, offset: u32, value: u64) {
    let _ = gic.write(frame, offset, Width::Word, value, &mut Quiet).complete(&mut Quiet);
}

/// Returns the CPUs that it runs on.
fn implementation() -> Implementation {
    Implementation::new(4, 5, 5).expect("it is legal")
}

/// Returns a controller where as much as possible is to be done: all that there is is enabled,
/// pending, and any vCPU may have it; all vCPUs are awake, and but for the first take part in the
/// groups that `part` says. The first has all SPIs, which are of group 1.
fn busy(spis: u32, vcpus: usize, part: [bool; 2]) -> Gic<P> {
    let affinities: Vec<_> = (0..vcpus as u32).map(Affinity).collect();
    let gic = Gic::new(Vtr::from_bits(implementation().vtr()), spis, &affinities)
        .expect("there can be one");
    write(&gic, Frame::Distributor, 0, 3);
    let dpg = u64::from(!part[0]) << 24 | u64::from(!part[1]) << 25;
    for of in 0..vcpus {
        write(&gic, Frame::Redistributor(vcpu(of)), 0x14, 0);
        for register in [0x1_0100, 0x1_0200] {
            write(&gic, Frame::Redistributor(vcpu(of)), register, 0xffff_ffff);
        }
    }
    for id in 32..32 + spis {
        write(&gic, Frame::Distributor, 0x6000 + 8 * id, 1 << 31);
    }
    (0..vcpus).for_each(|of| {
        write(&gic, Frame::Redistributor(vcpu(of)), 0, if of == 0 { dpg & 1 << 24 } else { dpg });
    });
    for word in 1..(32 + spis).div_ceil(32) {
        for register in [0x100, 0x200] {
            write(&gic, Frame::Distributor, register + 4 * word, 0xffff_ffff);
        }
    }
    gic
}

/// A vCPU in the guest.
struct Running<'a>(InGuest<'a, P>, CpuInterface, Registers);

fn enter<'a>(gic: &'a Gic<P>, irqs_off: &'a IrqGuard<P>, of: usize) -> Running<'a> {
    let mut interface = gic.cpu_interface(vcpu(of)).expect("nobody has it");
    let mut registers = Registers(VirtualInterface::new(implementation()));
    registers.0.set_vmcr(0xff << 24 | 0b11);
    let in_guest = interface.enter(gic, irqs_off, CpuId(of as u32), &mut registers, &mut Quiet);
    Running(in_guest.expect("nothing was requested"), interface, registers)
}

/// Returns how many atomic operations an access takes at such a controller, with all vCPUs in the
/// guest, up to its completion.
fn cost(spis: u32, vcpus: usize, part: [bool; 2], access: (Frame, u32, Option<u64>)) -> u64 {
    let gic = busy(spis, vcpus, part);
    let irqs_off = IrqGuard::new();
    let running: Vec<_> = (0..vcpus).map(|of| enter(&gic, &irqs_off, of)).collect();
    let (frame, offset, written) = access;
    let (access, begun) = P::measure(|| match written {
        Some(value) => gic.write(frame, offset, Width::Word, value, &mut Quiet),
        None => gic.read(frame, offset, Width::Word, &mut Quiet),
    });
    for Running(in_guest, mut interface, mut registers) in running {
        let _ = interface.exit(&gic, in_guest, &mut registers, &mut Quiet);
    }
    let (complete, ended) = P::measure(|| access.complete(&mut Quiet).is_ok());
    assert!(complete, "all have left");
    let counts = begun + ended;
    assert_eq!((counts.spins, counts.mutexes, counts.irq_saves), (0, 0, 0), "it takes a lock");
    counts.loads + counts.stores + counts.rmws + counts.fences
}

/// Returns the most that any access takes of some registers.
fn most(spis: u32, vcpus: usize, registers: &[(Frame, u32)]) -> u64 {
    let values = [None, Some(0), Some(0xffff_ffff), Some(0x5555_5555)];
    let parts = [[true, true], [false, true], [false, false]];
    let all =
        registers.iter().flat_map(|&(frame, offset)| values.map(|value| (frame, offset, value)));
    let costs = all.flat_map(|access| parts.map(|part| cost(spis, vcpus, part, access)));
    costs.max().unwrap_or_default()
}

/// The registers of 32 interrupts, of 16, of four, and of one.
fn of_interrupts(frame: Frame, base: u32) -> Vec<(Frame, u32)> {
    let word = if base == 0 { 1 } else { 0 };
    let flags = (0x80..0x400).step_by(0x80).map(|offset| offset + 4 * word);
    let others = [0x400 + 32 * word, 0xc00 + 8 * word, 0xc04 + 8 * word];
    flags.chain(others).map(|offset| (frame, base + offset)).collect()
}

#[test]
fn an_access_takes_no_more_than_there_are_interrupts_in_the_register_or_vcpus_or_both() {
    for (spis, vcpus) in [(32, 1), (32, 8), (988, 1), (256, 8), (64, 64)] {
        let (n, m) = (u64::from(spis), vcpus as u64);
        let redistributor = Frame::Redistributor(vcpu(0));
        let spis_of = most(spis, vcpus, &of_interrupts(Frame::Distributor, 0));
        let private = most(spis, vcpus, &of_interrupts(redistributor, 0x1_0000));
        let router = most(
            spis,
            vcpus,
            &[(Frame::Distributor, 0x6000 + 8 * 40), (Frame::Distributor, 0x6004 + 8 * 40)],
        );
        let ctlr = most(spis, vcpus, &[(Frame::Distributor, 0)]);
        let parts = most(spis, vcpus, &[(redistributor, 0), (redistributor, 0x14)]);
        println!("{spis} SPIs, {vcpus} vCPUs: {spis_of} {private} {router} {ctlr} {parts}");
        // Each interrupt, and for each that any vCPU may have twice each vCPU: before and after it
        // was given to one.
        assert!(private <= 32 * 12, "a register of private interrupts: {private}");
        assert!(spis_of <= 32 * (12 + 2 * m), "a register of SPIs: {spis_of}");
        assert!(router <= 12 + 2 * m, "GICD_IROUTER: {router}");
        assert!(ctlr <= 4 + 4 * m, "GICD_CTLR: {ctlr}");
        assert!(parts <= 12 + n * (12 + 2 * m), "GICR_CTLR or GICR_WAKER: {parts}");
    }
}

/// The guest disables the group of all SPIs, any of which any vCPU may have, and nobody else takes
/// part.
#[test]
fn an_exit_takes_no_more_than_each_spi_and_vcpu() {
    for (spis, vcpus) in [(32, 1), (988, 1), (256, 8), (64, 64)] {
        let (n, m) = (u64::from(spis), vcpus as u64);
        let gic = busy(spis, vcpus, [false, false]);
        let irqs_off = IrqGuard::new();
        let Running(in_guest, mut interface, mut registers) = enter(&gic, &irqs_off, 0);
        registers.0.write_igrpen(Group::One, false).expect("it is not trapped");
        let (_, exit) = P::measure(|| interface.exit(&gic, in_guest, &mut registers, &mut Quiet));
        let (in_guest, entry) =
            P::measure(|| interface.enter(&gic, &irqs_off, CpuId(0), &mut registers, &mut Quiet));
        drop(in_guest.expect("nothing was requested"));
        let of = |counts: Counts| counts.loads + counts.stores + counts.rmws + counts.fences;
        println!("{spis} SPIs, {vcpus} vCPUs: {} {}", of(exit), of(entry));
        assert!(of(exit).max(of(entry)) <= 64 + n * (16 + 4 * m), "{exit:?} {entry:?}");
    }
}
