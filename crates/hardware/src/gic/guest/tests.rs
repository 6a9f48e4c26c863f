//! What a guest sees, clause by clause.

use super::super::spec::Implementation;
use super::*;

use Group::{One, Zero};

/// Both groups are enabled, and no priority is masked.
fn new(priority_bits: u8, preemption_bits: u8) -> VirtualInterface {
    with(Implementation::new(4, priority_bits, preemption_bits).expect("it is legal"))
}

fn with(implementation: Implementation) -> VirtualInterface {
    let mut gic = VirtualInterface::new(implementation);
    gic.set_hcr(hcr::EN.mask());
    gic.set_vmcr(vmcr::VENG0.mask() | vmcr::VENG1.mask() | vmcr::VPMR.mask());
    gic
}

fn id(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

fn pending(number: u32, priority: u8, group: Group) -> ListRegister {
    ListRegister::new(id(number), Priority(priority), group)
}

impl VirtualInterface {
    fn holding(mut self, lrs: &[ListRegister]) -> Self {
        for (number, &lr) in lrs.iter().enumerate() {
            self.set_lr(number, lr).expect("there are four");
        }
        self
    }

    fn ack(&mut self, group: Group) -> u32 {
        self.read_iar(group).expect("it is not trapped").number()
    }

    fn eoi(&mut self, group: Group, number: u32) -> Physical {
        self.write_eoir(group, id(number)).expect("it is not trapped")
    }

    fn dir(&mut self, number: u32) -> Physical {
        self.write_dir(id(number)).expect("it is not trapped")
    }

    fn running(&self) -> u8 {
        self.read_rpr().expect("it is not trapped").0
    }

    fn state(&self, number: usize) -> State {
        self.lr(number).expect("there are four").state()
    }

    fn count(&self) -> u64 {
        hcr::EOICOUNT.get(self.hcr())
    }

    fn split(mut self) -> Self {
        self.write_ctlr(ctlr::EOIMODE.mask()).expect("it is not trapped");
        self
    }
}

const SPURIOUS: u32 = 1023;
const NOTHING: Physical = Physical::Untouched;

#[test]
fn an_acknowledged_interrupt_is_active_and_its_priority_runs_until_the_eoi() {
    let mut gic = new(8, 7).holding(&[pending(32, 0x81, One)]);
    assert_eq!((gic.running(), gic.signals()), (0xff, Some(One)));
    assert_eq!(gic.ack(One), 32);
    assert_eq!((gic.state(0), gic.running(), gic.signals()), (State::Active, 0x80, None));
    assert_eq!(gic.active_priorities(One, 2), Ok(1), "level 64 is bit 0 of ICH_AP1R2_EL2");
    assert_eq!(gic.eoi(One, 32), NOTHING);
    assert_eq!((gic.state(0), gic.running(), gic.count()), (State::Inactive, 0xff, 0));
    assert_eq!(gic.active_priorities(One, 2), Ok(0));
}

#[test]
fn the_active_priority_bit_is_the_group_priority_less_what_is_not_preemption() {
    let mut gic = new(5, 5).holding(&[pending(32, 0xf0, Zero)]);
    gic.write_bpr(Zero, 5).expect("it is not trapped");
    assert_eq!(gic.ack(Zero), 32);
    assert_eq!(
        gic.active_priorities(Zero, 0),
        Ok(1 << 24),
        "0xf0 without its six low bits is 0xc0"
    );
    assert_eq!(gic.running(), 0xc0);
}

#[test]
fn iar_gives_the_highest_priority_of_what_is_pending_and_nothing_that_is_active_too() {
    let both = pending(33, 0x10, One).in_state(State::PendingAndActive);
    let active = pending(35, 0x00, One).in_state(State::Active);
    let mut gic =
        new(5, 5).holding(&[pending(32, 0x40, One), both, pending(34, 0x38, One), active]);
    assert_eq!(gic.read_hppir(One), Ok(id(34)));
    assert_eq!(gic.ack(One), 34);
    assert_eq!(
        (gic.ack(One), gic.read_hppir(One)),
        (SPURIOUS, Ok(id(32))),
        "HPPIR does not ask for the running priority"
    );
    assert_eq!(gic.state(1), State::PendingAndActive);
}

#[test]
fn of_equal_priorities_the_first_list_register_is_given() {
    let mut gic = new(5, 5).holding(&[pending(40, 0x40, One), pending(32, 0x47, One)]);
    assert_eq!(gic.ack(One), 40, "unimplemented bits of priority are zero");
}

#[test]
fn iar_and_hppir_of_one_group_say_nothing_of_the_other() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x40, One), pending(33, 0x30, Zero)]);
    assert_eq!((gic.read_hppir(One), gic.ack(One)), (Ok(IntId::SPURIOUS), SPURIOUS));
    assert_eq!((gic.read_hppir(Zero), gic.signals()), (Ok(id(33)), Some(Zero)));
    assert_eq!(gic.ack(Zero), 33);
}

