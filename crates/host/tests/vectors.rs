//! Random lives of vectors against a plain model, on one thread: who has which, that nobody has one
//! twice, that what arrives is what was sent, and that nothing leaks. Ten thousand short ones, and
//! one of a million operations on 256 CPUs with 200 vectors each.

use std::collections::{BTreeMap, BTreeSet};

use doorbell_host::CpuSet;
use doorbell_host::vector::{
    Affinity, Arrived, Cancelled, Cleaned, Cleanup, CpuVector, Irq, Move, Unhandled, Update,
    VectorError, Vectors,
};
use doorbell_platform::{CpuId, IrqGuard, Std, Vector};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[derive(Clone, Debug)]
enum Op {
    Activate(u32, Mask),
    Deactivate(u32),
    Reserve(u32),
    Unreserve(u32),
    Manage(u32, Mask),
    Unmanage(u32),
    Begin(u32, Mask, Update),
    /// The device has the new message, or keeps the former.
    End(u32, bool),
    /// A device sends to one of the places that its message may name.
    Send(u32, usize),
    /// A CPU takes the highest vector of its IRR.
    Take(u32),
    Clean(u32),
    /// Meanwhile, some moves are cancelled, and everybody else asks for a vector.
    Offline(u32, usize),
    Online(u32),
}

/// `None` is anywhere.
type Mask = Option<Vec<u32>>;

fn op(cpus: u32, irqs: u32) -> impl Strategy<Value = Op> + Clone {
    let irq = 0..irqs;
    let cpu = 0..cpus;
    let mask = prop::option::of(prop::collection::vec(0..cpus, 1..4));
    let update = prop_oneof![2 => Just(Update::Whole), 1 => Just(Update::WordByWord)];
    prop_oneof![
        8 => (irq.clone(), mask.clone()).prop_map(|(irq, to)| Op::Activate(irq, to)),
        4 => irq.clone().prop_map(Op::Deactivate),
        2 => irq.clone().prop_map(Op::Reserve),
        1 => irq.clone().prop_map(Op::Unreserve),
        2 => (irq.clone(), mask.clone()).prop_map(|(irq, to)| Op::Manage(irq, to)),
        1 => irq.clone().prop_map(Op::Unmanage),
        6 => (irq.clone(), mask, update).prop_map(|(irq, to, update)| Op::Begin(irq, to, update)),
        6 => (irq.clone(), any::<bool>()).prop_map(|(irq, moved)| Op::End(irq, moved)),
        8 => (irq, any::<usize>()).prop_map(|(irq, which)| Op::Send(irq, which)),
        6 => cpu.clone().prop_map(Op::Take),
        6 => cpu.clone().prop_map(Op::Clean),
        1 => (cpu.clone(), any::<usize>()).prop_map(|(cpu, cancels)| Op::Offline(cpu, cancels)),
        2 => cpu.prop_map(Op::Online),
    ]
}

/// An interrupt as the model has it.
#[derive(Default)]
struct Line {
    current: Option<CpuVector>,
    /// Where the device may send, beside the current place.
    former: Vec<CpuVector>,
    token: Option<Move>,
    reserved: bool,
    managed: Option<BTreeSet<u32>>,
    sent: u32,
    taken: u32,
}

/// A vector that is not free.
struct Held {
    irq: Option<u32>,
    quarantined: bool,
    /// The vector is one of those set aside.
    managed: bool,
}

struct World {
    vectors: Vectors<Std>,
    per_cpu: u32,
    lines: Vec<Line>,
    held: BTreeMap<CpuVector, Held>,
    irr: BTreeSet<CpuVector>,
    online: BTreeSet<u32>,
    gone: BTreeSet<u32>,
    unhandled: BTreeMap<u32, Unhandled>,
    /// Among how many CPUs the model looks for the one that has most.
    looks: bool,
}

const FIRST: u8 = 0x30;

impl World {
    fn new(cpus: u32, irqs: u32, per_cpu: u8) -> Self {
        let vectors = Vectors::new(cpus, irqs, FIRST..=FIRST + (per_cpu - 1)).unwrap();
        for cpu in 0..cpus {
            let clean = vectors.online(CpuId(cpu)).unwrap();
            assert_eq!(clean.cpu(), CpuId(cpu));
        }
        World {
            vectors,
            per_cpu: per_cpu.into(),
            lines: (0..irqs).map(|_| Line::default()).collect(),
            held: BTreeMap::new(),
            irr: BTreeSet::new(),
            online: (0..cpus).collect(),
            gone: BTreeSet::new(),
            unhandled: BTreeMap::new(),
            looks: cpus < 16,
        }
    }

    fn free_on(&self, cpu: u32) -> u32 {
        let aside = self
            .lines
            .iter()
            .filter(|line| line.managed.as_ref().is_some_and(|mask| mask.contains(&cpu)));
        // Those set aside are not free whether they are used or not.
        let held =
            self.held.iter().filter(|(place, held)| place.cpu.0 == cpu && !held.managed).count();
        self.per_cpu - held as u32 - aside.count() as u32
    }

