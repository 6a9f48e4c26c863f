//! Every access is there for a reason: without it, a program fails. And what was decided against
//! loses interrupts.

use std::sync::Arc;

use doorbell_apic::avic::GaLog;
use doorbell_explore::removal::{self, Printed, Program};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};

use crate::machine::{Flaw, Restart};
use crate::programs::{Asks, DEVICE, Inhibited, Life, MASKED, Scope, created, program, programs};

#[test]
fn nothing_that_is_posted_is_lost_and_no_access_can_be_taken_out() {
    let rows = removal::table(&programs(), "crates/apic/src/avic/");
    // The lock of the tags is all that orders VMs that come and go.
    let rows =
        removal::merged(rows, removal::locks(&[come_and_go()], "crates/apic/src/avic/log.rs"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/avic.md",
        name: "doorbell-apic avic_explored",
        kept: &[],
    };
    let wrong = printed.check(&rows);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A vCPU that runs on has not got an interrupt, or one that sleeps is never woken.
fn loses(name: &str, f: impl Fn(&Machine) + Send + Sync) {
    let report = Explore::new(name).minimise(false).run(f);
    let kind = report.failure.as_ref().map(|failure| failure.kind);
    assert!(
        matches!(kind, Some(FailureKind::Quiescence | FailureKind::Deadlock)),
        "{kind:?}, {:?}",
        report.verdict
    );
}

#[test]
fn inhibited_a_vcpu_needs_log_entries() {
    loses("no log", |m| {
        program(m, Scope { inhibited: Inhibited::AtSomeMoment, flaw: Flaw::NoLog, ..DEVICE })
    });
}

#[test]
fn inhibited_a_vcpu_must_not_be_said_to_run() {
    loses("runs", |m| {
        program(m, Scope { inhibited: Inhibited::AtSomeMoment, flaw: Flaw::StaysRunning, ..DEVICE })
    });
}

#[test]
fn a_vcpu_that_sleeps_needs_log_entries() {
    loses("no log", |m| program(m, Scope { life: Life::Sleeps, flaw: Flaw::NoLog, ..DEVICE }));
}

#[test]
fn a_log_that_is_restarted_after_the_look_loses_what_came_between() {
    loses("restarted last", |m| {
        program(
            m,
            Scope {
                life: Life::Sleeps,
                capacity: 0,
                again: true,
                restart: Restart::Last,
                ..DEVICE
            },
        );
    });
}

#[test]
fn inhibited_a_vcpu_in_the_guest_has_to_be_kicked_whatever_its_priority() {
    loses("asks for the priority", |m| program(m, Scope { flaw: Flaw::AsksPriority, ..MASKED }));
}

#[test]
fn a_kick_alone_is_not_enough_for_a_vector_that_waits_for_a_lower_priority() {
    loses("no intercept", |m| program(m, Scope { flaw: Flaw::NoIntercept, ..MASKED }));
}

#[test]
fn a_vcpu_that_asks_before_it_can_be_found_misses_that_avic_is_inhibited() {
    loses("asks early", |m| created(m, Asks::Early));
}

#[test]
fn avic_is_inhibited_and_re_enabled_while_a_device_posts() {
    let report = Explore::new("re-enabled")
        .run(|m| program(m, Scope { inhibited: Inhibited::ForSomeTime, ..DEVICE }));
    report.assert_exhausted();
}

fn come_and_go() -> Program {
    Program::new("VMs come and go", vms)
}

/// VMs come, get a vCPU, and go.
fn vms(m: &Machine) {
    let log = GaLog::<Sim, ()>::new(2);
    for name in ["one VM", "another"] {
        let log = Arc::clone(&log);
        m.task(name, move || {
            let vm = log.open().expect("there is room for two");
            drop(vm.add(0, Arc::new(())).expect("a small number").synchronize());
            drop(vm.close().synchronize());
        });
    }
}

#[test]
fn every_leaf_is_taken_by_a_program() {
    assert!(removal::leaves_not_taken(&[come_and_go()], doorbell_apic::LOCKS).is_empty());
}
