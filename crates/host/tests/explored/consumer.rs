//! A line that changes its consumer while interrupts come.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::Model;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_host::msi::{ConsumerSwitch, Drain, FreedLine, MsiConsumer, Signal};
use doorbell_platform::{CpuId, Vector};

use crate::msix::{World, Write};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    use MsiConsumer::{Direct, User};
    vec![
        Program::new("a line goes to user space, and stays there", |m| {
            let line = line(User);
            raise(m, &line, 2);
            counts(m, &line, 0, 2);
        }),
        Program::new("a line goes to the irqfd while two interrupts come", |m| {
            let line = line(User);
            raise(m, &line, 1);
            raise(m, &line, 1);
            switch(m, &line, &[Direct]);
            counts(m, &line, 2, 0);
        }),
        Program::new("a line goes to user space and back while two interrupts come", |m| {
            let line = line(Direct);
            raise(m, &line, 2);
            switch(m, &line, &[User, Direct]);
            counts(m, &line, 2, 0);
        }),
        Program::new(
            "a line goes to the irqfd, to user space and to the irqfd while two interrupts come",
            |m| {
                let line = line(User);
                raise(m, &line, 2);
                switch(m, &line, &[Direct, User, Direct]);
                counts(m, &line, 2, 0);
            },
        ),
        Program::new("two switch a line while an interrupt comes, and a reader reads", |m| {
            let line = line(User);
            raise(m, &line, 1);
            switch(m, &line, &[Direct]);
            switch(m, &line, &[User, Direct]);
            let reader = Rc::clone(&line);
            m.task("reader", move || {
                let count = reader.user().drain();
                reader.direct().0.change(|all| *all += count);
            });
            counts(m, &line, 1, 0);
        }),
        Program::new(
            "a guest masks and unmasks the entry of a line, which goes to user space meanwhile",
            masked,
        ),
        Program::new("a line is freed and requested while its device waits for its driver", |m| {
            freed(m, Injects::AfterIt);
        }),
    ]
}

#[test]
fn an_interrupt_that_does_not_look_again_is_lost() {
    let report = Explore::new("looks once").run(|m| {
        let line = line(MsiConsumer::User);
        let (raises, which) =
            (Rc::clone(&line), Rc::new(Model::new("consumer", MsiConsumer::User)));
        let read = Rc::clone(&which);
        m.hardware("device", move || match read.observe(|which| *which) {
            MsiConsumer::Direct => raises.direct().signal(1),
            MsiConsumer::User => raises.user().signal(1),
        });
        let switches = Rc::clone(&line);
        m.task("switch", move || {
            which.change(|which| *which = MsiConsumer::Direct);
            let count = switches.user().drain();
            switches.direct().0.change(|all| *all += count);
        });
        counts(m, &line, 1, 0);
    });
    report.assert_found(FailureKind::Quiescence);
}

/// Document 004: what came while there was no handler was discarded, and the device sends no other.
#[test]
fn a_line_that_is_requested_without_an_injection_or_after_it_leaves_its_device_waiting() {
    for injects in [Injects::Not, Injects::BeforeIt] {
        let report = Explore::new("freed").run(move |m| freed(m, injects));
        report.assert_found(FailureKind::Deadlock);
    }
}

/// An eventfd; or what an irqfd has delivered.
#[derive(Clone)]
struct Event(Arc<Model<u64>>);

impl Event {
    fn new(name: &'static str) -> Self {
        Event(Arc::new(Model::new(name, 0)))
    }
}

impl Signal for Event {
    fn signal(&self, count: u64) {
        self.0.change(|all| *all += count);
    }
}

impl Drain for Event {
    fn drain(&self) -> u64 {
        self.0.change(std::mem::take)
    }
}

type Line<D> = Rc<ConsumerSwitch<Sim, D, Event>>;

fn line(to: MsiConsumer) -> Line<Event> {
    Rc::new(ConsumerSwitch::new(Event::new("irqfd"), Event::new("eventfd"), to))
}

fn raise(m: &Machine, line: &Line<Event>, count: u32) {
    let line = Rc::clone(line);
    m.hardware("device", move || (0..count).for_each(|_| line.signal()));
}