    fn set(mask: &Mask) -> Option<CpuSet> {
        mask.as_ref().map(|cpus| CpuSet::of(cpus.iter().map(|cpu| CpuId(*cpu))))
    }

    fn asked<'a>(set: &'a Option<CpuSet>) -> Affinity<'a> {
        set.as_ref().map_or(Affinity::Anywhere, Affinity::In)
    }

    /// A place was given to an interrupt.
    fn give(&mut self, irq: u32, place: CpuVector) {
        assert!(self.online.contains(&place.cpu.0), "{place:?} is offline");
        let managed = self.lines[irq as usize].managed.is_some();
        let former = self.held.insert(place, Held { irq: Some(irq), quarantined: false, managed });
        assert!(former.is_none(), "{place:?} is used twice");
    }

    fn quarantine(&mut self, place: CpuVector) {
        self.held.get_mut(&place).expect("it is held").quarantined = true;
    }

    fn is_full(&self, error: &VectorError) -> bool {
        matches!(error, VectorError::Full { .. })
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Activate(irq, to) => self.activate(irq, &to),
            Op::Deactivate(irq) => self.deactivate(irq),
            Op::Reserve(irq) => {
                let line = &mut self.lines[irq as usize];
                let refused = line.current.is_some() || line.reserved || line.managed.is_some();
                let free = self.vectors.free();
                match self.vectors.reserve(Irq(irq)) {
                    Ok(()) => {
                        assert!(!refused && free > 0);
                        line.reserved = true;
                    }
                    Err(error) => assert!(refused || free == 0, "{error}"),
                }
            }
            Op::Unreserve(irq) => {
                let line = &mut self.lines[irq as usize];
                assert_eq!(
                    self.vectors.unreserve(Irq(irq)).is_ok(),
                    std::mem::take(&mut line.reserved)
                );
            }
            Op::Manage(irq, mask) => {
                let set = Self::set(&mask).unwrap_or(CpuSet::none());
                let line = &self.lines[irq as usize];
                let refused = line.current.is_some()
                    || line.reserved
                    || line.managed.is_some()
                    || set.is_empty();
                match self.vectors.manage(Irq(irq), set) {
                    Ok(()) => {
                        assert!(!refused);
                        self.lines[irq as usize].managed =
                            Some(mask.unwrap().into_iter().collect());
                    }
                    Err(error) => assert!(refused || self.is_full(&error), "{error}"),
                }
            }
            Op::Unmanage(irq) => {
                let line = &mut self.lines[irq as usize];
                let may = line.current.is_none() && line.managed.is_some();
                assert_eq!(self.vectors.unmanage(Irq(irq)).is_ok(), may);
                if may {
                    for cpu in line.managed.take().unwrap() {
                        // One that cannot be used yet is given back before one that can.
                        let here = |(place, held): &(&CpuVector, &mut Held)| {
                            place.cpu.0 == cpu && held.managed && held.quarantined
                        };
                        if let Some((_, held)) = self.held.iter_mut().find(here) {
                            held.managed = false;
                        }
                    }
                }
            }
            Op::Begin(irq, to, update) => drop(self.begin(irq, &to, update)),
            Op::End(irq, moved) => self.end(irq, moved),
            Op::Send(irq, which) => {
                let line = &mut self.lines[irq as usize];
                // Once the move is over, nothing is sent to the former places.
                let former = line.token.is_some().then_some(&line.former).into_iter().flatten();
                let places: Vec<CpuVector> = former.copied().chain(line.current).collect();
                if let Some(place) = places.get(which % places.len().max(1))
                    && self.irr.insert(*place)
                {
                    line.sent += 1;
                }
            }
            Op::Take(cpu) => {
                if self.online.contains(&cpu)
                    && let Some(place) =
                        self.irr.iter().rev().find(|place| place.cpu == CpuId(cpu)).copied()
                {
                    self.irr.remove(&place);
                    self.take(place);
                }
            }
            Op::Clean(cpu) => self.clean(cpu),
            Op::Offline(cpu, cancels) => self.offline(cpu, cancels),
            Op::Online(cpu) => {
                assert_eq!(self.vectors.online(CpuId(cpu)).is_ok(), self.online.insert(cpu));
                self.gone.remove(&cpu);
            }
        }
        self.check();
    }

    fn activate(&mut self, irq: u32, to: &Mask) {
        let set = Self::set(to);
        let most = |world: &World, managed: bool| {
            let asked = |cpu: &&u32| to.as_ref().is_none_or(|mask| mask.contains(cpu)) && !managed;
            world.online.iter().filter(asked).map(|cpu| world.free_on(*cpu)).max()
        };
        let line = &self.lines[irq as usize];
        let most = if self.looks { most(self, line.managed.is_some()) } else { None };
        let free = self.vectors.free();
        match self.vectors.activate(Irq(irq), Self::asked(&set)) {
            Ok(place) => {
                assert!(line.current.is_none());
                assert!(to.as_ref().is_none_or(|mask| mask.contains(&place.cpu.0)));
                if let Some(mask) = &line.managed {
                    assert!(mask.contains(&place.cpu.0));
                } else {
                    assert!(most.is_none_or(|most| self.free_on(place.cpu.0) == most), "{place:?}");
                    assert!(free > 0 || line.reserved, "it is reserved for another");
                }
                let line = &mut self.lines[irq as usize];
                line.reserved = false;
                line.current = Some(place);
                self.give(irq, place);
            }
            Err(VectorError::Active(_)) => assert!(line.current.is_some()),
            Err(error) => {
                assert!(self.is_full(&error), "{error}");
                assert!(
                    line.managed.is_some()
                        || most.unwrap_or(0) == 0
                        || (free == 0 && !line.reserved),
                    "{error}"
                );
            }
        }
    }

    fn deactivate(&mut self, irq: u32) {
        let line = &mut self.lines[irq as usize];
        match self.vectors.deactivate(Irq(irq)) {
            Ok(clean) => {
                assert!(line.token.is_none());
                let place = line.current.take().expect("it had one");
                assert_eq!(clean.cpu(), place.cpu);
                // What is in an IRR now will be nobody's.
                for place in line.former.drain(..).chain([place]) {
                    let held = self.held.get_mut(&place).expect("it is held");
                    (held.quarantined, held.irq) = (true, None);
                }
            }
            Err(error) => assert!(line.current.is_none() || line.token.is_some(), "{error}"),
        }
    }

    fn begin(&mut self, irq: u32, to: &Mask, update: Update) -> Option<CpuVector> {
        let set = Self::set(to);
        let line = &mut self.lines[irq as usize];
        match self.vectors.begin_move(Irq(irq), Self::asked(&set), update) {
            Ok(Some(moved)) => {
                assert!(line.token.is_none() && line.former.is_empty());
                assert_eq!(line.current, Some(moved.from()));
                line.former = [moved.from()].into_iter().chain(moved.between()).collect();
                let place = moved.to();
                line.current = Some(place);
                if let Some(between) = moved.between() {
                    assert_eq!((between.cpu, between.vector), (moved.from().cpu, place.vector));
                } else if update == Update::WordByWord {
                    assert_eq!(place.vector, moved.from().vector);
                }
                let between = moved.between();
                line.token = Some(moved);
                self.give(irq, place);
                if let Some(between) = between {
                    self.give(irq, between);
                }
                Some(place)
            }
            Ok(None) => {
                let cpu = line.current.expect("it has one").cpu;
                assert!(to.as_ref().is_none_or(|mask| mask.contains(&cpu.0)));
                assert!(self.online.contains(&cpu.0));
                None
            }
            Err(error) => {
                let busy = line.current.is_none() || !line.former.is_empty();
                let managed = line.managed.is_some() && update == Update::WordByWord;
                assert!(busy || managed || matches!(error, VectorError::Full { .. }), "{error}");
                None
            }
        }
    }

    fn end(&mut self, irq: u32, moved: bool) {
        let line = &mut self.lines[irq as usize];
        let Some(token) = line.token.take() else { return };
        let (from, to) = (token.from(), token.to());
        let asked = if moved {
            BTreeSet::from([self.vectors.moved(token).expect("it is under way").cpu()])
        } else {
            line.current = Some(from);
            line.former[0] = to;
            let Cancelled { to, between, leaves } =
                self.vectors.cancel(token).expect("it is under way");
            assert_eq!(leaves, !self.online.contains(&from.cpu.0));
            [Some(to), between].into_iter().flatten().map(Cleanup::cpu).collect()
        };
        // All that have to look, and no others.
        assert_eq!(asked, line.former.iter().map(|place| place.cpu).collect());
        for place in line.former.clone() {
            self.quarantine(place);
        }
    }

    /// A CPU takes an interrupt.
    fn take(&mut self, place: CpuVector) {
        let arrived = self.vectors.cpu(place.cpu).unwrap().arrived(place.vector);
        let held = self.held.get(&place).expect("nothing is sent to a free vector");
        let live = held.irq.filter(|irq| {
            let line = &self.lines[*irq as usize];
            line.current == Some(place) || line.former.contains(&place)
        });
        match live {
            Some(irq) => {
                assert_eq!(arrived, Arrived::Irq(Irq(irq)));
                self.lines[irq as usize].taken += 1;
            }
            None => {
                assert_eq!(arrived, Arrived::Unhandled);
                // Late, or handled before: which of them, the sum below cannot tell apart.
                self.unhandled.entry(place.cpu.0).or_default().late += 1;
            }
        }
    }

    fn clean(&mut self, cpu: u32) {
        if self.gone.contains(&cpu) {
            let nobody = |_| panic!("a CPU that is gone is not looked at");
            return assert_eq!(self.vectors.cleanup(CpuId(cpu), nobody), Cleaned::All);
        }
        let irr = |vector| self.irr.contains(&CpuVector { cpu: CpuId(cpu), vector });
        let cleaned = self.vectors.cleanup(CpuId(cpu), irr);
        let mut left = false;
        let irr = &self.irr;
        let lines = &mut self.lines;
        self.held.retain(|place, held| {
            if place.cpu.0 != cpu || !held.quarantined {
                return true;
            }
            left |= irr.contains(place);
            if !irr.contains(place)
                && let Some(irq) = held.irq
            {
                lines[irq as usize].former.retain(|former| former != place);
            }
            irr.contains(place)
        });
        assert_eq!(cleaned, if left { Cleaned::Again(self.ask(cpu)) } else { Cleaned::All });
    }

    /// What asks a CPU to look: there is no other way to make one.
    fn ask(&self, cpu: u32) -> Cleanup {
        match self.vectors.cleanup(CpuId(cpu), |_| true) {
            Cleaned::Again(cleanup) => cleanup,
            Cleaned::All => panic!("something is in quarantine"),
        }
    }

    /// A CPU takes those of its IRR that `which` says.
    fn takes_all(&mut self, cpu: u32, which: impl Fn(CpuVector) -> bool) {
        let here = |place: &&CpuVector| place.cpu == CpuId(cpu) && which(**place);
        while let Some(place) = self.irr.iter().find(here).copied() {
            self.irr.remove(&place);
            self.take(place);
        }
    }

    fn offline(&mut self, cpu: u32, cancels: usize) {
        let result = self.vectors.begin_offline(CpuId(cpu));
        if !self.online.contains(&cpu) {
            return assert_eq!(result, Err(VectorError::Offline(CpuId(cpu))));
        }
        if let Err(error) = result {
            return assert!(self.is_full(&error), "{error}");
        }
        self.online.remove(&cpu);
        // Moves under way end, and the CPUs look.
        for irq in 0..self.lines.len() as u32 {
            self.end(irq, cancels >> (irq % 32) & 1 == 0);
        }
        for other in self.online.clone() {
            self.takes_all(other, |_| true);
            self.clean(other);
        }
        if self.looks {
            (0..self.lines.len() as u32).for_each(|irq| self.activate(irq, &None));
        }
        let mut stays = BTreeSet::new();
        while let Some(Irq(irq)) = self.vectors.next_on(CpuId(cpu)) {
            assert!(stays.insert(irq), "irq {irq} does not leave");
            // A place there that it is about to leave is in the way of the next move, until the CPU
            // has looked.
            let former = self.lines[irq as usize].former.clone();
            assert!(former.iter().all(|place| place.cpu.0 == cpu));
            self.takes_all(cpu, |place| former.contains(&place));
            self.clean(cpu);
            if self.begin(irq, &None, Update::Whole).is_some() {
                self.end(irq, true);
            } else {
                assert!(
                    self.lines[irq as usize].managed.is_some(),
                    "a vector was reserved for irq {irq}"
                );
                self.deactivate(irq);
            }
        }
        let irr = self.irr.clone();
        let _off = IrqGuard::<Std>::new();
        let arrived = |vector| irr.contains(&CpuVector { cpu: CpuId(cpu), vector });
        while let Some(Irq(irq)) =
            self.vectors.pending(CpuId(cpu), arrived).expect("nothing goes there")
        {
            let line = &mut self.lines[irq as usize];
            let here = |place: &&CpuVector| place.cpu.0 == cpu && irr.contains(place);
            let place = *line.former.iter().find(here).expect("it was sent there");
            line.former.retain(|former| *former != place);
            line.taken += 1;
            self.held.get_mut(&place).unwrap().irq = None;
        }
        self.gone.insert(cpu);
        // What has not arrived there is free.
        let lines = &mut self.lines;
        self.held.retain(|place, held| {
            let keep = place.cpu.0 != cpu || irr.contains(place);
            if let (false, Some(irq)) = (keep, held.irq) {
                lines[irq as usize].former.retain(|former| former != place);
            }
            keep
        });
    }

    fn check(&self) {
        if !self.looks {
            return;
        }
        for (irq, line) in self.lines.iter().enumerate() {
            assert_eq!(self.vectors.place(Irq(irq as u32)), line.current);
        }
        let reserved = self.lines.iter().filter(|line| line.reserved).count() as u32;
        let free: u32 = self.online.iter().map(|cpu| self.free_on(*cpu)).sum();
        assert_eq!(self.vectors.free(), free - reserved);
    }

    /// Everything is given back; every vector is free again.
    fn end_of_life(mut self, cpus: u32) {
        for cpu in 0..cpus {
            if !self.online.contains(&cpu) {
                self.run(Op::Online(cpu));
            }
        }
        for irq in 0..self.lines.len() as u32 {
            self.end(irq, true);
            if self.lines[irq as usize].current.is_some() {
                self.deactivate(irq);
            }
            self.run(Op::Unreserve(irq));
            if self.lines[irq as usize].managed.is_some() {
                self.run(Op::Unmanage(irq));
            }
        }
        while let Some(place) = self.irr.pop_first() {
            self.take(place);
        }
        for cpu in 0..cpus {
            self.clean(cpu);
            let unhandled = self.vectors.cpu(CpuId(cpu)).unwrap().unhandled();
            assert_eq!(unhandled.spurious, 0);
            let late = self.unhandled.get(&cpu).map_or(0, |of| of.late);
            assert_eq!(unhandled.late + unhandled.retriggered, late);
        }
        assert!(self.held.is_empty());
        assert_eq!(self.vectors.free(), cpus * self.per_cpu, "vectors leak");
    }
}

fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn vectors_do_what_a_plain_model_does(ops in prop::collection::vec(op(3, 6), 1..60)) {
        let mut world = World::new(3, 6, 4);
        for op in ops {
            world.run(op);
        }
        world.end_of_life(3);
    }
}

#[test]
fn a_million_operations_on_256_cpus_leave_nothing_behind() {
    const IRQS: u32 = 40_000;
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut world = World::new(256, IRQS, 200);
    for count in 0..1_000_000 {
        let (irq, cpu, which) = (rng.next_u32() % IRQS, rng.next_u32() % 256, rng.next_u32());
        let mask = (which & 0x300 == 0).then(|| vec![cpu, which % 256]);
        // More of them come than go for a while, and then the other way round.
        let filling = count / 100_000 % 2 == 0;
        world.run(match which >> 16 & 15 {
            0..=4 if filling => Op::Activate(irq, mask),
            5..=6 if !filling => Op::Activate(irq, mask),
            0..=6 => Op::Deactivate(irq),
            7..=9 => Op::Begin(irq, Some(vec![cpu, which % 256]), Update::Whole),
            10 => Op::End(irq, which & 1 == 0),
            11..=12 => Op::Send(irq, which as usize),
            13 => Op::Take(cpu),
            _ if which & 0xff00 != 0 => Op::Clean(cpu),
            14 => Op::Offline(cpu, which as usize),
            _ => Op::Online(cpu),
        });
    }
    world.end_of_life(256);
}

