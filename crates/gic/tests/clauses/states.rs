//! Pending, active, signalled and ended (sections 4.1 and 4.8).

use crate::*;

const SGI: u32 = 3;
const PPI: u32 = 20;
const SPI: u32 = 40;

/// A GIC with that interrupt enabled.
fn with(id: u32, edge: bool) -> Gic {
    let mut gic = in_use(2);
    gic.interrupt_mut(0, id).edge = edge;
    enable(&mut gic, 0, id, 0x40);
    gic
}

fn pending(gic: &Gic, id: u32) -> bool {
    let frame = if id < 32 { Frame::SgiBase(0) } else { DISTRIBUTOR };
    let [set, clear] = [ISPENDR, ICPENDR]
        .map(|register| gic.read(frame, register + id / 32 * 4, 4) >> (id % 32) & 1);
    assert_eq!(set, clear);
    set == 1
}

#[test]
fn a_level_is_pending_while_its_line_is_high() {
    for id in [PPI, SPI] {
        let mut gic = with(id, false);
        gic.set_line(0, id, true);
        assert!(pending(&gic, id));
        gic.set_line(0, id, false);
        assert!(!pending(&gic, id));
    }
}

#[test]
fn a_level_that_gicd_ispendr_makes_pending_stays_so_until_it_is_acknowledged() {
    for id in [PPI, SPI] {
        // Whether the line is high when it is written or not.
        for high in [false, true] {
            let mut gic = with(id, false);
            gic.set_line(0, id, high);
            write_bit(&mut gic, ISPENDR, 0, id);
            gic.set_line(0, id, false);
            assert!(pending(&gic, id));
            gic.acknowledge(0, id);
            assert!(!pending(&gic, id));
        }
    }
}

#[test]
fn gicd_icpendr_clears_of_a_level_what_gicd_ispendr_has_set_and_not_the_line() {
    for id in [PPI, SPI] {
        let mut gic = with(id, false);
        gic.set_line(0, id, true);
        write_bit(&mut gic, ISPENDR, 0, id);
        write_bit(&mut gic, ICPENDR, 0, id);
        assert!(pending(&gic, id));
        gic.set_line(0, id, false);
        assert!(!pending(&gic, id));
    }
}

#[test]
fn an_edge_is_pending_from_the_rise_until_it_is_acknowledged_or_cleared() {
    for id in [PPI, SPI] {
        let mut gic = with(id, true);
        gic.set_line(0, id, true);
        gic.set_line(0, id, false);
        assert!(pending(&gic, id));
        write_bit(&mut gic, ICPENDR, 0, id);
        assert!(!pending(&gic, id));
        gic.set_line(0, id, true);
        gic.acknowledge(0, id);
        assert!(!pending(&gic, id));
        gic.set_line(0, id, true);
        assert!(!pending(&gic, id), "it was high before");
        gic.set_line(0, id, false);
        assert!(!pending(&gic, id));
        gic.set_line(0, id, true);
        assert_eq!(gic.state(0, id), (true, true));
    }
}

#[test]
fn gicr_ispendr0_makes_an_sgi_pending_and_gicr_icpendr0_takes_that_back() {
    let mut gic = with(SGI, true);
    write_bit(&mut gic, ISPENDR, 0, SGI);
    assert_eq!((gic.candidates(0), gic.candidates(1)), (vec![SGI], vec![]));
    write_bit(&mut gic, ICPENDR, 0, SGI);
    assert_eq!(gic.candidates(0), []);
}

#[test]
fn what_is_active_and_pending_is_signalled_after_its_end() {
    for (id, edge) in [(SGI, true), (PPI, false), (PPI, true), (SPI, false), (SPI, true)] {
        let mut gic = with(id, edge);
        if edge {
            gic.latch(0, id);
        } else {
            gic.set_line(0, id, true);
        }
        assert_eq!(gic.signalled(0, 0), [id]);
        gic.acknowledge(0, id);
        assert_eq!(gic.state(0, id), (!edge, true));
        if edge {
            gic.latch(0, id);
        }
        assert_eq!((gic.state(0, id), gic.candidates(0)), ((true, true), vec![]));
        gic.end(0, id);
        assert_eq!((gic.state(0, id), gic.candidates(0)), ((true, false), vec![id]));
    }
}

#[test]
fn the_end_of_a_level_is_told_and_a_physical_interrupt_deactivated_once() {
    for id in [PPI, SPI] {
        for drops_only in [false, true] {
            let mut gic = with(id, false);
            gic.pes[0].interface.drops_only = drops_only;
            gic.interrupt_mut(0, id).physical = true;
            gic.set_line(0, id, true);
            gic.acknowledge(0, id);
            gic.end(0, id);
            if drops_only {
                assert!(gic.ended.is_empty() && gic.deactivated.is_empty() && gic.state(0, id).1);
                gic.deactivate(0, id);
            }
            assert!(!gic.state(0, id).1);
            assert!(gic.ended.contains(&(0, id)) && gic.ended.len() == 1);
            assert_eq!(gic.deactivated.get(&(0, id)), Some(&1));
        }
    }
    let mut gic = with(SPI, true);
    gic.latch(0, SPI);
    gic.acknowledge(0, SPI);
    gic.end(0, SPI);
    assert!(
        gic.ended.is_empty() && gic.deactivated.is_empty(),
        "an edge that no physical interrupt backs"
    );
}

