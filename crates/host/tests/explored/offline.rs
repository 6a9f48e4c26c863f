//! A CPU goes offline, and what an interrupt that was moved away has left in its IRR is handled.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use doorbell_explore::sim::Model;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_host::CpuSet;
use doorbell_host::vector::{Affinity, Arrived, CpuVector, Irq, Update, VectorError, Vectors};
use doorbell_platform::{IrqGuard, Platform};

use crate::machine::{HERE, OTHERS, THERE};

const IRQ: Irq = Irq(0);

struct World {
    vectors: Vectors<Sim>,
    wires: Model<Wires>,
    handed_over: Cell<u32>,
}

/// What the device has been told, and what has arrived at the CPUs.
struct Wires {
    message: CpuVector,
    irr: BTreeSet<CpuVector>,
}

impl World {
    fn moves(&self) {
        let there = CpuSet::of([THERE]);
        let moved = self
            .vectors
            .begin_move(IRQ, Affinity::In(&there), Update::Whole)
            .expect("there is room");
        let moved = moved.expect("it is not there");
        self.wires.change(|wires| wires.message = moved.to());
        let _ = self.vectors.moved(moved).expect("it is under way");
    }

    fn goes(&self, moves: bool) {
        self.vectors.begin_offline(HERE).expect("the other has room");
        while self.vectors.next_on(HERE).is_some() {
            if moves {
                self.moves();
            } else {
                Sim::cpu_relax();
            }
        }
        let _off = IrqGuard::<Sim>::new();
        loop {
            let irr = |vector| {
                self.wires.observe(|wires| wires.irr.contains(&CpuVector { cpu: HERE, vector }))
            };
            match self.vectors.pending(HERE, irr) {
                Ok(Some(irq)) => {
                    assert_eq!(irq, IRQ);
                    self.handed_over.set(self.handed_over.get() + 1);
                }
                Ok(None) => return,
                Err(VectorError::Moving(_)) => Sim::cpu_relax(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The interrupt is moved by the CPU that goes, or by another while it goes.
fn goes_offline(moves: bool) -> Report {
    Explore::new("goes offline").run(move |m: &Machine| {
        let vectors = Vectors::new(2, 1, 0x31..=0x32).expect("not too many");
        let _ = (
            vectors.online(HERE).expect("it is offline"),
            vectors.online(THERE).expect("it is offline"),
        );
        let message =
            vectors.activate(IRQ, Affinity::In(&CpuSet::of([HERE]))).expect("one is free");
        let wires = Model::new("wires", Wires { message, irr: BTreeSet::new() });
        let world = Rc::new(World { vectors, wires, handed_over: Cell::new(0) });
        let (goes, sends) = (Rc::clone(&world), Rc::clone(&world));
        m.task_on(HERE, "goes offline", move || goes.goes(moves));
        if !moves {
            let moves = Rc::clone(&world);
            m.task_on(OTHERS, "moves it", move || moves.moves());
        }
        m.hardware("device", move || {
            sends.wires.change(|wires| _ = wires.irr.insert(wires.message));
        });
        m.at_quiescence("what the device has sent was handled, once", move || {
            let arrived = world
                .wires
                .observe(|wires| wires.irr.iter().copied().find(|place| place.cpu == THERE));
            let taken = arrived.is_some_and(|place| {
                let there = world.vectors.cpu(THERE).expect("it is there");
                there.arrived(place.vector) == Arrived::Irq(IRQ)
            });
            let handled = world.handed_over.get() + u32::from(taken);
            (handled == 1).then_some(()).ok_or(format!("it was handled {handled} times"))
        });
    })
}

#[test]
fn what_has_come_to_a_place_that_was_left_is_handled_when_its_cpu_goes() {
    goes_offline(true).assert_exhausted();
    goes_offline(false).assert_exhausted();
}

/// Whoever has a cancelled move begin again finds the vector that was reserved for it, whoever asks
/// for one meanwhile.
#[test]
fn what_is_cancelled_onto_a_cpu_that_goes_can_leave_it() {
    let report = Explore::new("cancelled").run(|m: &Machine| {
        let vectors = Rc::new(Vectors::<Sim>::new(2, 3, 0x31..=0x32).expect("not too many"));
        let _ = (
            vectors.online(HERE).expect("it is offline"),
            vectors.online(THERE).expect("it is offline"),
        );
        let [here, there] = [HERE, THERE].map(|cpu| CpuSet::of([cpu]));
        vectors.activate(IRQ, Affinity::In(&here)).expect("one is free");
        vectors.activate(Irq(1), Affinity::In(&there)).expect("one is free");
        let cancels = Rc::clone(&vectors);
        m.task_on(OTHERS, "cancels a move", move || {
            let moved = cancels.begin_move(IRQ, Affinity::In(&there), Update::Whole);
            if let Ok(Some(moved)) = moved {
                let _ = cancels.cancel(moved).expect("it is under way");
            }
        });
        let cleans = Rc::clone(&vectors);
        m.task_on(THERE, "looks, and asks for a vector", move || {
            let _ = cleans.cleanup(THERE, |_| false);
            let _ = cleans.activate(Irq(2), Affinity::Anywhere);
            let _ = cleans.cleanup(THERE, |_| false);
        });
        m.task_on(HERE, "goes offline", move || {
            if vectors.begin_offline(HERE).is_err() {
                return;
            }
            while vectors.next_on(HERE).is_some() {
                match vectors.begin_move(IRQ, Affinity::Anywhere, Update::Whole) {
                    Ok(Some(moved)) => _ = vectors.moved(moved).expect("it is under way"),
                    // The move that is cancelled has begun: it leaves, for the moment.
                    Ok(None) => {}
                    // Until the other CPU has looked, which may have been before.
                    Err(VectorError::Moving(_)) => return,
                    Err(error) => panic!("a vector was reserved for it: {error}"),
                }
            }
        });
    });
    report.assert_exhausted();
}