#[test]
fn a_disabled_group_does_not_hide_the_other() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x40, One), pending(33, 0x30, Zero)]);
    gic.write_igrpen(Zero, false).expect("it is not trapped");
    assert_eq!((gic.read_igrpen(Zero), gic.read_igrpen(One)), (Ok(false), Ok(true)));
    assert_eq!((gic.read_hppir(Zero), gic.read_hppir(One)), (Ok(IntId::SPURIOUS), Ok(id(32))));
    assert_eq!((gic.signals(), gic.ack(One)), (Some(One), 32));
}

#[test]
fn pmr_masks_its_own_priority_and_lower_ones_but_not_hppir() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x40, One)]);
    gic.write_pmr(Priority(0x47)).expect("it is not trapped");
    assert_eq!(gic.read_pmr(), Ok(Priority(0x40)), "three bits are not implemented");
    assert_eq!((gic.signals(), gic.ack(One), gic.read_hppir(One)), (None, SPURIOUS, Ok(id(32))));
    gic.write_pmr(Priority(0x48)).expect("it is not trapped");
    assert_eq!((gic.signals(), gic.ack(One)), (Some(One), 32));
}

#[test]
fn an_interrupt_of_the_idle_priority_is_never_pending() {
    let gic = new(8, 7).holding(&[pending(32, 0xff, One), pending(33, 0xff, Zero)]);
    assert_eq!(
        (gic.read_hppir(One), gic.read_hppir(Zero)),
        (Ok(IntId::SPURIOUS), Ok(IntId::SPURIOUS))
    );
}

#[test]
fn while_ich_hcr_el2_en_is_clear_nothing_is_signalled_or_acknowledged() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x40, One)]);
    gic.set_hcr(0);
    assert_eq!((gic.signals(), gic.ack(One), gic.state(0)), (None, SPURIOUS, State::Pending));
}

#[test]
fn only_a_higher_group_priority_preempts() {
    for (bpr, preempts) in [(3, true), (4, false), (7, false)] {
        let mut gic = new(5, 5).holding(&[pending(32, 0x48, One), pending(33, 0x80, Zero)]);
        gic.write_bpr(One, bpr).expect("it is not trapped");
        assert_eq!(gic.ack(One), 32);
        gic.set_lr(2, pending(34, 0x40, One)).expect("there are four");
        assert_eq!(gic.signals(), preempts.then_some(One), "BPR1 is {bpr}");
        assert_eq!(gic.ack(One), if preempts { 34 } else { SPURIOUS });
    }
}

