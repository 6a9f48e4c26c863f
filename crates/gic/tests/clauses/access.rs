//! Sizes of accesses, and registers that are RAZ/WI.

use crate::architecture::map::SIZE;
use crate::architecture::{Access, Frame, Gic, Register};
use crate::{
    DISTRIBUTOR, GICD_CTLR, ICFGR, IGROUPR, IPRIORITYR, IROUTER, ISENABLER, ISPENDR, in_use,
};

const FRAMES: [Frame; 3] = [DISTRIBUTOR, Frame::RdBase(1), Frame::SgiBase(1)];

fn sizes(frame: Frame, offset: u32) -> Vec<u32> {
    [1, 2, 4, 8]
        .into_iter()
        .filter(|&size| Access::read(frame, offset, size).is_supported())
        .collect()
}

#[test]
fn priorities_and_targets_are_accessed_by_byte_or_word_as_section_12_1_3_says() {
    for offset in [IPRIORITYR + 40, 0x800 + 40, 0xf10, 0xf20] {
        assert_eq!(sizes(DISTRIBUTOR, offset), [1, 4], "{offset:#x}");
        assert_eq!(sizes(DISTRIBUTOR, offset + 1), [1], "{offset:#x}");
    }
    assert_eq!(sizes(Frame::SgiBase(0), IPRIORITYR), [1, 4]);
}

#[test]
fn messages_are_written_by_halfword_or_word_as_section_12_1_3_says() {
    for offset in [0x40, 0x48, 0x50, 0x58] {
        assert_eq!(sizes(DISTRIBUTOR, offset), [2, 4]);
    }
}

#[test]
fn registers_of_64_bits_are_accessed_in_whole_or_by_half_as_section_12_1_3_says() {
    assert_eq!(sizes(DISTRIBUTOR, IROUTER + 8 * 32), [4, 8]);
    assert_eq!(sizes(DISTRIBUTOR, IROUTER + 8 * 32 + 4), [4]);
    for offset in [0x08, 0x40, 0x48, 0x70, 0x78, 0xa0, 0xb0] {
        assert_eq!(sizes(Frame::RdBase(0), offset), [4, 8], "{offset:#x}");
    }
}

#[test]
fn other_registers_are_accessed_by_word_alone_as_section_12_1_3_says() {
    for offset in
        [0, 4, 8, 0xc, 0x10, IGROUPR + 4, ISENABLER, ISPENDR, ICFGR, 0xd00, 0xe00, 0xf00, 0xffe8]
    {
        assert_eq!(sizes(DISTRIBUTOR, offset), [4], "{offset:#x}");
    }
    for offset in [0, 4, 0x10, 0x14, 0xc0, 0xffe8] {
        assert_eq!(sizes(Frame::RdBase(0), offset), [4], "{offset:#x}");
    }
    for offset in [IGROUPR, ISENABLER, ISPENDR, ICFGR, ICFGR + 4, 0xd00, 0xe00] {
        assert_eq!(sizes(Frame::SgiBase(0), offset), [4], "{offset:#x}");
    }
}

#[test]
fn an_access_of_64_bits_reaches_no_register_of_32() {
    for (frame, offset) in
        FRAMES.into_iter().flat_map(|frame| (0..SIZE).step_by(8).map(move |offset| (frame, offset)))
    {
        let words = [offset, offset + 4].map(|word| Register::at(frame, word));
        let wide =
            words.iter().all(|register| register.width() == 8 || *register == Register::Reserved);
        assert_eq!(Access::read(frame, offset, 8).is_supported(), wide, "{frame:?} {offset:#x}");
    }
}

#[test]
fn where_there_is_no_register_each_size_is_res0() {
    // The routes of INTIDs that are no SPIs, and the extended ranges of PPIs and SPIs.
    for id in [0, 31, 1020, 1023] {
        assert_eq!(sizes(DISTRIBUTOR, IROUTER + 8 * id), [1, 2, 4, 8]);
    }
    for offset in [IGROUPR, ISENABLER, ISPENDR] {
        assert_eq!(sizes(Frame::SgiBase(0), offset + 8), [1, 2, 4, 8]);
        assert_eq!(sizes(Frame::SgiBase(0), offset + 4), [1, 2, 4]);
    }
    assert_eq!(sizes(DISTRIBUTOR, 0x1000), [1, 2, 4, 8]);
}

#[test]
fn what_is_not_supported_reads_zero_and_writes_nothing() {
    let mut gic = in_use(2);
    gic.write(DISTRIBUTOR, ISENABLER + 4, 4, u64::MAX);
    for (frame, block) in FRAMES
        .into_iter()
        .flat_map(|frame| (0..SIZE).step_by(0x80).map(move |block| (frame, block)))
    {
        // What one block sets another clears.
        let before = gic.clone();
        for (offset, size) in
            (block..block + 0x80).flat_map(|offset| [1, 2, 4, 8].map(|size| (offset, size)))
        {
            if !Access::read(frame, offset, size).is_supported() {
                assert_eq!(gic.read(frame, offset, size), 0, "{frame:?} {offset:#x} {size}");
                assert_eq!(gic.known_bits(frame, offset, size), 0);
                gic.write(frame, offset, size, u64::MAX);
            }
        }
        assert!(gic == before, "{frame:?} {block:#x}");
    }
}