#[test]
fn a_cpu_set_names_those_that_have_none() {
    let vectors = Vectors::<Std>::new(2, 4, 0x20..=0x20).unwrap();
    let only = CpuSet::of([CpuId(1)]);
    let refused = |irq, to: Affinity<'_>| vectors.activate(Irq(irq), to).unwrap_err().to_string();
    assert_eq!(
        refused(0, Affinity::Anywhere),
        "no CPU has a free vector (0 are reserved for others)"
    );
    let _ = (vectors.online(CpuId(0)).unwrap(), vectors.online(CpuId(1)).unwrap());
    vectors.activate(Irq(0), Affinity::In(&only)).unwrap();
    vectors.reserve(Irq(1)).unwrap();
    assert_eq!(
        refused(2, Affinity::In(&only)),
        "none of CPUs 1 has a free vector (1 are reserved for others)"
    );
    assert_eq!(
        refused(2, Affinity::Anywhere),
        "no CPU has a free vector (1 are reserved for others)"
    );
    assert_eq!(
        vectors.activate(Irq(1), Affinity::Anywhere),
        Ok(CpuVector { cpu: CpuId(0), vector: Vector(0x20) })
    );
    assert_eq!(vectors.activate(Irq(9), Affinity::Anywhere), Err(VectorError::NoSuchIrq(Irq(9))));
    assert_eq!(refused(9, Affinity::Anywhere), "there is no irq 9");
    assert_eq!(vectors.online(CpuId(2)), Err(VectorError::NoSuchCpu(CpuId(2))));
    assert_eq!(
        vectors.begin_offline(CpuId(0)).map_err(|error| error.to_string()),
        Err("no CPU has a free vector (0 are reserved for others)".into())
    );
}