#[test]
fn a_bpr0_of_seven_leaves_no_preemption_and_with_cbpr_for_both_groups() {
    for cbpr in [false, true] {
        let mut gic = new(5, 5).holding(&[pending(32, 0xf0, Zero)]);
        gic.write_bpr(Zero, 7).expect("it is not trapped");
        gic.write_ctlr(ctlr::CBPR.put(0, cbpr.into())).expect("it is not trapped");
        assert_eq!((gic.ack(Zero), gic.running()), (32, 0));
        gic.set_lr(1, pending(33, 0x00, One)).expect("there are four");
        assert_eq!(gic.signals(), None);
    }
    let mut gic = new(5, 5).holding(&[pending(32, 0xf0, One)]);
    gic.write_bpr(Zero, 7).expect("it is not trapped");
    assert_eq!((gic.ack(One), gic.running()), (32, 0xf0), "without CBPR, BPR1 holds for group 1");
}

#[test]
fn bpr1_is_bpr0_plus_one_with_cbpr_and_cannot_be_written() {
    let mut gic = new(5, 5);
    assert_eq!(
        (gic.read_bpr(Zero), gic.read_bpr(One)),
        (Ok(2), Ok(3)),
        "the smallest for 5 bits of preemption"
    );
    gic.write_bpr(One, 6).expect("it is not trapped");
    gic.write_ctlr(ctlr::CBPR.mask()).expect("it is not trapped");
    for (zero, one) in [(2, 3), (6, 7), (7, 7)] {
        gic.write_bpr(Zero, zero).expect("it is not trapped");
        gic.write_bpr(One, 5).expect("it is not trapped");
        assert_eq!(gic.read_bpr(One), Ok(one));
    }
    gic.write_ctlr(0).expect("it is not trapped");
    assert_eq!(gic.read_bpr(One), Ok(6), "it has kept its own");
}

#[test]
fn ctlr_shows_what_is_implemented_and_two_bits_of_it_can_be_written() {
    let mut gic = with(Implementation::new(4, 7, 6).expect("it is legal").with_long_ids());
    gic.write_ctlr(u64::MAX).expect("it is not trapped");
    assert_eq!(gic.read_ctlr(), Ok(1 << 15 | 1 << 11 | 6 << 8 | 0b11));
    gic.write_ctlr(0).expect("it is not trapped");
    assert_eq!(gic.read_ctlr(), Ok(1 << 15 | 1 << 11 | 6 << 8));
}

#[test]
fn nested_interrupts_end_from_the_top() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    gic.set_lr(1, pending(33, 0x40, Zero)).expect("there are four");
    assert_eq!((gic.ack(Zero), gic.running()), (33, 0x40));
    assert_eq!((gic.eoi(Zero, 33), gic.running()), (NOTHING, 0x80));
    assert_eq!((gic.eoi(One, 32), gic.running()), (NOTHING, 0xff));
    assert_eq!((gic.state(0), gic.state(1)), (State::Inactive, State::Inactive));
}

#[test]
fn what_is_pending_and_active_is_pending_after_its_eoi() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    gic.set_lr(0, pending(32, 0x80, One).in_state(State::PendingAndActive))
        .expect("there are four");
    assert_eq!((gic.signals(), gic.eoi(One, 32)), (None, NOTHING));
    assert_eq!((gic.state(0), gic.ack(One)), (State::Pending, 32));
}

#[test]
fn with_eoimode_an_eoi_drops_the_priority_and_dir_deactivates() {
    let mut gic = new(5, 5).split().holding(&[pending(32, 0x80, One)]);
    assert_eq!((gic.ack(One), gic.eoi(One, 32)), (32, NOTHING));
    assert_eq!((gic.state(0), gic.running()), (State::Active, 0xff));
    assert_eq!((gic.dir(32), gic.state(0), gic.count()), (NOTHING, State::Inactive, 0));
}

#[test]
fn without_eoimode_dir_is_ignored() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    let before = gic.clone();
    assert_eq!((gic.dir(32), gic.dir(40)), (NOTHING, NOTHING));
    assert_eq!(gic, before);
}

