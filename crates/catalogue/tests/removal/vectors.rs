//! Programs that use the vectors of CPUs, on the CPU that cleans up and at once. What happens to
//! interrupts meanwhile is in the variants.

use std::rc::Rc;

use doorbell_explore::removal::Program;
use doorbell_explore::{Machine, Sim};
use doorbell_host::CpuSet;
use doorbell_host::vector::{Affinity, Cleaned, Irq, Update, Vectors};
use doorbell_platform::{CpuId, IrqGuard, Platform, Vector};

const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);
const OTHERS: CpuId = CpuId(2);

const CLEANUP: Vector = Vector(0x20);
const IRQ: Irq = Irq(0);

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("vectors are used on the CPU that cleans up", interrupted),
        Program::new("vectors are used on the CPU that comes and cleans up", interrupted_coming),
        Program::new("a CPU comes and goes while vectors are given out", comes_and_goes),
        Program::new("vectors are looked at while one is given out", looked_at),
        Program::new("an interrupt is moved, and back", moved_back),
    ]
}

/// Two CPUs, of which the second is offline if it does not take part.
fn vectors(there: bool) -> Rc<Vectors<Sim>> {
    let vectors = Vectors::new(2, 2, 0x31..=0x32).expect("not too many");
    let _ = vectors.online(HERE).expect("it is offline");
    if there {
        let _ = vectors.online(THERE).expect("it is offline");
    }
    Rc::new(vectors)
}

fn cleans(m: &Machine, vectors: &Rc<Vectors<Sim>>) {
    let vectors = Rc::clone(vectors);
    let handler = m.handler(HERE, CLEANUP, "clean-up", move || {
        assert_eq!(vectors.cleanup(HERE, |_| false), Cleaned::All);
    });
    m.hardware("IPI", move || handler.raise());
}

fn interrupted(m: &Machine) {
    let all = vectors(true);
    cleans(m, &all);
    m.task_on(HERE, "uses them", move || {
        all.free();
        all.place(IRQ);
        all.reserve(IRQ).expect("some are free");
        assert_eq!(all.cleanup(HERE, |_| false), Cleaned::All);
        assert_eq!(all.next_on(HERE), None);
        all.begin_offline(THERE).expect("nothing goes there");
    });
}

fn interrupted_coming(m: &Machine) {
    let all = vectors(false);
    cleans(m, &all);
    m.task_on(HERE, "brings one", move || {
        let _ = all.online(THERE).expect("it is offline");
    });
}

fn comes_and_goes(m: &Machine) {
    let all = vectors(true);
    let (goes, given) = (Rc::clone(&all), Rc::clone(&all));
    m.task_on(THERE, "goes and comes", move || {
        goes.begin_offline(THERE).expect("the other has room");
        while let Some(irq) = goes.next_on(THERE) {
            match goes.begin_move(irq, Affinity::Anywhere, Update::Whole) {
                Ok(moved) => {
                    let _ = goes.moved(moved.expect("it has to go")).expect("it is under way");
                }
                // It is given back meanwhile.
                Err(_) => Sim::cpu_relax(),
            }
        }
        let off = IrqGuard::<Sim>::new();
        assert_eq!(goes.pending(THERE, |_| false), Ok(None));
        drop(off);
        let _ = goes.online(THERE).expect("it is offline");
    });
    m.task_on(OTHERS, "gives out and takes back", move || {
        given.activate(IRQ, Affinity::Anywhere).expect("some are free");
        let cleanup = given.deactivate(IRQ);
        let _ = cleanup.map(|cleanup| given.cleanup(cleanup.cpu(), |_| false));
    });
    m.at_quiescence("nothing leaks", move || {
        for cpu in [HERE, THERE] {
            assert_eq!(all.cleanup(cpu, |_| false), Cleaned::All);
        }
        (all.free() == 4).then_some(()).ok_or(format!("{} are free", all.free()))
    });
}

fn looked_at(m: &Machine) {
    let all = vectors(true);
    let looks = Rc::clone(&all);
    m.task_on(THERE, "looks", move || {
        let (place, free) = (looks.place(IRQ), looks.free());
        assert!(place.is_none() || free == 3, "{free} are free");
    });
    m.task_on(OTHERS, "gives one out", move || {
        all.activate(IRQ, Affinity::Anywhere).expect("some are free");
    });
}

/// Shows that it can be moved again when the CPU that it left has looked.
fn moved_back(m: &Machine) {
    let all = vectors(true);
    m.task_on(OTHERS, "moves it", move || {
        let (here, there) = (CpuSet::of([HERE]), CpuSet::of([THERE]));
        all.activate(IRQ, Affinity::In(&here)).expect("some are free");
        for to in [&there, &here] {
            let moved =
                all.begin_move(IRQ, Affinity::In(to), Update::Whole).expect("it is not under way");
            let cleanup = all.moved(moved.expect("it is not there")).expect("it is under way");
            assert_eq!(all.cleanup(cleanup.cpu(), |_| false), Cleaned::All);
        }
    });
}
