//! What goes on at the same time.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::avic::spec::register;
use doorbell_apic::avic::{LogicalError, LogicalTable, Model, TableError};
use doorbell_explore::Machine;
use doorbell_explore::removal::Program;
use doorbell_platform::{Atomic, CpuId, Vector};
use doorbell_post::Requests;

use crate::machine::{Flaw, Host, Irte, Restart, System, address, all_got, table};

/// Where the vCPU's task runs. (The first CPU has the task of the RCU domain.)
const CPU: CpuId = CpuId(1);
/// Where the vCPU is moved to: what its hooks say, for its task stays where it is.
const OTHER: CpuId = CpuId(1);
/// The vCPU is moved to another CPU.
const SWITCH: Vector = Vector(0x20);

pub fn programs() -> Vec<Program> {
    let mut programs: Vec<_> =
        scopes().into_iter().map(|(name, scope)| Program::new(name, move |m| program(m, scope))).collect();
    programs.extend([
        Program::new("a vCPU with a masked interrupt sleeps", masked),
        Program::new("an interrupt in service is not lost beside another", nested),
        Program::new("two vCPUs ask for one ID", ids),
    ]);
    programs
}

fn scopes() -> Vec<(&'static str, Scope)> {
    let sleeps = Scope { life: Life::Sleeps, ..DEVICE };
    let nobody = Scope { device: false, ..DEVICE };
    let inhibited = Inhibited::AtSomeMoment;
    vec![
        ("software and a device post to a vCPU that runs", Scope { sender: true, ..DEVICE }),
        ("a device posts to a vCPU that sleeps", sleeps),
        ("a device posts to a vCPU that sleeps and moves", Scope { moved: true, ..sleeps }),
        ("an IRTE is bound while the vCPU sleeps", Scope { late: true, ..sleeps }),
        ("the log is full", Scope { capacity: 0, again: true, ..sleeps }),
        ("an IPI for a vCPU that sleeps", Scope { life: Life::Sleeps, ipi: true, ..nobody }),
        ("software posts to a vCPU that sleeps", Scope { life: Life::Sleeps, sender: true, ..nobody }),
        ("an IPI for a vCPU that moves", Scope { moved: true, ipi: true, ..nobody }),
        ("AVIC is inhibited while a device posts", Scope { inhibited, ..DEVICE }),
        ("AVIC is inhibited while software posts", Scope { inhibited, sender: true, ..nobody }),
        ("AVIC is inhibited all the time", Scope { inhibited: Inhibited::Always, sender: true, ipi: true, ..nobody }),
        ("AVIC is inhibited while an IPI is sent", Scope { inhibited, ipi: true, ..nobody }),
    ]
}