#[test]
fn what_has_ended_is_told_apart_by_pe_if_it_is_a_ppi() {
    let mut gic = with(SPI, false);
    for id in [PPI, SPI] {
        gic.interrupt_mut(1, id).physical = true;
        gic.acknowledge(1, id);
        gic.end(1, id);
    }
    assert!(gic.ended.iter().eq([&(0, SPI), &(1, PPI)]));
    assert!(gic.deactivated.keys().eq([&(0, SPI), &(1, PPI)]));
}

#[test]
fn what_a_write_has_made_inactive_before_does_not_end_again() {
    let mut gic = with(SPI, false);
    gic.set_line(0, SPI, true);
    gic.acknowledge(0, SPI);
    write_bit(&mut gic, ICACTIVER, 0, SPI);
    gic.end(0, SPI);
    assert!(gic.ended.is_empty());
}

#[test]
fn an_spi_is_deactivated_by_any_pe_with_eoimode_1_and_a_ppi_by_its_own() {
    let mut gic = with(SPI, true);
    enable(&mut gic, 0, PPI, 0x40);
    for pe in [0, 1] {
        gic.pes[pe].interface.drops_only = true;
    }
    for id in [SPI, PPI] {
        gic.latch(0, id);
        gic.acknowledge(0, id);
        assert!(
            [0, 1].iter().all(|&pe| !gic.dropped(pe).contains(&id)),
            "the priority is not dropped"
        );
        gic.end(0, id);
    }
    assert_eq!((gic.dropped(0), gic.dropped(1)), (vec![PPI, SPI], vec![SPI]));
    gic.deactivate(1, SPI);
    assert!(!gic.state(0, SPI).1);
    gic.pes[0].interface.drops_only = false;
    assert_eq!(gic.dropped(0), [], "DIR does nothing with EOImode 0");
}

#[test]
fn what_a_write_makes_active_holds_no_priority_and_can_be_deactivated() {
    let mut gic = with(SPI, true);
    gic.pes[0].interface.drops_only = true;
    enable(&mut gic, 0, PPI, 0x80);
    write_bit(&mut gic, ISACTIVER, 0, SPI);
    gic.latch(0, PPI);
    assert_eq!((gic.dropped(0), gic.signalled(0, 0)), (vec![SPI], vec![PPI]));
    assert_eq!(gic.acknowledged_by(0, SPI), None);
}

#[test]
fn both_the_distributor_and_the_cpu_interface_enable_a_group() {
    let mut gic = with(SPI, true);
    gic.latch(0, SPI);
    for (distributor, interface, group) in [(0b01, [true, false], 0), (0b10, [false, true], 1)] {
        gic.write(DISTRIBUTOR, IGROUPR + 4, 4, group << (SPI - 32));
        gic.write(DISTRIBUTOR, GICD_CTLR, 4, distributor);
        gic.pes[0].interface.enabled = interface;
        assert_eq!(gic.candidates(0), [SPI]);
        gic.write(DISTRIBUTOR, GICD_CTLR, 4, distributor ^ 0b11);
        assert_eq!(gic.candidates(0), []);
        gic.write(DISTRIBUTOR, GICD_CTLR, 4, distributor);
        gic.pes[0].interface.enabled = interface.map(|enabled| !enabled);
        assert_eq!(gic.candidates(0), []);
        assert!(pending(&gic, SPI));
    }
}

#[test]
fn an_interrupt_that_is_disabled_is_pending_and_not_signalled() {
    let mut gic = with(SPI, true);
    write_bit(&mut gic, ICENABLER, 0, SPI);
    gic.latch(0, SPI);
    assert!(pending(&gic, SPI) && gic.candidates(0).is_empty());
    write_bit(&mut gic, ISENABLER, 0, SPI);
    assert_eq!(gic.candidates(0), [SPI]);
}

#[test]
fn only_a_priority_above_the_mask_and_above_the_running_group_priority_is_signalled() {
    let mut gic = with(SPI, true);
    gic.latch(0, SPI);
    for (mask, expected) in [(0x40, &[][..]), (0x48, &[SPI])] {
        gic.pes[0].interface.mask = mask;
        assert_eq!(gic.signalled(0, 0), expected);
    }
    gic.pes[0].interface.mask = 0xf8;
    gic.acknowledge(0, SPI);
    enable(&mut gic, 0, PPI, 0x38);
    gic.latch(0, PPI);
    assert_eq!(gic.signalled(0, 0), [PPI]);
    enable(&mut gic, 0, PPI, 0x40);
    assert!(gic.signalled(0, 0).is_empty() && gic.may_be_spurious(0, 0));
    gic.end(0, SPI);
    assert!(gic.signalled(0, 0) == [PPI] && !gic.may_be_spurious(0, 0));
}

