//! What the manual leaves open about an access.

use std::collections::BTreeSet;

use crate::architecture::predictable::Reason;
use crate::architecture::{Access, Frame, Gic};
use crate::*;

fn reasons(gic: &Gic, offset: u32, size: u32, value: u64) -> Vec<Reason> {
    let access = Access::write(DISTRIBUTOR, offset, size, value);
    let reasons = gic.reasons(&access);
    assert_eq!(gic.is_predictable(&access), reasons == BTreeSet::new());
    reasons.into_iter().collect()
}

#[test]
fn what_enables_sets_and_clears_is_predictable() {
    let gic = in_use(1);
    for register in (ISENABLER..IPRIORITYR).step_by(0x80) {
        assert_eq!(reasons(&gic, register + 4, 4, 0xffff_ffff), []);
    }
    assert!(gic.is_predictable(&Access::read(DISTRIBUTOR, GICD_CTLR, 4)));
}

#[test]
fn an_access_of_another_size_is_unpredictable() {
    let gic = in_use(1);
    assert_eq!(reasons(&gic, ISENABLER + 4, 1, 1), [Reason::Size]);
    assert!(!gic.is_predictable(&Access::read(DISTRIBUTOR, 0x6104, 8)));
    assert!(!gic.is_predictable(&Access::read(DISTRIBUTOR, 0x0002, 4)));
}

#[test]
fn another_trigger_is_unpredictable_while_enabled_or_pending() {
    let mut gic = in_use(1);
    assert_eq!(reasons(&gic, ICFGR + 8, 4, 0xaaaa_aaaa), []);
    write_bit(&mut gic, ISENABLER, 0, 40);
    assert_eq!(reasons(&gic, ICFGR + 8, 4, 0xaaaa_aaaa), [Reason::TriggerWhileEnabled]);
    assert_eq!(reasons(&gic, ICFGR + 8, 4, 0xaaa8_aaaa), [], "the same trigger for 40");
    write_bit(&mut gic, ICENABLER, 0, 40);
    gic.set_line(0, 40, true);
    assert_eq!(reasons(&gic, ICFGR + 8, 4, 0xaaaa_aaaa), [Reason::TriggerWhilePending]);
}

#[test]
fn another_priority_group_or_route_while_pending_counts_or_not() {
    let mut gic = in_use(1);
    let changes = [(IPRIORITYR + 40, 1, 0x10), (IGROUPR + 4, 4, 1 << 8), (IROUTER + 8 * 40, 8, 1)];
    for (offset, size, value) in changes {
        assert_eq!(reasons(&gic, offset, size, value), []);
    }
    write_bit(&mut gic, ISPENDR, 0, 40);
    for (offset, size, value) in changes {
        assert_eq!(reasons(&gic, offset, size, value), [Reason::ChangeWhilePending]);
        assert_eq!(reasons(&gic, offset, size, 0), [], "no change");
    }
    // The priority of the neighbour.
    assert_eq!(reasons(&gic, IPRIORITYR + 41, 1, 0x10), []);
}

#[test]
fn another_priority_or_group_while_active_counts_or_not() {
    let mut gic = in_use(1);
    write_bit(&mut gic, ISACTIVER, 0, 40);
    assert_eq!(reasons(&gic, IPRIORITYR + 40, 1, 0x10), [Reason::ChangeWhileActive]);
    assert_eq!(reasons(&gic, IGROUPR + 4, 4, 1 << 8), [Reason::ChangeWhileActive]);
    assert_eq!(reasons(&gic, IROUTER + 8 * 40, 8, 1), [], "it is not routed while it is active");
}

#[test]
fn to_make_inactive_what_a_pe_is_running_is_open_and_what_it_has_dropped_is_not() {
    let mut gic = in_use(1);
    gic.pes[0].interface.drops_only = true;
    enable(&mut gic, 0, 40, 0);
    gic.latch(0, 40);
    gic.acknowledge(0, 40);
    assert_eq!(reasons(&gic, ICACTIVER + 4, 4, 1 << 8), [Reason::InactiveWhileRunning]);
    gic.end(0, 40);
    assert_eq!(reasons(&gic, ICACTIVER + 4, 4, 1 << 8), []);
}

#[test]
fn to_sleep_with_a_group_enabled_is_unpredictable() {
    let mut gic = in_use(2);
    let sleep = Access::write(Frame::RdBase(1), GICR_WAKER, 4, 0b10);
    for enabled in [[true, true], [true, false], [false, true]] {
        gic.pes[1].interface.enabled = enabled;
        assert_eq!(gic.reasons(&sleep), BTreeSet::from([Reason::SleepWhileEnabled]));
    }
    gic.pes[1].interface.enabled = [false; 2];
    assert!(gic.is_predictable(&sleep));
    assert!(gic.is_predictable(&Access::write(Frame::RdBase(1), GICR_WAKER, 4, 0)));
}
