//! Lines: what one thread sees of them, and, under every interleaving with each other, a routing
//! update, an acknowledgement and their end: what is high is on the pins that the GSI has, and
//! nothing else is.

mod common;

use std::sync::Arc;

use common::{Chip as Seeing, Count, OTHER_PIN, PIN, Seen, table, vm as seeing_vm};
use doorbell_explore::sim::Model;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_irqfd::{
    Controller, Error, Gsi, Irqfds, Limits, Line, Msi, Pin, Route, RoutingTable, SourceId,
};
use doorbell_platform::Std;

const GSI: Gsi = Gsi(5);
const OTHER: Gsi = Gsi(6);

type SeenVm = Irqfds<Std, Arc<Seeing>>;

fn seen_vm(routes: &[(Gsi, Route)]) -> SeenVm {
    let vm = seeing_vm::<Std>();
    let _ = vm.reroute(table(routes)).expect("an open VM");
    vm.controller().take();
    vm
}

/// Returns which of the two pins are high.
fn high(vm: &SeenVm) -> [bool; 2] {
    [PIN, OTHER_PIN].map(|pin| vm.controller().level(pin) != 0)
}

#[test]
fn a_level_that_is_set_again_is_not_told_again_and_a_line_has_a_source_of_its_own() {
    let vm = seen_vm(&[(GSI, Route::Pin(PIN))]);
    let line = vm.line(GSI, "uart").expect("there is a source");
    (0..3).for_each(|_| line.set(true));
    assert_eq!(vm.controller().take(), [Seen::Level(PIN, line.source(), true)]);
    assert_eq!((line.level(), line.gsi(), line.label()), (true, GSI, "uart"));
    assert!(format!("{line:?}").contains("uart"));
    let other = vm.line(GSI, "rtc").expect("there is another source");
    assert_ne!(line.source(), other.source());
    other.set(true);
    line.set(false);
    assert_eq!(high(&vm), [true, false]);
    assert_eq!(vm.set_irq(GSI, line.source(), true), Err(Error::ReservedSource));
    drop(other);
    assert_eq!(high(&vm), [false, false]);
}

#[test]
fn a_level_moves_with_its_gsi_and_is_kept_while_that_has_no_route() {
    let vm = seen_vm(&[(GSI, Route::Pin(PIN)), (OTHER, Route::Level(OTHER_PIN))]);
    let line = vm.line(GSI, "uart").expect("there is a source");
    line.set(true);
    let _ = vm.reroute(table(&[(GSI, Route::Level(OTHER_PIN))])).expect("an open VM");
    assert_eq!(high(&vm), [false, true]);
    let _ = vm.reroute(table(&[])).expect("an open VM");
    assert_eq!(high(&vm), [false, false]);
    let _ = vm.reroute(table(&[(GSI, Route::Pin(PIN))])).expect("an open VM");
    assert_eq!(high(&vm), [true, false]);
    let _ = vm.reroute(table(&[])).expect("an open VM");
    line.set(false);
    let _ = vm.reroute(table(&[(GSI, Route::Pin(PIN))])).expect("an open VM");
    assert_eq!(high(&vm), [false, false], "it was lowered while it had no route");
    line.set(true);
    let _ = vm.reroute(table(&[])).expect("an open VM");
    drop(line);
    let _ = vm.reroute(table(&[(GSI, Route::Pin(PIN))])).expect("an open VM");
    assert_eq!(high(&vm), [false, false], "it was dropped");
}

#[test]
fn a_rise_is_an_event_where_the_route_takes_events_and_what_is_high_when_it_gets_one_is_too() {
    let vm = seen_vm(&[(GSI, Route::Edge(PIN))]);
    let line = vm.line(GSI, "uart").expect("there is a source");
    line.set(true);
    line.set(true);
    line.set(false);
    line.set(true);
    assert_eq!(vm.controller().take(), [Seen::Edge(PIN); 2]);
    let message = Msi::new(0xfee0_0000, 0x41);
    let _ = vm.reroute(table(&[(GSI, Route::Msi(message))])).expect("an open VM");
    assert_eq!(vm.controller().take(), [Seen::Msi(message)]);
    let more = [(GSI, Route::Msi(message)), (OTHER, Route::Pin(PIN))];
    let _ = vm.reroute(table(&more)).expect("an open VM");
    assert_eq!(vm.controller().take(), [], "its own route is the same");
}

