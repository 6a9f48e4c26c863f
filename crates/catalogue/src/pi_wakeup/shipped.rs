//! Seed 001 on the real `doorbell-apic`: vCPUs that sleep, are woken by posted interrupts, and
//! move, under a scheduler with locks of its own.
//!
//! `PiHooks::put` is what the scheduler's sched-out hook calls, under the lock of the run queue;
//! `PiHooks::load` is called by sched-in; `WakeupVcpus::handle_wakeup` is the handler. The three of
//! them share no lock, so there is no order for a validator to complain of: the only locks of these
//! programs are the scheduler's.
//!
//! A vCPU migrates when it is woken on another CPU than the one where it fell asleep. Several that
//! do so are in [`places`], without a scheduler.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use doorbell_apic::vmx::{PiHooks, PiHost, PiVcpu, WakeupVcpus};
use doorbell_explore::sim::{
    Hooks, Model, Placement, SchedTask, Scheduler, local_irq_disable, local_irq_enable,
};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::posts::Few;
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, WAKEUP};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain, Vector};
use doorbell_post::{Destination, Guest, Notice, Pending, PiDescriptor, PiGate};

use crate::count::count;
use crate::{Expected, Variant};

mod places;

const TIMER: Vector = Vector(0xec);

/// A device's vector, and one of software.
const DEVICE: u8 = 1;
const SENDER: u8 = 2;

/// The parameters.
#[derive(Clone, Copy)]
struct Scope {
    cpus: u32,
    vcpus: usize,
    /// Whether each vCPU begins on a CPU of its own, and not all of them on CPU0.
    apart: bool,
    /// How many of the vCPUs have a device, which posts once.
    devices: usize,
    /// The one that posts by software, and so wakes a vCPU where it is itself.
    sender: Sender,
    /// Whether a timer wakes a task on CPU0 that is none of them, and preempts who runs there.
    timer: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Sender {
    Nobody,
    /// A task of the last CPU posts to the first vCPU.
    Task,
    /// Each vCPU posts to the next one, when its guest has got its device's interrupt.
    Vcpus,
}

const ONE: Scope =
    Scope { cpus: 2, vcpus: 1, apart: false, devices: 1, sender: Sender::Task, timer: false };

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vcpus, cpus) = (count(self.vcpus, "vCPU"), count(self.cpus, "CPU"));
        let first = if self.apart { " of their own" } else { "" };
        write!(f, "doorbell-apic, {vcpus} on {cpus}{first}, ")?;
        write!(f, "{} with 1 post each", count(self.devices, "device"))?;
        match self.sender {
            Sender::Nobody => {}
            Sender::Task => write!(f, ", 1 sender")?,
            Sender::Vcpus => write!(f, ", each vCPU posts to the next")?,
        }
        if self.timer { write!(f, ", 1 preemption by a timer") } else { Ok(()) }
    }
}

/// Where the search of what is too large to be exhausted ends. `shipped-two` has by then gone
/// through 0.007 % of its tree, as far as that can be told from the breadth that is known. Nearly
/// half of the branches are an interrupt that comes at another moment; hence [`places`], where
/// those moments that do not matter are none.
const EXECUTIONS: u64 = 2_000_000;

pub(super) fn variants() -> Vec<Variant> {
    let large = |name, why, scope: Scope| {
        let text = format!("{scope}; the first {EXECUTIONS} executions");
        Variant::new(name, Expected::BoundReached, why, text, move |m| program(m, scope))
            .tune(|explore| explore.max_executions(EXECUTIONS))
            .full_only()
    };
    let variant = |name, why, scope: Scope| {
        Variant::new(name, Expected::Exhausted, why, scope.to_string(), move |m| program(m, scope))
    };
    let places = |name, why, scope: places::Scope| {
        let text = scope.to_string();
        Variant::new(name, Expected::Exhausted, why, text, move |m| places::program(m, scope))
    };
    let two = places::Scope { vcpus: 2, cpus: 2, posts: 1 };
    let here = Scope { cpus: 1, vcpus: 2, devices: 2, sender: Sender::Nobody, ..ONE };
    vec![
        variant(
            "shipped-moves",
            "whoever wakes it, and wherever it runs then, notifications go there, and it leaves the map of the CPU that it left",
            ONE,
        ),
        variant(
            "shipped-preempted",
            "what is posted while notifications are suppressed is found when it runs again, also on its way to sleep",
            Scope { cpus: 1, sender: Sender::Nobody, timer: true, ..ONE },
        ),
        variant(
            "shipped-two-apart",
            "each CPU's handler looks at the map of its own CPU",
            Scope { vcpus: 2, devices: 2, apart: true, sender: Sender::Nobody, ..ONE },
        ),
        variant("shipped-two-here", "the handler finds both of them in one map, and wakes who was notified", here),
        variant(
            "shipped-two-one-moves",
            "one leaves the map of CPU0 while it runs on CPU1; the other enters it at that moment, and is woken",
            Scope { vcpus: 2, ..ONE },
        )
        .full_only(),
        places("shipped-2-vcpus", "two vCPUs sleep and change places while two devices post", two),
        places(
            "shipped-2-posts",
            "what is posted again finds it elsewhere, awake or asleep",
            places::Scope { vcpus: 1, posts: 2, ..two },
        ),
        places(
            "shipped-3-vcpus",
            "each of three goes where the next one leaves",
            places::Scope { vcpus: 3, cpus: 3, ..two },
        )
        .full_only(),
        large(
            "shipped-preempted-moves",
            "preempted, asleep, woken elsewhere, in any order",
            Scope { timer: true, ..ONE },
        ),
        large("shipped-two", "both are posted to", Scope { vcpus: 2, devices: 2, ..ONE }),
        large(
            "shipped-all",
            "each of two vCPUs sleeps, is posted to by its device, and is woken elsewhere by the other",
            Scope { vcpus: 2, devices: 2, apart: true, sender: Sender::Vcpus, ..ONE },
        ),
    ]
}

