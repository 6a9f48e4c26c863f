//! Under every interleaving: events that meet an assignment, a deassignment or a routing update are
//! delivered or kept, and none comes late.
//!
//! Where the promise rests on one step, a copy of the protocol without that step fails in the same
//! program.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use doorbell_explore::sim::Model;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_irqfd::{
    Controller, Error, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, RoutingTable, Signalled,
    SourceId,
};
use doorbell_platform::{Atomic, Platform};

const GSI: Gsi = Gsi(1);
const OTHER_GSI: Gsi = Gsi(2);
const OLD: Msi = Msi::new(0xfee0_0000, 0x41);
const NEW: Msi = Msi::new(0xfee0_1000, 0x42);
const OTHER: Msi = Msi::new(0xfee0_2000, 0x43);

/// Writes down what arrives, and knows what must not arrive any more.
struct Chip(Model<State>);

#[derive(Default)]
struct State {
    messages: Vec<Msi>,
    banned: Vec<Msi>,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        let late = self.0.change(|state| {
            state.messages.push(msi);
            state.banned.contains(&msi)
        });
        assert!(
            !late,
            "{:#x} arrives after the call that ends it has returned",
            msi.message.address
        );
    }
}

impl Chip {
    /// From here on, `msi` must not arrive.
    fn ban(&self, msi: Msi) {
        self.0.change(|state| state.banned.push(msi));
    }

    fn messages(&self) -> usize {
        self.0.observe(|state| state.messages.len())
    }
}

type Vm = Irqfds<Sim, Arc<Chip>>;

fn table(routes: &[(Gsi, Msi)]) -> RoutingTable {
    let routes: Vec<_> = routes.iter().map(|&(gsi, msi)| (gsi, Route::Msi(msi))).collect();
    RoutingTable::new(&routes).expect("a good table")
}

/// A VM with a route for either GSI, and a source of it.
fn vm() -> (Vm, Arc<Irqfd<Sim, Arc<Chip>>>) {
    let chip = Arc::new(Chip(Model::new("interrupt controller", State::default())));
    let vm = Vm::new(chip, Limits { gsis: 3, ..Limits::default() });
    let _ = vm.reroute(table(&[(GSI, OLD), (OTHER_GSI, OTHER)])).expect("an open VM");
    let irqfd = Arc::new(vm.irqfd());
    (vm, irqfd)
}

/// A source as an assignment sees it.
trait Source: 'static {
    fn set_up() -> Self;
    fn signal(&self);
    fn assign(&self);
    /// How many events have arrived, and whether one is kept.
    fn outcome(&self) -> (usize, bool);
}

struct Shipped(Vm, Arc<Irqfd<Sim, Arc<Chip>>>);

impl Source for Shipped {
    fn set_up() -> Self {
        let (vm, irqfd) = vm();
        Shipped(vm, irqfd)
    }
    fn signal(&self) {
        self.1.signal();
    }
    fn assign(&self) {
        self.1.assign(GSI).expect("the GSI is routed");
    }
    fn outcome(&self) -> (usize, bool) {
        (self.0.controller().messages(), self.1.take_pending())
    }
}

/// The gate alone, as `signal` and `assign` use it.
struct Gate<const FAULT: u8> {
    open: <Sim as Platform>::AtomicBool,
    pending: <Sim as Platform>::AtomicBool,
    arrived: Model<usize>,
}

const NO_FAULT: u8 = 0;
/// A signal that has found the gate closed keeps the event, and looks at the gate no more.
const LOOKS_ONCE: u8 = 1;
/// An assignment looks for kept events, and then opens the gate.
const OPENS_LAST: u8 = 2;
/// Both look for the kept event without taking it.
const TAKES_NOTHING: u8 = 3;

impl<const FAULT: u8> Gate<FAULT> {
    fn arrive(&self) {
        self.arrived.change(|arrived| *arrived += 1);
    }
    fn take_pending(&self) -> bool {
        if FAULT == TAKES_NOTHING {
            let kept = self.pending.load(SeqCst);
            self.pending.store(false, SeqCst);
            kept
        } else {
            self.pending.swap(false, SeqCst)
        }
    }
}