#[test]
fn lines_on_one_pin_have_different_sources_and_what_cannot_be_so_is_refused() {
    let vm = seen_vm(&[(GSI, Route::Pin(PIN)), (OTHER, Route::Pin(PIN))]);
    let lines: Vec<Line<_, _>> = (0..24)
        .map(|n| vm.line(if n % 2 == 0 { GSI } else { OTHER }, "one").expect("one is left"))
        .collect();
    let mut sources: Vec<SourceId> = lines.iter().map(Line::source).collect();
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), 24);
    assert_eq!(vm.line(OTHER, "one more").err(), Some(Error::TooManyLines(24)));
    assert_eq!(vm.line(Gsi(64), "outside").err(), Some(Error::GsiOutOfRange(Gsi(64))));
    let elsewhere = vm.line(Gsi(7), "elsewhere").expect("it shares no pin");
    assert!(sources.contains(&elsewhere.source()));
    let joined = [(GSI, Route::Pin(PIN)), (OTHER, Route::Pin(OTHER_PIN))];
    let shared = |pin| table(&[&joined[..], &[(Gsi(7), Route::Pin(pin))]].concat());
    let owner = lines.iter().find(|line| line.source() == elsewhere.source()).expect("one has it");
    let pin = if owner.gsi() == GSI { PIN } else { OTHER_PIN };
    assert_eq!(vm.reroute(shared(pin)).err(), Some(Error::SharedSource(pin)));
    let free = if pin == PIN { OTHER_PIN } else { PIN };
    assert!(vm.reroute(shared(free)).is_ok());
    drop(lines);
    assert!(vm.reroute(shared(pin)).is_ok());
    vm.close().wait();
    assert_eq!(vm.line(GSI, "late").err(), Some(Error::Closed));
}

#[test]
fn two_lines_of_one_source_whose_gsis_change_places_stay_high() {
    let [one, other] = [PIN, OTHER_PIN].map(Route::Pin);
    let vm = seen_vm(&[(GSI, one), (OTHER, other)]);
    let lines: Vec<_> = (0..25)
        .map(|n| vm.line(if n == 24 { OTHER } else { GSI }, "one").expect("one is left"))
        .collect();
    let last = &lines[24];
    let same = lines.iter().find(|line| line.source() == last.source()).expect("all are in use");
    [last, same].iter().for_each(|line| line.set(true));
    let _ = vm.reroute(table(&[(GSI, other), (OTHER, one)])).expect("they share no pin");
    assert_eq!(high(&vm), [true, true]);
}

#[test]
fn an_acknowledgement_lowers_what_resamples_and_no_line() {
    let vm = seen_vm(&[(GSI, Route::Pin(PIN))]);
    let (line, irqfd, sink) = (vm.line(GSI, "uart"), vm.irqfd(), Count::new());
    let line = line.expect("there is a source");
    irqfd.assign_resample(GSI, sink.clone()).expect("it has a pin");
    line.set(true);
    irqfd.signal();
    vm.ack(PIN);
    assert_eq!((high(&vm), sink.get()), ([true, false], 1));
    irqfd.deassign().expect("it is assigned");
    assert_eq!(high(&vm), [true, false]);
}

/// Pins, each with the sources that hold it up.
struct Chip(Model<[u32; 2]>);

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        2
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        self.0.change(|pins| {
            let pin = &mut pins[pin.number as usize];
            *pin = if level { *pin | source.bit() } else { *pin & !source.bit() };
        });
    }
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, _msi: Msi) {}
}

type Vm = Irqfds<Sim, Chip>;
type SimLine = Line<Sim, Chip>;

const FIRST: Pin = Pin::new(0, 0);
const SECOND: Pin = Pin::new(0, 1);

fn vm() -> Vm {
    let chip = Chip(Model::new("pins", [0; 2]));
    let vm = Vm::new(chip, Limits { gsis: 8, ..Limits::default() });
    go(&vm, Some(FIRST));
    vm
}

/// Gives the GSI a pin, or none.
fn go(vm: &Vm, pin: Option<Pin>) {
    let routes: Vec<_> = pin.into_iter().map(|pin| (GSI, Route::Pin(pin))).collect();
    let _ = vm.reroute(RoutingTable::new(&routes).expect("a good table")).expect("an open VM");
}

/// What a task does.
#[derive(Clone, Copy, Debug)]
enum Does {
    Set(bool),
    /// Replaces the table: the GSI has this pin, or none.
    Go(Option<Pin>),
    /// The guest acknowledges the first pin.
    Ack,
    /// Another line of the GSI comes, is high for a while, and goes.
    Another,
    /// A resampling irqfd raises its level, and leaves.
    Leaves,
}
use Does::*;

fn do_one(vm: &Vm, line: &SimLine, does: Does) {
    match does {
        Set(level) => line.set(level),
        Go(pin) => go(vm, pin),
        Ack => vm.ack(FIRST),
        Another => {
            let line = vm.line(GSI, "another").expect("there is a source");
            line.set(true);
        }
        Leaves => {
            let irqfd = vm.irqfd();
            if irqfd.assign_resample(GSI, Arc::new(|| ())).is_ok() {
                irqfd.signal();
                irqfd.deassign().expect("it is assigned");
            }
        }
    }
}

