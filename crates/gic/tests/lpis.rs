//! LPIs, with plain calls in one thread: what a guest gets is what a plain model says.

#[allow(dead_code, reason = "other test files use the rest")]
mod random;
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, BuildError, Frame, Gic, IntId, LpiConfig, LpiMapping, LpiSpace, NotMapped, Priority,
    Sent, Width,
};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Std};
use doorbell_post::Notice;

use random::Random;
use registers::Registers;
use vm::{Vm, intid, vcpu};

const GICR_CTLR: u32 = 0x0000;
const ENABLE_LPIS: u64 = 1 << 0;
const RWP: u64 = 1 << 3;

fn lpi(number: u32) -> IntId {
    IntId::lpi(number).expect("it is an LPI")
}

fn config(priority: u8) -> LpiConfig {
    LpiConfig { enabled: true, priority: Priority(priority) }
}

/// One with room for so many bytes of LPIs, that all redistributors forward.
fn new(list_registers: u8, vcpus: u32, bytes: u64) -> Vm {
    let space = LpiSpace::new(14, bytes).expect("there can be so many");
    let mut vm = Vm::with(list_registers, vcpus, 64, |gic| {
        gic.with_lpis(space).expect("there are few SPIs")
    });
    (0..vcpus).for_each(|number| enables(&mut vm, number, true));
    vm
}

fn enables(vm: &mut Vm, number: u32, enabled: bool) {
    let value = if enabled { ENABLE_LPIS } else { 0 };
    vm.write(Frame::Redistributor(vcpu(number)), GICR_CTLR, value);
}

fn map(vm: &mut Vm, number: u32, target: u32, config: LpiConfig) -> LpiMapping {
    let target = Some(vcpu(target));
    vm.gic.map_lpi(lpi(number), target, config, &mut vm.asked).expect("it is not mapped")
}

fn send(vm: &mut Vm, mapping: LpiMapping) -> Sent {
    vm.gic.send(mapping, &mut vm.asked)
}

#[test]
fn what_there_is_of_lpis_is_what_the_registers_say() {
    let read = |vm: &mut Vm, frame, offset| vm.read(frame, offset);
    let (mut with, mut without) = (new(4, 2, 4096), Vm::new(2, 32));
    let typer = read(&mut with, Frame::Distributor, 4);
    assert_eq!((typer >> 17 & 1, typer >> 19 & 0x1f, typer >> 11 & 0x1f), (1, 13, 0));
    let typer = read(&mut without, Frame::Distributor, 4);
    assert_eq!((typer >> 17 & 1, typer >> 19 & 0x1f), (0, 9));
    let frame = Frame::Redistributor(vcpu(1));
    assert_eq!(read(&mut with, frame, 8) & 1, 1); // GICR_TYPER.PLPIS
    assert_eq!(read(&mut without, frame, 8) & 1, 0);
    assert_eq!(read(&mut with, frame, GICR_CTLR), 0b111); // EnableLPIs, CES, IR
    without.write(frame, GICR_CTLR, ENABLE_LPIS);
    assert_eq!(read(&mut without, frame, GICR_CTLR), 0);
    enables(&mut with, 1, false);
    assert_eq!(read(&mut with, frame, GICR_CTLR), 0b110);
}

#[test]
fn there_are_lpis_of_14_to_16_bits_and_beside_them_at_most_928_spis() {
    for (bits, lpis) in [(14, 8192), (15, 24_576), (16, 57_344)] {
        assert_eq!(LpiSpace::new(bits, 0).map(LpiSpace::lpis), Some(lpis));
    }
    assert!([0, 13, 17, u32::MAX].iter().all(|&bits| LpiSpace::new(bits, 0).is_none()));
    assert!([0, 1019, 8191, 65_536, u32::MAX].iter().all(|&number| IntId::lpi(number).is_none()));
    assert!(lpi(8192).is_lpi() && lpi(65_535).is_lpi() && !lpi(8192).is_spi());
    assert!(!intid(1019).is_lpi() && intid(1019).is_spi());
    let with = |spis| {
        let gic = Gic::<Std>::new(Vtr::from_bits(3), spis, &[Affinity(0)]);
        let space = LpiSpace::new(16, 0).expect("there can be so many");
        gic.expect("there can be one").with_lpis(space).err()
    };
    let too_many = |spis| Some(BuildError::SpisBesideLpis(spis));
    assert_eq!([928, 960, 988].map(with), [None, too_many(960), too_many(988)]);
}