/// Writes ones to each word of the frames that is such a register; returns how many there are.
fn write_ones(gic: &mut Gic, frame: Frame, is_meant: impl Fn(u32, Register) -> bool) -> u32 {
    let mut written = 0;
    for offset in (0..SIZE).step_by(4) {
        if is_meant(offset, Register::at(frame, offset)) {
            assert_eq!(gic.read(frame, offset, 4), 0, "{frame:?} {offset:#x}");
            gic.write(frame, offset, 4, u64::MAX);
            assert_eq!(gic.read(frame, offset, 4), 0, "{frame:?} {offset:#x}");
            written += 1;
        }
    }
    written
}

#[test]
fn an_offset_without_a_register_is_raz_wi() {
    let mut gic = in_use(2);
    let before = gic.clone();
    for frame in FRAMES {
        let reserved = write_ones(&mut gic, frame, |_, register| register == Register::Reserved);
        assert!(reserved > 0x2000, "{reserved} words in {frame:?}");
    }
    assert!(gic == before);
}

#[test]
fn what_another_security_state_lpis_or_no_affinity_routing_would_use_is_raz_wi() {
    let mut gic = in_use(2);
    let before = gic.clone();
    // Section 12.9: the two words after GICD_IIDR, GICD_IGRPMODR<n>, GICD_NSACR<n> and GICD_SGIR;
    // section 12.11: GICR_STATUSR and GICR_SYNCR; GICR_IGRPMODR0 and GICR_NSACR.
    for (frame, count) in FRAMES.into_iter().zip([2 + 32 + 64 + 1, 2, 2]) {
        let unused = write_ones(&mut gic, frame, |_, register| register == Register::Unused);
        assert_eq!(unused, count, "in {frame:?}");
    }
    let others = [Register::Itargetsr, Register::Pendsgir, Register::Setspi];
    assert_eq!(
        write_ones(&mut gic, DISTRIBUTOR, |_, register| others.contains(&register)),
        256 + 8 + 4
    );
    assert_eq!(write_ones(&mut gic, Frame::RdBase(0), |_, register| register == Register::Lpi), 12);
    assert!(gic == before);
}

#[test]
fn the_distributor_has_no_part_in_sgis_and_ppis_with_affinity_routing() {
    let mut gic = in_use(2);
    for register in (IGROUPR..0x0400).step_by(0x80) {
        gic.write(Frame::SgiBase(0), register, 4, 0x5555_5555);
    }
    for id in 0..32 {
        gic.write(Frame::SgiBase(0), IPRIORITYR + id, 1, 0x50);
    }
    gic.write(Frame::SgiBase(0), ICFGR + 4, 4, 0xaaaa_aaaa);
    let before = gic.clone();
    let first = |offset| match offset {
        ICFGR..0x0c08 => true,
        IPRIORITYR..0x0420 => true,
        IGROUPR..0x0400 => offset % 0x80 == 0,
        _ => (IROUTER..IROUTER + 8 * 32).contains(&offset),
    };
    assert_eq!(write_ones(&mut gic, DISTRIBUTOR, |offset, _| first(offset)), 2 + 8 + 7 + 64);
    assert!(gic == before);
}

#[test]
fn the_bits_of_an_spi_that_is_not_implemented_are_raz_wi() {
    for spis in [0, 32, 960, 988] {
        let mut gic = Gic::new(&[0], spis, 8, 7);
        let before = gic.clone();
        let end = 32 + spis;
        let beyond = |offset| match offset {
            IGROUPR..0x0400 => offset % 0x80 / 4 * 32 >= end,
            IPRIORITYR..0x0800 => offset - IPRIORITYR >= end,
            ICFGR..0x0d00 => (offset - ICFGR) / 4 * 16 >= end,
            IROUTER..0x8000 => (offset - IROUTER) / 8 >= end,
            _ => false,
        };
        assert!(write_ones(&mut gic, DISTRIBUTOR, |offset, _| beyond(offset)) > 0);
        assert!(gic == before);
    }
    // INTIDs 1020 to 1023 share registers with 1019.
    let mut gic = Gic::new(&[0], 988, 8, 7);
    gic.write(DISTRIBUTOR, ISENABLER + 4 * 31, 4, u64::MAX);
    assert_eq!(gic.read(DISTRIBUTOR, ISENABLER + 4 * 31, 4), 0x0fff_ffff);
    gic.write(DISTRIBUTOR, ICFGR + 4 * 63, 4, u64::MAX);
    assert_eq!(gic.read(DISTRIBUTOR, ICFGR + 4 * 63, 4), 0x00aa_aaaa);
}

#[test]
fn what_is_read_only_ignores_writes() {
    let mut gic = in_use(2);
    let before = gic.clone();
    for offset in [4, 8, 0xffe8, 0xfff0] {
        gic.write(DISTRIBUTOR, offset, 4, u64::MAX);
        gic.write(DISTRIBUTOR, offset, 4, 0);
    }
    for (offset, size) in [(4, 4), (8, 4), (8, 8), (0xc, 4), (0xffe8, 4)] {
        gic.write(Frame::RdBase(0), offset, size, u64::MAX);
        gic.write(Frame::RdBase(0), offset, size, 0);
    }
    assert!(gic == before);
    assert_ne!(gic.read(DISTRIBUTOR, GICD_CTLR, 4), 0);
}
