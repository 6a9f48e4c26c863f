//! The checks.

use core::sync::atomic::Ordering::Relaxed;

use crate::boot::call;
use crate::console::line;
use crate::gic;
use crate::handler::{self, forget, irqs_off, irqs_on, nth, taken};
use crate::smp;
use crate::sysreg::{read_sysreg, write_sysreg};

pub type Checked = Result<(), &'static str>;
pub type Check = fn() -> Checked;

const CHECKS: &[(&str, Check)] = &[
    ("an unknown call is not supported", an_unknown_call_is_not_supported),
    ("the firmware is PSCI 1.1", the_firmware_is_psci_1_1),
    ("SMC is undefined", smc_is_undefined),
    ("the distributor is a GICv3", the_distributor_is_a_gicv3),
    ("an SGI to self arrives", an_sgi_to_self_arrives),
    ("an SPI that is made pending arrives", an_spi_that_is_made_pending_arrives),
    ("32 SPIs at once arrive once each", spis_at_once_arrive_once_each),
    ("the highest priority comes first", the_highest_priority_comes_first),
    ("what is disabled waits", what_is_disabled_waits),
    ("the mask holds back", the_mask_holds_back),
    ("the virtual timer fires each time", the_virtual_timer_fires_each_time),
    ("WFI waits for the timer", wfi_waits_for_the_timer),
    ("a timer that is disarmed does not fire", a_timer_that_is_disarmed_does_not_fire),
    ("the physical timer fires each time", the_physical_timer_fires_each_time),
    ("a level that stays high comes again", a_level_that_stays_high_comes_again),
    ("with EOImode 1, 32 are active until they are deactivated", with_eoimode_1_32_are_active),
    ("handlers nest 16 deep", handlers_nest_16_deep),
];

/// Does all checks.
pub fn all() {
    gic::init();
    let (mut passed, mut failed) = (0, 0);
    let cpus = gic::count_cpus();
    let with_others = smp::CHECKS.iter().filter(|_| cpus > 1);
    for (name, check) in CHECKS.iter().chain(with_others) {
        forget();
        irqs_on();
        match check() {
            Ok(()) => {
                passed += 1;
                line(format_args!("check {name}: passed"));
            }
            Err(why) => {
                failed += 1;
                line(format_args!(
                    "check {name}: failed: {why}, {} taken, the first {}",
                    taken(),
                    nth(0)
                ));
            }
        }
        irqs_off();
    }
    line(format_args!("result: {passed} passed, {failed} failed"));
}

/// Does one check, and no other.
pub fn one(name: &str, check: Check) {
    let (passed, failed) = match check() {
        Ok(()) => (1, 0),
        Err(_) => (0, 1),
    };
    line(format_args!("check {name}: {}", if passed == 1 { "passed" } else { "failed" }));
    line(format_args!("result: {passed} passed, {failed} failed"));
}

pub fn verdict(right: bool, otherwise: &'static str) -> Checked {
    if right { Ok(()) } else { Err(otherwise) }
}

/// Waits until so many interrupts were taken. One that does not come ends in silence.
fn wait_for(count: usize) {
    while taken() < count {
        core::hint::spin_loop();
    }
}

fn an_unknown_call_is_not_supported() -> Checked {
    verdict(
        call(0xc600_ff01, [0; 3]) == u64::MAX && call(0x8000_0000, [0; 3]) == u64::MAX,
        "it is not -1",
    )
}

fn the_firmware_is_psci_1_1() -> Checked {
    verdict(call(0x8400_0000, [0; 3]) == 0x1_0001, "the version is another")?;
    let features = |function| call(0x8400_000a, [function, 0, 0]);
    verdict(
        features(0x8400_0008) == 0 && features(0x8400_00ff) == u64::MAX,
        "the features are others",
    )
}

fn smc_is_undefined() -> Checked {
    handler::SYNDROME.store(u64::MAX, Relaxed);
    // SAFETY: the instruction is undefined, and is skipped.
    unsafe { core::arch::asm!("smc #0", options(nostack)) };
    verdict(handler::SYNDROME.load(Relaxed) >> 26 == 0, "there was no such exception")
}

fn the_distributor_is_a_gicv3() -> Checked {
    verdict(gic::read(gic::GICD_PIDR2) >> 4 & 0xf == 3, "PIDR2 is another")?;
    verdict(gic::read(gic::GICD_IIDR) != 0, "IIDR is zero")?;
    verdict(gic::read(gic::GICD_TYPER) & 0x1f >= 3, "there are fewer than 128 INTIDs")?;
    verdict(gic::read(gic::GICD_CTLR) & 1 << 1 != 0, "group 1 is not enabled")
}

fn an_sgi_to_self_arrives() -> Checked {
    for intid in 0..16 {
        forget();
        gic::sgi_to_self(intid);
        wait_for(1);
        verdict((taken(), nth(0)) == (1, intid), "another one came")?;
    }
    Ok(())
}

fn an_spi_that_is_made_pending_arrives() -> Checked {
    for intid in 64..96 {
        forget();
        gic::pend(intid);
        wait_for(1);
        verdict((taken(), nth(0)) == (1, intid), "another one came")?;
        verdict(!gic::is_pending(intid) && !gic::is_active(intid), "it has not ended")?;
    }
    Ok(())
}

fn spis_at_once_arrive_once_each() -> Checked {
    for _ in 0..10 {
        forget();
        gic::pend_all(64, u32::MAX);
        wait_for(32);
        let seen = (0..32).fold(0, |seen, index| seen | 1u64 << (nth(index) % 64));
        verdict(taken() == 32 && seen == 0xffff_ffff, "one came twice")?;
    }
    Ok(())
}