#[test]
fn a_deactivation_of_what_is_in_no_list_register_is_counted_where_it_deactivates() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    gic.set_lr(0, ListRegister::EMPTY).expect("there are four");
    assert_eq!((gic.eoi(One, 32), gic.count(), gic.running()), (NOTHING, 1, 0xff));

    let mut gic = new(5, 5).split().holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    gic.set_lr(0, ListRegister::EMPTY).expect("there are four");
    assert_eq!(
        (gic.eoi(One, 32), gic.count(), gic.running()),
        (NOTHING, 0, 0xff),
        "EOIR only drops the priority"
    );
    assert_eq!((gic.dir(32), gic.count()), (NOTHING, 1));
}

#[test]
fn a_pending_interrupt_is_not_one_that_an_eoi_finds() {
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    gic.set_lr(0, pending(32, 0x80, One)).expect("there are four");
    assert_eq!((gic.eoi(One, 32), gic.count(), gic.state(0)), (NOTHING, 1, State::Pending));
}

#[test]
fn eoicount_has_five_bits() {
    let mut gic = new(5, 5).split();
    gic.set_hcr(hcr::EOICOUNT.put(hcr::EN.mask(), 31));
    assert_eq!((gic.dir(32), gic.count(), gic.hcr()), (NOTHING, 0, hcr::EN.mask()));
}

#[test]
fn an_lpi_is_deactivated_by_its_eoi_in_either_mode_and_never_by_dir_or_counted() {
    for split in [false, true] {
        let mut gic = new(5, 5).holding(&[pending(8192, 0x80, One)]);
        if split {
            gic = gic.split();
        }
        assert_eq!((gic.ack(One), gic.dir(8192), gic.state(0)), (8192, NOTHING, State::Active));
        assert_eq!(
            (gic.eoi(One, 8192), gic.state(0), gic.running()),
            (NOTHING, State::Inactive, 0xff)
        );
        gic.set_active_priorities(One, 0, 1).expect("there is one");
        assert_eq!(
            (gic.eoi(One, 8192), gic.running(), gic.count()),
            (NOTHING, 0xff, 0),
            "it is in no list register"
        );
        assert_eq!((gic.dir(8192), gic.count()), (NOTHING, 0));
        gic.set_active_priorities(One, 0, 1).expect("there is one");
        assert_eq!((gic.eoi(One, 8191), gic.count()), (NOTHING, u64::from(!split)), "8191 is none");
    }
}

#[test]
fn an_eoi_of_a_special_intid_does_nothing() {
    let mut gic = new(5, 5).split().holding(&[pending(32, 0x80, One)]);
    assert_eq!(gic.ack(One), 32);
    let before = gic.clone();
    for number in 1020..=1023 {
        assert_eq!((gic.eoi(One, number), gic.dir(number)), (NOTHING, NOTHING));
    }
    assert_eq!(gic, before);
}

#[test]
fn an_eoi_with_nothing_active_is_counted_or_not_as_the_implementation_has_it() {
    for counts in [false, true] {
        let implementation = Implementation::new(4, 5, 5).expect("it is legal");
        let mut gic = with(if counts { implementation.counting_strays() } else { implementation });
        assert_eq!((gic.eoi(One, 32), gic.count()), (NOTHING, counts.into()));
        assert_eq!(
            (gic.eoi(One, 8192), gic.count()),
            (NOTHING, counts.into()),
            "an LPI's never is"
        );
        gic = gic.split();
        assert_eq!(
            (gic.eoi(One, 32), gic.count()),
            (NOTHING, counts.into()),
            "nor one that would not deactivate"
        );
    }
}

#[test]
fn an_eoi_of_another_priority_or_group_drops_the_priority_and_deactivates_nothing() {
    let lrs = [pending(32, 0x80, One), pending(33, 0x40, One).in_state(State::Active)];
    for (group, number) in [(One, 33), (Zero, 32)] {
        let mut gic = new(5, 5).holding(&lrs);
        assert_eq!(gic.ack(One), 32);
        assert_eq!((gic.eoi(group, number), gic.running(), gic.count()), (NOTHING, 0xff, 0));
        assert_eq!((gic.state(0), gic.state(1)), (State::Active, State::Active));
    }
}