impl<const FAULT: u8> Source for Gate<FAULT> {
    fn set_up() -> Self {
        Gate {
            open: Atomic::new(false),
            pending: Atomic::new(false),
            arrived: Model::new("arrived", 0),
        }
    }
    fn signal(&self) {
        if self.open.load(SeqCst) {
            return self.arrive();
        }
        self.pending.store(true, SeqCst);
        if FAULT != LOOKS_ONCE && self.open.load(SeqCst) && self.take_pending() {
            self.arrive();
        }
    }
    fn assign(&self) {
        if FAULT != OPENS_LAST {
            self.open.store(true, SeqCst);
        }
        if self.take_pending() {
            self.signal_or_arrive();
        }
        if FAULT == OPENS_LAST {
            self.open.store(true, SeqCst);
        }
    }
    fn outcome(&self) -> (usize, bool) {
        (self.arrived.observe(|arrived| *arrived), self.pending.load(SeqCst))
    }
}

impl<const FAULT: u8> Gate<FAULT> {
    fn signal_or_arrive(&self) {
        if FAULT == OPENS_LAST { self.arrive() } else { self.signal() }
    }
}

/// Events meet an assignment; one event, or none, is pending before. Once assigned, nothing stays
/// behind.
fn events_meet_an_assignment<S: Source>(before: usize, events: usize) -> Report {
    Explore::new("assign").run(move |m: &Machine| {
        let source = Arc::new(S::set_up());
        for _ in 0..before {
            source.signal();
        }
        for _ in 0..events {
            let source = source.clone();
            m.task("device", move || source.signal());
        }
        let assigned = source.clone();
        m.task("assign", move || assigned.assign());
        m.at_quiescence("every event has arrived", move || {
            let (arrived, kept) = source.outcome();
            // Events that were kept at the same time have become one.
            let least = usize::from(before + events > 0);
            let most = before + events;
            if kept || !(least..=most).contains(&arrived) {
                Err(format!("{most} events, {arrived} arrived, one kept: {kept}"))
            } else {
                Ok(())
            }
        });
    })
}

#[test]
fn an_event_that_meets_an_assignment_arrives() {
    for (before, events) in [(1, 0), (0, 1), (1, 1), (0, 2)] {
        events_meet_an_assignment::<Shipped>(before, events).assert_exhausted();
        events_meet_an_assignment::<Gate<NO_FAULT>>(before, events).assert_exhausted();
    }
}

#[test]
fn without_the_second_look_at_the_gate_an_event_stays_behind() {
    for (before, events) in [(0, 1), (1, 1)] {
        events_meet_an_assignment::<Gate<LOOKS_ONCE>>(before, events)
            .assert_found(FailureKind::Quiescence);
        events_meet_an_assignment::<Gate<OPENS_LAST>>(before, events)
            .assert_found(FailureKind::Quiescence);
    }
}

#[test]
fn an_event_that_both_look_for_and_neither_takes_arrives_twice() {
    events_meet_an_assignment::<Gate<TAKES_NOTHING>>(0, 1).assert_found(FailureKind::Quiescence);
}

/// What a task does to the VM and the source, in its order.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Deassigns and waits: the old message is over.
    Deassign,
    /// Begins to deassign, and leaves the rest to the VM.
    DeassignLater,
    /// Takes all routes away: the old message is over.
    Unroute,
    /// Takes the route of the source's GSI away: the old message is over.
    UnrouteGsi,
    /// Gives the GSI another route: the old message is over.
    Reroute,
    /// Assigns the source to the same GSI as soon as it can be, or to another one.
    Assign(Gsi),
}
use Does::*;

