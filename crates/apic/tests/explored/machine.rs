//! CPUs with a wake-up handler, an IOMMU, and vCPUs that are registered with them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use doorbell_apic::vmx::{PiHooks, PiHost, PiVcpu, WakeupVcpus};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::posts::Few;
use doorbell_hardware::vcpu::{self, A, B, Delivery, Entry};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, WAKEUP};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain};
use doorbell_post::{
    Blocked, Destination, Guest, Layout, Notification, Pending, PiDescriptor, PiGate, Requests,
};

/// What others know of a vCPU.
pub struct Vcpu {
    pub post: PiDescriptor<Sim>,
    pub hardware: vcpu::Vcpu,
}

impl PiVcpu<Sim> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Sim> {
        &self.post
    }
}

/// A vCPU whose scheduler calls the hooks of its hooks.
pub struct Seated {
    pub vcpu: Arc<Vcpu>,
    /// Used with interrupts off, on one simulated CPU: by the task, and by what preempts it.
    hooks: Mutex<PiHooks<Sim, Vcpu>>,
}

impl Seated {
    /// Takes what is posted in the host, with interrupts on.
    pub fn synchronize(&self) {
        let _taken = self.vcpu.post.synchronize(|pir| self.vcpu.take(pir));
    }
}

impl Delivery for Seated {
    type Notification = Notification;

    fn vcpu(&self) -> &vcpu::Vcpu {
        &self.vcpu.hardware
    }

    fn enter(
        &self,
        irqs_off: &IrqGuard<Sim>,
        cpu: CpuId,
        guest: &mut dyn FnMut(Entry),
    ) -> Result<(), Requests> {
        let entering = self.vcpu.post.enter(irqs_off, Guest { cpu, posted: true })?;
        let (in_guest, _taken) = entering.rescan(|pir| self.vcpu.take(pir));
        guest(Entry { posted: true, intercepts_priority: false });
        in_guest.exited();
        Ok(())
    }

    fn block(&self, sleep: &mut dyn FnMut(&dyn Fn() -> bool)) {
        if let Ok(blocked) = self.vcpu.post.block() {
            sleep(&|| blocked.asleep());
        }
    }

    fn load(&self, cpu: CpuId) {
        self.hooks.lock().expect("no panic while it is held").load(cpu);
    }

    fn put(&self, cpu: CpuId, preempted: bool) {
        if self.hooks.lock().expect("no panic while it is held").put(preempted).0 {
            Sim::send_ipi(cpu, WAKEUP);
        }
    }

    fn notify(&self, Notification { destination, vector }: Notification) {
        self.vcpu().interrupt(CpuId(destination.bits()), vector);
    }

    fn told(&self) {
        vtd::taken(self.vcpu.post.gate());
        self.vcpu.take(self.vcpu.post.layout());
    }
}

/// The CPUs, and who sleeps there.
pub struct Cpus {
    pub wakeup_vcpus: Arc<WakeupVcpus<Sim, Vcpu>>,
    /// Whether interrupts do not reach a CPU any more, by CPU. Each CPU changes its own, with
    /// interrupts off.
    offline: Vec<Cell<bool>>,
}

impl Cpus {
    /// Handlers on A and B, and room for `slots` vCPUs.
    pub fn new(m: &Machine, slots: usize) -> Rc<Self> {
        let rcu = Arc::new(<Sim as Platform>::Rcu::new("vCPUs"));
        let cpus = Rc::new(Cpus {
            wakeup_vcpus: WakeupVcpus::new(PiHost::x2apic(NOTIFY, WAKEUP, 0..3), slots, &rcu)
                .expect("a few"),
            offline: (0..3).map(|_| Cell::new(false)).collect(),
        });
        for cpu in [A, B] {
            let this = Rc::clone(&cpus);
            m.handler(cpu, WAKEUP, format!("wake-up {cpu}"), move || {
                if !this.offline[cpu.0 as usize].get() {
                    this.wakeup_vcpus.handle_wakeup(cpu, |vcpu| vcpu.hardware.wake());
                }
            })
            .may_not_run();
        }
        cpus
    }

    /// A vCPU with a slot, loaded on `cpu`, from which it moves or not.
    pub fn seated(&self, cpu: CpuId, moves: bool) -> Arc<Seated> {
        let (vcpu, hooks) = self.hooks(Vcpu::new(cpu, moves), cpu);
        Arc::new(Seated { vcpu, hooks: Mutex::new(hooks) })
    }