#[test]
fn a_message_is_handled_once_and_the_lpi_leaves_no_trace() {
    let mut vm = new(4, 2, 4096);
    let mapping = map(&mut vm, 8200, 1, config(0x80));
    assert_eq!(send(&mut vm, mapping), Sent::Delivered);
    assert_eq!(send(&mut vm, mapping), Sent::Coalesced);
    assert_eq!(vm.acknowledges(0), 1023);
    assert_eq!(vm.acknowledges(1), 8200);
    // It is not active once it was folded, and its priority is: nothing of the same comes.
    let state = vm.gic.lpi(lpi(8200)).expect("it was mapped").state();
    assert!(!state.is_active() && !state.is_pending());
    assert_eq!(send(&mut vm, mapping), Sent::Delivered);
    assert_eq!(vm.acknowledges(1), 1023);
    vm.ends(1, 8200);
    assert_eq!(vm.acknowledges(1), 8200);
    vm.ends(1, 8200);
    assert_eq!(vm.acknowledges(1), 1023);
}

#[test]
fn an_lpi_that_comes_again_while_the_guest_has_it_kicks_the_vcpu() {
    let mut vm = new(4, 1, 4096);
    let mapping = map(&mut vm, 8192, 0, config(0x80));
    send(&mut vm, mapping);
    let gic = std::sync::Arc::clone(&vm.gic);
    let mut notices = Vec::new();
    vm.runs(0, |guest| {
        let id = guest.read_iar(hw::Group::One).expect("it is not trapped");
        let _ = guest.write_eoir(hw::Group::One, id).expect("it is not trapped");
        for _ in 0..2 {
            gic.send(mapping, &mut |_, notice: Notice<_>| notices.push(notice));
        }
    });
    assert!(matches!(notices[..], [Notice::Kick(_)]), "{notices:?}");
    assert_eq!(vm.acknowledges(0), 8192);
}

#[test]
fn memory_for_lpis_is_charged_before_it_is_allocated_and_once_for_each_128() {
    // Room for two parts of 128 LPIs, of 16 bytes each.
    let mut vm = new(4, 1, 2 * 128 * 16);
    assert_eq!(vm.gic.lpi_bytes(), 0);
    for number in [8192, 8193, 8319] {
        map(&mut vm, number, 0, config(0));
    }
    assert_eq!(vm.gic.lpi_bytes(), 2048);
    map(&mut vm, 16383, 0, config(0));
    let gic = std::sync::Arc::clone(&vm.gic);
    let mut fails = |number| {
        gic.map_lpi(lpi(number), None, config(0), &mut vm.asked).expect_err("it is not mapped")
    };
    assert_eq!(fails(8320), NotMapped::NoRoom);
    assert_eq!(fails(16384), NotMapped::NoSuch(lpi(16384)));
    assert_eq!(fails(8193), NotMapped::InUse(lpi(8193)));
    assert_eq!(gic.lpi_bytes(), 4096);
    assert!(gic.lpi(lpi(8320)).is_err() && gic.lpi(lpi(16384)).is_err());
}

#[test]
fn an_lpi_is_no_pin_and_to_deactivate_it_does_nothing() {
    let mut vm = new(4, 1, 4096);
    vm.write(Frame::Redistributor(vcpu(0)), 0x1_0100, 1); // GICR_ISENABLER0
    vm.gic.private(vcpu(0), intid(0)).expect("it is there").edge(&mut vm.asked);
    assert_eq!(vm.acknowledges(0), 0);
    let mapping = map(&mut vm, 8192, 0, config(0x80));
    let vm::Vcpu { interface, registers } = &mut vm.vcpus[0];
    let access = interface.deactivate(&vm.gic, mapping.id(), registers, &mut vm.asked);
    assert_eq!(access.complete(&mut vm.asked).ok(), Some(0));
    // Nor is another one taken for it.
    assert!(vm.gic.private(vcpu(0), intid(0)).expect("it is there").state().is_active());
    vm.ends(0, 0);
    assert!(!vm.gic.private(vcpu(0), intid(0)).expect("it is there").state().is_active());
    let pins = doorbell_gic::Pins::new(vm.gic.clone());
    assert_eq!((pins.pin(mapping.id()), pins.pin(intid(31))), (None, None));
}