struct Vcpu {
    number: usize,
    post: PiDescriptor<Sim>,
    /// What its guest has got. Changed on the CPU that it is loaded on, with interrupts off.
    got: Model<u64>,
}

impl PiVcpu<Sim> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Sim> {
        &self.post
    }
}

struct Vm {
    wakeup_vcpus: Arc<WakeupVcpus<Sim, Vcpu>>,
    vcpus: Vec<Arc<Vcpu>>,
    /// What the hooks of each vCPU's task need.
    hooks: Vec<RefCell<PiHooks<Sim, Vcpu>>>,
    tasks: Vec<OnceCell<SchedTask>>,
    /// The vCPU that is in the guest on each CPU: seen by its own interrupts only.
    in_guest: Vec<Cell<Option<usize>>>,
    scheduler: Scheduler,
}

impl Vm {
    fn new(scope: Scope, scheduler: Scheduler) -> Self {
        let rcu = Arc::new(<Sim as Platform>::Rcu::new("vCPUs"));
        let wakeup_vcpus =
            WakeupVcpus::new(PiHost::x2apic(NOTIFY, WAKEUP, 0..scope.cpus), scope.vcpus, &rcu)
                .expect("a few");
        let vcpu = |number| {
            let gate = PiGate::new(Destination::x2apic(scope.first_cpu(number).0), NOTIFY);
            Arc::new(Vcpu {
                number,
                post: PiDescriptor::new(Pending::new(), gate),
                got: Model::new("guest", 0),
            })
        };
        let vcpus: Vec<_> = (0..scope.vcpus).map(vcpu).collect();
        let hooks = vcpus
            .iter()
            .map(|vcpu| wakeup_vcpus.register(Arc::clone(vcpu)).expect("there is room"));
        Vm {
            hooks: hooks.map(RefCell::new).collect(),
            tasks: vcpus.iter().map(|_| OnceCell::new()).collect(),
            in_guest: (0..scope.cpus).map(|_| Cell::new(None)).collect(),
            scheduler,
            wakeup_vcpus,
            vcpus,
        }
    }

    fn wake(&self, vcpu: &Vcpu) {
        self.scheduler
            .wake(*self.tasks[vcpu.number].get().expect("it is set before anything runs"));
    }

    /// Takes what is posted into the guest.
    fn take(&self, vcpu: &Vcpu) {
        let taken = Few::take(vcpu.post.layout());
        vcpu.got.change(|got| *got |= taken);
    }

    /// Enters the guest, which halts at once. What it has got then.
    fn run(&self, vcpu: &Vcpu) -> u64 {
        let irqs = IrqGuard::<Sim>::new();
        let cpu = Sim::current_cpu();
        let entering =
            vcpu.post.enter(&irqs, Guest { cpu, posted: true }).expect("nothing is requested");
        let (in_guest, _) = entering.rescan(|_| self.take(vcpu));
        self.in_guest[cpu.0 as usize].set(Some(vcpu.number));
        local_irq_enable();
        local_irq_disable();
        self.in_guest[cpu.0 as usize].set(None);
        in_guest.exited();
        vcpu.got.observe(|got| *got)
    }

    /// The vCPU's task: until its guest has got `wanted`.
    fn vcpu_task(&self, vcpu: &Vcpu, wanted: u64) {
        while self.run(vcpu) & wanted != wanted {
            if let Ok(blocked) = vcpu.post.block() {
                blocked.wait();
            }
        }
    }

    /// Software posts.
    fn send(&self, vcpu: &Vcpu) {
        match vcpu.post.post(SENDER.into()) {
            Notice::Nothing => {}
            Notice::Notify(to) => Sim::send_ipi(CpuId(to.destination.bits()), to.vector),
            Notice::Kick(cpu) => unreachable!("posting is active on {cpu}"),
            Notice::Wake => self.wake(vcpu),
        }
    }

    /// The notification vector.
    fn notified(&self, cpu: CpuId) {
        // On a CPU that is in no guest it has nothing to do.
        if let Some(number) = self.in_guest[cpu.0 as usize].get() {
            let vcpu = &self.vcpus[number];
            vtd::taken(vcpu.post.gate());
            self.take(vcpu);
        }
    }

