//! Values and effects of the registers, one by one.

use crate::architecture::{Frame, Gic};
use crate::*;

const RD: Frame = Frame::RdBase(0);
const SGI: Frame = Frame::SgiBase(0);

#[test]
fn after_a_reset_no_group_is_enabled_and_nothing_is_pending_active_or_enabled() {
    let gic = reset(2);
    assert_eq!(gic.read(DISTRIBUTOR, GICD_CTLR, 4) & 0b11, 0);
    for register in (ISENABLER..IPRIORITYR).step_by(0x80) {
        for frame in [DISTRIBUTOR, Frame::SgiBase(0), Frame::SgiBase(1)] {
            assert!(
                (0..0x80).step_by(4).all(|word| gic.read(frame, register + word, 4) == 0),
                "{register:#x}"
            );
        }
    }
}

#[test]
fn gicd_ctlr_has_two_group_enables_and_says_one_security_state_and_affinity_routing() {
    let mut gic = reset(1);
    assert_eq!(gic.read(DISTRIBUTOR, GICD_CTLR, 4), 0x50);
    gic.write(DISTRIBUTOR, GICD_CTLR, 4, u64::MAX);
    assert_eq!(gic.read(DISTRIBUTOR, GICD_CTLR, 4), 0x53);
    gic.write(DISTRIBUTOR, GICD_CTLR, 4, 0b10);
    assert_eq!(gic.groups, [false, true]);
    gic.write(DISTRIBUTOR, GICD_CTLR, 4, 0b01);
    assert_eq!(gic.groups, [true, false]);
    gic.write(DISTRIBUTOR, GICD_CTLR, 4, 0);
    assert_eq!(gic.read(DISTRIBUTOR, GICD_CTLR, 4), 0x50);
}

#[test]
fn gicd_typer_says_how_many_spis_there_are() {
    for (spis, lines) in [(0, 0), (32, 1), (64, 2), (960, 30), (988, 31)] {
        let typer = Gic::new(&[0, 1, 2], spis, 5, 5).read(DISTRIBUTOR, 4, 4);
        assert_eq!(typer & 0x1f, lines, "ITLinesNumber");
    }
}

#[test]
fn gicd_typer_says_10_bits_of_intid_all_affinities_and_1_of_n() {
    let typer = reset(3).read(DISTRIBUTOR, 4, 4);
    assert_eq!(typer >> 19 & 0x1f, 9, "IDbits");
    assert_eq!(typer >> 24 & 1, 1, "A3V");
    assert_eq!(typer >> 25 & 1, 0, "No1N");
    assert_eq!(typer >> 26 & 1, 1, "RSS");
    // num_LPIs, MBIS, LPIS, DVIS; CPUNumber, ESPI, SecurityExtn.
    assert_eq!(typer >> 5 & 0x3fff, 0);
    assert_eq!(typer >> 27, 0, "ESPI_range");
}

#[test]
fn gicr_typer_says_who_the_pe_is_and_which_redistributor_is_the_last() {
    let affinities = [0x0102_0304, 0x0000_0000, 0xfffe_fdfc];
    let gic = Gic::new(&affinities, 32, 5, 5);
    for (pe, affinity) in affinities.into_iter().enumerate() {
        let typer = gic.read(Frame::RdBase(pe), 8, 8);
        assert_eq!(typer >> 32, u64::from(affinity), "Affinity_Value");
        assert_eq!(typer >> 8 & 0xffff, pe as u64, "Processor_Number");
        assert_eq!(typer >> 5 & 1, 1, "DPGS");
        assert_eq!(typer >> 4 & 1, u64::from(pe == 2), "Last");
        assert_eq!(typer & 0xff00_000f, 0, "no LPIs, no extended PPIs");
        assert_eq!(gic.read(Frame::RdBase(pe), 8, 4), typer & 0xffff_ffff);
        assert_eq!(gic.read(Frame::RdBase(pe), 12, 4), typer >> 32);
    }
}

#[test]
fn pidr2_says_gicv3_and_what_is_implementation_defined_is_not_known() {
    let gic = reset(1);
    for frame in [DISTRIBUTOR, RD] {
        let iidr = if frame == RD { 4 } else { 8 };
        assert_eq!(gic.known_bits(frame, 0xffe8, 4), 0xf0);
        assert_eq!(gic.read(frame, 0xffe8, 4) & 0xf0, 0x30);
        assert_eq!(gic.known_bits(frame, iidr, 4), 0);
        assert_eq!(gic.known_bits(frame, 0xffd0, 4), 0);
        assert_eq!(gic.known_bits(frame, 0, 4), 0xffff_ffff);
    }
    assert_eq!(gic.known_bits(RD, GICR_WAKER, 4), 0x7fff_fffe);
}