/// The source is assigned to a GSI; `events` meet what one task does. In the end, the source is
/// assigned and routed, or it keeps what has not arrived.
fn events_meet(events: usize, tasks: &'static [Does]) -> Report {
    Explore::new(format!("{tasks:?}")).run(move |m: &Machine| {
        let (vm, irqfd) = vm();
        irqfd.assign(GSI).expect("the GSI is routed");
        // For each event, how many messages had arrived before it: it is lost if none comes after.
        let before = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..events {
            let (irqfd, vm, before) = (irqfd.clone(), vm.clone(), before.clone());
            m.task("device", move || {
                let messages = vm.controller().messages();
                before.lock().expect("nobody panics with it").push(messages);
                irqfd.signal();
            });
        }
        let (host, source) = (vm.clone(), irqfd.clone());
        m.task("host", move || tasks.iter().for_each(|does| do_one(&host, &source, *does)));
        m.at_quiescence("every event has arrived or is kept", move || {
            let reachable = irqfd.is_assigned() && irqfd.signal() == Signalled::Delivered;
            let messages = vm.controller().messages() - usize::from(reachable);
            let kept = irqfd.take_pending();
            let last = before.lock().expect("nobody panics with it").iter().max().copied();
            if kept && reachable {
                Err("an event is kept by a source that could deliver it".to_owned())
            } else if messages > events || !kept && last.is_some_and(|before| messages <= before) {
                Err(format!("{events} events, {messages} messages, the last event after {last:?}, one kept: {kept}"))
            } else {
                Ok(())
            }
        });
    })
}

fn do_one(vm: &Vm, irqfd: &Irqfd<Sim, Arc<Chip>>, does: Does) {
    let chip = vm.controller();
    match does {
        Deassign => {
            irqfd.deassign().expect("it is assigned");
            chip.ban(OLD);
        }
        DeassignLater => irqfd.deassign_begin().expect("it is assigned").later(),
        Unroute => {
            let _ = vm.reroute(RoutingTable::empty()).expect("an open VM");
            chip.ban(OLD);
        }
        UnrouteGsi => {
            let _ = vm.reroute(table(&[(OTHER_GSI, OTHER)])).expect("an open VM");
            chip.ban(OLD);
        }
        Reroute => {
            let _ = vm.reroute(table(&[(GSI, NEW), (OTHER_GSI, OTHER)])).expect("an open VM");
            chip.ban(OLD);
        }
        Assign(gsi) => {
            while let Err(error) = irqfd.assign(gsi) {
                assert_eq!(error, Error::Busy, "it is still leaving");
                Sim::cpu_relax();
            }
        }
    }
}

#[test]
fn an_event_that_meets_a_deassignment_is_not_late_and_arrives_with_the_next_assignment() {
    events_meet(2, &[Deassign]).assert_exhausted();
    events_meet(1, &[Deassign, Assign(OTHER_GSI)]).assert_exhausted();
    events_meet(1, &[Deassign, Reroute, Assign(GSI)]).assert_exhausted();
}

#[test]
fn an_event_that_meets_a_deassignment_that_is_left_to_the_vm_is_neither_late_nor_lost() {
    events_meet(1, &[DeassignLater, Assign(GSI)]).assert_exhausted();
    events_meet(1, &[DeassignLater, Reroute, Assign(GSI)]).assert_exhausted();
    events_meet(1, &[DeassignLater, Reroute, Assign(OTHER_GSI)]).assert_exhausted();
    events_meet(2, &[DeassignLater, Reroute, Assign(GSI)]).assert_exhausted();
}

#[test]
fn an_event_that_meets_the_loss_of_its_route_is_kept_until_there_is_one() {
    events_meet(1, &[Unroute]).assert_exhausted();
    events_meet(2, &[Unroute]).assert_exhausted();
    events_meet(1, &[Unroute, Reroute]).assert_exhausted();
    events_meet(2, &[Unroute, Reroute]).assert_exhausted();
}

/// The event may have found no route, and be about to be kept, when the source is assigned again.
/// That it is not assigned before the event is kept is the affair of the deassignment: nothing else
/// waits in between.
#[test]
fn an_event_without_a_route_that_meets_a_deassignment_is_found_by_the_next_assignment() {
    events_meet(1, &[UnrouteGsi, DeassignLater, Assign(OTHER_GSI)]).assert_exhausted();
    events_meet(1, &[UnrouteGsi, Deassign, Assign(OTHER_GSI)]).assert_exhausted();
    events_meet(1, &[Unroute, DeassignLater, Reroute, Assign(GSI)]).assert_exhausted();
    events_meet(1, &[Unroute, Deassign, Reroute, Assign(GSI)]).assert_exhausted();
}