#[test]
fn the_binary_point_of_the_group_says_what_preempts() {
    // Group priorities of ICC_BPR0_EL1 4 are bits 7 to 5; of ICC_BPR1_EL1 4, bits 7 to 4.
    for (group, preempts) in [(0, 0x18), (1, 0x28)] {
        let mut gic = with(SPI, true);
        gic.write(DISTRIBUTOR, IGROUPR + 4, 4, group << (SPI - 32));
        gic.write(Frame::SgiBase(0), IGROUPR, 4, group << PPI);
        gic.pes[0].interface.set_binary_point(group as usize, 4);
        enable(&mut gic, 0, SPI, 0x38);
        gic.latch(0, SPI);
        gic.acknowledge(0, SPI);
        gic.latch(0, PPI);
        for priority in (0..=0x38).step_by(8) {
            enable(&mut gic, 0, PPI, priority);
            assert_eq!(
                gic.signalled(0, group as usize) == [PPI],
                priority <= preempts,
                "{group} {priority:#x}"
            );
        }
    }
}

#[test]
fn the_smallest_binary_points_leave_the_bits_that_preempt() {
    for (bits, step) in [(5, 8), (6, 4), (7, 2)] {
        for (group, is_written) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut gic = Gic::new(&[0], 32, 8, bits);
            gic.write(DISTRIBUTOR, GICD_CTLR, 4, 0b11);
            gic.write(Frame::RdBase(0), GICR_WAKER, 4, 0);
            gic.write(Frame::SgiBase(0), IGROUPR, 4, 0xffff_ffff * group);
            let interface = &mut gic.pes[0].interface;
            (interface.mask, interface.enabled) = (0xff, [true; 2]);
            if is_written {
                interface.set_binary_point(group as usize, 0);
            }
            // The bits below its group priority are ones.
            let group_priority = 0x40 + step;
            enable(&mut gic, 0, PPI, group_priority + step - 1);
            gic.latch(0, PPI);
            gic.acknowledge(0, PPI);
            for (priority, expected) in
                [(group_priority, &[][..]), (group_priority - 1, &[PPI + 1])]
            {
                enable(&mut gic, 0, PPI + 1, priority);
                gic.latch(0, PPI + 1);
                assert_eq!(
                    gic.signalled(0, group as usize),
                    expected,
                    "{bits} bits, {priority:#x}"
                );
            }
        }
    }
}

#[test]
fn the_running_priority_is_that_of_the_acknowledgement() {
    let mut gic = with(SPI, true);
    gic.latch(0, SPI);
    gic.acknowledge(0, SPI);
    enable(&mut gic, 0, SPI, 0xf0);
    enable(&mut gic, 0, PPI, 0x80);
    gic.latch(0, PPI);
    assert_eq!(gic.signalled(0, 0), []);
}

#[test]
fn an_acknowledgement_of_a_group_returns_nothing_while_the_other_group_is_first() {
    let mut gic = with(SPI, true);
    gic.write(DISTRIBUTOR, IGROUPR + 4, 4, 1 << (SPI - 32));
    enable(&mut gic, 0, PPI, 0x30);
    gic.latch(0, SPI);
    gic.latch(0, PPI);
    assert_eq!((gic.signalled(0, 0), gic.signalled(0, 1)), (vec![PPI], vec![]));
    // Of the same priority either is first.
    enable(&mut gic, 0, PPI, 0x40);
    assert_eq!((gic.signalled(0, 0), gic.signalled(0, 1)), (vec![PPI], vec![SPI]));
    assert!(gic.may_be_spurious(0, 0) && gic.may_be_spurious(0, 1));
}

#[test]
fn a_pe_that_is_asleep_is_not_sent_what_is_pending() {
    let mut gic = with(PPI, true);
    gic.latch(0, PPI);
    gic.write(Frame::RdBase(0), GICR_WAKER, 4, 0b10);
    assert!(gic.candidates(0).is_empty() && pending(&gic, PPI));
    gic.write(Frame::RdBase(0), GICR_WAKER, 4, 0);
    assert_eq!(gic.candidates(0), [PPI]);
}

#[test]
fn a_pe_that_is_powered_off_loses_its_cpu_interface_and_nothing_else() {
    let mut gic = with(SPI, true);
    gic.latch(0, SPI);
    gic.acknowledge(0, SPI);
    gic.latch(0, SPI);
    gic.set_power(0, false);
    gic.pes[0].interface.enabled = [true; 2];
    write_bit(&mut gic, ISPENDR, 0, PPI);
    enable(&mut gic, 0, PPI, 0);
    assert_eq!(gic.candidates(0), []);
    gic.set_power(0, true);
    assert_eq!((gic.state(0, SPI), gic.acknowledged_by(0, SPI)), ((true, true), None));
    assert_eq!(gic.pes[0].interface.enabled, [false; 2]);
    assert_eq!(gic.pes[0].interface.mask, 0);
    assert!(gic.interrupt(0, SPI).enabled && !gic.pes[0].asleep);
}
