//! What each lock, each interrupts-off region, each read-modify-write and each look is for: without
//! it, a program fails.

use std::sync::Arc;

use doorbell_explore::removal::{self, Printed, Program, Taken};
use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{
    Controller, Error, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, Routes, RoutingTable,
    Signalled, SourceId,
};
use doorbell_platform::{CpuId, Vector};

/// What arrives.
struct Chip(Model<State>);

#[derive(Default)]
struct State {
    messages: u32,
    high: bool,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        1
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, level: bool) {
        self.0.change_if(|state| std::mem::replace(&mut state.high, level) != level);
    }
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        assert!([OLD, NEW].contains(&msi), "{msi:?} is half of one route and half of another");
        self.0.change(|state| state.messages += 1);
    }
}

const LEVEL: Gsi = Gsi(0);
const MESSAGE: Gsi = Gsi(1);
/// Without a route at first.
const LATER: Gsi = Gsi(2);

const OLD: Msi = Msi::new(0xfee0_0000, 0x41);
const NEW: Msi = Msi::new(0xfee0_1000, 0x42);

fn table(message: Msi, also: Option<Gsi>) -> RoutingTable {
    let routes = [(LEVEL, Route::Level(Pin::new(0, 0))), (MESSAGE, Route::Msi(message))];
    let routes: Vec<_> =
        routes.into_iter().chain(also.map(|gsi| (gsi, Route::Msi(message)))).collect();
    RoutingTable::new(&routes).expect("a good table")
}

type Vm = Irqfds<Sim, Chip>;
type Source = Irqfd<Sim, Chip>;
type Level = doorbell_irqfd::Line<Sim, Chip>;

fn vm() -> Vm {
    let vm = Vm::new(
        Chip(Model::new("interrupt controller", State::default())),
        Limits { gsis: 3, ..Limits::default() },
    );
    reroute(&vm, OLD, None);
    vm
}

fn reroute(vm: &Vm, message: Msi, also: Option<Gsi>) {
    drop(vm.reroute(table(message, also)).expect("an open VM"));
}

/// A source of the VM that is assigned to `gsi`.
fn assigned(vm: &Vm, gsi: Gsi) -> Arc<Source> {
    let irqfd = Arc::new(vm.irqfd());
    irqfd.assign(gsi).expect("it is routed");
    irqfd
}

/// Signals: the event has arrived when that returns.
fn must_arrive(irqfd: &Source) {
    assert_eq!(irqfd.signal(), Signalled::Delivered, "it is assigned, and routed, all the time");
}

/// In the end. The source lives so long: one that is dropped takes what it has kept along.
fn arrived(m: &Machine, vm: Vm, irqfd: Arc<Source>, wanted: u32) {
    m.at_quiescence("each event has arrived once", move || {
        assert!(irqfd.is_assigned());
        let messages = vm.controller().0.observe(|state| state.messages);
        (messages == wanted).then_some(()).ok_or(format!("{messages} of {wanted} arrived"))
    });
}

/// What a task does, to the VM or to an irqfd of its own.
#[derive(Clone, Copy, Debug)]
enum Does {
    Assign,
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
    /// A line that is made, raised, and dropped.
    Line,
    /// A GSI that is given out.
    Edit,
}
use Does::*;

/// What it needs is set up; then it is done.
fn prepare(vm: &Vm, routes: &Arc<Routes<Sim, Chip>>, does: Does) -> impl FnOnce() + 'static {
    let irqfd: Source = vm.irqfd();
    match does {
        Deassign => irqfd.assign(MESSAGE).expect("it is routed"),
        DeassignResample => irqfd.assign_resample(LEVEL, Arc::new(|| ())).expect("it has a pin"),
        Reroute => {
            reroute(vm, OLD, Some(LATER));
            irqfd.assign(LATER).expect("it is routed");
            reroute(vm, OLD, None);
        }
        Assign | Close | Count | Acknowledge | Register | Line | Edit => {}
    }
    let (vm, routes) = (vm.clone(), routes.clone());
    move || match does {
        // The VM may have been closed.
        Assign => drop(irqfd.assign(MESSAGE)),
        Deassign | DeassignResample => irqfd.deassign().expect("it is assigned"),
        Reroute => {
            reroute(&vm, OLD, Some(LATER));
            assert!(irqfd.is_assigned());
        }
        Close => vm.close().wait(),
        Count => assert!(vm.assigned() <= 1),
        Acknowledge => vm.notify_ack(LEVEL),
        Register => {
            vm.register_ack_notifier(LEVEL, Arc::new(|| ())).expect("it is in range").unregister()
        }
        // One is free.
        Edit => _ = routes.allocate(),
        // The VM may have been closed.
        Line => vm.line(LEVEL, "line").into_iter().for_each(|line| line.set(true)),
    }
}