#[test]
fn a_redistributor_is_asked_to_wait_until_an_lpi_is_out_of_the_list_registers() {
    let mut vm = new(4, 1, 4096);
    let mapping = map(&mut vm, 8192, 0, config(0x80));
    send(&mut vm, mapping);
    let gic = std::sync::Arc::clone(&vm.gic);
    let rwp = |gic: &Gic<Std>| {
        let frame = Frame::Redistributor(vcpu(0));
        let mut nobody = vm::Asked::default();
        let read = gic.read(frame, GICR_CTLR, Width::Word, &mut nobody);
        read.wait(&mut nobody) & RWP != 0
    };
    vm.runs(0, |_| {
        assert!(!rwp(&gic));
        assert!(gic.lpi(lpi(8192)).expect("it is there").unmap(&mut vm::Asked::default()));
        assert!(rwp(&gic));
    });
    assert!(!rwp(&gic));
    assert_eq!((vm.acknowledges(0), send(&mut vm, mapping)), (1023, Sent::Dropped));
}

#[test]
fn an_lpi_takes_five_read_modify_writes_from_its_message_to_its_end_and_no_lock() {
    type Counted = Counting<Std>;
    let nobody = &mut |_, notice: Notice<CpuId>| unreachable!("it is in the host: {notice:?}");
    let mut asked = vm::Asked::default();
    let implementation = hw::Implementation::new(4, 5, 5).expect("it is legal");
    let mut registers = Registers(VirtualInterface::new(implementation));
    registers.0.set_vmcr(0xf8 << 24 | 0b11);
    let gic = Gic::<Counted>::new(Vtr::from_bits(implementation.vtr()), 32, &[Affinity(0)])
        .expect("there can be one")
        .with_lpis(LpiSpace::new(14, 4096).expect("there can be so many"))
        .expect("there are few SPIs");
    let mut write = |frame, offset, value| {
        _ = gic.write(frame, offset, Width::Word, value, &mut asked).wait(&mut asked)
    };
    write(Frame::Distributor, 0, 1 << 1);
    write(Frame::Redistributor(vcpu(0)), 0x14, 0);
    write(Frame::Redistributor(vcpu(0)), GICR_CTLR, ENABLE_LPIS);
    let mapping = gic.map_lpi(lpi(8192), Some(vcpu(0)), config(0), nobody).expect("it is free");
    let mut interface = gic.cpu_interface(vcpu(0)).expect("nobody has it");
    let mut cycle = |sent| {
        let counts = Counted::measure(|| {
            if sent {
                assert_eq!(gic.send(mapping, nobody), Sent::Delivered);
            }
            let irqs_off = IrqGuard::new();
            let entered = interface.enter(
                &gic,
                &irqs_off,
                CpuId(0),
                &mut registers,
                &mut vm::Asked::default(),
            );
            let in_guest = entered.expect("nothing is requested");
            if sent {
                let got = registers.0.read_iar(hw::Group::One).expect("it is not trapped");
                assert_eq!(got.number(), 8192);
                let _ = registers.0.write_eoir(hw::Group::One, got).expect("it is not trapped");
            }
            let _ = interface.exit(&gic, in_guest, &mut registers, &mut vm::Asked::default());
        });
        counts.1
    };
    // The first ones take the news of the set-up, and clear and set the summary.
    [false, false, true].into_iter().for_each(|sent| _ = cycle(sent));
    let Counts { rmws, stores, spins: locks, fences, .. } = cycle(true);
    // Its latch, and the chain; that taken, its latch taken, and the LPI let go of. The stores are
    // of the link, and two of the mode.
    assert_eq!((rmws, stores, locks, fences), (5, 3, 0, 0));
}

/// What a plain model knows of an interrupt: LPIs, and edges that are SPIs.
#[derive(Clone, Default)]
struct Known {
    mapping: Option<LpiMapping>,
    target: Option<u32>,
    enabled: bool,
    priority: u8,
    pending: bool,
    active: bool,
}

/// A VM beside its model.
struct Both {
    vm: Vm,
    known: Vec<(u32, Known)>,
    forwards: Vec<bool>,
    off: Vec<bool>,
    /// What the guest of each vCPU has acknowledged and not ended.
    running: Vec<Vec<(u32, u8)>>,
    random: Random,
}

