//! CPUs with a guest mode and a wake-up handler, an IOMMU, and vCPUs whose scheduler is not there: they call its hooks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use doorbell_apic::vmx::{Host, Seat, Sleeper, Sleepers};
use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, WAKEUP};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain, Vector};
use doorbell_post::{Blocked, Coalescing, Destination, Guest, Layout, Notice, Notification, Pending, PiDescriptor};

pub const KICK: Vector = Vector(0xf3);

/// The CPUs that vCPUs use. RCU's callbacks have CPU 0.
pub const A: CpuId = CpuId(1);
/// Another.
pub const B: CpuId = CpuId(2);

pub type Task = <Sim as Platform>::Task;

pub struct Vcpu {
    pub post: PiDescriptor<Sim>,
    /// What its guest has got, and whether it must exit.
    guest: Model<(u64, bool)>,
    task: Model<Option<Task>>,
}

impl Sleeper<Sim> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Sim> {
        &self.post
    }
}

/// The CPUs, and who sleeps there.
pub struct Cpus {
    pub sleepers: Arc<Sleepers<Sim, Vcpu>>,
    /// Of each CPU, the vCPU that is in the guest there. Its interrupts see what it does, others do not.
    in_guest: Vec<RefCell<Option<Arc<Vcpu>>>>,
    /// Of each CPU, whether interrupts do not reach it any more. Changed by itself, with interrupts off.
    offline: Vec<Cell<bool>>,
}

impl Cpus {
    /// Handlers on A and B, and room for `slots` vCPUs.
    pub fn new(m: &Machine, slots: usize) -> Rc<Self> {
        let rcu = Arc::new(<Sim as Platform>::Rcu::new("vCPUs"));
        let cpus = Rc::new(Cpus {
            sleepers: Sleepers::new(Host::x2apic(NOTIFY, WAKEUP, 0..3), slots, &rcu),
            in_guest: (0..3).map(|_| RefCell::new(None)).collect(),
            offline: (0..3).map(|_| Cell::new(false)).collect(),
        });
        for cpu in [A, B] {
            let this = Rc::clone(&cpus);
            m.handler(cpu, NOTIFY, format!("notification {cpu}"), move || {
                // On a CPU that is in no guest it has nothing to do.
                if let Some(vcpu) = &*this.in_guest[cpu.0 as usize].borrow() {
                    vtd::taken(vcpu.post.gate());
                    vcpu.take();
                }
            });
            let this = Rc::clone(&cpus);
            m.handler(cpu, KICK, format!("kick {cpu}"), move || {
                if let Some(vcpu) = &*this.in_guest[cpu.0 as usize].borrow() {
                    vcpu.guest.change(|(_, kicked)| *kicked = true);
                }
            });
            let this = Rc::clone(&cpus);
            m.handler(cpu, WAKEUP, format!("wake-up {cpu}"), move || {
                if !this.offline[cpu.0 as usize].get() {
                    this.sleepers.wake_up(cpu, |vcpu| vcpu.wake());
                }
            });
        }
        cpus
    }

    /// A vCPU with a slot, loaded on `cpu`.
    pub fn vcpu(&self, cpu: CpuId) -> (Arc<Vcpu>, Seat<Sim, Vcpu>) {
        let vcpu = Vcpu::new(cpu);
        let mut seat = self.sleepers.register(Arc::clone(&vcpu)).expect("there is room");
        seat.load(cpu);
        (vcpu, seat)
    }

    /// `cpu`, which this task is on, goes offline.
    pub fn offline(&self, cpu: CpuId) {
        let _irqs = IrqGuard::<Sim>::new();
        self.sleepers.evacuate(cpu, |vcpu| vcpu.wake());
        self.offline[cpu.0 as usize].set(true);
    }

    /// Runs the guest of `vcpu` on `cpu`, which this task is on, until it is kicked; `false` if nothing more can happen.
    pub fn run(&self, vcpu: &Arc<Vcpu>, cpu: CpuId) -> bool {
        let irqs = IrqGuard::<Sim>::new();
        let entering = vcpu.post.enter(&irqs, Guest { cpu, posted: true }).expect("nothing is requested");
        let (in_guest, _) = entering.rescan(|_| vcpu.take());
        *self.in_guest[cpu.0 as usize].borrow_mut() = Some(Arc::clone(vcpu));
        local_irq_enable();
        let kicked = vcpu.guest.serve(|(_, kicked)| *kicked, |(_, kicked)| *kicked = false).is_ok();
        local_irq_disable();
        *self.in_guest[cpu.0 as usize].borrow_mut() = None;
        in_guest.exited();
        kicked
    }

