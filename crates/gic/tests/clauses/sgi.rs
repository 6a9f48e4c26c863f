//! How SGIs are generated (sections 12.1.10 and 12.2).

use crate::architecture::sgi::SgiRegister::{self, Asgi1R, Sgi0R, Sgi1R};
use crate::architecture::{Frame, Gic};
use crate::{IGROUPR, ISPENDR, in_use};

/// The PEs on which that SGI is pending.
fn pending(gic: &Gic, id: u32) -> Vec<usize> {
    (0..gic.pes.len()).filter(|&pe| gic.read(Frame::SgiBase(pe), ISPENDR, 4) == 1 << id).collect()
}

fn generated(mut gic: Gic, from: usize, register: SgiRegister, value: u64) -> Gic {
    gic.generate(from, register, value);
    gic
}

#[test]
fn an_sgi_goes_to_the_target_list_of_a_cluster() {
    let affinities = [0x0102_0300, 0x0102_0301, 0x0102_030f, 0x0002_0301, 0x0100_0301, 0x0102_0001];
    let gic = Gic::new(&affinities, 32, 5, 5);
    let value = 0x01 << 48 | 0x02 << 32 | 7 << 24 | 0x03 << 16;
    for (list, expected) in
        [(0b1, &[0][..]), (0b10, &[1]), (1 << 15, &[2]), (0xffff, &[0, 1, 2]), (0, &[]), (4, &[])]
    {
        let gic = generated(gic.clone(), 3, Sgi1R, value | list);
        assert_eq!(pending(&gic, 7), expected, "{list:#x}");
    }
}

#[test]
fn the_range_selector_reaches_all_of_aff0() {
    let gic = Gic::new(&[0, 15, 16, 0xf0, 0xff], 32, 5, 5);
    for (range, expected) in [(0, &[0, 1][..]), (1, &[2]), (2, &[]), (15, &[3, 4])] {
        let gic = generated(gic.clone(), 0, Sgi1R, range << 44 | 3 << 24 | 0xffff);
        assert_eq!(pending(&gic, 3), expected, "{range}");
    }
}

#[test]
fn an_sgi_goes_to_the_pe_itself_if_it_is_listed() {
    assert_eq!(pending(&generated(in_use(3), 1, Sgi1R, 0b111), 0), [0, 1, 2]);
}

#[test]
fn with_irm_an_sgi_goes_to_all_but_the_pe_itself_wherever_they_are() {
    let gic = Gic::new(&[0, 0x0100_0000, 0xffff_ffff, 17], 32, 5, 5);
    for from in 0..4 {
        let gic = generated(gic.clone(), from, Sgi1R, 1 << 40 | 15 << 24);
        let others: Vec<_> = (0..4).filter(|&pe| pe != from).collect();
        assert_eq!(pending(&gic, 15), others);
    }
}

#[test]
fn each_register_reaches_the_groups_of_one_security_state() {
    for (register, groups) in
        [(Sgi0R, [true, false]), (Sgi1R, [true, true]), (Asgi1R, [true, false])]
    {
        for group in [0, 1] {
            let mut gic = in_use(2);
            // The group that counts is the target's.
            gic.write(Frame::SgiBase(1), IGROUPR, 4, group << 4);
            gic.write(Frame::SgiBase(0), IGROUPR, 4, (1 - group) << 4);
            gic.generate(0, register, 4 << 24 | 0b10);
            assert_eq!(
                pending(&gic, 4).contains(&1),
                groups[group as usize],
                "{register:?} to group {group}"
            );
        }
    }
}

#[test]
fn an_sgi_to_a_pe_that_is_asleep_or_off_is_pending_there() {
    let mut gic = in_use(3);
    gic.pes[1].asleep = true;
    gic.set_power(2, false);
    assert_eq!(pending(&generated(gic, 0, Sgi1R, 0b110), 0), [1, 2]);
}
