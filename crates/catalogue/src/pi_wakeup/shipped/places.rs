//! Whole lives of several vCPUs: each is posted to by its device, sleeps, and is woken elsewhere.
//!
//! With the scheduler and the interrupts of the simulated machine, two such vCPUs have some 10^10
//! interleavings, most of which differ in nothing but where in the host an interrupt comes that has
//! nothing to do there. So here nothing is switched by a scheduler: a task waits until its CPU is
//! free, and calls the hooks itself, under the lock of a run queue that whoever wakes it takes,
//! too. And interrupts are what they can do to a vCPU:
//!
//! - The handler of the wake-up vector is a context of its own, which may stand still at any step
//!   while its CPU goes on. On a CPU nothing else runs meanwhile, so there are more interleavings
//!   here than there. Only deadlocks with whom it interrupts are not here: they are in the variants
//!   with a scheduler, which one vCPU that moves is enough for.
//! - A notification is taken by the CPU that runs the guest, in the guest. One that comes to a CPU
//!   in the host has nothing to do, and has come, at the latest, when interrupts are turned off: no
//!   step tells whether it came earlier.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};

use doorbell_apic::vmx::{PiHooks, PiHost, PiVcpu, WakeupVcpus};
use doorbell_explore::sim::{Model, RQ_LOCK};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::posts::Few;
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, Notification, WAKEUP};
use doorbell_platform::{Atomic, CpuId, IrqGuard, Lock, Platform, ReadDomain, Vector};
use doorbell_post::{Destination, Guest, Pending, PiDescriptor, PiGate, SelfNotify};

use crate::count::count;

/// The first vector of a device.
const DEVICE: u8 = 1;

/// The parameters.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    /// Each begins on a CPU of its own, if there are as many, and goes to the next one whenever it
    /// has slept.
    pub(super) vcpus: usize,
    pub(super) cpus: u32,
    /// How often the device of each vCPU posts, each time another vector.
    pub(super) posts: u8,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vcpus, devices) = (count(self.vcpus, "vCPU"), count(self.vcpus, "device"));
        write!(f, "doorbell-apic, {vcpus} on {} CPUs, {devices} ", self.cpus)?;
        write!(f, "with {} each, blocks and migrations", count(self.posts, "post"))
    }
}

impl Scope {
    fn first_cpu(self, vcpu: usize) -> CpuId {
        CpuId(vcpu as u32 % self.cpus)
    }

    fn next_cpu(self, cpu: CpuId) -> CpuId {
        CpuId((cpu.0 + 1) % self.cpus)
    }

    fn vectors(self) -> impl Iterator<Item = u8> {
        (0..self.posts).map(|post| DEVICE + post)
    }

    /// What the guest of each vCPU waits for.
    fn wanted(self) -> u64 {
        self.vectors().map(|vector| 1 << vector).sum()
    }
}

struct Vcpu {
    post: PiDescriptor<Sim>,
    /// The task that is to be woken. Set before it first sleeps.
    task: OnceLock<<Sim as Platform>::Task>,
    /// The CPU that it left last.
    left: <Sim as Platform>::AtomicU32,
    /// What its guest has got.
    got: Model<u64>,
}

impl PiVcpu<Sim> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Sim> {
        &self.post
    }
}

struct Cpu {
    /// Hooks run under it, and to wake a task takes that of the CPU where it sleeps.
    run_queue: Lock<Sim, ()>,
    /// Whether nothing runs on it.
    free: Model<bool>,
    /// The notification vector has been sent to it, and has not been taken.
    notified: Model<bool>,
    /// The same of the wake-up vector.
    wake_up: Model<bool>,
}

struct System {
    scope: Scope,
    wakeup_vcpus: Arc<WakeupVcpus<Sim, Vcpu>>,
    vcpus: Vec<Arc<Vcpu>>,
    /// What the hooks of each vCPU's task need.
    hooks: Vec<RefCell<PiHooks<Sim, Vcpu>>>,
    cpus: Vec<Cpu>,
}

impl System {
    fn new(scope: Scope) -> Self {
        let rcu = Arc::new(<Sim as Platform>::Rcu::new("vCPUs"));
        let wakeup_vcpus =
            WakeupVcpus::new(PiHost::x2apic(NOTIFY, WAKEUP, 0..scope.cpus), scope.vcpus, &rcu)
                .expect("a few");
        let vcpu = |number| {
            let gate = PiGate::new(Destination::x2apic(scope.first_cpu(number).0), NOTIFY);
            let post = PiDescriptor::new(Pending::new(), gate);
            Arc::new(Vcpu {
                post,
                task: OnceLock::new(),
                left: Atomic::new(0),
                got: Model::new("guest", 0),
            })
        };
        let vcpus: Vec<_> = (0..scope.vcpus).map(vcpu).collect();
        let hooks = vcpus
            .iter()
            .map(|vcpu| wakeup_vcpus.register(Arc::clone(vcpu)).expect("there is room"));
        let cpu = |_| Cpu {
            run_queue: Lock::new(&RQ_LOCK, ()),
            free: Model::new("CPU", true),
            notified: Model::new("notification", false),
            wake_up: Model::new("wake-up vector", false),
        };
        System {
            hooks: hooks.map(RefCell::new).collect(),
            cpus: (0..scope.cpus).map(cpu).collect(),
            wakeup_vcpus,
            vcpus,
            scope,
        }
    }