#[test]
fn the_deactivation_of_a_physical_interrupt_is_told() {
    let physical = |number| PhysicalIntId::new(number).expect("it is small");
    let lr = pending(32, 0x80, One).of_physical(physical(0x1ff7));
    let mut gic = new(5, 5).holding(&[lr]);
    assert_eq!((gic.ack(One), gic.eoi(One, 32)), (32, Physical::Deactivated(physical(0x1ff7))));
    assert_eq!((gic.eisr(), gic.elrsr()), (0, 0b1111));
    let mut gic = new(5, 5).split().holding(&[lr]);
    assert_eq!((gic.ack(One), gic.eoi(One, 32)), (32, NOTHING));
    assert_eq!(gic.dir(32), Physical::Deactivated(physical(0x1ff7)));
    let mut gic = new(5, 5).holding(&[pending(32, 0x80, One).of_physical(physical(1020))]);
    assert_eq!(
        (gic.ack(One), gic.eoi(One, 32)),
        (32, NOTHING),
        "there is no physical interrupt 1020"
    );
}

#[test]
fn a_list_register_with_eoi_asks_for_maintenance_when_it_is_deactivated_and_not_before() {
    let mut gic = new(5, 5).split().holding(&[pending(32, 0x80, One).with_eoi()]);
    assert_eq!((gic.ack(One), gic.eoi(One, 32), gic.maintenance()), (32, NOTHING, false));
    assert_eq!(
        (gic.dir(32), gic.eisr(), gic.elrsr(), gic.maintenance()),
        (NOTHING, 0b1, 0b1110, true)
    );
}

#[test]
fn a_trapped_access_does_nothing() {
    let traps = [
        (hcr::TALL0, Trapped::Group(Zero)),
        (hcr::TALL1, Trapped::Group(One)),
        (hcr::TC, Trapped::Common),
        (hcr::TDIR, Trapped::Deactivation),
    ];
    for (trap, by) in traps {
        let mut gic = new(5, 5).split().holding(&[pending(32, 0x80, One), pending(33, 0x70, Zero)]);
        gic.set_hcr(hcr::EN.mask() | trap.mask());
        let before = gic.clone();
        let mut trapped = vec![];
        for group in [Zero, One] {
            let by_group = by == Trapped::Group(group);
            trapped.extend([
                (by_group, gic.clone().read_iar(group).err()),
                (by_group, gic.read_hppir(group).err()),
                (by_group, gic.clone().write_eoir(group, id(32)).err()),
                (by_group, gic.read_bpr(group).err()),
                (by_group, gic.clone().write_bpr(group, 5).err()),
                (by_group, gic.read_igrpen(group).err()),
                (by_group, gic.clone().write_igrpen(group, true).err()),
            ]);
            if by_group {
                assert_eq!(
                    (gic.read_iar(group), gic.write_eoir(group, id(32))),
                    (Err(by), Err(by))
                );
            }
        }
        let common = by == Trapped::Common;
        trapped.extend([
            (common, gic.read_pmr().err()),
            (common, gic.clone().write_pmr(Priority(0)).err()),
            (common, gic.read_rpr().err()),
            (common, gic.read_ctlr().err()),
            (common, gic.clone().write_ctlr(0).err()),
            (common || by == Trapped::Deactivation, gic.clone().write_dir(id(32)).err()),
        ]);
        for (number, (expected, found)) in trapped.into_iter().enumerate() {
            assert_eq!(found, expected.then_some(by), "access {number}");
        }
        assert_eq!(gic, before);
    }
}

#[test]
fn tdir_is_what_traps_dir_if_tc_does_too() {
    let mut gic = new(5, 5);
    gic.set_hcr(hcr::TC.mask() | hcr::TDIR.mask());
    assert_eq!(gic.write_dir(id(32)), Err(Trapped::Deactivation));
}
