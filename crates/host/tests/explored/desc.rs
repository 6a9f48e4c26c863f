//! Descriptors: interrupts, their thread, and those who change where both go.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{Ghost, Model};
use doorbell_explore::{Machine, Sim};
use doorbell_host::{CpuSet, IrqDesc};
use doorbell_platform::{CpuId, Platform, ReadDomain, Vector};

const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);
const VECTOR: Vector = Vector(0x31);

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("two interrupts, and their thread sleeps", |m| sleeps(m, 2, None)),
        Program::new("an interrupt, and it goes elsewhere", |m| sleeps(m, 1, Some(THERE))),
        Program::new("two have it go elsewhere", moved_twice),
        Program::new("an interrupt, and another thread", |m| replaced(m, 1, None)),
        Program::new("it goes elsewhere, and another thread", |m| replaced(m, 0, Some(THERE))),
        Program::new("an interrupt, and its thread sleeps before it is attached", attached_late),
        Program::new("an interrupt of the CPU where the descriptor is used", interrupted),
        Program::new("it goes elsewhere, and others look at it and watch it", looked_at),
        Program::new("a driver waits for its thread, once", |m| waited_for(m, &[1])),
        Program::new("a driver waits for its thread, which is asked once more", |m| {
            waited_for(m, &[2])
        }),
        Program::new("a driver waits for its thread, twice", |m| waited_for(m, &[1, 1])),
        Program::new("a driver waits for a thread that was ended", waits_for_nobody),
        Program::new("a driver waits for a thread that takes no more", waits_for_the_last),
    ]
}

struct Irq {
    desc: IrqDesc<Sim>,
    /// Where the entry has it go.
    entry: Model<CpuId>,
    /// How often the device has raised the interrupt.
    came: Model<u32>,
    /// What the threads have done. One of them at a time uses it.
    handled: Cell<u32>,
    at: Cell<CpuId>,
    /// Some thread was attached.
    attached: Model<bool>,
    task: Model<Option<<Sim as Platform>::Task>>,
    /// The thread is to end.
    over: Model<bool>,
    /// The driver's memory.
    memory: Ghost,
}

impl Irq {
    fn new() -> Rc<Self> {
        let only = CpuSet::of([HERE]);
        Rc::new(Irq {
            desc: IrqDesc::new(&Arc::new(ReadDomain::new("irq")), only.clone(), &only)
                .expect("it is online"),
            entry: Model::new("entry", HERE),
            came: Model::new("device", 0),
            handled: Cell::new(0),
            at: Cell::new(HERE),
            attached: Model::new("attached", false),
            task: Model::new("task", None),
            over: Model::new("over", false),
            memory: Ghost::new("driver"),
        })
    }

    fn come(&self) {
        self.came.change(|came| *came += 1);
        self.desc.wake_thread().act();
    }

    fn moves(&self, to: CpuId) {
        let to = CpuSet::of([to]);
        let change =
            self.desc.set_affinity(to.clone(), &to, |cpu| self.entry.change(|entry| *entry = cpu));
        change.expect("it is online").expect("it goes elsewhere").act();
    }

    fn work(&self) -> bool {
        let Some(work) = self.desc.take_work() else { return false };
        if work.run {
            self.memory.access();
            self.handled.set(self.came.observe(|came| *came));
            self.memory.access();
        }
        if work.moved {
            self.at.set(self.desc.cpu());
        }
        true
    }

    /// Runs as a thread of the interrupt until `over`, and sleeps between.
    fn thread(&self, over: impl Fn() -> bool) {
        while !over() {
            if !self.work() && !over() {
                Sim::park();
            }
        }
        self.desc.end_work();
    }

    fn attach(&self) {
        self.desc.attach_thread(Sim::current_task()).expect("it has none").act();
        self.attached.change(|attached| *attached = true);
    }

    /// What happens to it: it comes, and goes elsewhere.
    fn others(self: &Rc<Self>, m: &Machine, interrupts: u32, to: Option<CpuId>) {
        for _ in 0..interrupts {
            let this = Rc::clone(self);
            m.task("interrupt", move || this.come());
        }
        if let Some(to) = to {
            let this = Rc::clone(self);
            m.task("goes elsewhere", move || this.moves(to));
        }
    }

    fn follows(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.at_quiescence("the entry has it go where the descriptor says", move || {
            let (says, has) = (this.desc.cpu(), this.entry.observe(|entry| *entry));
            (says == has).then_some(()).ok_or_else(|| format!("{says:?}, but {has:?}"))
        });
    }
}

fn sleeps(m: &Machine, interrupts: u32, to: Option<CpuId>) {
    let irq = Irq::new();
    let thread = Rc::clone(&irq);
    m.task_on(HERE, "thread", move || {
        thread.attach();
        thread.thread(|| {
            thread.handled.get() == interrupts && to.is_none_or(|to| thread.at.get() == to)
        });
    });
    irq.others(m, interrupts, to);
    irq.follows(m);
}

fn attached_late(m: &Machine) {
    let irq = Irq::new();
    let begun = Rc::new(Model::new("thread", None));
    let (thread, begins) = (Rc::clone(&irq), Rc::clone(&begun));
    m.task_on(HERE, "thread", move || {
        begins.change(|task| *task = Some(Sim::current_task()));
        thread.thread(|| thread.handled.get() == 1);
    });
    let attaches = Rc::clone(&irq);
    m.task("attach", move || {
        let task = begun.wait(Option::is_some, Option::clone).expect("it has begun");
        attaches.desc.attach_thread(task).expect("it has none").act();
    });
    irq.others(m, 1, None);
}

