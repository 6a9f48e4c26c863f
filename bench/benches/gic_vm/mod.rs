//! VMs whose guests and registers are memory, and cost nothing.

use std::hint::black_box;

use doorbell_bench::Kernel;
use doorbell_gic::spec::{Vtr, lr};
use doorbell_gic::{
    Affinity, CpuInterface, Ended, Frame, Gic, Group, Host, IntId, Kick, Line, ListRegisters,
    VcpuId, Width,
};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::Notice;

/// A host that does what it is told, which is nothing.
pub struct Nobody;

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
pub struct Registers {
    vmcr: u64,
    hcr: u64,
    pub lrs: [u64; 16],
    pub active: [[u32; 4]; 2],
}

impl ListRegisters for Registers {
    #[inline]
    fn set_vmcr(&mut self, value: u64) {
        self.vmcr = value;
    }

    #[inline]
    fn vmcr(&self) -> u64 {
        self.vmcr
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
    fn new() -> Self {
        Registers {
            vmcr: 0xf8 << 24 | 2 << 21 | 3 << 18 | 0b11,
            hcr: 0,
            lrs: [0; 16],
            active: [[0; 4]; 2],
        }
    }

    /// The guest acknowledges and ends all that is pending. Returns how many.
    pub fn handle_all(&mut self) -> u64 {
        let mut handled = 0;
        while let Some(number) = self.acknowledge() {
            self.end(number);
            handled += 1;
        }
        handled
    }

    /// The guest acknowledges the first that is pending.
    pub fn acknowledge(&mut self) -> Option<usize> {
        let number = self.lrs.iter().position(|lr| lr & lr::PENDING != 0)?;
        self.lrs[number] ^= lr::PENDING | lr::ACTIVE;
        self.active[1][0] |= 1 << self.level(number);
        Some(number)
    }

    pub fn level(&self, number: usize) -> u32 {
        (self.lrs[number] >> lr::PRIORITY_SHIFT & 0xff) as u32 >> 3
    }

    /// The guest ends it.
    pub fn end(&mut self, number: usize) {
        self.active[1][0] &= !(1 << self.level(number));
        self.lrs[number] &= !lr::ACTIVE;
    }
}

/// How many SPIs are routed to each vCPU: those of a vCPU share no cache line with those of
/// another.
pub const SPIS: u32 = 96;

/// Returns a controller for CPUs with so many list registers, whose SPIs are enabled edges of that
/// priority.
pub fn gic(lrs: u64, vcpus: u32, priority: impl Fn(u32) -> u8) -> Gic<Kernel> {
    // Five bits of priority and of preemption, and TDS.
    let vtr = Vtr::from_bits(4 << 29 | 4 << 26 | 1 << 19 | (lrs - 1));
    let affinities: Vec<_> = (0..vcpus).map(Affinity).collect();
    let gic = Gic::new(vtr, SPIS * vcpus, &affinities).expect("there can be one");
    let write = |frame, offset, width, value| {
        _ = gic.write(frame, offset, width, value, &mut Nobody).wait(&mut Nobody)
    };
    write(Frame::Distributor, 0, Width::Word, 2);
    for vcpu in (0..vcpus).filter_map(VcpuId::new) {
        write(Frame::Redistributor(vcpu), 0x14, Width::Word, 0);
    }
    for number in 32..32 + SPIS * vcpus {
        write(Frame::Distributor, 0x400 + number, Width::Byte, priority(number).into());
        write(
            Frame::Distributor,
            0x6000 + 8 * number,
            Width::Double,
            u64::from((number - 32) / SPIS),
        );
    }
    for word in 1..1 + SPIS * vcpus / 32 {
        write(Frame::Distributor, 0x100 + 4 * word, Width::Word, 0xffff_ffff);
        write(Frame::Distributor, 0xc00 + 8 * word, Width::Word, 0xaaaa_aaaa);
        write(Frame::Distributor, 0xc04 + 8 * word, Width::Word, 0xaaaa_aaaa);
    }
    gic
}

/// Returns an SPI.
pub fn spi(gic: &Gic<Kernel>, number: u32) -> Line<'_, Kernel> {
    gic.spi(IntId::new(number).expect("it is small")).expect("there is one")
}

/// A vCPU.
pub struct Vcpu {
    pub interface: CpuInterface,
    pub registers: Registers,
}

impl Vcpu {
    /// Returns one that has heard the news of how everything was configured.
    pub fn new(gic: &Gic<Kernel>, number: u32) -> Self {
        let vcpu = VcpuId::new(number).expect("it is small");
        let interface = gic.cpu_interface(vcpu).expect("nobody has it");
        let mut vcpu = Vcpu { interface, registers: Registers::new() };
        (0..2).for_each(|_| vcpu.runs(gic, |_| ()));
        vcpu
    }

    /// One time in the guest.
    #[inline]
    pub fn runs<R>(&mut self, gic: &Gic<Kernel>, guest: impl FnOnce(&mut Registers) -> R) -> R {
        let irqs_off = IrqGuard::new();
        let entered =
            self.interface.enter(gic, &irqs_off, CpuId(0), &mut self.registers, &mut Nobody);
        let Ok(in_guest) = entered else { unreachable!("nothing is requested") };
        let ran = guest(&mut self.registers);
        let _ = self.interface.exit(gic, in_guest, &mut self.registers, &mut Nobody);
        ran
    }
}