#[test]
fn vectors_of_exceptions_are_given_to_nobody() {
    let vectors = Vectors::<Std>::new(1, 300, 0..=255).unwrap();
    let _ = vectors.online(CpuId(0)).unwrap();
    let given: BTreeSet<_> =
        (0..300).map_while(|irq| vectors.activate(Irq(irq), Affinity::Anywhere).ok()).collect();
    assert_eq!(given.len(), 224);
    assert_eq!(given.first().map(|place| place.vector), Some(Vector(32)));
}

#[test]
fn a_cpu_that_goes_offline_again_leaves_no_mark_of_what_it_has_taken_since() {
    let vectors = Vectors::<Std>::new(2, 1, 0x20..=0x20).unwrap();
    let [here, there] = [0, 1].map(CpuId);
    let _ = (vectors.online(here).unwrap(), vectors.online(there).unwrap());
    let place = vectors.activate(Irq(0), Affinity::In(&CpuSet::of([here]))).unwrap();
    vectors.begin_offline(here).unwrap();
    let moved = vectors
        .begin_move(Irq(0), Affinity::Anywhere, Update::Whole)
        .unwrap()
        .expect("it goes there");
    assert_eq!(vectors.moved(moved).map(Cleanup::cpu), Ok(here));
    let arrived = |vector| vector == place.vector;
    let _off = IrqGuard::<Std>::new();
    assert_eq!(vectors.pending(here, arrived), Ok(Some(Irq(0))));
    assert_eq!(vectors.pending(here, arrived), Ok(None));
    let _ = vectors.online(here).unwrap();
    assert_eq!(vectors.free(), 0, "what was handled elsewhere is in its IRR still");
    assert_eq!(vectors.cpu(here).unwrap().arrived(place.vector), Arrived::Unhandled);
    assert_eq!(
        vectors.cpu(here).unwrap().unhandled(),
        Unhandled { retriggered: 1, ..Unhandled::default() }
    );
    vectors.begin_offline(here).unwrap();
    assert_eq!(vectors.pending(here, |_| false), Ok(None));
    let _ = vectors.online(here).unwrap();
    assert_eq!(vectors.free(), 1);
}

