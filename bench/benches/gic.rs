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

use std::hint::black_box;

use doorbell_bench::Kernel;
use doorbell_bench::callgrind::{self, Operation};
use doorbell_gic::spec::{Vtr, lr};
use doorbell_gic::{
    Affinity, CpuInterface, Ended, Frame, Gic, Group, Host, IntId, Kick, Line, ListRegisters, VcpuId, Width,
};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::{InGuest, Notice};

struct Nobody;

impl Kick for Nobody {
    fn notice(&mut self, _: VcpuId, notice: Notice<CpuId>) {
        let _ = black_box(notice);
    }
}

impl Host for Nobody {
    fn ended(&mut self, ended: Ended) {
        let _ = black_box(ended);
    }
}

/// The registers of a CPU, as memory.
struct Registers {
    vmcr: u64,
    hcr: u64,
    lrs: [u64; 16],
    active: [[u32; 4]; 2],
}

impl ListRegisters for Registers {
    #[inline]
    fn vmcr(&self) -> u64 {
        self.vmcr
    }

    #[inline]
    fn set_vmcr(&mut self, value: u64) {
        self.vmcr = value;
    }

    #[inline]
    fn hcr(&self) -> u64 {
        self.hcr
    }

    #[inline]
    fn set_hcr(&mut self, value: u64) {
        self.hcr = value;
    }

    #[inline]
    fn list_register(&self, number: usize) -> u64 {
        self.lrs[number % 16]
    }

    #[inline]
    fn set_list_register(&mut self, number: usize, value: u64) {
        self.lrs[number % 16] = value;
    }

    #[inline]
    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        self.active[group as usize][number % 4]
    }
}

impl Registers {
    /// The guest acknowledges the first that is pending.
    fn acknowledge(&mut self) -> Option<usize> {
        let number = self.lrs.iter().position(|lr| lr & lr::PENDING != 0)?;
        self.lrs[number] ^= lr::PENDING | lr::ACTIVE;
        self.active[1][0] |= 1 << self.level(number);
        Some(number)
    }

    fn level(&self, number: usize) -> u32 {
        (self.lrs[number] >> lr::PRIORITY_SHIFT & 0xff) as u32 >> 3
    }

    /// The guest ends it.
    fn end(&mut self, number: usize) {
        self.active[1][0] &= !(1 << self.level(number));
        self.lrs[number] &= !lr::ACTIVE;
    }
}

/// A VM with one vCPU.
struct Machine {
    gic: Gic<Kernel>,
    interface: CpuInterface,
    registers: Registers,
}

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::*;

    #[inline(never)]
    pub fn inject(line: Line<'_, Kernel>) {
        line.edge(&mut Nobody);
    }

    #[inline(never)]
    pub fn enter<'a>(
        gic: &'a Gic<Kernel>,
        interface: &mut CpuInterface,
        registers: &mut Registers,
        irqs_off: &'a IrqGuard<Kernel>,
    ) -> InGuest<'a, Kernel> {
        let entered = interface.enter(gic, irqs_off, CpuId(0), registers, &mut Nobody);
        let Ok(in_guest) = entered else { unreachable!("nothing is requested") };
        in_guest
    }

    #[inline(never)]
    pub fn exit(
        gic: &Gic<Kernel>,
        interface: &mut CpuInterface,
        registers: &mut Registers,
        in_guest: InGuest<'_, Kernel>,
    ) {
        black_box(interface.exit(gic, in_guest, registers, &mut Nobody));
    }
}