fn moved_twice(m: &Machine) {
    let irq = Irq::new();
    for to in [CpuId(1), CpuId(2)] {
        let irq = Rc::clone(&irq);
        m.task("goes elsewhere", move || irq.moves(to));
    }
    irq.follows(m);
}

/// A thread ends, and another takes its place: what the first has left is for the second.
fn replaced(m: &Machine, interrupts: u32, to: Option<CpuId>) {
    let irq = Irq::new();
    let first = Model::new("first thread", First::Absent);
    let first = Rc::new(first);
    let (thread, state) = (Rc::clone(&irq), Rc::clone(&first));
    m.task_on(HERE, "first thread", move || {
        thread.attach();
        state.change(|state| *state = First::Runs(Sim::current_task()));
        thread.thread(|| state.observe(|state| matches!(state, First::ToEnd)));
        state.change(|state| *state = First::Ended);
    });
    let (thread, state) = (Rc::clone(&irq), first);
    m.task("second thread", move || {
        let former = state.take(
            |state| matches!(state, First::Runs(_)),
            |state| match std::mem::replace(state, First::ToEnd) {
                First::Runs(task) => task,
                _ => unreachable!("it runs"),
            },
        );
        thread.desc.detach_thread().expect("there is one");
        Sim::wake(&former);
        state.wait(|state| matches!(state, First::Ended), |_| ());
        thread.attach();
        thread.thread(|| {
            thread.handled.get() == interrupts && to.is_none_or(|to| thread.at.get() == to)
        });
    });
    irq.others(m, interrupts, to);
    irq.follows(m);
}

enum First {
    Absent,
    Runs(<Sim as Platform>::Task),
    ToEnd,
    Ended,
}

/// All that takes the descriptor's lock, on the CPU that its interrupt interrupts.
fn interrupted(m: &Machine) {
    let irq = Irq::new();
    let comes = Rc::clone(&irq);
    let handler = m.handler(HERE, VECTOR, "interrupt", move || {
        comes.desc.cpu();
        drop(comes.desc.wake_thread());
    });
    m.hardware("device", move || handler.raise());
    let uses = Rc::clone(&irq);
    m.task_on(HERE, "uses it", move || {
        let desc = &uses.desc;
        let wake = desc.attach_thread(Sim::current_task()).expect("it has none");
        drop(wake);
        desc.set_notifier(None);
        desc.affinity();
        uses.moves(THERE);
        desc.cpu();
        desc.detach_thread().expect("there is one");
        drop(desc.wake_thread());
    });
    irq.follows(m);
}

/// Looks at the interrupt while it moves: the look sees it before or after.
fn looked_at(m: &Machine) {
    let irq = Irq::new();
    let (moves, looks, watches) = (Rc::clone(&irq), Rc::clone(&irq), Rc::clone(&irq));
    m.task("goes elsewhere", move || moves.moves(THERE));
    m.task("looks", move || {
        let affinity = looks.desc.affinity();
        assert!(affinity.contains(HERE) != affinity.contains(THERE));
    });
    m.task("watches", move || assert!(watches.desc.set_notifier(None).is_none()));
    irq.follows(m);
}

/// A driver's memory is gone when its thread has handled what came before: so many interrupts
/// before each time that it waits.
fn waited_for(m: &Machine, comes: &'static [u32]) {
    let irq = Irq::new();
    let thread = Rc::clone(&irq);
    m.task_on(HERE, "thread", move || {
        thread.task.change(|task| *task = Some(Sim::current_task()));
        thread.attach();
        let over = || thread.over.observe(|over| *over);
        thread.thread(over);
    });
    m.task_on(THERE, "driver", move || {
        // What comes before there is a thread is nobody's to wait for.
        irq.attached.wait(|attached| *attached, |_| ());
        for interrupts in comes {
            (0..*interrupts).for_each(|_| irq.come());
            irq.desc.synchronize();
        }
        assert_eq!(
            irq.came.observe(|came| *came),
            irq.handled.get(),
            "what came before was handled"
        );
        irq.memory.free();
        irq.over.change(|over| *over = true);
        Sim::wake(&irq.task.observe(Option::clone).expect("it has begun"));
    });
}

/// The thread has ended before it took anything: what it was asked for is left for the next.
fn waits_for_nobody(m: &Machine) {
    let irq = Irq::new();
    let (thread, waits) = (Rc::clone(&irq), Rc::clone(&irq));
    m.task_on(HERE, "thread", move || thread.attach());
    m.task_on(THERE, "driver", move || {
        waits.come();
        waits.desc.synchronize();
    });
    m.task("ends it", move || {
        irq.attached.wait(|attached| *attached, |_| ());
        irq.desc.detach_thread().expect("there is one");
    });
}

/// The thread ends when it has handled one, and does not look for another.
fn waits_for_the_last(m: &Machine) {
    let irq = Irq::new();
    let thread = Rc::clone(&irq);
    m.task_on(HERE, "thread", move || {
        thread.attach();
        thread.thread(|| thread.handled.get() == 1);
    });
    m.task_on(THERE, "driver", move || {
        irq.attached.wait(|attached| *attached, |_| ());
        irq.come();
        irq.desc.synchronize();
        irq.memory.free();
    });
}
