//! Routes that several edit: what one thread sees, and, under every interleaving, that no edit is
//! lost and none is late.

mod common;

use std::sync::Arc;

use common::{PIN, table, vm as seeing_vm};
use doorbell_explore::sim::Model;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_irqfd::{Controller, Error, Gsi, Irqfds, Limits, Msi, Pin, Route, Routes, SourceId};
use doorbell_platform::Std;

const fn msi(data: u32) -> Route {
    Route::Msi(Msi::new(0xfee0_0000, data))
}

#[test]
fn edits_are_staged_one_at_a_time_and_put_in_force_together() {
    let vm = seeing_vm::<Std>();
    let _ = vm.reroute(table(&[(Gsi(5), Route::Pin(PIN)), (Gsi(9), msi(9))])).expect("open");
    let routes = Routes::new(&vm, Gsi(8)..Gsi(4096));
    let given: Vec<_> = (0..2).map(|_| routes.allocate().expect("one is free")).collect();
    assert_eq!(given, [Gsi(8), Gsi(10)], "9 has a route");
    routes.set(Gsi(10), &[msi(10)]).expect("a good route");
    routes.set(Gsi(5), &[]).expect("none is one, too");
    assert_eq!(routes.unpublished(), [Gsi(5), Gsi(10)]);
    assert_eq!(vm.table().len(), 2, "nothing is in force yet");
    assert!(routes.publish().expect("open").gsis().eq([Gsi(5), Gsi(10)]));
    assert_eq!(routes.unpublished(), []);
    assert!(vm.table().iter().eq([(Gsi(9), msi(9)), (Gsi(10), msi(10))]));
    assert!(routes.staged().expect("it is in force").iter().eq(vm.table().iter()));
}

#[test]
fn a_gsi_that_is_freed_is_given_out_again_when_its_routes_are_out_of_force() {
    let vm = seeing_vm::<Std>();
    let routes = Routes::new(&vm, Gsi(62)..Gsi(4096));
    let given: Vec<_> = (0..2).map(|_| routes.allocate().expect("one is free")).collect();
    assert_eq!(given, [Gsi(62), Gsi(63)], "the VM ends there");
    assert_eq!(routes.allocate(), Err(Error::NoFreeGsi));
    routes.set(Gsi(63), &[msi(1)]).expect("a good route");
    let _ = routes.publish().expect("open");
    routes.free(Gsi(63)).expect("it is given out");
    assert_eq!(routes.free(Gsi(63)), Err(Error::NotAllocated(Gsi(63))));
    assert_eq!(routes.allocate(), Err(Error::NoFreeGsi), "deliveries may still go by its route");
    let _ = routes.publish().expect("open");
    assert_eq!(routes.allocate(), Ok(Gsi(63)));
}

#[test]
fn an_edit_that_makes_no_sense_is_refused_and_changes_nothing() {
    let vm = seeing_vm::<Std>();
    let routes = Routes::new(&vm, Gsi(24)..Gsi(64));
    let before = routes.staged().expect("it is in force").len();
    let none = Pin::new(9, 0);
    for (gsi, of, error) in [
        (Gsi(64), vec![msi(1)], Error::GsiOutOfRange(Gsi(64))),
        (Gsi(1), vec![Route::Pin(none)], Error::PinOutOfRange(none)),
        (Gsi(1), vec![Route::Pin(PIN), msi(1)], Error::MixedRoutes(Gsi(1))),
        (Gsi(1), vec![Route::Pin(PIN), Route::Edge(PIN)], Error::DuplicateRoute(Gsi(1))),
    ] {
        assert_eq!(routes.set(gsi, &of), Err(error));
    }
    assert_eq!(routes.staged().expect("it is in force").len(), before);
    let few =
        Irqfds::<Std, _>::new(vm.controller().clone(), Limits { routes: 1, ..Limits::default() });
    let routes = Routes::new(&few, Gsi(0)..Gsi(9));
    routes.set(Gsi(0), &[msi(1)]).expect("one is allowed");
    assert_eq!(routes.set(Gsi(1), &[msi(1)]), Err(Error::TooManyRoutes(1)));
    few.close().wait();
    assert_eq!(routes.publish().err(), Some(Error::Closed));
    assert_eq!(routes.unpublished(), [Gsi(0)], "it stays staged");
}

