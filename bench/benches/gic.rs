//! How many instructions the GIC takes: from an SPI's injection to its end in the guest, when the
//! list registers suffice and when they do not, and when there is nothing to do. Callgrind counts,
//! so the result is the same each time. Fails if one takes more than it may.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench gic
//! ```
//!
//! The guest and its registers are memory here, and cost nothing. KVM's own code (Linux 6.12,
//! compiled in user space) takes 575 instructions for an SPI, 69 for an idle flush and fold, and
//! 1,417 for each of 32 SPIs through 4 list registers.
//!
//! Of the SPIs that are active at once, each is injected and acknowledged in a run of its own, and
//! preempts the one before; then each ends in a run of its own, the last first. What one costs that
//! does the same alone is what they are to be compared with: two entries and exits, too.

mod gic_vm;

use std::hint::black_box;

use doorbell_bench::Kernel;
use doorbell_bench::callgrind::{self, Operation};
use doorbell_gic::spec::lr;
use doorbell_gic::{
    CpuInterface, Frame, Gic, IntId, Line, LpiConfig, LpiMapping, LpiSpace, Priority, VcpuId, Width,
};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::InGuest;

use gic_vm::{Nobody, Registers, SPIS, Vcpu, spi};

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::*;

    #[inline(never)]
    pub fn inject(line: Line<'_, Kernel>) {
        line.edge(&mut Nobody);
    }

    #[inline(never)]
    pub fn send(gic: &Gic<Kernel>, lpi: LpiMapping) {
        black_box(gic.send(lpi, &mut Nobody));
    }

    #[inline(never)]
    pub fn enter<'a>(
        interface: &mut CpuInterface,
        gic: &'a Gic<Kernel>,
        irqs_off: &'a IrqGuard<Kernel>,
        registers: &mut Registers,
    ) -> InGuest<'a, Kernel> {
        let entered = interface.enter(gic, irqs_off, CpuId(0), registers, &mut Nobody);
        let Ok(in_guest) = entered else { unreachable!("nothing is requested") };
        in_guest
    }

    #[inline(never)]
    pub fn exit(
        interface: &mut CpuInterface,
        gic: &Gic<Kernel>,
        in_guest: InGuest<'_, Kernel>,
        registers: &mut Registers,
    ) -> bool {
        interface.exit(gic, in_guest, registers, &mut Nobody)
    }
}

/// A VM, of which one vCPU runs.
struct Machine {
    gic: Gic<Kernel>,
    vcpu: Vcpu,
    lpis: Vec<LpiMapping>,
}

impl Machine {
    fn inject(&self, number: u32) {
        measured::inject(black_box(spi(&self.gic, number)));
    }

    /// One time in the guest.
    fn runs(&mut self, guest: impl FnOnce(&mut Registers)) {
        let irqs_off = IrqGuard::new();
        let gic = black_box(&self.gic);
        let Vcpu { interface, registers } = &mut self.vcpu;
        let in_guest = measured::enter(interface, gic, &irqs_off, registers);
        guest(registers);
        black_box(measured::exit(interface, gic, in_guest, registers));
    }
}

const ROUNDS: u64 = 1000;
const FIRST: u32 = 40;

/// What is measured, how many interrupts that is in a round, and how many instructions each may
/// take.
const OPERATIONS: [(&str, u64, u64); 10] = [
    ("idle flush and fold", 1, 34),
    ("idle flush and fold, with other vCPUs", 1, 34),
    ("an SPI, injected, flushed, ended and folded", 1, 250),
    ("each of 4 SPIs through 4 list registers", 4, 240),
    ("each of 32 SPIs through 4 list registers", 32, 240),
    ("an LPI, sent, flushed, ended and folded", 1, 410),
    ("each of 4 LPIs through 4 list registers", 4, 550),
    ("each of 1,000 LPIs through 4 list registers", 1_000, 550),
    ("an SPI that is active alone", 1, 845),
    ("each of 31 SPIs that are active at once", 31, 1_140),
];

/// Returns the controller with so many LPIs, all of which are the first vCPU's, which forwards
/// them. Returns what names them, too.
fn with_lpis(gic: Gic<Kernel>, count: u32) -> (Gic<Kernel>, Vec<LpiMapping>) {
    let space = LpiSpace::new(14, u64::MAX).expect("there can be so many");
    let gic = gic.with_lpis(space).expect("there are few SPIs");
    let vcpu = VcpuId::new(0);
    if let Some(vcpu) = vcpu {
        let frame = Frame::Redistributor(vcpu);
        _ = gic.write(frame, 0, Width::Word, 1, &mut Nobody).wait(&mut Nobody);
    }
    let config = LpiConfig { enabled: true, priority: Priority(0x80) };
    let map = |id| gic.map_lpi(id, vcpu, config, &mut Nobody).expect("nothing is mapped to it");
    let mappings = (8192..).take(count as usize).filter_map(IntId::lpi).map(map).collect();
    (gic, mappings)
}

/// Does one operation, some rounds long; this is what runs under callgrind.
fn run(operation: &str) {
    let active = operation.contains("active");
    let vcpus = if operation.contains("other") { 2 } else { 1 };
    let gic = gic_vm::gic(4, vcpus, |number| if active { (70 - number as u8) << 3 } else { 0x80 });
    let (_, count, _) =
        OPERATIONS.into_iter().find(|(name, ..)| *name == operation).expect("a measurement");
    let (gic, lpis) = match operation.contains("LPI") {
        true => with_lpis(gic, count as u32),
        false => (gic, Vec::new()),
    };
    let vcpu = Vcpu::new(&gic, 0);
    let mut machine = Machine { gic, vcpu, lpis };
    for _ in 0..ROUNDS {
        if operation.starts_with("idle") {
            machine.runs(|_| ());
        } else if active {
            for number in 0..count as u32 {
                machine.inject(FIRST + number);
                machine.runs(|registers| _ = registers.acknowledge());
            }
            for _ in 0..count {
                machine.runs(|registers| {
                    let best = registers.active[1][0].trailing_zeros();
                    let inside = (0..16).find(|&n| {
                        registers.lrs[n] & lr::ACTIVE != 0 && registers.level(n) == best
                    });
                    match inside {
                        Some(number) => registers.end(number),
                        None => registers.active[1][0] &= !(1 << best),
                    }
                });
            }
        } else {
            if machine.lpis.is_empty() {
                (0..count as u32).for_each(|number| machine.inject(FIRST + number));
            }
            for &lpi in &machine.lpis {
                measured::send(black_box(&machine.gic), lpi);
            }
            let mut left = count;
            while left > 0 {
                machine.runs(|registers| left -= registers.handle_all());
            }
        }
    }
    for number in 32..32 + SPIS {
        let state = spi(&machine.gic, number).state();
        assert!(!state.is_active() && !state.is_pending(), "{number}: {state:?}");
    }
}

fn main() {
    let operations =
        OPERATIONS.map(|(name, count, limit)| Operation { name, rounds: ROUNDS * count, limit });
    callgrind::table("gic::measured", operations, run);
}