const LPIS: [u32; 6] = [8192, 8193, 8319, 8320, 9000, 16383];
const SPIS: [u32; 3] = [32, 33, 40];

impl Both {
    fn new(seed: u64) -> Both {
        let mut random = Random::new(seed);
        let list_registers = [1, 2, 4, 16][random.below(4) as usize];
        let vcpus = 1 + random.below(3);
        let mut vm = new(list_registers, vcpus, 1 << 20);
        let mut known: Vec<_> = LPIS.map(|number| (number, Known::default())).into();
        for number in SPIS {
            let (target, priority) = (random.below(vcpus), random.below(32) as u8 * 8);
            vm.write(Frame::Distributor, 0xc00 + number / 16 * 4, 0xaaaa_aaaa);
            let access = vm.gic.write(
                Frame::Distributor,
                0x400 + number,
                Width::Byte,
                priority.into(),
                &mut vm.asked,
            );
            let _ = access.wait(&mut vm.asked);
            vm.write(Frame::Distributor, 0x6000 + 8 * number, target.into());
            vm.enable_spi(number);
            let target = Some(target);
            known.push((number, Known { target, enabled: true, priority, ..Known::default() }));
        }
        let vcpus = vcpus as usize;
        Both {
            vm,
            known,
            forwards: vec![true; vcpus],
            off: vec![false; vcpus],
            running: vec![Vec::new(); vcpus],
            random,
        }
    }

    fn any_vcpu(&mut self) -> u32 {
        self.random.below(self.off.len() as u32)
    }

    fn any_config(&mut self) -> LpiConfig {
        LpiConfig::from_byte(self.random.bits() as u8 | u8::from(!self.random.one_in(4)))
    }

    fn does_anything(&mut self) {
        let which = self.random.below(LPIS.len() as u32) as usize;
        let number = LPIS[which];
        let is_mapped = self.known[which].1.mapping.is_some();
        let at = self.any_vcpu();
        match self.random.below(16) {
            0 | 1 => {
                let (config, target) = (self.any_config(), (!self.random.one_in(8)).then_some(at));
                let mapped =
                    self.vm.gic.map_lpi(lpi(number), target.map(vcpu), config, &mut self.vm.asked);
                assert_eq!(mapped.is_err(), is_mapped);
                if let Ok(mapping) = mapped {
                    let priority = config.priority.0 & 0xf8;
                    let (mapping, enabled) = (Some(mapping), config.enabled);
                    self.known[which].1 =
                        Known { mapping, target, enabled, priority, ..Known::default() };
                }
            }
            2 => {
                if let Ok(lpi) = self.vm.gic.lpi(lpi(number)) {
                    assert_eq!(lpi.unmap(&mut self.vm.asked), is_mapped);
                }
                let former = self.known[which].1.mapping.take();
                self.known[which].1 = Known::default();
                if let Some(former) = former {
                    assert_eq!(send(&mut self.vm, former), Sent::Dropped);
                }
            }
            3 => {
                if let Ok(lpi) = self.vm.gic.lpi(lpi(number)) {
                    assert_eq!(lpi.move_to(Some(vcpu(at)), &mut self.vm.asked), is_mapped);
                }
                if is_mapped {
                    self.known[which].1.target = Some(at);
                }
            }
            4 => {
                let (from, to) = (at, self.any_vcpu());
                for (number, known) in &mut self.known[..LPIS.len()] {
                    let moves = known.mapping.is_some() && known.target == Some(from);
                    if let Ok(lpi) = self.vm.gic.lpi(lpi(*number)) {
                        let (from, to) = (Some(vcpu(from)), Some(vcpu(to)));
                        assert_eq!(lpi.move_from(from, to, &mut self.vm.asked), moves);
                    }
                    if moves {
                        known.target = Some(to);
                    }
                }
            }
            5 => {
                let config = self.any_config();
                if let Ok(lpi) = self.vm.gic.lpi(lpi(number)) {
                    assert_eq!(lpi.configure(config, &mut self.vm.asked), is_mapped);
                }
                if is_mapped {
                    let known = &mut self.known[which].1;
                    (known.enabled, known.priority) = (config.enabled, config.priority.0 & 0xf8);
                }
            }
            6 => {
                if let Ok(lpi) = self.vm.gic.lpi(lpi(number)) {
                    assert_eq!(lpi.set_pending(false, &mut self.vm.asked), is_mapped);
                }
                self.known[which].1.pending = false;
            }
            7 => {
                let forwards = self.random.one_in(2);
                enables(&mut self.vm, at, forwards);
                self.forwards[at as usize] = forwards;
            }
            8 if self.running[at as usize].is_empty() && self.random.one_in(4) => {
                let vcpu = &mut self.vm.vcpus[at as usize];
                if self.off[at as usize] {
                    vcpu.interface.power_on(&self.vm.gic, &vcpu.registers, &mut self.vm.asked);
                } else {
                    vcpu.interface.power_off(&self.vm.gic, &mut self.vm.asked);
                }
                self.off[at as usize] ^= true;
            }
            9 => {
                let number = SPIS[self.random.below(3) as usize];
                self.vm.gic.spi(intid(number)).expect("it is there").edge(&mut self.vm.asked);
                self.known.iter_mut().filter(|(of, _)| *of == number).for_each(|(_, known)| {
                    known.pending = true;
                });
            }
            10..=12 => self.sends(which),
            _ => self.runs(at),
        }
    }

