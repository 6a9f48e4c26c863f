//! A guest that behaves, after one that did not: it finds the controller as new.

use doorbell_gic::{Frame, GicState, SgiRegister, Width};
use doorbell_platform::Counts;

use super::ops::{Access, Setup};
use super::vm::{Vm, equals, intid, is_physical, vcpu};

/// Nothing is acknowledged.
const SPURIOUS: u32 = 1023;

/// What a new VM is, and what it costs to enter its guest with nothing to do.
pub struct New {
    state: GicState,
    idle: Counts,
}

impl New {
    /// Looks at a VM that is new.
    pub fn of(vm: &mut Vm<'_>) -> Self {
        let state = vm.saved();
        // The first entry clears the list registers.
        let _ = vm.idle_cost(0);
        let idle = vm.idle_cost(0);
        New { state, idle }
    }
}

/// The VM is reset by its guest, which then uses each interrupt, and resets it once more.
pub fn behaves(vm: &mut Vm<'_>, setup: &Setup, new: &New) {
    vm.all_leave();
    devices_are_reset(vm, setup);
    // The first vCPU boots the others.
    for of in (0..vm.count()).rev() {
        if of > 0 || !setup.boots_by_itself {
            vm.powers(of, false);
        }
        vm.powers(of, true);
    }
    resets(vm, setup);
    is_as_new(vm, setup, new);
    starts(vm, setup);
    for trigger in [Trigger::Edge, Trigger::Level] {
        each_is_taken_once(vm, setup, trigger);
    }
    resets(vm, setup);
    is_as_new(vm, setup, new);
}

/// No source gives a level any more.
fn devices_are_reset(vm: &mut Vm<'_>, setup: &Setup) {
    for (of, id) in all(setup) {
        let line = vm.line(of, id).expect("there is one");
        let sources = line.state().sources();
        (0..32).filter(|source| sources >> source & 1 != 0).for_each(|source| {
            line.set_level(source, false, &mut vm.asked);
        });
    }
}

/// Returns each interrupt, private ones of each vCPU.
fn all(setup: &Setup) -> impl Iterator<Item = (usize, u32)> + use<> {
    let (vcpus, spis) = (setup.vcpus, setup.spis);
    (0..vcpus)
        .flat_map(|of| (0..32).map(move |id| (of, id)))
        .chain((32..32 + spis).map(|id| (0, id)))
}

/// The first vCPU writes a register. Nobody is in the guest, so that this is complete.
fn write(vm: &mut Vm<'_>, frame: Frame, offset: u32, value: u64) {
    assert!(vm.is_out(0), "the first vCPU is on");
    vm.accesses(0, &Access { frame, offset, width: Width::Word, written: Some(value) });
    assert!(vm.is_out(0), "a write waits, and nobody is in the guest");
}

/// Returns where the registers of 32 interrupts are, with the number of the word.
fn words(setup: &Setup) -> impl Iterator<Item = (Frame, u32, u32)> + use<> {
    let private = (0..setup.vcpus).map(|of| (Frame::Redistributor(vcpu(of)), 0x1_0000, 0));
    private.chain((1..(32 + setup.spis).div_ceil(32)).map(|word| (Frame::Distributor, 0, word)))
}

/// The guest's driver finds the controller as its predecessor has left it, and makes it what it is
/// after a reset.
fn resets(vm: &mut Vm<'_>, setup: &Setup) {
    write(vm, Frame::Distributor, 0, 0);
    for (frame, base, word) in words(setup) {
        for clears in [0x180, 0x280, 0x380] {
            write(vm, frame, base + clears + 4 * word, 0xffff_ffff);
        }
        write(vm, frame, base + 0x80 + 4 * word, 0xffff_ffff);
        (0..8).for_each(|n| write(vm, frame, base + 0x400 + 32 * word + 4 * n, 0));
        (0..2).for_each(|n| write(vm, frame, base + 0xc00 + 8 * word + 4 * n, 0));
    }
    for id in 32..32 + setup.spis {
        (0..2).for_each(|half| write(vm, Frame::Distributor, 0x6000 + 8 * id + 4 * half, 0));
    }
    for of in 0..setup.vcpus {
        write(vm, Frame::Redistributor(vcpu(of)), 0, 0);
        write(vm, Frame::Redistributor(vcpu(of)), 0x14, 2);
        vm.prepares(of, setup.drops_only);
    }
    // Each sees what it was told.
    for _ in 0..2 {
        for of in 0..setup.vcpus {
            let _ = vm.enter(of) || vm.enter(of);
        }
        vm.settles();
        vm.all_leave();
    }
}

