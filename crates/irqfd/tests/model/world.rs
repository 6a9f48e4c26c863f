//! Any calls of one thread, against a plain model of a VM's irqfds. Shared with the fuzz target.

use std::collections::BTreeSet;
use std::sync::Arc;

use doorbell_irqfd::{
    Deassigning, Error, Gsi, Irqfd, Irqfds, Limits, Pin, Route, Signalled, SourceId,
};
use doorbell_platform::Std;

use super::common::{Chip, Count, Seen, table};

/// There are so many sources,
pub const SOURCES: usize = 5;
/// so many GSIs,
pub const GSIS: u32 = 5;
/// and so many pins.
pub const PINS: u32 = 4;
const RESAMPLE: u64 = 1 << SourceId::RESAMPLE.number();

/// A call, of a source below [`SOURCES`].
#[derive(Clone, Debug)]
pub enum Op {
    Assign(usize, Gsi),
    Resample(usize, Gsi),
    Deassign(usize),
    Begin(usize),
    Finish(usize),
    Signal(usize),
    Replace(usize),
    Ack(Pin),
    NotifyAck(Gsi),
    Reroute(Vec<(Gsi, Route)>),
    Close,
}

/// Runs calls on a VM that begins with these routes, and compares.
pub fn run(first: Vec<(Gsi, Route)>, ops: Vec<Op>) {
    let mut world = World::new();
    world.run(Op::Reroute(first));
    for op in ops {
        world.run(op);
    }
    world.end();
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Idle,
    Leaving,
    Active(Gsi, bool),
}

/// What the crate should do, in the plainest way.
struct Model {
    states: [State; SOURCES],
    kept: [bool; SOURCES],
    /// The GSIs whose lines those that are leaving have to lower.
    owes: [Option<Gsi>; SOURCES],
    routes: Vec<(Gsi, Route)>,
    raised: BTreeSet<Pin>,
    arrived: Vec<Seen>,
    notified: [u64; SOURCES],
    closed: bool,
}

impl Model {
    fn of(&self, gsi: Gsi) -> Vec<Route> {
        let mut routes: Vec<_> =
            self.routes.iter().filter(|of| of.0 == gsi).map(|of| of.1).collect();
        routes.sort();
        routes
    }

    fn deliver(&mut self, n: usize, gsi: Gsi, resample: bool) -> bool {
        let routes = self.of(gsi);
        for route in &routes {
            match *route {
                Route::Edge(pin) => self.arrived.push(Seen::Edge(pin)),
                Route::Msi(msi) => self.arrived.push(Seen::Msi(msi)),
                Route::Level(pin) | Route::Pin(pin) if resample => {
                    self.raised.insert(pin);
                    self.arrived.push(Seen::Level(pin, SourceId::RESAMPLE, true));
                }
                Route::Level(pin) | Route::Pin(pin) => {
                    self.arrived.push(Seen::Level(pin, SourceId::IRQFD, true))
                }
            }
        }
        self.kept[n] |= routes.is_empty();
        !routes.is_empty()
    }

    fn signal(&mut self, n: usize) -> Signalled {
        let delivered = match self.states[n] {
            State::Active(gsi, resample) => self.deliver(n, gsi, resample),
            _ => {
                self.kept[n] = true;
                false
            }
        };
        if delivered { Signalled::Delivered } else { Signalled::Pending }
    }

    fn assign(&mut self, n: usize, gsi: Gsi, resample: bool) -> Result<(), Error> {
        let routes = self.of(gsi);
        let level = routes.iter().any(|route| matches!(route, Route::Level(_)));
        let pin = routes.iter().any(|route| matches!(route, Route::Pin(_)));
        let route = match (routes.is_empty(), resample, level) {
            (true, ..) => Err(Error::UnknownGsi(gsi)),
            (_, true, false) if !pin => Err(Error::NotLevel(gsi)),
            (_, false, true) => Err(Error::NeedsResampling(gsi)),
            _ => Ok(()),
        };
        if self.closed {
            return Err(Error::Closed);
        }
        route?;
        if self.states[n] != State::Idle {
            return Err(Error::Busy);
        }
        self.states[n] = State::Active(gsi, resample);
        if std::mem::take(&mut self.kept[n]) {
            self.signal(n);
        }
        Ok(())
    }

    fn begin(&mut self, n: usize) -> Result<(), Error> {
        let State::Active(gsi, resample) = self.states[n] else { return Err(Error::NotAssigned) };
        self.states[n] = State::Leaving;
        self.owes[n] =
            (resample && !self.states.contains(&State::Active(gsi, true))).then_some(gsi);
        Ok(())
    }

