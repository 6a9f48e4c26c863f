//! The guest's tables of LPIs: what is read from them, what is written to them, and when.

#[allow(dead_code, reason = "other test files use the rest")]
mod random;
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use std::sync::Arc;

use doorbell_gic::{Frame, IntId, LpiConfig, LpiMapping, LpiSpace, Sent, Width};

use random::Random;
use vm::{Asked, Vm, vcpu};

const CTLR: u32 = 0x00;
const PROPBASER: u32 = 0x70;
const PENDBASER: u32 = 0x78;
const INVLPIR: u32 = 0xa0;
const INVALLR: u32 = 0xb0;
const SYNCR: u32 = 0xc0;
const RWP: u64 = 1 << 3;
const PTZ: u64 = 1 << 62;

/// Where the guest has its tables: the configurations, and what is pending for each vCPU.
const CONFIGS: usize = 0x1000;
const PENDING: [usize; 2] = [0x1_0000, 0x2_0000];

fn lpi(number: u32) -> IntId {
    IntId::lpi(number).expect("it is an LPI")
}

/// A VM with two vCPUs, whose guest has tables for INTIDs of 14 bits, and has LPIs disabled.
fn new() -> Vm {
    let space = LpiSpace::new(14, 1 << 20).expect("there can be so many");
    let mut vm = Vm::with(4, 2, 32, |gic| gic.with_lpis(space).expect("there are few SPIs"));
    vm.asked.memory.bytes = vec![0; 0x3_0000];
    for number in 0..2 {
        write(&mut vm, number, PROPBASER, CONFIGS as u64 | 13);
        write(&mut vm, number, PENDBASER, PENDING[number as usize] as u64);
    }
    vm
}

fn frame(number: u32) -> Frame {
    Frame::Redistributor(vcpu(number))
}

fn write(vm: &mut Vm, number: u32, offset: u32, value: u64) {
    let width = if offset == CTLR { Width::Word } else { Width::Double };
    let gic = Arc::clone(&vm.gic);
    let access = gic.write(frame(number), offset, width, value, &mut vm.asked);
    let _ = access.wait(&mut vm.asked);
}

fn read(vm: &mut Vm, number: u32, offset: u32) -> u64 {
    let width = if [CTLR, SYNCR].contains(&offset) { Width::Word } else { Width::Double };
    vm.gic.read(frame(number), offset, width, &mut vm.asked).wait(&mut vm.asked)
}

fn config(vm: &mut Vm, number: u32, byte: u8) {
    vm.asked.memory.bytes[CONFIGS + number as usize - 8192] = byte;
}

fn pending(vm: &mut Vm, at: u32, number: u32) -> &mut u8 {
    &mut vm.asked.memory.bytes[PENDING[at as usize] + number as usize / 8]
}

/// Maps an LPI that is disabled, as far as its mapping says.
fn map(vm: &mut Vm, number: u32, target: u32) -> LpiMapping {
    let target = Some(vcpu(target));
    let mapped = vm.gic.map_lpi(lpi(number), target, LpiConfig::from_byte(0), &mut vm.asked);
    mapped.expect("it is not mapped")
}

fn is_enabled(vm: &Vm, number: u32) -> bool {
    vm.gic.lpi(lpi(number)).expect("it was mapped").state().is_enabled()
}

#[test]
fn the_registers_keep_what_there_is_of_them_and_are_read_only_while_lpis_are_enabled() {
    let mut vm = new();
    write(&mut vm, 0, PROPBASER, u64::MAX);
    write(&mut vm, 0, PENDBASER, u64::MAX);
    assert_eq!(read(&mut vm, 0, PROPBASER), 0x070f_ffff_ffff_ff9f & !0x60);
    // PTZ reads as zero.
    assert_eq!(read(&mut vm, 0, PENDBASER), 0x070f_ffff_ffff_0f80);
    let gic = Arc::clone(&vm.gic);
    let half = gic.write(frame(0), PROPBASER + 4, Width::Word, 1, &mut vm.asked);
    let _ = half.wait(&mut vm.asked);
    assert_eq!(read(&mut vm, 0, PROPBASER), 0x0000_0001_ffff_ff9f & !0x60);
    assert_eq!(vm.read(frame(0), PROPBASER + 4), 1);
    write(&mut vm, 0, CTLR, 1);
    write(&mut vm, 0, PROPBASER, 0);
    write(&mut vm, 0, PENDBASER, 0);
    assert_ne!((read(&mut vm, 0, PROPBASER), read(&mut vm, 0, PENDBASER)), (0, 0));
    assert_eq!(read(&mut vm, 0, SYNCR), 0);
    // Each vCPU has its own, and without LPIs there are none.
    assert_eq!(read(&mut vm, 1, PROPBASER), CONFIGS as u64 | 13);
    let mut without = Vm::new(1, 32);
    write(&mut without, 0, PROPBASER, 13);
    assert_eq!(read(&mut without, 0, PROPBASER), 0);
}