fn two(per_cpu: u8) -> (Vectors<Std>, [CpuSet; 2]) {
    let vectors = Vectors::new(2, 4, 0x20..=0x20 + (per_cpu - 1)).unwrap();
    let _ = (vectors.online(CpuId(0)).unwrap(), vectors.online(CpuId(1)).unwrap());
    (vectors, [0, 1].map(|cpu| CpuSet::of([CpuId(cpu)])))
}

#[test]
fn what_is_reserved_is_not_what_two_writes_go_by() {
    let (vectors, [here, there]) = two(2);
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    vectors.activate(Irq(1), Affinity::In(&there)).unwrap();
    vectors.reserve(Irq(2)).unwrap();
    let refused = vectors.begin_move(Irq(0), Affinity::In(&there), Update::WordByWord);
    assert!(matches!(refused, Err(VectorError::Full { reserved: 1, .. })));
    vectors.unreserve(Irq(2)).unwrap();
    assert!(
        vectors.begin_move(Irq(0), Affinity::In(&there), Update::WordByWord).unwrap().is_some()
    );
}

#[test]
fn what_is_reserved_is_not_reserved_for_managed_ones() {
    let (vectors, _) = two(1);
    vectors.reserve(Irq(0)).unwrap();
    let refused = vectors.manage(Irq(1), CpuSet::of([CpuId(0), CpuId(1)]));
    assert!(matches!(refused, Err(VectorError::Full { reserved: 1, .. })), "{refused:?}");
}

#[test]
fn a_managed_interrupt_needs_no_free_vector_when_its_cpu_goes_offline() {
    let (vectors, [here, _]) = two(1);
    vectors.manage(Irq(0), CpuSet::of([CpuId(0), CpuId(1)])).unwrap();
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    assert_eq!(vectors.begin_offline(CpuId(0)), Ok(()));
}

#[test]
fn what_begins_to_leave_has_a_vector_reserved_whoever_asks_for_one_meanwhile() {
    let (vectors, [here, there]) = two(2);
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    vectors.activate(Irq(1), Affinity::In(&there)).unwrap();
    vectors.begin_offline(CpuId(0)).unwrap();
    assert!(matches!(
        vectors.activate(Irq(2), Affinity::Anywhere),
        Err(VectorError::Full { reserved: 1, .. })
    ));
    assert!(vectors.reserve(Irq(2)).is_err());
    assert_eq!(
        vectors.unreserve(Irq(0)),
        Err(VectorError::Inactive(Irq(0))),
        "what is reserved is not its own"
    );
    let moved =
        vectors.begin_move(Irq(0), Affinity::Anywhere, Update::Whole).unwrap().expect("it leaves");
    let _ = vectors.moved(moved).unwrap();
    assert_eq!(vectors.free(), 0);
}

#[test]
fn a_move_that_is_cancelled_onto_a_cpu_that_goes_offline_can_begin_again() {
    for update in [Update::Whole, Update::WordByWord] {
        let (vectors, [here, there]) = two(2);
        vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
        // The same vector is in use there, so two writes need one between.
        vectors.activate(Irq(1), Affinity::In(&there)).unwrap();
        let moved = vectors
            .begin_move(Irq(0), Affinity::In(&there), update)
            .unwrap()
            .expect("it is not there");
        vectors.begin_offline(CpuId(0)).unwrap();
        let cancelled = vectors.cancel(moved).unwrap();
        assert!(cancelled.leaves);
        assert_eq!(cancelled.between.is_some(), update == Update::WordByWord);
        for asked in [Some(cancelled.to), cancelled.between].into_iter().flatten() {
            assert_eq!(vectors.cleanup(asked.cpu(), |_| false), Cleaned::All);
        }
        assert!(matches!(
            vectors.activate(Irq(2), Affinity::Anywhere),
            Err(VectorError::Full { reserved: 1, .. })
        ));
        let moved =
            vectors.begin_move(Irq(0), Affinity::Anywhere, update).unwrap().expect("it leaves");
        let _ = vectors.moved(moved).unwrap();
        let _off = IrqGuard::<Std>::new();
        assert_eq!(vectors.pending(CpuId(0), |_| false), Ok(None));
    }
}