fn at_once(two: [Does; 2]) -> Program {
    Program::new(format!("{:?} and {:?}", two[0], two[1]), move |m: &Machine| {
        let vm = vm();
        let routes = Arc::new(Routes::new(&vm, LEVEL..Gsi(3)));
        for does in two {
            m.task(format!("{does:?}"), prepare(&vm, &routes, does));
        }
        m.at_quiescence("nothing is assigned or high any more", move || {
            vm.close().wait();
            let high = vm.controller().0.observe(|state| state.high);
            if vm.assigned() == 0 && !high { Ok(()) } else { Err("somebody is".into()) }
        });
    })
}

/// Sends two events of one source that is assigned: neither is kept.
fn two_events(m: &Machine) {
    let vm = vm();
    let irqfd = assigned(&vm, MESSAGE);
    for _ in 0..2 {
        let irqfd = irqfd.clone();
        m.task("device", move || must_arrive(&irqfd));
    }
    arrived(m, vm, irqfd, 2);
}

fn an_assignment(m: &Machine) {
    let vm = vm();
    let irqfd = Arc::new(vm.irqfd());
    let (assigns, signals) = (irqfd.clone(), irqfd.clone());
    m.task("device", move || _ = signals.signal());
    m.task("assign", move || assigns.assign(MESSAGE).expect("it is routed"));
    arrived(m, vm, irqfd, 1);
}

/// The event may find the gate closed, then open, and then the route being changed.
fn an_assignment_and_a_reroute(m: &Machine) {
    let vm = vm();
    let irqfd = Arc::new(vm.irqfd());
    let (assigns, signals, reroutes) = (irqfd.clone(), irqfd.clone(), vm.clone());
    m.task("device", move || _ = signals.signal());
    m.task("host", move || {
        assigns.assign(MESSAGE).expect("it is routed");
        reroute(&reroutes, NEW, None);
    });
    arrived(m, vm, irqfd, 1);
}

fn a_reroute(m: &Machine) {
    let vm = vm();
    let irqfd = assigned(&vm, MESSAGE);
    let (signals, reroutes) = (irqfd.clone(), vm.clone());
    m.task("device", move || must_arrive(&signals));
    m.task("reroute", move || reroute(&reroutes, NEW, None));
    arrived(m, vm, irqfd, 1);
}

/// The interrupt comes where the host changes what belongs to it.
fn an_interrupt(m: &Machine, change: fn(&Vm, &Source)) {
    let vm = vm();
    let irqfd = assigned(&vm, MESSAGE);
    let (signals, changed, changes) = (irqfd.clone(), irqfd.clone(), vm.clone());
    let handler = m.handler(CpuId(0), Vector(0x31), "interrupt", move || _ = signals.signal());
    m.hardware("device", move || handler.raise());
    m.task_on(CpuId(0), "host", move || change(&changes, &changed));
    arrived(m, vm, irqfd, 1);
}

/// And where it assigns it anew, and does all else that takes the VM's lock.
fn all_else(vm: &Vm, irqfd: &Source) {
    irqfd.deassign().expect("it is assigned");
    irqfd.assign(MESSAGE).expect("it is routed");
    assert_eq!(irqfd.assign(MESSAGE), Err(Error::Busy));
    assert_eq!(irqfd.assign_resample(LEVEL, Arc::new(|| ())), Err(Error::Busy));
    assert_eq!(vm.assigned(), 1);
}

fn a_loss_of_its_route(m: &Machine) {
    let vm = vm();
    reroute(&vm, OLD, Some(LATER));
    let irqfd = assigned(&vm, LATER);
    let (signals, reroutes) = (irqfd.clone(), vm.clone());
    m.task("device", move || _ = signals.signal());
    m.task("host", move || {
        reroute(&reroutes, OLD, None);
        reroute(&reroutes, OLD, Some(LATER));
    });
    arrived(m, vm, irqfd, 1);
}

/// Two assign one source.
fn assigned_twice(m: &Machine, resample: bool) {
    let vm = vm();
    let irqfd = Arc::new(vm.irqfd());
    for _ in 0..2 {
        let irqfd = irqfd.clone();
        m.task("assign", move || {
            let done = if resample {
                irqfd.assign_resample(LEVEL, Arc::new(|| ()))
            } else {
                irqfd.assign(MESSAGE)
            };
            assert!([Ok(()), Err(Error::Busy)].contains(&done));
        });
    }
    m.at_quiescence("it is assigned once", move || {
        let count = vm.assigned();
        (irqfd.is_assigned() && count == 1).then_some(()).ok_or(format!("{count} times"))
    });
}

fn dropped(m: &Machine) {
    let vm = vm();
    let irqfd = assigned(&vm, MESSAGE);
    m.task("host", move || drop(irqfd));
    m.at_quiescence("nothing is assigned", move || {
        (vm.assigned() == 0).then_some(()).ok_or("it is".into())
    });
}

