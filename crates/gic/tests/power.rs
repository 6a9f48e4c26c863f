//! A vCPU that is powered off and on.

mod registers;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{Affinity, Ended, Frame, Gic, Host, IntId, Kick, VcpuId, Width};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::Notice;

use registers::Registers;

const VCPU: VcpuId = VcpuId::new(0).unwrap();

struct Nobody;

impl Kick for Nobody {
    fn notice(&mut self, _: VcpuId, _: Notice<CpuId>) {}
}

impl Host for Nobody {
    fn ended(&mut self, _: Ended) {}
}

#[test]
fn a_vcpu_that_took_no_part_when_it_was_powered_off_takes_part_when_it_is_on_again() {
    let implementation = hw::Implementation::new(4, 5, 5).expect("it is legal");
    let mut registers = Registers(VirtualInterface::new(implementation));
    let affinities = [Affinity(0), Affinity(1)];
    let gic = Gic::<Std>::new(Vtr::from_bits(implementation.vtr()), 32, &affinities)
        .expect("there can be one");
    let mut interface = gic.cpu_interface(VCPU).expect("nobody has it");
    let write = |frame, offset, value| {
        _ = gic.write(frame, offset, Width::Word, value, &mut Nobody).wait(&mut Nobody)
    };
    write(Frame::Distributor, 0x000, 1 << 1); // GICD_CTLR.EnableGrp1
    write(Frame::Redistributor(VCPU), 0x014, 0); // GICR_WAKER; the other one is asleep.
    write(Frame::Distributor, 0xc08, 0b10); // GICD_ICFGR2
    write(Frame::Distributor, 0x6000 + 8 * 32, 1 << 31); // GICD_IROUTER32.Interrupt_Routing_Mode
    write(Frame::Distributor, 0x104, 1); // GICD_ISENABLER1
    let spi = gic.spi(IntId::new(32).expect("it is small")).expect("there is one");
    spi.edge(&mut Nobody);

    // The guest has disabled group 1: the vCPU takes no part, and nobody else does.
    registers.0.set_vmcr(0xf8 << 24);
    let irqs_off = IrqGuard::new();
    let entered = interface.enter(&gic, &irqs_off, CpuId(0), &mut registers, &mut Nobody);
    let _ =
        interface.exit(&gic, entered.expect("nothing is requested"), &mut registers, &mut Nobody);
    assert_eq!(spi.state().holder(), None);

    interface.power_off(&gic, &mut Nobody);
    registers.0.set_vmcr(0xf8 << 24 | 0b11);
    interface.power_on(&gic, &registers, &mut Nobody);
    assert_eq!(spi.state().holder(), Some(VCPU));
}
