//! The checks that need several CPUs.

use core::sync::atomic::Ordering::Relaxed;

use crate::boot::call;
use crate::checks::{Check, Checked, verdict};
use crate::gic::{self, Route};
use crate::handler::{STAYS_IN, counts, wait_until};
use crate::others::{self, BEGUN, Job, OVER, ROUNDS, ROUTED, TOKEN, has_done, tell};

pub const CHECKS: &[(&str, Check)] = &[
    ("the others come on, each once", the_others_come_on_each_once),
    ("SGIs go round", sgis_go_round),
    ("each sends SGIs to each", each_sends_sgis_to_each),
    ("what is active elsewhere is seen", what_is_active_elsewhere_is_seen),
    ("what is disabled elsewhere does not come", what_is_disabled_elsewhere_does_not_come),
    (
        "what is routed elsewhere comes once each time",
        what_is_routed_elsewhere_comes_once_each_time,
    ),
    ("what any CPU may have comes once each time", what_any_cpu_may_have_comes_once_each_time),
    ("CPUs go off and on", cpus_go_off_and_on),
    (
        "what is pending for a CPU that is off comes when it is on",
        what_is_pending_for_a_cpu_that_is_off_comes,
    ),
];

fn others() -> impl Iterator<Item = usize> {
    1..gic::count_cpus()
}

fn the_others_come_on_each_once() -> Checked {
    for cpu in others() {
        verdict(others::power_of(cpu) == 1, "it is on already")?;
        verdict(others::turn_on(cpu) == 0, "it does not come on")?;
        wait_until(|| BEGUN.of(cpu) == 1);
        verdict(others::power_of(cpu) == 0, "it is not said to be on")?;
        verdict(others::turn_on(cpu) as i64 == -4, "it comes on twice")?;
    }
    verdict(others::turn_on(77) as i64 == -2, "a CPU comes on that there is not")?;
    verdict(call(0xc400_0003, [1, 8, 0]) as i64 != 0, "a CPU comes on where nothing is")
}

fn sgis_go_round() -> Checked {
    const ROUNDS: u32 = 1_000;
    OVER.store(0, Relaxed);
    others().for_each(|cpu| tell(cpu, Job::Pass));
    let (before, sum) = (counts(TOKEN).of(0), counts(TOKEN).sum());
    for round in 0..ROUNDS {
        gic::send_sgi(1, TOKEN);
        wait_until(|| counts(TOKEN).of(0) != before + round);
    }
    OVER.store(1, Relaxed);
    // They may wait.
    others().for_each(|cpu| gic::send_sgi(cpu, 13));
    others().for_each(|cpu| wait_until(|| has_done(cpu)));
    let cpus = gic::count_cpus() as u32;
    verdict(counts(TOKEN).sum() - sum == ROUNDS * cpus, "one came twice")
}

fn each_sends_sgis_to_each() -> Checked {
    ROUNDS.store(250, Relaxed);
    let cpus = gic::count_cpus() as u32;
    let sum = || (0..cpus).map(|intid| counts(intid).sum()).sum::<u32>();
    let before = sum();
    others().for_each(|cpu| tell(cpu, Job::Storm));
    others::storm();
    others().for_each(|cpu| wait_until(|| has_done(cpu)));
    verdict(sum() - before == 250 * cpus * (cpus - 1), "one came twice")
}

fn what_is_active_elsewhere_is_seen() -> Checked {
    const SPI: u32 = 70;
    let first = counts(SPI).of(0);
    for _ in 0..20 {
        for cpu in others() {
            gic::route(SPI, Route::Cpu(cpu));
            let before = counts(SPI).of(cpu);
            STAYS_IN.store(SPI, Relaxed);
            gic::pend(SPI);
            wait_until(|| counts(SPI).of(cpu) != before);
            let (active, pending) = (gic::is_active(SPI), gic::is_pending(SPI));
            STAYS_IN.store(0, Relaxed);
            verdict(active && !pending, "it is not active, or pending")?;
            // Ends soon, and is seen to.
            wait_until(|| !gic::is_active(SPI));
        }
    }
    verdict(counts(SPI).of(0) == first, "it came elsewhere")
}

fn what_is_disabled_elsewhere_does_not_come() -> Checked {
    const SPI: u32 = 71;
    gic::route(SPI, Route::Cpu(1));
    let count = || counts(SPI).sum();
    for _ in 0..200 {
        let before = count();
        gic::pend(SPI);
        gic::disable(SPI);
        gic::wait_for_writes();
        // What it has acknowledged by now, it handles.
        wait_until(|| !gic::is_active(SPI));
        let seen = count();
        let pending = gic::is_pending(SPI);
        verdict(seen - before + u32::from(pending) == 1, "it is lost, or came twice")?;
        gic::enable(SPI);
        wait_until(|| count() != before);
        wait_until(|| !gic::is_active(SPI));
        verdict(count() - before == 1, "it came twice")?;
    }
    Ok(())
}

/// Makes an SPI pending again and again, each time when it was taken. Each has to come once.
fn comes_once_each_time(rounds: u32) -> Checked {
    let count = || counts(ROUTED).sum();
    let before = count();
    for round in 1..=rounds {
        gic::pend(ROUTED);
        wait_until(|| count() - before >= round);
        wait_until(|| !gic::is_active(ROUTED));
        verdict(count() - before == round, "it came twice")?;
    }
    Ok(())
}

fn what_is_routed_elsewhere_comes_once_each_time() -> Checked {
    OVER.store(0, Relaxed);
    tell(1, Job::Route);
    let checked = comes_once_each_time(2_000);
    OVER.store(1, Relaxed);
    wait_until(|| has_done(1));
    checked
}

fn what_any_cpu_may_have_comes_once_each_time() -> Checked {
    gic::route(ROUTED, Route::Any);
    comes_once_each_time(500)?;
    // While CPUs that may have it go.
    for cpu in others() {
        tell(cpu, Job::Off);
        comes_once_each_time(100)?;
        wait_until(|| others::power_of(cpu) == 1);
        comes_once_each_time(100)?;
        turn_on_again(cpu)?;
        comes_once_each_time(100)?;
    }
    gic::route(ROUTED, Route::Cpu(0));
    Ok(())
}

fn turn_on_again(cpu: usize) -> Checked {
    let begun = BEGUN.of(cpu);
    verdict(others::turn_on(cpu) == 0, "it does not come on")?;
    wait_until(|| BEGUN.of(cpu) == begun + 1);
    Ok(())
}

fn cpus_go_off_and_on() -> Checked {
    for _ in 0..50 {
        others().for_each(|cpu| tell(cpu, Job::Off));
        for cpu in others() {
            wait_until(|| others::power_of(cpu) == 1);
            turn_on_again(cpu)?;
        }
    }
    // They are there.
    others().for_each(|cpu| tell(cpu, Job::Rest));
    others().for_each(|cpu| wait_until(|| has_done(cpu)));
    Ok(())
}

fn what_is_pending_for_a_cpu_that_is_off_comes() -> Checked {
    const SPI: u32 = 73;
    for _ in 0..20 {
        gic::route(SPI, Route::Cpu(1));
        tell(1, Job::Off);
        wait_until(|| others::power_of(1) == 1);
        let before = counts(SPI).sum();
        gic::pend(SPI);
        verdict(gic::is_pending(SPI) && counts(SPI).sum() == before, "it is not pending")?;
        turn_on_again(1)?;
        wait_until(|| counts(SPI).sum() != before);
        wait_until(|| !gic::is_active(SPI));
        verdict(counts(SPI).sum() - before == 1, "it came twice")?;
    }
    Ok(())
}