fn switch(m: &Machine, line: &Line<Event>, to: &'static [MsiConsumer]) {
    let line = Rc::clone(line);
    m.task(format!("{to:?}"), move || to.iter().for_each(|to| line.switch(*to)));
}

fn counts(m: &Machine, line: &Line<Event>, direct: u64, user: u64) {
    let line = Rc::clone(line);
    m.at_quiescence("exactly what was raised is delivered", move || {
        let found =
            (line.direct().0.observe(|count| *count), line.user().0.observe(|count| *count));
        (found == (direct, user)).then_some(()).ok_or_else(|| format!("{found:?}"))
    });
}

/// An assigned device, as a virtual machine monitor emulates its table.
fn masked(m: &Machine) {
    let table = World::new(&[]);
    let direct = Event::new("irqfd");
    let line = Rc::new(ConsumerSwitch::<Sim, _, _>::new(
        direct.clone(),
        Event::new("eventfd"),
        MsiConsumer::Direct,
    ));
    raise(m, &line, 2);
    let (guest, switched) = (Rc::clone(&table), Rc::clone(&line));
    m.task("guest", move || {
        guest.write(Write::Mask(0));
        switched.switch(MsiConsumer::User);
        guest.write(Write::Unmask(0));
        switched.switch(MsiConsumer::Direct);
    });
    let (reads, read) = (Rc::clone(&table), Rc::clone(&line));
    m.task("reader of the eventfd", move || {
        if read.user().drain() > 0 {
            reads.signal(0);
        }
    });
    m.at_quiescence(
        "what was raised was delivered, by the irqfd or by way of the pending bit",
        move || {
            let (irqfd, pending) =
                (direct.0.observe(|count| *count), table.msix.read_pending(0, 8));
            let (waits, injected) = (line.user().0.observe(|count| *count), table.count() as u64);
            let right = (1..=2).contains(&(irqfd + injected)) && pending == 0 && waits == 0;
            right.then_some(()).ok_or_else(|| {
                format!("{irqfd}, {injected} injected, {pending} pending, {waits} wait")
            })
        },
    );
}

#[derive(Clone, Copy, PartialEq)]
enum Injects {
    AfterIt,
    BeforeIt,
    Not,
}

#[derive(Default)]
struct Device {
    waits: bool,
    acknowledged: u32,
}

/// The device sends two interrupts, the second when its driver has acknowledged the first.
fn freed(m: &Machine, injects: Injects) {
    let consumer = Event::new("consumer");
    let device = Rc::new(Model::new("device's status", Device::default()));
    // Whoever handles the vector. What comes when nobody does is discarded as spurious.
    let installed = Rc::new(Model::new("vector", Some(consumer.clone())));
    let handled = Rc::clone(&installed);
    let handler = m.handler(CpuId(0), Vector(0x41), "interrupt", move || {
        if let Some(consumer) = handled.observe(Option::clone) {
            consumer.signal(1);
        }
    });
    let status = Rc::clone(&device);
    m.hardware("device", move || {
        for number in 1..=2 {
            status.change(|status| status.waits = true);
            handler.raise();
            status.wait(|status| status.acknowledged == number, |_| ());
        }
    });
    let (driver, events) = (Rc::clone(&device), consumer.clone());
    m.task_on(CpuId(2), "driver", move || {
        while events.0.serve(|count| *count > 0, |count| *count = 0).is_ok() {
            driver.change_if(|status| {
                let waits = std::mem::take(&mut status.waits);
                status.acknowledged += u32::from(waits);
                waits
            });
        }
    });
    m.task_on(CpuId(1), "frees and requests", move || {
        let freed = FreedLine::by(|| installed.change(|vector| *vector = None));
        let request = || {
            installed.change(|vector| *vector = Some(consumer.clone()));
            Ok::<_, ()>(consumer.clone())
        };
        match injects {
            Injects::AfterIt => {
                let Ok(requested) = freed.request(request) else { unreachable!("it is free") };
                requested.inject();
            }
            Injects::BeforeIt => {
                consumer.signal(1);
                let _ = request();
            }
            Injects::Not => {
                let _ = request();
            }
        }
    });
}