/// Writes down messages, and knows what must not arrive any more.
struct Chip(Model<State>);

#[derive(Default)]
struct State {
    messages: Vec<u32>,
    banned: Vec<u32>,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        let data = msi.message.data;
        let late = self.0.change(|state| {
            state.messages.push(data);
            state.banned.contains(&data)
        });
        assert!(!late, "{data} arrives by a route that is out of force");
    }
}

type Vm = Irqfds<Sim, Chip>;

fn sim_vm() -> (Vm, Arc<Routes<Sim, Chip>>) {
    let chip = Chip(Model::new("interrupt controller", State::default()));
    let vm = Vm::new(chip, Limits { gsis: 4, ..Limits::default() });
    let routes = Arc::new(Routes::new(&vm, Gsi(0)..Gsi(4)));
    (vm, routes)
}

fn in_force(vm: &Vm) -> Vec<(Gsi, Route)> {
    vm.table().iter().collect()
}

#[test]
fn of_two_editors_that_publish_at_once_each_has_its_edits_in_force_when_it_returns() {
    let report = Explore::new("two editors").run(|m: &Machine| {
        let (vm, routes) = sim_vm();
        for n in 0..2 {
            let (vm, routes) = (vm.clone(), Arc::clone(&routes));
            m.task(format!("editor {n}"), move || {
                let gsi = routes.allocate().expect("one is free");
                let mine = (gsi, msi(n));
                routes.set(gsi, &[mine.1]).expect("a good route");
                let _ = routes.publish().expect("an open VM");
                assert!(in_force(&vm).contains(&mine), "the edit is not in force");
            });
        }
        m.at_quiescence("both edits are in force", move || {
            let all = in_force(&vm);
            (all.len() == 2 && routes.unpublished().is_empty())
                .then_some(())
                .ok_or(format!("{all:?}"))
        });
    });
    report.assert_exhausted();
}

#[test]
fn nothing_comes_by_a_former_route_once_an_editor_has_put_another_in_force_or_found_it_so() {
    let report = Explore::new("a source and two editors").run(|m: &Machine| {
        let (vm, routes) = sim_vm();
        routes.set(Gsi(0), &[msi(0)]).expect("a good route");
        let _ = routes.publish().expect("an open VM");
        let irqfd = Arc::new(vm.irqfd());
        irqfd.assign(Gsi(0)).expect("it is routed");
        routes.set(Gsi(0), &[msi(1)]).expect("a good route");
        let signals = Arc::clone(&irqfd);
        m.task("device", move || _ = signals.signal());
        let (first, host) = (Arc::clone(&routes), vm.clone());
        m.task("editor", move || {
            let _ = first.publish().expect("an open VM");
            host.controller().0.change(|state| state.banned.push(0));
        });
        let other = Arc::clone(&routes);
        m.task("other editor", move || {
            other.set(Gsi(1), &[msi(2)]).expect("a good route");
            let _ = other.publish().expect("an open VM");
        });
        m.at_quiescence("the event has arrived once", move || {
            let messages = vm.controller().0.observe(|state| state.messages.clone());
            (irqfd.is_assigned() && messages.len() == 1)
                .then_some(())
                .ok_or(format!("{messages:?}"))
        });
    });
    report.assert_exhausted();
}

#[test]
fn two_are_never_given_one_gsi() {
    let report = Explore::new("allocation").run(|m: &Machine| {
        let (_vm, routes) = sim_vm();
        let given = Arc::new(Model::new("given", Vec::new()));
        for n in 0..2 {
            let (routes, given) = (Arc::clone(&routes), Arc::clone(&given));
            m.task(format!("editor {n}"), move || {
                let gsi = routes.allocate().expect("one is free");
                assert!(given.change(|given| {
                    given.push(gsi);
                    given.iter().filter(|of| **of == gsi).count() == 1
                }));
                given.change(|given| given.retain(|of| *of != gsi));
                routes.free(gsi).expect("it is given out");
            });
        }
    });
    report.assert_exhausted();
}