impl Machine {
    fn new(lrs: u64, priority: impl Fn(u32) -> u8) -> Self {
        // Five bits of priority and of preemption, and TDS.
        let vtr = Vtr::from_bits(4 << 29 | 4 << 26 | 1 << 19 | (lrs - 1));
        let gic = Gic::new(vtr, 96, &[Affinity(0)]).expect("there can be one");
        let vcpu = VcpuId::new(0).expect("it is small");
        let interface = gic.cpu_interface(vcpu).expect("nobody has it");
        let write =
            |frame, offset, value| _ = gic.write(frame, offset, Width::Word, value, &mut Nobody).wait(&mut Nobody);
        write(Frame::Distributor, 0, 2);
        write(Frame::Redistributor(vcpu), 0x14, 0);
        for number in 32..128 {
            let priority = u64::from(priority(number));
            let _ = gic.write(Frame::Distributor, 0x400 + number, Width::Byte, priority, &mut Nobody).wait(&mut Nobody);
        }
        for word in 1..4 {
            write(Frame::Distributor, 0x100 + 4 * word, 0xffff_ffff);
            write(Frame::Distributor, 0xc00 + 8 * word, 0xaaaa_aaaa);
            write(Frame::Distributor, 0xc04 + 8 * word, 0xaaaa_aaaa);
        }
        let registers =
            Registers { vmcr: 0xf8 << 24 | 2 << 21 | 3 << 18 | 0b11, hcr: 0, lrs: [0; 16], active: [[0; 4]; 2] };
        Machine { gic, interface, registers }
    }

    fn line(&self, number: u32) -> Line<'_, Kernel> {
        self.gic.spi(IntId::new(number).expect("it is small")).expect("there is one")
    }

    fn inject(&self, number: u32) {
        measured::inject(black_box(self.line(number)));
    }

    /// One time in the guest.
    fn runs(&mut self, guest: impl FnOnce(&mut Registers)) {
        let irqs_off = IrqGuard::new();
        let gic = black_box(&self.gic);
        let in_guest = measured::enter(gic, &mut self.interface, &mut self.registers, &irqs_off);
        guest(&mut self.registers);
        measured::exit(gic, &mut self.interface, &mut self.registers, in_guest);
    }
}

const ROUNDS: u64 = 1000;
const FIRST: u32 = 40;

/// What is measured, how many interrupts that is in a round, and how many instructions each may
/// take.
const OPERATIONS: [(&str, u64, u64); 5] = [
    ("idle flush and fold", 1, 70),
    ("an SPI, injected, flushed, ended and folded", 1, 690),
    ("each of 4 SPIs through 4 list registers", 4, 440),
    ("each of 32 SPIs through 4 list registers", 32, 640),
    ("each of 31 SPIs that are active at once", 31, 2_400),
];

/// Does one operation, some rounds long; this is what runs under callgrind.
fn run(operation: &str) {
    let at_once = operation.contains("at once");
    let mut machine = Machine::new(4, |number| if at_once { (70 - number as u8) << 3 } else { 0x80 });
    let (_, count, _) = OPERATIONS.into_iter().find(|(name, ..)| *name == operation).expect("a measurement");
    for _ in 0..ROUNDS {
        if operation.starts_with("idle") {
            machine.runs(|_| ());
        } else if at_once {
            // Each preempts the one before; then they end, the last first.
            for number in 0..count as u32 {
                machine.inject(FIRST + number);
                machine.runs(|registers| _ = registers.acknowledge());
            }
            for _ in 0..count {
                machine.runs(|registers| {
                    let best = registers.active[1][0].trailing_zeros();
                    let inside = (0..16).find(|&n| registers.lrs[n] & lr::ACTIVE != 0 && registers.level(n) == best);
                    match inside {
                        Some(number) => registers.end(number),
                        None => registers.active[1][0] &= !(1 << best),
                    }
                });
            }
        } else {
            (0..count as u32).for_each(|number| machine.inject(FIRST + number));
            let mut left = count;
            while left > 0 {
                machine.runs(|registers| {
                    while let Some(number) = registers.acknowledge() {
                        registers.end(number);
                        left -= 1;
                    }
                });
            }
        }
    }
    for number in 32..128 {
        let state = machine.line(number).state();
        assert!(!state.is_active() && !state.is_pending(), "{number}: {state:?}");
    }
}

fn main() {
    let operations = OPERATIONS.map(|(name, count, limit)| Operation { name, rounds: ROUNDS * count, limit });
    callgrind::table("gic::measured", operations, run);
}