/// A device raises its line once; the guest acknowledges it whenever it is high.
fn acknowledged(m: &Machine) {
    let vm = vm();
    let heard = Arc::new(Model::new("device", false));
    let hears = heard.clone();
    let irqfd = Arc::new(vm.irqfd());
    irqfd
        .assign_resample(LEVEL, Arc::new(move || hears.change(|heard| *heard = true)))
        .expect("it has a pin");
    let (signals, acks) = (irqfd.clone(), vm.clone());
    m.task("device", move || must_arrive(&signals));
    m.task("guest", move || {
        acks.controller().0.wait(|state| state.high, |_| ());
        acks.notify_ack(LEVEL);
    });
    m.at_quiescence("the line is low, and the device knows", move || {
        assert!(irqfd.is_assigned());
        let high = vm.controller().0.observe(|state| state.high);
        let heard = heard.observe(|heard| *heard);
        (!high && heard).then_some(()).ok_or(format!("high: {high}, the device knows: {heard}"))
    });
}

type LineTask = fn(&Vm, &Level);

/// A line, and what is done to it at once; its level is the pin's in the end.
fn a_line(m: &Machine, tasks: [LineTask; 2]) {
    let vm = vm();
    let line = Arc::new(vm.line(LEVEL, "line").expect("there is a source"));
    for task in tasks {
        let (vm, line) = (vm.clone(), line.clone());
        m.task("host", move || task(&vm, &line));
    }
    m.at_quiescence("the pin has the level of the line", move || {
        let (high, level) = (vm.controller().0.observe(|state| state.high), line.level());
        (high == level).then_some(()).ok_or(format!("{level}, but the pin is {high}"))
    });
}

/// The GSI has no pin for a moment.
fn away_and_back(vm: &Vm, _: &Level) {
    drop(vm.reroute(RoutingTable::empty()).expect("an open VM"));
    reroute(vm, NEW, None);
}

/// A line is dropped while its pin is taken away, and another comes, which has its pin back later.
fn a_line_is_dropped(m: &Machine) {
    let vm = vm();
    let line = vm.line(LEVEL, "line").expect("there is a source");
    line.set(true);
    let host = vm.clone();
    m.task("drop", move || drop(line));
    m.task("reroute", move || drop(host.reroute(RoutingTable::empty()).expect("an open VM")));
    m.at_quiescence("the pin is low, and all lines are free", move || {
        let high = vm.controller().0.observe(|state| state.high);
        let lines: Vec<_> = (0..24).map_while(|_| vm.line(LEVEL, "again").ok()).collect();
        (!high && lines.len() == 24).then_some(()).ok_or(format!("{high}, {}", lines.len()))
    });
}

/// Lines that no program needs, and why.
const KEPT: &[(&str, Taken, &str)] = &[(
    "irqfd.cached.write",
    Taken::Knowledge,
    "it counts writes for readers that are under way, and a deassignment has waited for those",
)];

fn programs() -> Vec<Program> {
    let pairs = [
        [Assign, Assign],
        [Assign, Deassign],
        [Assign, Reroute],
        [Assign, Close],
        [Assign, Count],
        [DeassignResample, Register],
        [Acknowledge, Register],
        [Edit, Edit],
        [Line, Line],
        [Line, Assign],
        [Line, Reroute],
    ];
    pairs
        .map(at_once)
        .into_iter()
        .chain([
            Program::new("two events", two_events),
            Program::new("an event meets an assignment", an_assignment),
            Program::new("an event meets an assignment and a reroute", an_assignment_and_a_reroute),
            Program::new("an event meets a reroute", a_reroute),
            Program::new("an interrupt comes where its route changes", |m| {
                an_interrupt(m, |vm, _| reroute(vm, NEW, None))
            }),
            Program::new("an interrupt comes where it is assigned", |m| an_interrupt(m, all_else)),
            Program::new("an event loses its route", a_loss_of_its_route),
            Program::new("two assign one source", |m| assigned_twice(m, false)),
            Program::new("two assign one resampling source", |m| assigned_twice(m, true)),
            Program::new("an assigned source is dropped", dropped),
            Program::new("an event is acknowledged", acknowledged),
            Program::new("two set a level", |m| {
                a_line(m, [|_, line| line.set(true), |_, line| line.set(false)])
            }),
            Program::new("a level meets a reroute", |m| {
                a_line(m, [|_, line| line.set(true), away_and_back])
            }),
            Program::new("a line is dropped while it has no pin", a_line_is_dropped),
        ])
        .collect()
}

#[test]
fn every_leaf_is_taken_by_a_program() {
    assert!(removal::leaves_not_taken(&programs(), doorbell_irqfd::LOCKS).is_empty());
}

#[test]
fn nothing_is_lost_and_no_access_can_be_taken_out() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/irqfd.md",
        name: "doorbell-irqfd removal",
        kept: KEPT,
    };
    let wrong = printed.check(&removal::table(&programs(), "crates/irqfd/src/"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