    fn cpu(&self, cpu: CpuId) -> &Cpu {
        &self.cpus[cpu.0 as usize]
    }

    /// An interrupt arrives.
    fn send(&self, cpu: CpuId, vector: Vector) {
        let Cpu { notified, wake_up, .. } = self.cpu(cpu);
        let pending = if vector == NOTIFY { notified } else { wake_up };
        pending.change_if(|pending| !std::mem::replace(pending, true));
    }

    /// The handler of the wake-up vector, whenever it is sent, until the run is over.
    fn handle_wake_ups(&self, cpu: CpuId) {
        while self.cpu(cpu).wake_up.serve(|pending| *pending, |pending| *pending = false).is_ok() {
            self.wakeup_vcpus.handle_wakeup(cpu, |vcpu| {
                let _run_queue = self.cpu(CpuId(vcpu.left.load(SeqCst))).run_queue.lock_irqsave();
                Sim::wake(vcpu.task.get().expect("it slept"));
            });
        }
    }

    fn device(&self, vcpu: &Vcpu) {
        for vector in self.scope.vectors() {
            if let Some(Notification { cpu, vector }) = vtd::publish(&vcpu.post, vector.into()) {
                self.send(cpu, vector);
            }
        }
    }

    /// The task of a vCPU: until its guest has got all.
    fn vcpu_task(&self, number: usize) {
        let vcpu = &self.vcpus[number];
        assert!(vcpu.task.set(Sim::current_task()).is_ok(), "a vCPU has one task");
        let mut cpu = self.scope.first_cpu(number);
        self.load(number, cpu);
        while self.run(vcpu, cpu) != self.scope.wanted() {
            let sleeping = vcpu.post.block();
            self.put(number, cpu, false);
            if let Ok(sleeping) = sleeping {
                sleeping.wait();
            }
            cpu = self.scope.next_cpu(cpu);
            self.load(number, cpu);
        }
        self.put(number, cpu, true);
    }

    fn load(&self, number: usize, cpu: CpuId) {
        self.cpu(cpu).free.take(|free| *free, |free| *free = false);
        self.hooks[number].borrow_mut().load(cpu);
    }

    fn put(&self, number: usize, cpu: CpuId, preempted: bool) {
        {
            let _run_queue = self.cpu(cpu).run_queue.lock_irqsave();
            self.vcpus[number].left.store(cpu.0, SeqCst);
            let SelfNotify(wake_up) = self.hooks[number].borrow_mut().put(preempted);
            if wake_up {
                self.send(cpu, WAKEUP);
            }
        }
        self.cpu(cpu).free.change(|free| *free = true);
    }

    /// Enters the guest, which halts at once. What it has got then.
    fn run(&self, vcpu: &Vcpu, on: CpuId) -> u64 {
        let notified = || {
            let mut taken = false;
            self.cpu(on).notified.change_if(|pending| {
                taken = std::mem::take(pending);
                taken
            });
            taken
        };
        let irqs = IrqGuard::<Sim>::new();
        // In the host it has nothing to do.
        let _ = notified();
        let entering =
            vcpu.post.enter(&irqs, Guest { cpu: on, posted: true }).expect("nothing is requested");
        let (in_guest, _) = entering.rescan(|pending| vcpu.take(pending));
        while notified() {
            vcpu.post.gate().word().fetch_and(!1, SeqCst);
            vcpu.take(vcpu.post.layout());
        }
        in_guest.exited();
        vcpu.got.observe(|got| *got)
    }
}

impl Vcpu {
    /// Takes what is posted into the guest.
    fn take(&self, pending: &Pending<Sim, 4>) {
        let taken = Few::take(pending);
        if taken != 0 {
            self.got.change(|got| *got |= taken);
        }
    }
}

pub(super) fn program(m: &Machine, scope: Scope) {
    let system = Rc::new(System::new(scope));
    for number in 0..scope.vcpus {
        let on = Rc::clone(&system);
        m.task(format!("vCPU {number}"), move || on.vcpu_task(number));
        let on = Rc::clone(&system);
        m.hardware(format!("IOMMU for vCPU {number}"), move || on.device(&on.vcpus[number]));
    }
    for cpu in (0..scope.cpus).map(CpuId) {
        let on = Rc::clone(&system);
        m.hardware(format!("wake-up {cpu}"), move || on.handle_wake_ups(cpu));
    }
    m.at_quiescence("every guest has got what was posted, and nobody is in a map", move || {
        let got = |vcpu: &Arc<Vcpu>| vcpu.got.observe(|got| *got);
        let late = system.vcpus.iter().map(got).find(|got| *got != scope.wanted());
        let listed = (0..scope.cpus).find(|cpu| !system.wakeup_vcpus.is_empty(CpuId(*cpu)));
        match (late, listed) {
            (Some(got), _) => Err(format!("a guest has got {got:#b}")),
            (None, Some(cpu)) => Err(format!("somebody is in the map of CPU{cpu}")),
            (None, None) => Ok(()),
        }
    });
}