#[test]
fn a_move_that_is_cancelled_onto_a_cpu_that_stays_reserves_nothing() {
    let (vectors, [here, there]) = two(2);
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    let moved = vectors
        .begin_move(Irq(0), Affinity::In(&there), Update::Whole)
        .unwrap()
        .expect("it is not there");
    vectors.begin_offline(CpuId(1)).unwrap();
    let cancelled = vectors.cancel(moved).unwrap();
    assert!(!cancelled.leaves);
    assert_eq!(vectors.free(), 1, "it goes where it need not leave");
}

#[test]
fn a_cpu_that_stays_after_all_and_an_interrupt_that_is_shut_down_unreserve() {
    let (vectors, [here, _]) = two(2);
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    vectors.activate(Irq(1), Affinity::In(&here)).unwrap();
    vectors.begin_offline(CpuId(0)).unwrap();
    assert_eq!(vectors.free(), 0);
    assert_eq!(vectors.deactivate(Irq(0)).map(Cleanup::cpu), Ok(CpuId(0)));
    assert_eq!(vectors.free(), 1);
    let _ = vectors.online(CpuId(0)).unwrap();
    assert_eq!(vectors.free(), 2);
}

#[test]
fn more_cpus_or_interrupts_than_there_can_be_are_refused() {
    let refused = |cpus, irqs| Vectors::<Std>::new(cpus, irqs, 0x20..=0x2f).err();
    assert_eq!(refused(u32::MAX, 1), Some(VectorError::TooManyCpus(Vectors::<Std>::MAX_CPUS)));
    assert_eq!(refused(1, u32::MAX), Some(VectorError::TooManyIrqs(Vectors::<Std>::MAX_IRQS)));
    assert_eq!(refused(1, 1), None);
}

/// How many of the interrupts that `vectors` has below `irqs` go to each of `cpus` CPUs.
fn loads(vectors: &Vectors<Std>, cpus: u32, irqs: u32) -> Vec<usize> {
    let places: Vec<_> = (0..irqs).filter_map(|irq| vectors.place(Irq(irq))).collect();
    (0..cpus).map(|cpu| places.iter().filter(|place| place.cpu.0 == cpu).count()).collect()
}

fn is_even(loads: &[usize]) -> bool {
    loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1
}

#[test]
fn managed_interrupts_are_spread_over_the_cpus_of_their_masks_also_when_one_has_come_back() {
    const CPUS: u32 = 64;
    let vectors = Vectors::<Std>::new(CPUS, 100, 0x30..=0xef).unwrap();
    let all = CpuSet::of((0..CPUS).map(CpuId));
    all.iter().for_each(|cpu| _ = vectors.online(cpu).unwrap());
    for irq in (0..100).map(Irq) {
        vectors.manage(irq, all.clone()).unwrap();
        vectors.activate(irq, Affinity::In(&all)).unwrap();
        assert!(is_even(&loads(&vectors, CPUS, 100)));
    }
    let move_what_may = |irq| {
        if let Some(moved) = vectors.begin_move(irq, Affinity::In(&all), Update::Whole).unwrap() {
            let former = vectors.moved(moved).unwrap().cpu();
            assert_eq!(vectors.cleanup(former, |_| false), Cleaned::All);
        }
    };
    vectors.begin_offline(CpuId(5)).unwrap();
    while let Some(irq) = vectors.next_on(CpuId(5)) {
        move_what_may(irq);
    }
    let gone = loads(&vectors, CPUS, 100);
    assert_eq!((gone[5], gone.iter().max()), (0, Some(&2)));
    let off = IrqGuard::<Std>::new();
    assert_eq!(vectors.pending(CpuId(5), |_| false), Ok(None));
    drop(off);
    let _ = vectors.online(CpuId(5)).unwrap();
    (0..100).map(Irq).for_each(move_what_may);
    assert!(is_even(&loads(&vectors, CPUS, 100)));
    let stays: Vec<_> = (0..100).map(|irq| vectors.place(Irq(irq))).collect();
    (0..100).map(Irq).for_each(move_what_may);
    assert!((0..100).map(|irq| vectors.place(Irq(irq))).eq(stays), "what is even stays");
}

#[test]
fn managed_interrupts_whose_masks_overlap_go_to_a_cpu_each() {
    let vectors = Vectors::<Std>::new(4, 4, 0x30..=0xef).unwrap();
    (0..4).for_each(|cpu| _ = vectors.online(CpuId(cpu)).unwrap());
    for irq in 0..4 {
        vectors.manage(Irq(irq), CpuSet::of([irq, (irq + 1) % 4].map(CpuId))).unwrap();
        vectors.activate(Irq(irq), Affinity::Anywhere).unwrap();
    }
    assert_eq!(loads(&vectors, 4, 4), [1; 4]);
}