#[test]
fn each_redistributor_has_its_own_sgis_and_ppis() {
    let mut gic = reset(3);
    for register in [IGROUPR, ISENABLER, ISPENDR, ISACTIVER] {
        for pe in 0..3 {
            gic.write(Frame::SgiBase(pe), register, 4, 0x8001_8001 << pe);
        }
        for pe in 0..3 {
            assert_eq!(
                gic.read(Frame::SgiBase(pe), register, 4),
                (0x8001_8001 << pe) & 0xffff_ffff
            );
        }
    }
    gic.write(Frame::SgiBase(1), IPRIORITYR + 31, 1, 0xa8);
    assert_eq!(
        [0, 1, 2].map(|pe| gic.read(Frame::SgiBase(pe), IPRIORITYR + 28, 4)),
        [0, 0xa800_0000, 0]
    );
    gic.write(Frame::SgiBase(2), ICFGR + 4, 4, 1 << 31);
    assert_eq!([0, 1, 2].map(|pe| gic.read(Frame::SgiBase(pe), ICFGR + 4, 4)), [0, 0, 1 << 31]);
}

#[test]
fn the_registers_of_spis_start_where_their_intids_are() {
    let mut gic = reset(1);
    for register in [IGROUPR, ISENABLER, ISPENDR, ISACTIVER] {
        gic.write(DISTRIBUTOR, register + 8, 4, 1 << 5);
    }
    gic.write(DISTRIBUTOR, IPRIORITYR + 69, 1, 0x18);
    gic.write(DISTRIBUTOR, ICFGR + 4 * 4, 4, 0b10 << 10);
    gic.write(DISTRIBUTOR, IROUTER + 8 * 69, 8, 7);
    let spi = gic.interrupt(0, 69);
    assert!(spi.enabled && spi.latch && spi.active && spi.edge);
    assert_eq!((spi.group, spi.priority, spi.route), (1, 0x18, 7));
    let other = |id: u32| gic.interrupt(0, id) == reset(1).interrupt(0, id);
    assert!((32..96).all(|id| other(id) != (id == 69)));
}

#[test]
fn a_set_register_sets_and_a_clear_register_clears_the_bits_that_are_written_as_1() {
    let mut gic = reset(1);
    for (frame, word) in [(SGI, 0), (DISTRIBUTOR, 4), (DISTRIBUTOR, 8)] {
        for (set, clear) in [(ISENABLER, ICENABLER), (ISPENDR, ICPENDR), (ISACTIVER, ICACTIVER)] {
            gic.write(frame, set + word, 4, 0x00ff_00ff);
            gic.write(frame, set + word, 4, 0x0000_0f0f);
            assert_eq!(gic.read(frame, set + word, 4), 0x00ff_0fff);
            assert_eq!(gic.read(frame, clear + word, 4), 0x00ff_0fff);
            gic.write(frame, clear + word, 4, 0x0f0f_0f0f);
            assert_eq!(gic.read(frame, set + word, 4), 0x00f0_00f0);
            assert_eq!(gic.read(frame, clear + word, 4), 0x00f0_00f0);
        }
        // A group is what was written.
        gic.write(frame, IGROUPR + word, 4, 0x00ff_00ff);
        gic.write(frame, IGROUPR + word, 4, 0x0000_0f0f);
        assert_eq!(gic.read(frame, IGROUPR + word, 4), 0x0000_0f0f);
    }
}

#[test]
fn priorities_have_the_bits_that_are_implemented_in_each_byte() {
    for (bits, mask) in [(5, 0xf8), (6, 0xfc), (7, 0xfe), (8, 0xff)] {
        let mut gic = Gic::new(&[0], 64, bits, 5);
        gic.write(DISTRIBUTOR, IPRIORITYR + 40, 4, 0xffff_ffff);
        assert_eq!(gic.read(DISTRIBUTOR, IPRIORITYR + 40, 4), mask * 0x0101_0101);
        gic.write(DISTRIBUTOR, IPRIORITYR + 42, 1, 0x80);
        assert_eq!(gic.read(DISTRIBUTOR, IPRIORITYR + 40, 4), mask * 0x0100_0101 + 0x0080_0000);
        assert_eq!(gic.read(DISTRIBUTOR, IPRIORITYR + 42, 1), 0x80);
        assert_eq!(gic.interrupt(0, 42).priority, 0x80);
        gic.write(SGI, IPRIORITYR, 4, 0x4030_2010);
        assert_eq!([0, 1, 2, 3].map(|id| gic.interrupt(0, id).priority), [0x10, 0x20, 0x30, 0x40]);
    }
}

