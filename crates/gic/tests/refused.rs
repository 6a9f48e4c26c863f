//! What there cannot be: controllers, vCPUs and interrupts.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, BuildError, Frame, Gic, IntId, NoSuch, NotToBeHad, PhysicalIntId, SgiRegister, VcpuId,
};
use doorbell_platform::Std;
use vm::{Vm, intid, vcpu};

fn gic(spis: u32, affinities: &[u32]) -> Result<Gic<Std>, BuildError> {
    let affinities: Vec<_> = affinities.iter().copied().map(Affinity).collect();
    Gic::new(Vtr::from_bits(3), spis, &affinities)
}

#[test]
fn spis_come_in_blocks_of_32_up_to_960_or_there_are_all() {
    for spis in [0, 32, 928, 960, 988] {
        assert_eq!(gic(spis, &[0]).expect("there can be one").spis(), spis);
    }
    for spis in [1, 31, 33, 959, 961, 987, 989, 992, 1024] {
        assert_eq!(gic(spis, &[0]).err(), Some(BuildError::Spis(spis)));
    }
}

#[test]
fn there_are_1_to_512_vcpus_of_different_affinities() {
    let affinities: Vec<_> = (0..513).collect();
    assert_eq!(gic(32, &affinities[..512]).expect("there can be one").vcpus(), 512);
    assert_eq!(gic(32, &affinities).err(), Some(BuildError::Vcpus(513)));
    assert_eq!(gic(32, &[]).err(), Some(BuildError::Vcpus(0)));
    assert_eq!(gic(32, &[7, 1, 3, 7]).err(), Some(BuildError::SameAffinity(Affinity(7))));
}

#[test]
fn a_vcpu_is_found_by_its_affinity_in_whatever_order_they_are() {
    let affinities = [0xffff_ffff, 7, 0x0100_0000, 0, 3];
    let gic = gic(32, &affinities).expect("there can be one");
    for (number, affinity) in (0..).zip(affinities) {
        assert_eq!(gic.vcpu_of(Affinity(affinity)), VcpuId::new(number));
        assert_eq!(
            gic.redistributor(vcpu(number)).expect("there is one").affinity(),
            Affinity(affinity)
        );
    }
    assert_eq!(gic.vcpu_of(Affinity(1)), None);
}

#[test]
fn an_spi_goes_to_the_affinity_0_after_a_reset_or_to_nobody() {
    let holder = |affinities: &[u32]| {
        let gic = gic(32, affinities).expect("there can be one");
        gic.spi(intid(32)).expect("there is one").state().holder()
    };
    assert_eq!(holder(&[3, 0]), Some(vcpu(1)));
    assert_eq!(holder(&[3, 1]), None);
}

#[test]
fn intids_and_vcpus_have_their_ends() {
    assert_eq!((IntId::new(1019).map(IntId::number), IntId::new(1020)), (Some(1019), None));
    assert_eq!(
        (PhysicalIntId::new(1019).map(PhysicalIntId::number), PhysicalIntId::new(1020)),
        (Some(1019), None)
    );
    assert_eq!((VcpuId::new(511).map(VcpuId::number), VcpuId::new(512)), (Some(511), None));
    assert_eq!((intid(31).is_spi(), intid(32).is_spi()), (false, true));
}

#[test]
fn what_a_vm_does_not_have_is_named() {
    let mut vm = Vm::new(2, 32);
    let (gic, absent) = (vm.gic.clone(), NoSuch::Vcpu(vcpu(2)));
    let interrupt = |number| Some(NoSuch::Interrupt(intid(number)));
    assert_eq!(gic.redistributor(vcpu(2)).err(), Some(absent));
    assert_eq!(gic.cpu_interface(vcpu(2)).err(), Some(NotToBeHad::NoSuch(absent)));
    assert_eq!(gic.cpu_interface(vcpu(1)).err(), Some(NotToBeHad::Owned(vcpu(1))));
    assert_eq!(
        (gic.spi(intid(31)).err(), gic.spi(intid(64)).err()),
        (interrupt(31), interrupt(64))
    );
    assert_eq!((gic.spi(intid(32)).err(), gic.spi(intid(63)).err()), (None, None));
    assert_eq!(gic.private(vcpu(1), intid(32)).err(), interrupt(32));
    assert_eq!(gic.private(vcpu(2), intid(0)).err(), Some(absent));
    assert_eq!(gic.private(vcpu(1), intid(31)).err(), None);
    let sent = gic.generate_sgi(vcpu(2), SgiRegister::Sgi1R, 1 << 40 | 3 << 24, &mut vm.asked);
    assert_eq!(sent, Err(absent));
    assert_eq!(
        [0, 1].map(|number| vm.read(Frame::Redistributor(vcpu(number)), 0x1_0200)),
        [0, 0],
        "nothing was sent"
    );
}