/// Whether the pins are what the line's level makes of them, and nobody else's.
fn check(vm: &Vm, line: Option<&SimLine>) -> Result<(), String> {
    let pins = vm.controller().0.observe(|pins| *pins);
    let routes: Vec<Route> = vm.table().routes(GSI).copied().collect();
    let wanted = [FIRST, SECOND].map(|pin| {
        let high = line.filter(|line| line.level() && routes.contains(&Route::Pin(pin)));
        high.map_or(0, |line| line.source().bit())
    });
    (pins == wanted).then_some(()).ok_or(format!("{pins:x?} where {wanted:x?} should be"))
}

/// Tasks on one line, which is high or low at first.
fn meet(high: bool, tasks: &'static [&'static [Does]]) -> Report {
    Explore::new(format!("{high} {tasks:?}")).run(move |m: &Machine| {
        let vm = vm();
        let line = Arc::new(vm.line(GSI, "line").expect("there is a source"));
        line.set(high);
        for all in tasks {
            let (vm, line) = (vm.clone(), Arc::clone(&line));
            m.task(format!("{all:?}"), move || {
                all.iter().for_each(|does| do_one(&vm, &line, *does))
            });
        }
        m.at_quiescence("the pins are what the level is", move || check(&vm, Some(&line)));
    })
}

#[test]
fn whoever_sets_a_level_while_another_does_agrees_with_it() {
    meet(false, &[&[Set(true)], &[Set(false)]]).assert_exhausted();
    meet(true, &[&[Set(true)], &[Set(false)]]).assert_exhausted();
    meet(false, &[&[Set(true), Set(false)], &[Set(true)]]).assert_exhausted();
    meet(false, &[&[Set(true)], &[Set(false)], &[Set(true)]]).assert_exhausted();
}

#[test]
fn a_level_that_meets_a_routing_update_is_where_the_gsi_is() {
    for level in [false, true] {
        let sets: &'static [Does] = if level { &[Set(true)] } else { &[Set(false)] };
        for goes in
            [&[Go(Some(SECOND))] as &'static [Does], &[Go(None)], &[Go(None), Go(Some(FIRST))]]
        {
            let tasks = Box::leak(Box::new([sets, goes]));
            meet(!level, tasks).assert_exhausted();
        }
    }
    meet(true, &[&[Go(Some(SECOND))], &[Go(None)]]).assert_exhausted();
    meet(true, &[&[Go(Some(SECOND))], &[Go(Some(FIRST))]]).assert_exhausted();
}

#[test]
fn a_level_that_meets_acknowledgements_and_an_irqfd_that_leaves_stays() {
    meet(false, &[&[Set(true)], &[Leaves]]).assert_exhausted();
    meet(true, &[&[Ack], &[Leaves]]).assert_exhausted();
    meet(false, &[&[Set(true)], &[Another]]).assert_exhausted();
    meet(true, &[&[Another], &[Go(Some(SECOND))]]).assert_exhausted();
}

/// A line is dropped while it is high, and then another may take its source.
fn dropped(then: &'static [Does], tasks: &'static [&'static [Does]]) -> Report {
    Explore::new(format!("dropped {then:?} {tasks:?}")).run(move |m: &Machine| {
        let vm = vm();
        let (goes, stays) = (vm.line(GSI, "goes"), Arc::new(vm.line(GSI, "stays")));
        let goes = goes.expect("there is a source");
        goes.set(true);
        let (host, other) = (vm.clone(), Arc::clone(&stays));
        m.task("drop", move || {
            drop(goes);
            let other = (*other).as_ref().expect("there is a source");
            then.iter().for_each(|does| do_one(&host, other, *does));
        });
        for all in tasks {
            let (vm, stays) = (vm.clone(), Arc::clone(&stays));
            m.task(format!("{all:?}"), move || {
                let stays = (*stays).as_ref().expect("there is a source");
                all.iter().for_each(|does| do_one(&vm, stays, *does));
            });
        }
        m.at_quiescence("only what stays is high", move || {
            // What was dropped while a table was replaced is off the list, too: its source is free.
            let again: Vec<_> = (0..23).filter_map(|_| vm.line(GSI, "again").ok()).collect();
            let free = again.len();
            check(&vm, (*stays).as_ref().ok()).and_then(|()| {
                (free == 23).then_some(()).ok_or(format!("{free} of 23 sources are free"))
            })
        });
    })
}

#[test]
fn a_line_that_is_dropped_is_low_wherever_its_gsi_goes_meanwhile() {
    dropped(&[], &[&[Go(Some(SECOND))]]).assert_exhausted();
    dropped(&[], &[&[Go(None)]]).assert_exhausted();
    dropped(&[], &[&[Go(None), Go(Some(FIRST))]]).assert_exhausted();
    dropped(&[Another], &[&[Go(Some(SECOND))]]).assert_exhausted();
}