#[test]
fn sgis_are_edge_triggered_and_ppis_and_spis_as_configured() {
    let mut gic = reset(1);
    gic.write(SGI, ICFGR, 4, 0);
    assert_eq!(gic.read(SGI, ICFGR, 4), 0xaaaa_aaaa);
    for (frame, offset) in [(SGI, ICFGR + 4), (DISTRIBUTOR, ICFGR + 8)] {
        assert_eq!(gic.read(frame, offset, 4), 0);
        gic.write(frame, offset, 4, 0xffff_ffff);
        assert_eq!(gic.read(frame, offset, 4), 0xaaaa_aaaa, "Int_config[0] is RES0");
        gic.write(frame, offset, 4, 0x5555_5555);
        assert_eq!(gic.read(frame, offset, 4), 0, "Int_config[0] is RES0");
        gic.write(frame, offset, 4, 0x0000_0008);
        assert_eq!(gic.read(frame, offset, 4), 0x0000_0008);
    }
    assert!(gic.interrupt(0, 17).edge && gic.interrupt(0, 33).edge && !gic.interrupt(0, 16).edge);
}

#[test]
fn gicd_irouter_keeps_the_affinity_and_the_mode_and_takes_a_half_by_itself() {
    let mut gic = reset(1);
    let offset = IROUTER + 8 * 40;
    gic.write(DISTRIBUTOR, offset, 8, u64::MAX);
    assert_eq!(gic.read(DISTRIBUTOR, offset, 8), 0xff_80ff_ffff);
    gic.write(DISTRIBUTOR, offset + 4, 4, 0x12);
    assert_eq!(gic.read(DISTRIBUTOR, offset, 8), 0x12_80ff_ffff);
    gic.write(DISTRIBUTOR, offset, 4, 0x0034_5678);
    assert_eq!(gic.read(DISTRIBUTOR, offset, 8), 0x12_0034_5678);
    assert_eq!(gic.read(DISTRIBUTOR, offset, 4), 0x0034_5678);
    assert_eq!(gic.read(DISTRIBUTOR, offset + 4, 4), 0x12);
    assert_eq!(gic.read(DISTRIBUTOR, offset - 8, 8) | gic.read(DISTRIBUTOR, offset + 8, 8), 0);
}

#[test]
fn the_affinity_of_an_spi_that_goes_to_any_pe_is_unknown() {
    let mut gic = reset(1);
    let offset = IROUTER + 8 * 40;
    gic.write(DISTRIBUTOR, offset, 8, 1);
    assert_eq!(gic.known_bits(DISTRIBUTOR, offset, 8), u64::MAX);
    gic.write(DISTRIBUTOR, offset, 8, 1 << 31);
    assert_eq!(gic.known_bits(DISTRIBUTOR, offset, 8), !0xff_00ff_ffff);
    assert_eq!(gic.known_bits(DISTRIBUTOR, offset + 4, 4), 0xffff_ff00);
}

#[test]
fn gicr_ctlr_has_the_two_dpg_bits_of_one_security_state() {
    let mut gic = reset(2);
    assert_eq!(gic.read(RD, GICR_CTLR, 4), 0);
    gic.write(RD, GICR_CTLR, 4, 0xffff_ffff);
    assert_eq!(gic.read(RD, GICR_CTLR, 4), 0x0300_0000);
    for (bit, not_selected) in [(24, [true, false]), (25, [false, true])] {
        gic.write(RD, GICR_CTLR, 4, 1 << bit);
        assert_eq!(gic.pes[0].not_selected, not_selected);
        assert_eq!(gic.read(RD, GICR_CTLR, 4), 1 << bit);
    }
    assert_eq!(gic.read(Frame::RdBase(1), GICR_CTLR, 4), 0);
}

#[test]
fn gicr_waker_is_asleep_after_a_reset_and_its_children_follow() {
    let mut gic = reset(2);
    assert_eq!(gic.read(RD, GICR_WAKER, 4), 0b110);
    gic.write(RD, GICR_WAKER, 4, 0b100);
    assert_eq!(gic.read(RD, GICR_WAKER, 4), 0);
    assert_eq!(gic.read(Frame::RdBase(1), GICR_WAKER, 4), 0b110);
    gic.write(RD, GICR_WAKER, 4, 0b010);
    assert_eq!(gic.read(RD, GICR_WAKER, 4), 0b110);
}