#[test]
fn a_move_is_handed_back_to_those_vectors_that_have_begun_it() {
    let [one, other] = [0, 1].map(|from| {
        let vectors = Vectors::<Std>::new(3, 1, 0x20..=0x20).unwrap();
        (0..3).for_each(|cpu| _ = vectors.online(CpuId(cpu)).unwrap());
        vectors.activate(Irq(0), Affinity::In(&CpuSet::of([CpuId(from)]))).unwrap();
        let to = CpuSet::of([CpuId(2)]);
        let moved = vectors
            .begin_move(Irq(0), Affinity::In(&to), Update::Whole)
            .unwrap()
            .expect("it is not there");
        (vectors, moved)
    });
    assert_eq!(one.1.to(), other.1.to());
    assert_eq!(one.0.moved(other.1), Err(VectorError::NotMoving(Irq(0))));
    assert_eq!(one.0.moved(one.1).map(Cleanup::cpu), Ok(CpuId(0)));
}

#[test]
fn a_move_that_has_ended_is_not_ended_again_by_one_of_others_that_is_like_it() {
    let [one, other] = [0, 1].map(|_| {
        let (vectors, [here, there]) = two(1);
        vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
        let moved = vectors
            .begin_move(Irq(0), Affinity::In(&there), Update::Whole)
            .unwrap()
            .expect("it is not there");
        (vectors, moved)
    });
    assert_eq!((one.1.from(), one.1.to()), (other.1.from(), other.1.to()));
    assert_eq!(one.0.moved(one.1).map(Cleanup::cpu), Ok(CpuId(0)));
    assert_eq!(one.0.cancel(other.1).err(), Some(VectorError::NotMoving(Irq(0))));
    assert_eq!(one.0.place(Irq(0)).map(|place| place.cpu), Some(CpuId(1)));
}

#[test]
fn a_cpu_that_has_to_look_is_interrupted() {
    let (vectors, [here, _]) = two(1);
    let (looks, looked) = std::sync::mpsc::channel();
    let _handler = Std::on_ipi(CpuId(0), Vector(0x20), move || looks.send(()).unwrap());
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    vectors.deactivate(Irq(0)).unwrap().send::<Std>(Vector(0x20));
    assert_eq!(looked.recv_timeout(std::time::Duration::from_secs(60)), Ok(()));
}

#[test]
fn what_an_interrupt_has_left_behind_needs_no_room_when_the_cpu_goes_offline() {
    let (vectors, [here, there]) = two(1);
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    let moved = vectors
        .begin_move(Irq(0), Affinity::In(&there), Update::Whole)
        .unwrap()
        .expect("it is not there");
    let _ = vectors.moved(moved).unwrap();
    assert_eq!(vectors.begin_offline(CpuId(0)), Ok(()), "the other is full, but nothing goes here");
    let _off = IrqGuard::<Std>::new();
    assert_eq!(vectors.pending(CpuId(0), |_| false), Ok(None));
}

#[test]
fn a_cpu_does_not_go_before_a_move_away_from_it_has_ended() {
    let (vectors, [here, there]) = two(1);
    let place = vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    let moved = vectors
        .begin_move(Irq(0), Affinity::In(&there), Update::Whole)
        .unwrap()
        .expect("it is not there");
    vectors.begin_offline(CpuId(0)).unwrap();
    let _off = IrqGuard::<Std>::new();
    let arrived = |vector| vector == place.vector;
    assert_eq!(vectors.pending(CpuId(0), arrived), Err(VectorError::Moving(CpuId(0))));
    let _ = vectors.moved(moved).unwrap();
    assert_eq!(
        vectors.pending(CpuId(0), arrived),
        Ok(Some(Irq(0))),
        "it came by the former message"
    );
    assert_eq!(vectors.pending(CpuId(0), arrived), Ok(None));
}

#[test]
fn what_is_in_quarantine_is_no_managed_interrupt_that_goes_there() {
    let (vectors, [here, there]) = two(3);
    let both = CpuSet::of([CpuId(0), CpuId(1)]);
    (0..3).for_each(|irq| vectors.manage(Irq(irq), both.clone()).unwrap());
    vectors.activate(Irq(0), Affinity::In(&here)).unwrap();
    vectors.activate(Irq(1), Affinity::In(&there)).unwrap();
    let _ = vectors.deactivate(Irq(1)).unwrap();
    assert_eq!(vectors.activate(Irq(2), Affinity::Anywhere).map(|place| place.cpu), Ok(CpuId(1)));
}

#[test]
fn a_look_at_the_irr_that_panics_costs_no_vector() {
    let vectors = Vectors::<Std>::new(1, 3, 0x41..=0x43).unwrap();
    let cpu = vectors.online(CpuId(0)).unwrap().cpu();
    for irq in [0, 1, 2].map(Irq) {
        vectors.activate(irq, Affinity::Anywhere).unwrap();
        assert_eq!(vectors.deactivate(irq).unwrap().cpu(), cpu);
    }
    let looks = std::panic::AssertUnwindSafe(|| {
        vectors.cleanup(cpu, |vector| {
            if vector == Vector(0x42) { panic!("no such register") } else { false }
        })
    });
    assert!(std::panic::catch_unwind(looks).is_err());
    assert_eq!(vectors.free(), 1, "what was found clear before");
    assert_eq!((vectors.cleanup(cpu, |_| false), vectors.free()), (Cleaned::All, 3));
}
