//! What each lock is for: two contexts take it that nothing else orders, and one of them changes what it protects.

use std::sync::Arc;

use doorbell_explore::removal::{self, Program};
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, RoutingTable, SourceId};

/// Nothing that arrives matters.
struct Chip;

impl Controller for Chip {
    fn pins(&self, _chip: u16) -> u32 {
        1
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, _msi: Msi) {}
}

const LEVEL: Gsi = Gsi(0);
const MESSAGE: Gsi = Gsi(1);
/// Without a route at first.
const LATER: Gsi = Gsi(2);

fn table(also: Option<Gsi>) -> RoutingTable {
    let msi = Route::Msi(Msi::new(0xfee0_0000, 0x41));
    let routes = [(LEVEL, Route::Level(Pin::new(0, 0))), (MESSAGE, msi)];
    let routes: Vec<_> = routes.into_iter().chain(also.map(|gsi| (gsi, msi))).collect();
    RoutingTable::new(&routes).expect("a good table")
}

type Vm = Irqfds<Sim, Chip>;

/// What a task does, to the VM or to an irqfd of its own.
#[derive(Clone, Copy, Debug)]
enum Does {
    Assign,
    AssignResample,
    /// One that has been assigned to a message.
    Deassign,
    /// The same, to a level.
    DeassignResample,
    /// With a route for an irqfd that has lost its own.
    Reroute,
    Close,
    Count,
    Acknowledge,
    Register,
}
use Does::*;

/// What it needs is set up; then it is done.
fn prepare(vm: &Vm, does: Does) -> impl FnOnce() + 'static {
    let irqfd: Irqfd<Sim, Chip> = vm.irqfd();
    match does {
        Deassign => irqfd.assign(MESSAGE).expect("it is routed"),
        DeassignResample => irqfd.assign_resample(LEVEL, Arc::new(|| ())).expect("it has a pin"),
        Reroute => {
            drop(vm.reroute(table(Some(LATER))).expect("an open VM"));
            irqfd.assign(LATER).expect("it is routed");
            drop(vm.reroute(table(None)).expect("an open VM"));
        }
        Assign | AssignResample | Close | Count | Acknowledge | Register => {}
    }
    let vm = vm.clone();
    move || match does {
        // The VM may have been closed.
        Assign => drop(irqfd.assign(MESSAGE)),
        AssignResample => irqfd.assign_resample(LEVEL, Arc::new(|| ())).expect("it has a pin"),
        Deassign | DeassignResample => irqfd.deassign().expect("it is assigned"),
        Reroute => {
            drop(vm.reroute(table(Some(LATER))).expect("an open VM"));
            assert!(irqfd.is_assigned());
        }
        Close => vm.close().wait(),
        Count => assert!(vm.assigned() <= 1),
        Acknowledge => vm.notify_ack(LEVEL),
        Register => vm.register_ack_notifier(LEVEL, Arc::new(|| ())).expect("it is in range").unregister(),
    }
}

fn program(two: [Does; 2]) -> Program {
    Program::new(format!("{:?} and {:?}", two[0], two[1]), move |m: &Machine| {
        let vm = Vm::new(Chip, Limits { gsis: 3, ..Limits::default() });
        drop(vm.reroute(table(None)).expect("an open VM"));
        for does in two {
            m.task(format!("{does:?}"), prepare(&vm, does));
        }
        m.at_quiescence("nothing is assigned any more", move || {
            vm.close().wait();
            if vm.assigned() == 0 { Ok(()) } else { Err("somebody is".into()) }
        });
    })
}

#[test]
fn every_lock_is_all_that_orders_two_who_take_it() {
    let programs = [
        [Assign, Assign],
        [AssignResample, AssignResample],
        [Assign, Deassign],
        [Assign, Reroute],
        [Assign, Close],
        [Assign, Count],
        [DeassignResample, Register],
        [Acknowledge, Register],
    ]
    .map(program);
    let mut missed = Vec::new();
    for row in removal::locks(&programs, "crates/irqfd/src/") {
        let line = row.line(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        println!("{} | `{line}` | {}", row.site, row.found_by.as_deref().unwrap_or("-"));
        if row.found_by.is_none() {
            missed.push(row);
        }
    }
    assert!(missed.is_empty(), "nobody races there: {missed:#?}");
}