    fn finish(&mut self, n: usize) {
        if self.states[n] == State::Leaving {
            self.states[n] = State::Idle;
            // Without a pin there is nothing to lower, hence nobody to tell.
            if let Some(gsi) = self.owes[n]
                .take()
                .filter(|&gsi| self.of(gsi).into_iter().any(|route| pin(route).is_some()))
            {
                self.lower(&self.group(gsi));
            }
        }
    }

    /// All GSIs that share pins with one.
    fn group(&self, gsi: Gsi) -> BTreeSet<Gsi> {
        let mut group = BTreeSet::from([gsi]);
        loop {
            let pins: BTreeSet<Pin> =
                group.iter().flat_map(|&gsi| self.of(gsi)).filter_map(pin).collect();
            let larger = self
                .routes
                .iter()
                .filter(|(_, route)| pin(*route).is_some_and(|pin| pins.contains(&pin)));
            let larger: BTreeSet<Gsi> = larger.map(|(gsi, _)| *gsi).chain([gsi]).collect();
            if larger == group {
                return group;
            }
            group = larger;
        }
    }

    fn level_pins(&self, group: &BTreeSet<Gsi>) -> BTreeSet<Pin> {
        let routes = group.iter().flat_map(|&gsi| self.of(gsi));
        routes
            .filter_map(|route| match route {
                Route::Level(pin) | Route::Pin(pin) => Some(pin),
                _ => None,
            })
            .collect()
    }

    fn listeners(&self, group: &BTreeSet<Gsi>) -> Vec<usize> {
        let listens =
            |n: &usize| matches!(self.states[*n], State::Active(gsi, true) if group.contains(&gsi));
        (0..SOURCES).filter(listens).collect()
    }

    fn lower(&mut self, group: &BTreeSet<Gsi>) {
        for pin in self.level_pins(group) {
            self.raised.remove(&pin);
        }
        for n in self.listeners(group) {
            self.notified[n] += 1;
        }
    }

    fn ack(&mut self, gsi: Gsi) {
        let group = self.group(gsi);
        if !self.listeners(&group).is_empty() {
            self.lower(&group);
        }
    }

    /// The GSIs whose routes are others.
    fn reroute(&mut self, routes: Vec<(Gsi, Route)>) -> Result<Vec<Gsi>, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let groups = |model: &Model| {
            (0..GSIS)
                .map(|n| model.group(Gsi(n)))
                .map(|group| (model.level_pins(&group), group))
                .collect::<BTreeSet<_>>()
        };
        let former = groups(self);
        let unrouted: Vec<usize> = (0..SOURCES)
            .filter(|&n| matches!(self.states[n], State::Active(gsi, _) if self.of(gsi).is_empty()))
            .collect();
        let before: Vec<_> = (0..GSIS).map(|n| self.of(Gsi(n))).collect();
        self.routes = routes;
        let now = groups(self);
        for (pins, gsis) in former {
            if pins.is_empty() || now.contains(&(pins.clone(), gsis.clone())) {
                continue;
            }
            for pin in &pins {
                self.raised.remove(pin);
            }
            for (others, group) in &now {
                // By a pin that is an edge now, too.
                let by_pin = group
                    .iter()
                    .flat_map(|&gsi| self.of(gsi))
                    .filter_map(pin)
                    .any(|pin| pins.contains(&pin));
                if by_pin || !others.is_disjoint(&pins) || !group.is_disjoint(&gsis) {
                    let listeners = self.listeners(group);
                    if !listeners.is_empty() {
                        self.lower(group);
                    }
                }
            }
        }
        for n in unrouted {
            if self.kept[n]
                && matches!(self.states[n], State::Active(gsi, _) if !self.of(gsi).is_empty())
            {
                self.kept[n] = false;
                self.signal(n);
            }
        }
        Ok((0..GSIS)
            .map(Gsi)
            .zip(before)
            .filter(|(gsi, before)| self.of(*gsi) != *before)
            .map(|(gsi, _)| gsi)
            .collect())
    }
}

fn pin(route: Route) -> Option<Pin> {
    match route {
        Route::Edge(pin) | Route::Level(pin) | Route::Pin(pin) => Some(pin),
        Route::Msi(_) => None,
    }
}

fn lowering(seen: &Seen) -> bool {
    matches!(seen, Seen::Level(_, _, false))
}

struct World {
    vm: Irqfds<Std, Arc<Chip>>,
    chip: Arc<Chip>,
    sources: Vec<Irqfd<Std, Arc<Chip>>>,
    sinks: Vec<Arc<Count>>,
    leaving: [Option<Deassigning<Std, Arc<Chip>>>; SOURCES],
    model: Model,
}