#[derive(Clone, Copy)]
pub struct Scope {
    pub life: Life,
    /// Whether the device posts, and once more.
    pub device: bool,
    pub again: bool,
    pub sender: bool,
    pub ipi: bool,
    /// By its scheduler, at any moment outside of the guest.
    pub moved: bool,
    /// The device's IRTE is bound at any moment, and not from the beginning.
    pub late: bool,
    pub inhibited: Inhibited,
    /// Of the log.
    pub capacity: usize,
    pub flaw: Flaw,
    pub restart: Restart,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Inhibited {
    Never,
    Always,
    AtSomeMoment,
    /// And re-enabled at some later one.
    ForSomeTime,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Life {
    Stays,
    Sleeps,
}

pub const DEVICE: Scope = Scope {
    life: Life::Stays,
    device: true,
    again: false,
    sender: false,
    ipi: false,
    moved: false,
    late: false,
    inhibited: Inhibited::Never,
    capacity: 4,
    flaw: Flaw::None,
    restart: Restart::First,
};

pub fn program(m: &Machine, scope: Scope) {
    let system = System::new(scope.capacity);
    let wanted = u32::from(scope.device)
        | u32::from(scope.sender) << 1
        | u32::from(scope.ipi) << 2
        | u32::from(scope.again) << 3;
    let irte = Irte::new(scope.flaw);
    if scope.device && !scope.late {
        system.bind(&irte);
    }
    let runs = Arc::clone(&system);
    m.task_on(CPU, "vCPU", move || {
        let vcpu = &runs.vcpu;
        vcpu.begin();
        if scope.inhibited == Inhibited::Always {
            vcpu.avic.inhibit(true);
        }
        match scope.life {
            Life::Stays => vcpu.stay(&runs),
            Life::Sleeps => vcpu.run_and_sleep(&runs, wanted),
        }
    });
    if scope.moved {
        let moved = Arc::clone(&system);
        let handler = m.handler(CPU, SWITCH, "switch", move || {
            if !moved.in_guest() {
                moved.vcpu.moves(OTHER);
            }
        });
        m.hardware("timer", move || handler.raise());
    }
    if scope.sender {
        let system = Arc::clone(&system);
        m.task_on(CpuId(2), "sender", move || system.post(1));
    }
    if scope.ipi {
        let system = Arc::clone(&system);
        m.task_on(CpuId(3), "another vCPU", move || system.ipi(2));
    }
    if scope.late {
        let (system, irte) = (Arc::clone(&system), Arc::clone(&irte));
        m.task_on(CpuId(4), "binds", move || system.bind(&irte));
    }
    if scope.device {
        device(m, &system, irte, scope.again, scope.restart);
    }
    let phases: &[bool] = match scope.inhibited {
        Inhibited::Never | Inhibited::Always => &[],
        Inhibited::AtSomeMoment => &[true],
        Inhibited::ForSomeTime => &[true, false],
    };
    if !phases.is_empty() {
        let system = Arc::clone(&system);
        m.task_on(CpuId(6), "inhibits", move || {
            for &inhibited in phases {
                system.inhibited.store(inhibited, SeqCst);
                system.act(system.vcpu.avic.run_state().request(Requests(1)));
            }
        });
    }
    all_got(m, &system, wanted);
}

fn device(m: &Machine, system: &Arc<System>, irte: Arc<Irte>, again: bool, restart: Restart) {
    let posts = Arc::clone(system);
    m.hardware("device", move || {
        posts.msi(&irte, 0);
        if again {
            posts.msi(&irte, 3);
        }
    });
    let reads = Arc::clone(system);
    m.task_on(CpuId(5), "log", move || reads.read_log(restart));
}

/// The task's priority is above what is pending: whoever posts wakes it, and it sleeps again.
fn masked(m: &Machine) {
    let system = System::new(4);
    let page = system.vcpu.avic.page();
    page.register(register::TPR).store(0x50, SeqCst);
    page.register(register::IRR + 0x20).store(1 << 5, SeqCst);
    m.task_on(CPU, "vCPU", move || {
        let vcpu = &system.vcpu;
        vcpu.begin();
        assert!(vcpu.avic.block().is_ok(), "there is nothing that the guest could get");
    });
}

/// Software interrupts the handler of an interrupt by one of a higher class.
fn nested(m: &Machine) {
    let system = System::new(4);
    m.task_on(CPU, "vCPU", move || {
        let page = system.vcpu.avic.page();
        for number in [0x45, 0x55] {
            page.register(register::IRR + 0x20).store(1 << (number - 0x40), SeqCst);
            let vector = page.deliverable().expect("of a higher class than what is in service");
            page.accept(vector);
        }
        assert_eq!(page.register(register::ISR + 0x20).load(SeqCst), 1 << 5 | 1 << 21);
        page.register(register::IRR + 0x20).store(1 << 6, SeqCst);
        page.register(register::ISR + 0x20).store(1 << 5, SeqCst);
        assert_eq!(page.deliverable(), None, "of the class that is in service");
    });
}

/// One of them gets it, in either table.
fn ids(m: &Machine) {
    let physical = table();
    let logical = Arc::new(LogicalTable::<Host>::new((0..1024).map(|_| Atomic::ZERO).collect()));
    let got = Arc::new(doorbell_explore::sim::Model::new("got", [0; 2]));
    for number in 0..2 {
        let (physical, logical, got) = (Arc::clone(&physical), Arc::clone(&logical), Arc::clone(&got));
        m.task(format!("vCPU {number}"), move || {
            let claimed = doorbell_apic::avic::AvicVcpu::new(&physical, 3, Arc::default(), address(number));
            match claimed {
                // Kept: when it is dropped, the ID is free.
                Ok(vcpu) => {
                    got.change(|got| got[0] += 1);
                    std::mem::forget(vcpu);
                }
                Err(error) => assert_eq!(error, TableError::Taken { id: 3 }),
            }
            match logical.claim(Model::Flat, 1 << 24, number as u8) {
                Ok(_) => got.change(|got| got[1] += 1),
                Err(error) => assert_eq!(error, LogicalError::Aliased { by: 1 - number as u8 }),
            }
            assert!(physical.entry(3).valid() && logical.targets(Model::Flat, 1).count() == 1);
        });
    }
    m.at_quiescence("one has got each", move || {
        let got = got.observe(|got| *got);
        (got == [1, 1]).then_some(()).ok_or(format!("{got:?}"))
    });
}