    fn number_of(&self, task: SchedTask) -> Option<usize> {
        self.tasks.iter().position(|vcpu| vcpu.get() == Some(&task))
    }
}

/// The scheduler's hooks. The VM has the scheduler, so they do not have the VM.
struct Switches(Weak<Vm>);

impl Switches {
    fn vm(&self) -> Rc<Vm> {
        self.0.upgrade().expect("its tasks have it")
    }
}

impl Hooks for Switches {
    fn sched_out(&self, task: SchedTask, cpu: CpuId, preempted: bool) {
        let vm = self.vm();
        if let Some(number) = vm.number_of(task)
            && vm.hooks[number].borrow_mut().put(preempted).0
        {
            Sim::send_ipi(cpu, WAKEUP);
        }
    }

    fn sched_in(&self, task: SchedTask, cpu: CpuId) {
        let vm = self.vm();
        if let Some(number) = vm.number_of(task) {
            let _irqs = IrqGuard::<Sim>::new();
            vm.hooks[number].borrow_mut().load(cpu);
        }
    }
}

impl Scope {
    fn first_cpu(self, vcpu: usize) -> CpuId {
        CpuId(if self.apart { vcpu as u32 } else { 0 })
    }

    /// Returns whether a vCPU with a device comes to a CPU: only there is anything notified.
    fn is_notified(self, cpu: CpuId) -> bool {
        let moves = |vcpu| match self.sender {
            Sender::Nobody => false,
            Sender::Task => vcpu == 0,
            Sender::Vcpus => true,
        };
        (self.vcpus - self.devices..self.vcpus)
            .any(|vcpu| self.first_cpu(vcpu) == cpu || moves(vcpu))
    }

    /// What the guest of a vCPU waits for.
    fn wanted(self, vcpu: usize) -> u64 {
        let sent = match self.sender {
            Sender::Nobody => false,
            Sender::Task => vcpu == 0,
            Sender::Vcpus => true,
        };
        let has_device = vcpu >= self.vcpus - self.devices;
        u64::from(has_device) << DEVICE | u64::from(sent) << SENDER
    }
}

fn program(m: &Machine, scope: Scope) {
    let vm = Rc::new_cyclic(|vm| {
        let hooks = Switches(Weak::clone(vm));
        let scheduler = Scheduler::new(m, scope.cpus, Placement::Waker, scope.timer, hooks);
        // After the scheduler has taken its CPUs: the callbacks of RCU need one, too.
        Vm::new(scope, scheduler)
    });
    for cpu in (0..scope.cpus).map(CpuId).filter(|&cpu| scope.is_notified(cpu)) {
        let on = Rc::clone(&vm);
        m.handler(cpu, WAKEUP, format!("wake-up {cpu}"), move || {
            on.wakeup_vcpus.handle_wakeup(cpu, |vcpu| on.wake(vcpu))
        });
        let on = Rc::clone(&vm);
        m.handler(cpu, NOTIFY, format!("notification {cpu}"), move || on.notified(cpu));
    }
    for number in 0..scope.vcpus {
        let on = Rc::clone(&vm);
        let task =
            vm.scheduler.task(m, scope.first_cpu(number), format!("vCPU {number}"), move || {
                let vcpu = &on.vcpus[number];
                if scope.sender == Sender::Vcpus {
                    on.vcpu_task(vcpu, 1 << DEVICE);
                    on.send(&on.vcpus[(number + 1) % scope.vcpus]);
                }
                on.vcpu_task(vcpu, scope.wanted(number));
            });
        vm.tasks[number].set(task).expect("it is set once");
    }
    for number in scope.vcpus - scope.devices..scope.vcpus {
        let to = Arc::clone(&vm.vcpus[number]);
        m.hardware(format!("IOMMU for vCPU {number}"), move || {
            vtd::post_to(&to.post, DEVICE.into())
        });
    }
    if scope.sender == Sender::Task {
        let on = Rc::clone(&vm);
        vm.scheduler.task(m, CpuId(scope.cpus - 1), "sender", move || on.send(&on.vcpus[0]));
    }
    if scope.timer {
        let other = vm.scheduler.task(m, CpuId(0), "another task", Sim::park);
        let on = Rc::clone(&vm);
        let handler = m.handler(CpuId(0), TIMER, "timer", move || on.scheduler.wake(other));
        m.hardware("timer", move || handler.raise());
    }
    m.at_quiescence("every guest has got what was posted, and nobody is in a map", move || {
        let late =
            vm.vcpus.iter().find(|vcpu| vcpu.got.observe(|got| *got) != scope.wanted(vcpu.number));
        let listed = (0..scope.cpus).find(|cpu| !vm.wakeup_vcpus.is_empty(CpuId(*cpu)));
        match (late, listed) {
            (Some(vcpu), _) => {
                Err(format!("vCPU {} has got {:#b}", vcpu.number, vcpu.got.observe(|got| *got)))
            }
            (None, Some(cpu)) => Err(format!("somebody is in the map of CPU{cpu}")),
            (None, None) => Ok(()),
        }
    });
}
