//! A vCPU that enters, is kicked and folds, while others change its interrupts: nothing is lost, and
//! each access of the words is there for a reason.

#[path = "../registers/mod.rs"]
mod registers;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use doorbell_explore::removal::{self, Printed, Program, Taken};
use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable};
use doorbell_explore::{Machine, Sim};
use doorbell_gic::spec::Vtr;
use doorbell_gic::{ApList, Ended, Group, IntId, Interrupt, Interrupts, Priority, Trigger};
use doorbell_hardware::cpu::Cpu;
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::{Bit, Guest, Notice, Post, Software, TwoLevel};

use registers::Registers;

const EDGE: IntId = IntId::new(0).unwrap();
const LEVEL: IntId = IntId::new(1).unwrap();
const CPU: CpuId = CpuId(0);

struct Table([Interrupt<Sim>; 2]);

impl Interrupts<Sim> for Table {
    fn interrupt(&self, id: IntId) -> &Interrupt<Sim> {
        &self.0[id.number() as usize]
    }
}

/// Whether each of two devices wants something, which it says and raises its level under a lock.
#[derive(Default)]
struct Devices {
    locked: bool,
    want: [bool; 2],
}

/// What others see of a vCPU.
struct Vcpu {
    table: Table,
    post: Post<Sim, TwoLevel<Sim, 1>, Software<Sim>>,
    cpu: Cpu,
    /// The two devices behind the level.
    devices: Model<Devices>,
    /// How often the guest's handlers ran.
    handled: [AtomicU32; 2],
}

impl Vcpu {
    fn new() -> Arc<Self> {
        let table = Table([Trigger::Edge, Trigger::Level].map(Interrupt::new));
        for interrupt in &table.0 {
            interrupt.configure(Priority(0x80), Group::One, None);
            interrupt.set_enabled(true);
        }
        Arc::new(Vcpu {
            table,
            post: Post::new(TwoLevel::new(), Software::new()),
            cpu: Cpu::new("CPU"),
            devices: Model::new("devices", Devices::default()),
            handled: Default::default(),
        })
    }

    fn interrupt(&self, id: IntId) -> &Interrupt<Sim> {
        self.table.interrupt(id)
    }

    /// Tells it that the word of an interrupt has changed.
    fn tell(&self, id: IntId) {
        match self.post.post(Bit::new(id.number() as usize).expect("it is small")) {
            Notice::Kick(_) => self.cpu.kick(),
            Notice::Nothing => {}
            other => unreachable!("{other:?}"),
        }
    }

    /// A device waits until it has what it wanted, wants something more, and raises its level.
    fn raise(&self, device: usize) {
        self.devices.take(
            |devices| !devices.locked && !devices.want[device],
            |devices| (devices.locked, devices.want[device]) = (true, true),
        );
        self.interrupt(LEVEL).set_level(device as u32, true);
        self.devices.change(|devices| devices.locked = false);
        self.tell(LEVEL);
    }

    /// The guest serves the first device that wants something, which lowers its level.
    fn serve(&self) {
        let first = self.devices.take(
            |devices| !devices.locked,
            |devices| {
                devices.locked = true;
                devices.want.iter().position(|wants| *wants)
            },
        );
        if let Some(device) = first {
            self.interrupt(LEVEL).set_level(device as u32, false);
        }
        self.devices.change(|devices| {
            devices.locked = false;
            first.into_iter().for_each(|device| devices.want[device] = false);
        });
    }

    fn inject(&self) {
        self.interrupt(EDGE).latch();
        self.tell(EDGE);
    }

    fn disable(&self, id: IntId) {
        self.interrupt(id).set_enabled(false);
        self.tell(id);
    }

    /// The task: in the guest until nothing more can happen.
    fn run(&self, lrs: u8) {
        let implementation = hw::Implementation::new(lrs, 5, 5).expect("it is legal");
        let mut registers = Registers(VirtualInterface::new(implementation));
        registers.0.set_vmcr(0xf8 << 24 | 0b11);
        let mut list = ApList::new(Vtr::from_bits(implementation.vtr()));
        let (mut over, mut unended) = (false, None);
        while !over {
            let irqs_off = IrqGuard::<Sim>::new();
            self.cpu.irqs_off();
            let guest = Guest { cpu: CPU, posted: false };
            let entering = self.post.enter(&irqs_off, guest).expect("nothing is requested");
            let vmcr = registers.0.vmcr();
            let (in_guest, _) = entering.rescan(|news| {
                news.take(|bit| list.look(&self.table, IntId::new(bit.number() as u32).expect("it is small"), vmcr));
            });
            list.flush(&self.table, &mut registers, [true; 2]);
            self.cpu.enter(false);
            local_irq_enable();
            over = self.guest(&mut registers.0, &mut unended);
            local_irq_disable();
            self.cpu.leave();
            in_guest.fold(|| list.fold(&self.table, &mut registers));
            self.cpu.irqs_on();
            list.take_ended(&self.table, |ended| assert_eq!(ended, Ended::Level(LEVEL)));
        }
    }

    /// The guest handles what it gets, and waits. It may have to leave in the middle of a handler.
    /// Returns whether nothing more can happen.
    fn guest(&self, interface: &mut VirtualInterface, unended: &mut Option<hw::IntId>) -> bool {
        loop {
            if let Some(id) = unended.take() {
                let _ = interface.write_eoir(hw::Group::One, id).expect("it is not trapped");
            }
            if interface.maintenance() {
                return false;
            }
            let id = interface.read_iar(hw::Group::One).expect("it is not trapped");
            if id == hw::IntId::SPURIOUS {
                return self.cpu.hear().is_err();
            }
            self.handled[id.number() as usize].fetch_add(1, Relaxed);
            if id.number() == LEVEL.number() {
                self.serve();
            }
            *unended = Some(id);
            if self.cpu.is_kicked() {
                return false;
            }
        }
    }
}