fn is_as_new(vm: &mut Vm<'_>, setup: &Setup, new: &New) {
    let state = vm.saved();
    equals(&state, &new.state);
    for (id, (spi, new)) in (32..).zip(state.spis.iter().zip(&new.state.spis)) {
        assert_eq!(spi, new, "INTID {id}");
    }
    (0..setup.vcpus)
        .for_each(|of| assert_eq!(vm.idle_cost(of), new.idle, "vCPU {of} has something to do"));
    let active =
        (32..32 + setup.spis).find(|&id| is_physical(setup, id) && vm.asked.active[id as usize]);
    assert_eq!(active, None, "a physical interrupt stays active");
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trigger {
    Edge,
    Level,
}

/// Everything is enabled, and SPIs are spread over the vCPUs.
fn starts(vm: &mut Vm<'_>, setup: &Setup) {
    write(vm, Frame::Distributor, 0, 2);
    (0..setup.vcpus).for_each(|of| write(vm, Frame::Redistributor(vcpu(of)), 0x14, 0));
    for id in 32..32 + setup.spis {
        write(vm, Frame::Distributor, 0x6000 + 8 * id, u64::from(id) % setup.vcpus as u64);
    }
    for (frame, base, word) in words(setup) {
        write(vm, frame, base + 0x100 + 4 * word, 0xffff_ffff);
        for n in 0..8 {
            // Many priorities, of which none is masked.
            let priorities = (0..4)
                .fold(0, |bits, byte| bits | u64::from((4 * n + byte) * 0x28 % 0xf0) << (8 * byte));
            write(vm, frame, base + 0x400 + 32 * word + 4 * n, priorities);
        }
    }
}

/// Each interrupt is raised, all at once; each is taken once, by its vCPU.
fn each_is_taken_once(vm: &mut Vm<'_>, setup: &Setup, trigger: Trigger) {
    let levels =
        |setup: &Setup, id: u32| trigger == Trigger::Level && id >= 16 && !is_physical(setup, id);
    for (frame, base, word) in words(setup) {
        let edges = if trigger == Trigger::Edge { 0xaaaa_aaaa } else { 0 };
        (0..2).for_each(|n| write(vm, frame, base + 0xc00 + 8 * word + 4 * n, edges));
    }
    vm.asked.told.fill(0);
    for (of, id) in all(setup) {
        if id < 16 {
            let value = u64::from(id) << 24 | 1 << of;
            vm.gic
                .generate_sgi(vcpu(0), SgiRegister::Sgi1R, value, &mut vm.asked)
                .expect("there is such a vCPU");
        } else if levels(setup, id) {
            vm.line(of, id).expect("there is one").set_level(4, true, &mut vm.asked);
        } else {
            vm.edge(of, id);
        }
    }
    let mut left: Vec<(usize, u32)> = all(setup)
        .map(|(of, id)| (if id < 32 { of } else { id as usize % setup.vcpus }, id))
        .collect();
    let most = 4 * left.len();
    for entry in 0.. {
        let (of, before) = (entry % setup.vcpus, left.len());
        assert!(entry < most, "nothing is signalled any more of {left:?}");
        while vm.enter(of) && takes(vm, setup, of, &mut left, &levels) {}
        vm.leave(of);
        if before == 0 && entry % setup.vcpus == 0 {
            break;
        }
    }
    for (of, id) in all(setup) {
        let state = vm.line(of, id).expect("there is one").state();
        assert!(!state.is_pending() && !state.is_active(), "INTID {id}: {state:?}");
        if trigger == Trigger::Level {
            // What a physical interrupt backs was passed on, and no source gives it.
            let ends = if id < 16 || is_physical(setup, id) {
                0
            } else if id < 32 {
                setup.vcpus as u32
            } else {
                1
            };
            assert_eq!(vm.asked.told[id as usize], ends, "how often the end of {id} was told");
        }
    }
    let physical = (32..32 + setup.spis).find(|&id| vm.asked.active[id as usize]);
    assert_eq!(physical, None, "a physical interrupt stays active");
}

/// A vCPU takes what is signalled, until there is nothing or it leaves the guest for it.
fn takes(
    vm: &mut Vm<'_>,
    setup: &Setup,
    of: usize,
    left: &mut Vec<(usize, u32)>,
    levels: &impl Fn(&Setup, u32) -> bool,
) -> bool {
    loop {
        if vm.is_maintained(of) {
            vm.leave(of);
            return true;
        }
        let got = vm.acknowledges(of);
        if got == SPURIOUS {
            return false;
        }
        let at = left.iter().position(|&(by, id)| (by, id) == (of, got));
        left.swap_remove(at.unwrap_or_else(|| {
            panic!("vCPU {of} has got {got} once too often, or of another one")
        }));
        if levels(setup, got) {
            // The handler tells the device.
            vm.line(of, got).expect("there is one").set_level(4, false, &mut vm.asked);
        }
        assert!(intid(got).number() == got);
        if !vm.ends(of, got, setup.drops_only) {
            return true;
        }
    }
}
