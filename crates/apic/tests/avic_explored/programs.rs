//! What goes on at the same time.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::avic::spec::register;
use doorbell_apic::avic::{LogicalError, LogicalTable, Model, TableError};
use doorbell_explore::Machine;
use doorbell_explore::removal::Program;
use doorbell_hardware::vcpu::{self, A, Delivery};
use doorbell_platform::{Atomic, CpuId};
use doorbell_post::{Requests, Residency};

use crate::machine::{AtomicBool, Flaw, Host, Irte, Restart, System, Vcpu, address, table};

pub fn programs() -> Vec<Program> {
    let mut programs: Vec<_> = scopes()
        .into_iter()
        .map(|(name, scope)| Program::new(name, move |m| program(m, scope)))
        .collect();
    programs.extend([
        Program::new("a vCPU with a masked interrupt sleeps", masked),
        Program::new("an interrupt in service is not lost beside another", nested),
        Program::new("two vCPUs ask for one ID", ids),
        Program::new("a vCPU is created while AVIC is inhibited", |m| created(m, Asks::First)),
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
        (
            "software posts to a vCPU that sleeps",
            Scope { life: Life::Sleeps, sender: true, ..nobody },
        ),
        ("an IPI for a vCPU that moves", Scope { moved: true, ipi: true, ..nobody }),
        ("AVIC is inhibited while a device posts", Scope { inhibited, ..DEVICE }),
        ("AVIC is inhibited while software posts", Scope { inhibited, sender: true, ..nobody }),
        (
            "AVIC is inhibited all the time",
            Scope { inhibited: Inhibited::Always, sender: true, ipi: true, ..nobody },
        ),
        ("AVIC is inhibited while an IPI is sent", Scope { inhibited, ipi: true, ..nobody }),
        ("a device posts to a vCPU that is preempted", Scope { moved: true, ..DEVICE }),
        (
            "software posts to a vCPU that sleeps and moves",
            Scope { life: Life::Sleeps, sender: true, moved: true, ..nobody },
        ),
        ("a device posts to an inhibited vCPU that lowers its priority", MASKED),
        (
            "software posts to an inhibited vCPU that lowers its priority",
            Scope { device: false, sender: true, ..MASKED },
        ),
        (
            "an IPI for an inhibited vCPU that lowers its priority",
            Scope { device: false, ipi: true, ..MASKED },
        ),
        (
            "a device posts to an inhibited vCPU that lowers its priority and is preempted",
            Scope { moved: true, ..MASKED },
        ),
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
    /// The vCPU is preempted at any moment, and goes on elsewhere.
    pub moved: bool,
    /// The guest begins with a high priority, and lowers it at any moment.
    pub masks: bool,
    /// The device's IRTE is bound at any moment, and not from the beginning.
    pub late: bool,
    pub inhibited: Inhibited,
    /// The number of entries that the log holds.
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
    masks: false,
    late: false,
    inhibited: Inhibited::Never,
    capacity: 4,
    flaw: Flaw::None,
    restart: Restart::First,
};

pub const MASKED: Scope = Scope { inhibited: Inhibited::Always, masks: true, ..DEVICE };

pub fn program(m: &Machine, scope: Scope) {
    let system = System::new(scope.capacity, scope.moved, scope.flaw);
    let wanted = u64::from(scope.device)
        | u64::from(scope.sender) << 1
        | u64::from(scope.ipi) << 2
        | u64::from(scope.again) << 3;
    let irte = Irte::new(scope.flaw);
    if scope.device && !scope.late {
        system.bind(&irte);
    }
    vcpu::task(m, &system.vcpu, move |vcpu| {
        if scope.masks {
            vcpu.masks();
        }
        if scope.inhibited == Inhibited::Always {
            vcpu.avic.inhibit(true);
        }
        match scope.life {
            Life::Stays => vcpu.stay(),
            Life::Sleeps => vcpu.run_and_sleep(wanted),
        }
    });
    if scope.moved {
        vcpu::preempt(m, &system.vcpu, 1);
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
                system.vcpu.inhibited.store(inhibited, SeqCst);
                system.vcpu.act(system.vcpu.avic.run_state().request(Requests(1)));
            }
        });
    }
    vcpu::has_got(m, &system.vcpu, wanted);
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
    m.task_on(CpuId(5), "log", move || reads.read_log(restart)).may_not_run();
}

/// The task's priority is above what is pending: whoever posts wakes it, and it sleeps again.
fn masked(m: &Machine) {
    let system = System::new(4, false, Flaw::None);
    let page = system.vcpu.avic.page();
    page.register(register::TPR).store(0x50, SeqCst);
    page.register(register::IRR + 0x20).store(1 << 5, SeqCst);
    vcpu::task(m, &system.vcpu, |vcpu| {
        assert!(vcpu.avic.block().is_ok(), "there is nothing that the guest could get");
    });
}

/// Software interrupts the handler of an interrupt by one of a higher class.
fn nested(m: &Machine) {
    let system = System::new(4, false, Flaw::None);
    m.task_on(A, "vCPU", move || {
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
        let (physical, logical, got) =
            (Arc::clone(&physical), Arc::clone(&logical), Arc::clone(&got));
        m.task(format!("vCPU {number}"), move || {
            let claimed = doorbell_apic::avic::AvicVcpu::new(
                &physical,
                3,
                Arc::default(),
                address(number),
                Requests(0),
            );
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

/// When a vCPU that is created asks whether AVIC is inhibited in its VM.
#[derive(Clone, Copy, PartialEq)]
pub enum Asks {
    /// As it is asked to, before it first enters.
    First,
    /// Before those who inhibit find it, and not again. A mistake.
    Early,
}

/// A vCPU is created while AVIC is inhibited in the VM, and those vCPUs told that are there.
pub fn created(m: &Machine, asks: Asks) {
    let inhibited = Arc::new(AtomicBool::new(false));
    let vcpus = Arc::new(doorbell_explore::sim::Model::new("vCPUs", None));
    let (table, sets, all) = (table(), Arc::clone(&inhibited), Arc::clone(&vcpus));
    m.task_on(CpuId(2), "inhibits", move || {
        sets.store(true, SeqCst);
        let vcpu: Option<Arc<Vcpu>> = all.observe(Clone::clone);
        if let Some(vcpu) = vcpu {
            vcpu.act(vcpu.avic.run_state().request(Requests(1)));
        }
    });
    let all = Arc::clone(&vcpus);
    m.task_on(A, "creates", move || {
        let inhibition = Requests(u32::from(asks == Asks::First));
        let vcpu = Vcpu::new(&table, false, Flaw::None, &inhibited, inhibition);
        if asks == Asks::Early {
            vcpu.serve(inhibition);
        }
        all.change(|all| *all = Some(Arc::clone(&vcpu)));
        vcpu.begin();
        vcpu.stay();
    });
    m.at_quiescence("the vCPU knows that AVIC is inhibited", move || {
        let vcpu: Arc<Vcpu> = vcpus.observe(Clone::clone).expect("it was created");
        let says = vcpu.avic.copies().residency();
        (says == Residency::Away { log: true }).then_some(()).ok_or(format!("{says:?}"))
    });
}