/// In the end, nothing is pending, the devices have what they wanted, and the handlers ran at least
/// that often.
fn served(m: &Machine, vcpu: &Arc<Vcpu>, least: [u32; 2]) {
    let vcpu = Arc::clone(vcpu);
    m.at_quiescence("all that was injected is handled", move || {
        let pending = [EDGE, LEVEL].map(|id| vcpu.interrupt(id).state().is_pending());
        let handled = [0, 1].map(|id| vcpu.handled[id].load(Relaxed));
        let wants = vcpu.devices.observe(|devices| devices.want);
        let enough = handled.iter().zip(least).all(|(had, least)| *had >= least);
        (pending == [false; 2] && enough && wants == [false; 2])
            .then_some(())
            .ok_or(format!("pending {pending:?}, handled {handled:?}, the devices want something: {wants:?}"))
    });
}

/// In the end, the interrupt is disabled, and is pending unless it was handled before.
fn disabled(m: &Machine, vcpu: &Arc<Vcpu>, id: IntId) {
    let vcpu = Arc::clone(vcpu);
    m.at_quiescence("it is disabled, and is pending if it was not handled", move || {
        let state = vcpu.interrupt(id).state();
        let handled = vcpu.handled[id.number() as usize].load(Relaxed);
        let right = !state.is_enabled() && !state.is_active() && state.is_pending() == (handled == 0);
        right.then_some(()).ok_or(format!("{state:?}, handled {handled} times"))
    });
}

fn programs() -> Vec<Program> {
    let with = |name: &str, lrs, others: fn(&Machine, &Arc<Vcpu>)| {
        Program::new(name, move |m: &Machine| {
            let vcpu = Vcpu::new();
            others(m, &vcpu);
            m.task_on(CPU, "vCPU", move || vcpu.run(lrs));
        })
    };
    vec![
        with("one injects an edge twice", 1, |m, vcpu| {
            let injects = Arc::clone(vcpu);
            m.task("device", move || (0..2).for_each(|_| injects.inject()));
            served(m, vcpu, [1, 0]);
        }),
        with("two inject an edge", 1, |m, vcpu| {
            for _ in 0..2 {
                let injects = Arc::clone(vcpu);
                m.task("device", move || injects.inject());
            }
            served(m, vcpu, [1, 0]);
        }),
        with("an edge is injected, and enabled by somebody else", 1, |m, vcpu| {
            vcpu.interrupt(EDGE).set_enabled(false);
            let (injects, enables) = (Arc::clone(vcpu), Arc::clone(vcpu));
            m.task("device", move || injects.inject());
            m.task("enables", move || {
                enables.interrupt(EDGE).set_enabled(true);
                enables.tell(EDGE);
            });
            served(m, vcpu, [1, 0]);
        }),
        with("an edge is injected while it is disabled", 1, |m, vcpu| {
            let (injects, disables) = (Arc::clone(vcpu), Arc::clone(vcpu));
            m.task("device", move || injects.inject());
            m.task("disables", move || disables.disable(EDGE));
            disabled(m, vcpu, EDGE);
        }),
        with("a level is raised while it is disabled", 1, |m, vcpu| {
            let (raises, disables) = (Arc::clone(vcpu), Arc::clone(vcpu));
            m.task("device", move || raises.raise(0));
            m.task("disables", move || disables.disable(LEVEL));
            disabled(m, vcpu, LEVEL);
        }),
        with("an edge is injected while it is configured", 1, |m, vcpu| {
            vcpu.interrupt(EDGE).set_enabled(false);
            let (injects, configures) = (Arc::clone(vcpu), Arc::clone(vcpu));
            m.task("device", move || injects.inject());
            m.task("configures", move || {
                configures.interrupt(EDGE).configure(Priority(0x40), Group::One, None);
                configures.interrupt(EDGE).set_enabled(true);
                configures.tell(EDGE);
            });
            served(m, vcpu, [1, 0]);
        }),
        with("an edge comes from a source that was high before", 1, |m, vcpu| {
            let raises = Arc::clone(vcpu);
            m.task("device", move || {
                for high in [true, false, true] {
                    raises.interrupt(EDGE).set_level(3, high);
                    raises.tell(EDGE);
                }
            });
            served(m, vcpu, [1, 0]);
        }),
        with("a level is raised, and once more when it was lowered", 1, |m, vcpu| {
            let raises = Arc::clone(vcpu);
            m.task("device", move || (0..2).for_each(|_| raises.raise(0)));
            served(m, vcpu, [0, 1]);
        }),
        with("a device raises a level that another one has raised", 1, |m, vcpu| {
            vcpu.raise(0);
            let raises = Arc::clone(vcpu);
            m.task("device", move || raises.raise(1));
            served(m, vcpu, [0, 2]);
        }),
        with("an edge and a level share a list register", 1, |m, vcpu| {
            let (injects, raises) = (Arc::clone(vcpu), Arc::clone(vcpu));
            m.task("edge", move || injects.inject());
            m.task("level", move || raises.raise(0));
            served(m, vcpu, [1, 1]);
        }),
    ]
}

/// Lines that no program needs, and why.
const KEPT: &[(&str, Taken, &str)] =
    &[("let mut seen = self.word.load(SeqCst);", Taken::Knowledge, "a guess, of which the exchange tells")];

#[test]
fn nothing_that_is_injected_is_lost_and_no_access_can_be_taken_out() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed { root, document: "ARCHITECTURE.md", name: "doorbell-gic explored", kept: KEPT };
    let wrong = printed.check(&removal::table(&programs(), "crates/gic/src/"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