#[test]
fn what_the_tables_say_counts_when_lpis_are_enabled() {
    let mut vm = new();
    for (number, target) in [(8192, 0), (8200, 0), (8201, 1), (16383, 0)] {
        map(&mut vm, number, target);
        config(&mut vm, number, 0x81);
        *pending(&mut vm, 0, number) |= 1 << (number % 8);
    }
    config(&mut vm, 8192, 0x80);
    write(&mut vm, 0, CTLR, 1);
    assert!(!is_enabled(&vm, 8192) && is_enabled(&vm, 8200) && is_enabled(&vm, 16383));
    // Another vCPU's is none of this one's.
    assert!(!is_enabled(&vm, 8201));
    let mut got = [vm.acknowledges(0), 0];
    vm.ends(0, got[0]);
    got[1] = vm.acknowledges(0);
    got.sort_unstable();
    assert_eq!(got, [8200, 16383]);
    assert_eq!(vm.acknowledges(1), 1023);
    write(&mut vm, 1, CTLR, 1);
    assert!(is_enabled(&vm, 8201));
    assert_eq!(vm.acknowledges(1), 1023);
}

#[test]
fn a_table_that_is_said_to_be_zero_is_not_read() {
    let mut vm = new();
    map(&mut vm, 8192, 0);
    config(&mut vm, 8192, 0x81);
    *pending(&mut vm, 0, 8192) = 1;
    write(&mut vm, 0, PENDBASER, PENDING[0] as u64 | PTZ);
    write(&mut vm, 0, CTLR, 1);
    assert!(is_enabled(&vm, 8192));
    assert_eq!(vm.acknowledges(0), 1023);
}

#[test]
fn what_is_pending_goes_into_the_table_when_lpis_are_disabled_and_comes_back_from_there() {
    let mut vm = new();
    let mappings = [8192, 8193, 9000].map(|number| {
        config(&mut vm, number, 0x81);
        map(&mut vm, number, 0)
    });
    config(&mut vm, 8194, 0x81);
    let others = map(&mut vm, 8194, 1);
    (0..2).for_each(|number| write(&mut vm, number, CTLR, 1));
    *pending(&mut vm, 0, 8200) = 0xff;
    assert_eq!(vm.gic.send(others, &mut vm.asked), Sent::Delivered);
    for mapping in [mappings[1], mappings[2]] {
        assert_eq!(vm.gic.send(mapping, &mut vm.asked), Sent::Delivered);
    }
    write(&mut vm, 0, CTLR, 0);
    assert_eq!((*pending(&mut vm, 0, 8192), *pending(&mut vm, 0, 9000)), (1 << 1, 1 << (9000 % 8)));
    // What is mapped nowhere near is not pending either.
    assert_eq!(*pending(&mut vm, 0, 8200), 0);
    assert_eq!(vm.gic.send(mappings[0], &mut vm.asked), Sent::Dropped);
    assert_eq!(vm.acknowledges(0), 1023);
    // Another vCPU's stays pending.
    assert_eq!(vm.acknowledges(1), 8194);
    // The table counts, whatever was pending before.
    *pending(&mut vm, 0, 8192) = 1 << 0;
    *pending(&mut vm, 0, 9000) = 0;
    write(&mut vm, 0, CTLR, 1);
    assert_eq!(vm.acknowledges(0), 8192);
    vm.ends(0, 8192);
    assert_eq!(vm.acknowledges(0), 1023);
}

#[test]
fn lpis_are_disabled_when_the_vcpu_has_folded() {
    let mut vm = new();
    config(&mut vm, 8192, 0x81);
    let mapping = map(&mut vm, 8192, 0);
    write(&mut vm, 0, CTLR, 1);
    assert_eq!(vm.gic.send(mapping, &mut vm.asked), Sent::Delivered);
    let gic = Arc::clone(&vm.gic);
    let mut guest = Asked::default();
    guest.memory.bytes = vm.asked.memory.bytes.clone();
    let access = vm.runs(0, |_| {
        let access = gic.write(frame(0), CTLR, Width::Word, 0, &mut guest);
        let access = access.complete(&mut guest).expect_err("the vCPU is in the guest");
        assert_eq!(guest.memory.bytes[PENDING[0] + 1024], 0);
        access
    });
    let ctlr = |guest: &mut Asked| gic.read(frame(0), CTLR, Width::Word, guest).wait(guest);
    assert_eq!(ctlr(&mut guest) & RWP, RWP);
    let _ = access.wait(&mut guest);
    assert_eq!(ctlr(&mut guest), 0b110);
    assert_eq!(guest.memory.bytes[PENDING[0] + 1024], 1);
    assert_eq!(vm.acknowledges(0), 1023);
}