    /// A vCPU with a slot, loaded on `cpu`, and what its scheduler needs.
    pub fn vcpu(&self, cpu: CpuId) -> (Arc<Vcpu>, PiHooks<Sim, Vcpu>) {
        self.hooks(Vcpu::new(cpu, false), cpu)
    }

    fn hooks(&self, vcpu: Arc<Vcpu>, cpu: CpuId) -> (Arc<Vcpu>, PiHooks<Sim, Vcpu>) {
        let mut hooks = self.wakeup_vcpus.register(Arc::clone(&vcpu)).expect("there is room");
        hooks.load(cpu);
        (vcpu, hooks)
    }

    /// `cpu`, which this task is on, goes offline.
    pub fn offline(&self, cpu: CpuId) {
        let _irqs = IrqGuard::<Sim>::new();
        self.wakeup_vcpus.offline(cpu, |vcpu| vcpu.hardware.wake());
        self.offline[cpu.0 as usize].set(true);
    }

    /// Takes what is posted, as it would be taken on entry, until that is `wanted`, and sleeps on
    /// `cpu` meanwhile.
    pub fn halt(&self, vcpu: &Vcpu, hooks: &mut PiHooks<Sim, Vcpu>, cpu: CpuId, wanted: u64) {
        loop {
            let _taken = vcpu.post.synchronize(|pir| vcpu.take(pir));
            if vcpu.hardware.got() & wanted == wanted {
                return;
            }
            if let Ok(blocked) = vcpu.post.block() {
                sleep(blocked, hooks, cpu, cpu);
            }
        }
    }
}

/// Is switched away from on `on`, until it is woken, on `to`.
pub fn sleep(blocked: Blocked<'_, Sim>, hooks: &mut PiHooks<Sim, Vcpu>, on: CpuId, to: CpuId) {
    while blocked.asleep() {
        put(hooks, on, false);
        Sim::park();
        load(hooks, to);
    }
}

/// The hook of a scheduler that switches away from the task.
pub fn put(hooks: &mut PiHooks<Sim, Vcpu>, on: CpuId, preempted: bool) {
    let _irqs = IrqGuard::<Sim>::new();
    if hooks.put(preempted).0 {
        Sim::send_ipi(on, WAKEUP);
    }
}

/// The hook of a scheduler that switches to it.
pub fn load(hooks: &mut PiHooks<Sim, Vcpu>, to: CpuId) {
    let _irqs = IrqGuard::<Sim>::new();
    hooks.load(to);
}

impl Vcpu {
    /// One that has not run yet, and will do so on `cpu`, from which it moves or not.
    pub fn new(cpu: CpuId, moves: bool) -> Arc<Self> {
        let gate = PiGate::new(Destination::x2apic(cpu.0), NOTIFY);
        Arc::new(Vcpu {
            post: PiDescriptor::new(Pending::new(), gate),
            hardware: vcpu::Vcpu::new(cpu, moves),
        })
    }

    /// Takes what is posted.
    pub fn take(&self, pir: &Pending<Sim, 4>) {
        self.hardware.gets(Few::take(pir));
    }

    /// An IOMMU posts.
    pub fn device(&self, vector: u8) {
        if let Some(notification) = vtd::publish(&self.post, vector.into()) {
            self.hardware.interrupt(notification.cpu, notification.vector);
        }
    }
}

/// An IOMMU posts these vectors, in any order.
pub fn devices(m: &Machine, vcpu: &Arc<Vcpu>, vectors: &[u8]) {
    for &vector in vectors {
        let vcpu = Arc::clone(vcpu);
        m.hardware(format!("IOMMU {vector}"), move || vcpu.device(vector));
    }
}

/// In the end, the guest has got what was posted, and nothing is pending.
pub fn all_delivered(m: &Machine, vcpu: &Arc<Vcpu>, wanted: u64) {
    let vcpu = Arc::clone(vcpu);
    m.at_quiescence("the guest has got all that was posted", move || {
        let (got, pending) = (vcpu.hardware.got(), vcpu.post.layout().any());
        if got == wanted && !pending {
            Ok(())
        } else {
            Err(format!("it has got {got:#b} of {wanted:#b}"))
        }
    });
}
