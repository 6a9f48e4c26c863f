//! Where SPIs go (sections 2.3.1 and 2.3.2).

use std::collections::BTreeSet;

use crate::architecture::{Frame, Gic};
use crate::{
    DISTRIBUTOR, GICR_CTLR, GICR_WAKER, IGROUPR, IROUTER, ISPENDR, enable, in_use, write_bit,
};

const SPI: u32 = 40;
const ANY: u64 = 1 << 31;

fn route(gic: &mut Gic, value: u64) {
    gic.write(DISTRIBUTOR, IROUTER + 8 * SPI, 8, value);
}

fn targets(gic: &Gic) -> Vec<usize> {
    gic.legal_targets(SPI).into_iter().collect()
}

/// Returns a GIC with an SPI that is pending for any PE.
fn with_spi_for_any(pes: u32) -> Gic {
    let mut gic = in_use(pes);
    enable(&mut gic, 0, SPI, 0x40);
    route(&mut gic, ANY);
    gic.latch(0, SPI);
    gic
}

#[test]
fn an_spi_goes_to_the_pe_of_its_affinity() {
    let affinities = [0x0000_0000, 0x0000_0001, 0x0000_0100, 0x0001_0000, 0x0100_0000, 0xfffe_fdfc];
    let mut gic = Gic::new(&affinities, 32, 5, 5);
    for (pe, affinity) in affinities.into_iter().enumerate() {
        route(&mut gic, u64::from(affinity >> 24) << 32 | u64::from(affinity & 0xff_ffff));
        assert_eq!(targets(&gic), [pe]);
    }
    route(&mut gic, 0x0101);
    assert_eq!(targets(&gic), []);
}

#[test]
fn an_spi_for_no_pe_stays_pending() {
    let mut gic = in_use(2);
    enable(&mut gic, 0, SPI, 0);
    route(&mut gic, 2);
    gic.latch(0, SPI);
    assert!([0, 1].iter().all(|&pe| gic.candidates(pe).is_empty()));
    assert_eq!(gic.read(DISTRIBUTOR, ISPENDR + 4, 4), 1 << (SPI - 32));
    route(&mut gic, 1);
    assert_eq!((gic.candidates(0), gic.candidates(1)), (vec![], vec![SPI]));
}

#[test]
fn an_spi_of_a_pe_that_is_asleep_or_off_waits_for_it() {
    let mut gic = in_use(2);
    enable(&mut gic, 0, SPI, 0);
    route(&mut gic, 1);
    gic.latch(0, SPI);
    gic.write(Frame::RdBase(1), GICR_WAKER, 4, 0b10);
    assert_eq!((targets(&gic), gic.candidates(1)), (vec![1], vec![]));
    gic.write(Frame::RdBase(1), GICR_WAKER, 4, 0);
    assert_eq!(gic.candidates(1), [SPI]);
    let enabled = gic.pes[1].interface.enabled;
    gic.set_power(1, false);
    gic.pes[1].interface.enabled = enabled;
    assert_eq!((targets(&gic), gic.candidates(1)), (vec![1], vec![]));
}

#[test]
fn an_spi_for_any_goes_to_those_that_are_on_awake_and_have_enabled_its_group() {
    let mut gic = with_spi_for_any(5);
    gic.write(Frame::RdBase(0), GICR_WAKER, 4, 0b10);
    gic.set_power(1, false);
    gic.pes[1].interface.enabled = [true; 2];
    gic.pes[2].interface.enabled = [false, true];
    gic.pes[3].interface.enabled = [true, false];
    assert_eq!(targets(&gic), [3, 4]);
    gic.write(DISTRIBUTOR, IGROUPR + 4, 4, 1 << (SPI - 32));
    assert_eq!(targets(&gic), [2, 4]);
}

#[test]
fn dpg_excludes_a_pe_from_spis_for_any_of_a_group_and_from_no_others() {
    let mut gic = with_spi_for_any(3);
    gic.write(Frame::RdBase(0), GICR_CTLR, 4, 1 << 24);
    gic.write(Frame::RdBase(1), GICR_CTLR, 4, 1 << 25);
    assert_eq!(targets(&gic), [1, 2]);
    gic.write(DISTRIBUTOR, IGROUPR + 4, 4, 1 << (SPI - 32));
    assert_eq!(targets(&gic), [0, 2]);
    route(&mut gic, 1);
    assert_eq!(targets(&gic), [1]);
}

#[test]
fn an_spi_for_any_goes_to_nobody_while_nobody_takes_part() {
    let mut gic = with_spi_for_any(2);
    for pe in [0, 1] {
        gic.write(Frame::RdBase(pe), GICR_CTLR, 4, 1 << 24);
    }
    assert_eq!(gic.legal_targets(SPI), BTreeSet::new());
    assert!(gic.candidates(0).is_empty() && gic.candidates(1).is_empty());
    gic.write(Frame::RdBase(1), GICR_CTLR, 4, 0);
    assert_eq!((gic.candidates(0), gic.candidates(1)), (vec![], vec![SPI]));
}

#[test]
fn an_spi_for_any_is_acknowledged_by_one() {
    let mut gic = with_spi_for_any(3);
    assert!(
        [0, 1, 2].iter().all(|&pe| gic.signalled(pe, 0) == [SPI] && gic.may_be_spurious(pe, 0))
    );
    gic.acknowledge(1, SPI);
    assert_eq!(gic.acknowledged_by(0, SPI), Some(1));
    assert!([0, 1, 2].iter().all(|&pe| gic.signalled(pe, 0).is_empty()));
}

#[test]
fn an_spi_for_any_that_only_one_pe_can_take_is_signalled_there() {
    let mut gic = with_spi_for_any(2);
    assert!(gic.may_be_spurious(0, 0));
    gic.write(Frame::RdBase(1), GICR_CTLR, 4, 1 << 24);
    assert!(!gic.may_be_spurious(0, 0));
}

#[test]
fn what_may_be_elsewhere_may_come_before_what_is_here_but_need_not() {
    let mut gic = with_spi_for_any(2);
    for (id, priority) in [(32, 0x20), (33, 0x50), (34, 0x60)] {
        enable(&mut gic, 0, id, priority);
        gic.write(DISTRIBUTOR, IROUTER + 8 * id, 8, if id == 33 { 0 } else { ANY });
        write_bit(&mut gic, ISPENDR, 0, id);
    }
    // 34 cannot: 33 is before it.
    assert_eq!(gic.highest(0), [Some(32), Some(SPI), Some(33)]);
    assert_eq!(gic.highest(1), [Some(32), Some(34), Some(SPI), None]);
    assert_eq!(gic.signalled(0, 0), [32, SPI, 33]);
    assert!(!gic.may_be_spurious(0, 0));
}