#[test]
fn a_configuration_that_has_changed_counts_when_the_guest_says_so() {
    let mut vm = new();
    for (number, target) in [(8192, 0), (9000, 0), (8193, 1)] {
        map(&mut vm, number, target);
    }
    let all = |vm: &Vm| [8192, 9000, 8193].map(|number| is_enabled(vm, number));
    let enables = |vm: &mut Vm, byte| [8192, 9000, 8193].map(|number| config(vm, number, byte));
    enables(&mut vm, 0x81);
    // Nothing is cached while LPIs are disabled.
    write(&mut vm, 0, INVLPIR, 8192);
    write(&mut vm, 0, INVALLR, 0);
    assert_eq!(all(&vm), [false; 3]);
    enables(&mut vm, 0);
    (0..2).for_each(|number| write(&mut vm, number, CTLR, 1));
    enables(&mut vm, 0x81);
    for number in [8193, 0, 8191, 9001, 16384, 65535, u32::MAX] {
        write(&mut vm, 0, INVLPIR, number.into());
        assert_eq!(all(&vm), [false; 3], "{number}");
    }
    write(&mut vm, 0, INVLPIR, 8192);
    assert_eq!(all(&vm), [true, false, false]);
    write(&mut vm, 0, INVALLR, 0);
    assert_eq!(all(&vm), [true, true, false]);
}

#[test]
fn memory_that_is_not_there_changes_nothing_and_loses_nothing() {
    let mut vm = new();
    config(&mut vm, 8192, 0x81);
    let mapping = map(&mut vm, 8192, 0);
    write(&mut vm, 0, CTLR, 1);
    assert_eq!(vm.gic.send(mapping, &mut vm.asked), Sent::Delivered);
    vm.asked.memory.is_gone = true;
    for (offset, value) in [(INVLPIR, 8192), (INVALLR, 0), (CTLR, 0), (CTLR, 1)] {
        write(&mut vm, 0, offset, value);
    }
    // The table could not be written, so it is pending still.
    assert_eq!(vm.acknowledges(0), 8192);
    assert!(is_enabled(&vm, 8192));
}

#[test]
fn an_access_to_many_lpis_looks_at_128_at_once_and_another_is_ignored_meanwhile() {
    let mut vm = new();
    for number in [8192, 8193, 8400, 16383] {
        map(&mut vm, number, 0);
    }
    let gic = Arc::clone(&vm.gic);
    let mut access = gic.write(frame(0), CTLR, Width::Word, 1, &mut vm.asked);
    let mut steps = 0;
    loop {
        let before = vm.asked.memory.accesses;
        match access.complete(&mut vm.asked) {
            Ok(_) => break,
            Err(again) => access = again,
        }
        // Both tables.
        assert!(vm.asked.memory.accesses - before <= 2);
        let ctlr = vm.read(frame(0), CTLR);
        assert_eq!(ctlr & (RWP | 1), RWP);
        write(&mut vm, 0, CTLR, 1);
        assert_eq!(vm.read(frame(0), CTLR) & RWP, RWP);
        steps += 1;
    }
    assert!((2..=4).contains(&steps), "{steps}");
    assert_eq!(vm.read(frame(0), CTLR), 0b111);
}

#[test]
fn whatever_the_guest_writes_each_access_ends_and_reads_no_more_than_the_lpis_that_there_are() {
    for seed in 0..300 {
        let (mut random, mut vm) = (Random::new(seed), new());
        let numbers = [8192, 8319, 8320, 12_345, 16_383];
        let mappings = numbers.map(|number| map(&mut vm, number, number % 2));
        vm.asked.memory.bytes.iter_mut().for_each(|byte| *byte = random.bits() as u8);
        for _ in 0..200 {
            let offset = [CTLR, CTLR, PROPBASER, PENDBASER, INVLPIR, INVALLR, SYNCR]
                [random.below(7) as usize];
            let value = match random.below(3) {
                0 => random.bits() << 8 | random.bits(),
                1 => 13 | random.bits() & 0x3_f000,
                _ => random.below(2).into(),
            };
            let (number, before) = (random.below(2), vm.asked.memory.accesses);
            write(&mut vm, number, offset, value);
            // Four parts of 128 LPIs, and two tables.
            assert!(vm.asked.memory.accesses - before <= 8);
            vm.asked.memory.is_gone = random.one_in(8);
            let _ = vm.gic.send(mappings[random.below(5) as usize], &mut vm.asked);
            let got = vm.acknowledges(number);
            if got != 1023 {
                assert!(numbers.contains(&got));
                vm.ends(number, got);
            }
        }
        // A guest that behaves finds all as it should be.
        vm.asked.memory.is_gone = false;
        for number in 0..2 {
            write(&mut vm, number, CTLR, 0);
            write(&mut vm, number, PROPBASER, CONFIGS as u64 | 13);
            write(&mut vm, number, PENDBASER, PENDING[number as usize] as u64 | PTZ);
            numbers.into_iter().for_each(|number| config(&mut vm, number, 0x41));
            write(&mut vm, number, CTLR, 1);
        }
        for (number, mapping) in numbers.into_iter().zip(mappings) {
            let _ = vm.gic.send(mapping, &mut vm.asked);
            let at = number % 2;
            let mut got = Vec::new();
            while let id @ 8192.. = vm.acknowledges(at) {
                vm.ends(at, id);
                got.push(id);
            }
            assert_eq!(got.iter().filter(|&&id| id == number).count(), 1, "{got:?}");
        }
    }
}