    /// Takes what is posted, as it would be taken on entry, until that is `wanted`, and sleeps on `cpu` meanwhile.
    pub fn halt(&self, vcpu: &Vcpu, seat: &mut Seat<Sim, Vcpu>, cpu: CpuId, wanted: u64) {
        loop {
            let _taken = vcpu.post.synchronize(|_| vcpu.take());
            if vcpu.got() & wanted == wanted {
                return;
            }
            if let Ok(blocked) = vcpu.post.block() {
                sleep(blocked, seat, cpu, cpu);
            }
        }
    }
}

/// Is switched away from on `on`, until it is woken, on `to`.
pub fn sleep(blocked: Blocked<'_, Sim>, seat: &mut Seat<Sim, Vcpu>, on: CpuId, to: CpuId) {
    while blocked.asleep() {
        put(seat, on, false);
        Sim::park();
        load(seat, to);
    }
}

/// The hook of a scheduler that switches away from the task.
pub fn put(seat: &mut Seat<Sim, Vcpu>, on: CpuId, preempted: bool) {
    let _irqs = IrqGuard::<Sim>::new();
    if seat.put(preempted).0 {
        Sim::send_ipi(on, WAKEUP);
    }
}

/// The hook of a scheduler that switches to it.
pub fn load(seat: &mut Seat<Sim, Vcpu>, to: CpuId) {
    let _irqs = IrqGuard::<Sim>::new();
    seat.load(to);
}

impl Vcpu {
    /// One that has not run yet, and will do so on `cpu`.
    pub fn new(cpu: CpuId) -> Arc<Self> {
        let gate = Coalescing::new(Destination::x2apic(cpu.0), NOTIFY);
        Arc::new(Vcpu {
            post: PiDescriptor::new(Pending::new(), gate),
            guest: Model::new("guest", (0, false)),
            task: Model::new("task", None),
        })
    }

    /// This task is the vCPU's.
    pub fn begin(&self) {
        self.task.change(|task| *task = Some(Sim::current_task()));
    }

    /// Takes what is posted.
    pub fn take(&self) {
        let mut taken = 0;
        self.post.layout().take(|bit| taken |= 1u64 << bit.number());
        self.guest.change(|(got, _)| *got |= taken);
    }

    /// What its guest has got.
    pub fn got(&self) -> u64 {
        self.guest.observe(|(got, _)| *got)
    }

    pub fn wake(&self) {
        let task = self.task.observe(Clone::clone);
        if let Some(task) = task {
            Sim::wake(&task);
        }
    }

    /// A sender that is software.
    pub fn send(&self, vector: u8) {
        match self.post.post(vector.into()) {
            Notice::Nothing => {}
            Notice::Notify(Notification { destination, vector }) => Sim::send_ipi(CpuId(destination.bits()), vector),
            Notice::Kick(cpu) => Sim::send_ipi(cpu, KICK),
            Notice::Wake => self.wake(),
        }
    }
}

/// An IOMMU posts these vectors, in any order.
pub fn devices(m: &Machine, vcpu: &Arc<Vcpu>, vectors: &[u8]) {
    for &vector in vectors {
        let vcpu = Arc::clone(vcpu);
        m.hardware(format!("IOMMU {vector}"), move || vtd::post_to(&vcpu.post, vector.into()));
    }
}

/// In the end, the guest has got what was posted, and nothing is pending.
pub fn all_delivered(m: &Machine, vcpu: &Arc<Vcpu>, wanted: u64) {
    let vcpu = Arc::clone(vcpu);
    m.at_quiescence("the guest has got all that was posted", move || {
        let (got, pending) = (vcpu.got(), vcpu.post.layout().any());
        if got == wanted && !pending { Ok(()) } else { Err(format!("it has got {got:#b} of {wanted:#b}")) }
    });
}