    fn sends(&mut self, which: usize) {
        let known = &mut self.known[which].1;
        let Some(mapping) = known.mapping else { return };
        let forwarded = known.target.is_some_and(|target| self.forwards[target as usize]);
        let expected = match (forwarded, known.pending) {
            (false, _) => Sent::Dropped,
            (true, true) => Sent::Coalesced,
            (true, false) => Sent::Delivered,
        };
        known.pending |= forwarded;
        assert_eq!(send(&mut self.vm, mapping), expected);
    }

    /// Returns the highest priority that is signalled to a vCPU.
    fn signalled(&self, at: u32) -> Option<u8> {
        let running = self.running[at as usize].last().map_or(0xff, |&(_, priority)| priority);
        let is_for = |(number, known): &(u32, Known)| {
            let forwarded = *number < 8192 || self.forwards[at as usize];
            let can = known.pending && known.enabled && !known.active && forwarded;
            can && known.target == Some(at) && known.priority < running.min(0xf8)
        };
        self.known.iter().filter(|known| is_for(known)).map(|(_, known)| known.priority).min()
    }

    /// The guest acknowledges and ends for a while, in some runs.
    fn runs(&mut self, at: u32) {
        if self.off[at as usize] {
            return;
        }
        // What is moved goes when the vCPU looks that has it.
        for (vcpu, _) in self.vm.vcpus.iter_mut().zip(&self.off).filter(|(_, off)| !**off) {
            let _ = vcpu.interface.signals(&self.vm.gic, &vcpu.registers, &mut self.vm.asked);
        }
        for _ in 0..1 + self.random.below(6) {
            let signalled = self.signalled(at);
            let vcpu = &mut self.vm.vcpus[at as usize];
            let said = vcpu.interface.signals(&self.vm.gic, &vcpu.registers, &mut self.vm.asked);
            assert_eq!(said, signalled.is_some());
            if self.random.one_in(3) {
                if let Some((number, _)) = self.running[at as usize].pop() {
                    self.vm.ends(at, number);
                    self.known.iter_mut().filter(|(of, _)| *of == number).for_each(|(_, known)| {
                        known.active = false;
                    });
                }
                continue;
            }
            let number = self.vm.acknowledges(at);
            let Some(priority) = signalled else {
                assert_eq!(number, 1023);
                continue;
            };
            let found = self.known.iter_mut().find(|(of, _)| *of == number);
            let (_, known) = found.expect("it is one that is signalled");
            assert!(known.pending && known.enabled && known.target == Some(at), "{number}");
            assert_eq!(known.priority, priority, "{number}");
            (known.pending, known.active) = (false, number < 8192);
            self.running[at as usize].push((number, priority));
        }
    }
}

#[test]
fn random_lpis_and_spis_are_signalled_as_a_plain_model_says() {
    let sequences = std::env::var("DOORBELL_SEQUENCES")
        .map_or(2_000, |most| most.parse::<u64>().expect("a number of sequences"));
    for seed in 0..sequences {
        let mut both = Both::new(seed);
        (0..300).for_each(|_| both.does_anything());
    }
}