fn the_highest_priority_comes_first() -> Checked {
    irqs_off();
    for intid in 64..96 {
        gic::set_priority(intid, 0xf0 - (intid - 64) as u8 / 2 * 8);
    }
    gic::pend_all(64, u32::MAX);
    irqs_on();
    wait_for(32);
    let ordered = (0..31).all(|index| nth(index) / 2 >= nth(index + 1) / 2);
    for intid in 64..96 {
        gic::set_priority(intid, 0x80);
    }
    verdict(ordered && taken() == 32, "one of a lower priority came before")
}

fn what_is_disabled_waits() -> Checked {
    gic::disable(70);
    gic::pend(70);
    gic::pend(71);
    wait_for(1);
    verdict((taken(), nth(0)) == (1, 71) && gic::is_pending(70), "it came, or is not pending")?;
    gic::enable(70);
    wait_for(2);
    verdict(nth(1) == 70, "another one came")?;
    gic::disable(70);
    gic::pend(70);
    gic::unpend(70);
    gic::enable(70);
    gic::pend(71);
    wait_for(3);
    verdict((taken(), nth(2)) == (3, 71), "what was taken back came")
}

fn the_mask_holds_back() -> Checked {
    write_sysreg!("icc_pmr_el1", 0x80);
    gic::pend(64);
    // The trap sees what came before it.
    let held = gic::is_pending(64) && taken() == 0;
    write_sysreg!("icc_pmr_el1", 0xff);
    wait_for(1);
    verdict(held && nth(0) == 64, "it was not held back")
}

fn arm_timer(ticks: u64) {
    write_sysreg!("cntv_tval_el0", ticks);
    write_sysreg!("cntv_ctl_el0", 1);
}

fn the_virtual_timer_fires_each_time() -> Checked {
    for round in 1..=20 {
        arm_timer(100);
        wait_for(round);
        verdict(taken() == round && nth(round - 1) == 27, "another one came")?;
    }
    Ok(())
}

fn wfi_waits_for_the_timer() -> Checked {
    for round in 1..=5 {
        irqs_off();
        let begin = read_sysreg!("cntvct_el0");
        arm_timer(20_000);
        while read_sysreg!("isr_el1") & 1 << 7 == 0 {
            // SAFETY: a hint.
            unsafe { core::arch::asm!("wfi", options(nostack)) };
        }
        let waited = read_sysreg!("cntvct_el0") - begin;
        irqs_on();
        wait_for(round);
        verdict(waited >= 20_000, "it was over too early")?;
    }
    verdict(taken() == 5, "the timer has fired more often")
}

fn a_timer_that_is_disarmed_does_not_fire() -> Checked {
    irqs_off();
    arm_timer(0);
    // The hypervisor takes the interrupt, and has it pending.
    while !gic::is_pending(27) {}
    write_sysreg!("cntv_ctl_el0", 0);
    verdict(!gic::is_pending(27), "it is still pending")?;
    irqs_on();
    gic::sgi_to_self(1);
    wait_for(1);
    verdict((taken(), nth(0)) == (1, 1), "it has fired")?;
    arm_timer(0);
    wait_for(2);
    verdict(nth(1) == 27, "it does not fire any more")
}

fn the_physical_timer_fires_each_time() -> Checked {
    for round in 1..=20 {
        let begin = read_sysreg!("cntpct_el0");
        write_sysreg!("cntp_cval_el0", begin + 5_000);
        write_sysreg!("cntp_ctl_el0", 1);
        wait_for(round);
        let early = read_sysreg!("cntpct_el0") < begin + 5_000;
        verdict(
            taken() == round && nth(round - 1) == 30 && !early,
            "another one came, or too early",
        )?;
        verdict(read_sysreg!("cntp_ctl_el0") == 0, "the timer is on")?;
    }
    Ok(())
}

fn a_level_that_stays_high_comes_again() -> Checked {
    handler::KEEPS_TIMER.store(9, Relaxed);
    arm_timer(0);
    wait_for(10);
    // And not any more.
    gic::sgi_to_self(3);
    wait_for(11);
    let right = (0..10).all(|index| nth(index) == 27) && nth(10) == 3;
    verdict(right && taken() == 11, "another one came")
}

fn with_eoimode_1_32_are_active() -> Checked {
    write_sysreg!("icc_ctlr_el1", 1 << 1);
    gic::pend_all(64, u32::MAX);
    wait_for(32);
    let active = (64..96).filter(|&intid| gic::is_active(intid)).count();
    for intid in 64..96 {
        write_sysreg!("icc_dir_el1", intid);
    }
    let left = (64..96).filter(|&intid| gic::is_active(intid)).count();
    write_sysreg!("icc_ctlr_el1", 0);
    verdict(active == 32, "one has ended too early")?;
    verdict(left == 0, "one is active still")?;
    gic::pend_all(64, u32::MAX);
    wait_for(64);
    verdict(taken() == 64, "one came more than once")
}

fn handlers_nest_16_deep() -> Checked {
    for intid in 64..80 {
        gic::set_priority(intid, (intid - 64) as u8 * 8 + 8);
    }
    handler::NESTS_DOWN_TO.store(64, Relaxed);
    gic::pend(79);
    wait_for(16);
    handler::NESTS_DOWN_TO.store(u32::MAX, Relaxed);
    let right = (0..16).all(|index| nth(index as usize) == 79 - index);
    for intid in 64..80 {
        gic::set_priority(intid, 0x80);
    }
    verdict(right && taken() == 16, "another one came")?;
    verdict(handler::DEEPEST.load(Relaxed) == 16, "they have not nested")
}