impl World {
    fn new() -> Self {
        let chip = Arc::new(Chip::default());
        let vm = Irqfds::new(chip.clone(), Limits { gsis: GSIS, ..Limits::default() });
        World {
            sources: (0..SOURCES).map(|_| vm.irqfd()).collect(),
            sinks: (0..SOURCES).map(|_| Count::new()).collect(),
            leaving: Default::default(),
            model: Model {
                states: [State::Idle; SOURCES],
                kept: [false; SOURCES],
                owes: [None; SOURCES],
                routes: vec![],
                raised: BTreeSet::new(),
                arrived: vec![],
                notified: [0; SOURCES],
                closed: false,
            },
            vm,
            chip,
        }
    }

    fn finish(&mut self, n: usize) {
        if let Some(leaving) = self.leaving[n].take() {
            leaving.wait();
            self.model.finish(n);
        }
    }

    fn run(&mut self, op: Op) {
        let model = &mut self.model;
        match op {
            Op::Assign(n, gsi) => {
                assert_eq!(self.sources[n].assign(gsi), model.assign(n, gsi, false))
            }
            Op::Resample(n, gsi) => {
                let result = self.sources[n].assign_resample(gsi, self.sinks[n].clone());
                assert_eq!(result, model.assign(n, gsi, true));
            }
            Op::Deassign(n) => {
                assert_eq!(self.sources[n].deassign(), model.begin(n).map(|()| model.finish(n)));
            }
            Op::Begin(n) => match (self.sources[n].deassign_begin(), model.begin(n)) {
                (Ok(leaving), Ok(())) => self.leaving[n] = Some(leaving),
                (result, expected) => assert_eq!(result.err(), expected.err()),
            },
            Op::Finish(n) => self.finish(n),
            Op::Signal(n) => assert_eq!(self.sources[n].signal(), model.signal(n)),
            Op::Replace(n) => {
                self.finish(n);
                self.sources[n] = self.vm.irqfd();
                let model = &mut self.model;
                if model.begin(n).is_ok() {
                    model.finish(n);
                }
                model.kept[n] = false;
                while Arc::strong_count(&self.sinks[n]) > 1 {
                    std::thread::yield_now();
                }
            }
            Op::Ack(acked) => {
                self.vm.ack(acked);
                let gsi = model
                    .routes
                    .iter()
                    .find(|(_, route)| pin(*route) == Some(acked))
                    .map(|(gsi, _)| *gsi);
                gsi.into_iter().for_each(|gsi| model.ack(gsi));
            }
            Op::NotifyAck(gsi) => {
                self.vm.notify_ack(gsi);
                model.ack(gsi);
            }
            Op::Reroute(routes) => {
                let (before, arrived) = (model.notified, model.arrived.len());
                let rerouted =
                    self.vm.reroute(table(&routes)).map(|rerouted| rerouted.gsis().collect());
                assert_eq!(rerouted, model.reroute(routes));
                // Who is told of a moved line may be told so more than once.
                for (n, before) in before.into_iter().enumerate() {
                    let told = self.sinks[n].get();
                    assert_eq!(
                        told > before,
                        model.notified[n] > before,
                        "source {n} and a moved line"
                    );
                    model.notified[n] = told;
                }
                // In which order several irqfds deliver what they kept does not matter.
                model.arrived[arrived..].sort();
                let mut seen = self.chip.seen.lock().unwrap();
                seen.retain(|seen| !lowering(seen));
                seen[arrived..].sort();
            }
            Op::Close => {
                self.vm.close().wait();
                model.closed = true;
                let active: Vec<_> = (0..SOURCES).filter(|&n| model.begin(n).is_ok()).collect();
                for n in active {
                    model.finish(n);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let arrived: Vec<_> =
            self.chip.seen.lock().unwrap().iter().filter(|seen| !lowering(seen)).copied().collect();
        assert_eq!(arrived, self.model.arrived);
        for n in 0..PINS {
            let pin = Pin::new(0, n);
            assert_eq!(
                self.chip.level(pin) & RESAMPLE != 0,
                self.model.raised.contains(&pin),
                "the level of {pin}"
            );
        }
        let told: Vec<_> = self.sinks.iter().map(|sink| sink.get()).collect();
        assert_eq!(told, self.model.notified);
        let active =
            self.model.states.iter().filter(|state| matches!(state, State::Active(..))).count();
        assert_eq!(self.vm.assigned() as usize, active);
    }

    /// All sources leave, and then nothing keeps anything.
    fn end(mut self) {
        for n in 0..SOURCES {
            self.finish(n);
            self.run(Op::Deassign(n));
        }
        assert!(self.model.raised.is_empty(), "a line that nobody is left to lower");
        let World { vm, chip, sources, sinks, .. } = self;
        drop((vm, sources));
        // A replaced source may be leaving still: the callback of its grace period holds the VM
        // until it has run.
        for _ in 0..10_000_000 {
            if Arc::strong_count(&chip) == 1 {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&chip), 1, "something keeps the VM alive");
        assert!(
            sinks.iter().all(|sink| Arc::strong_count(sink) == 1),
            "something keeps a sink alive"
        );
    }
}
