//! The reported code, in our own words: how a vCPU that sleeps is woken by an interrupt that
//! hardware posts for it.
//!
//! A vCPU that halts goes on the list of the CPU that it leaves, and has its notifications sent
//! there with the wake-up vector. The handler of that vector looks through the list of its CPU for
//! vCPUs that have something posted.

use std::cell::{Cell, OnceCell};
use std::rc::{Rc, Weak};

use doorbell_explore::Sim;
use doorbell_explore::sim::{
    Hooks, SchedTask, Scheduler, local_irq_disable, local_irq_enable, witness,
};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{Descriptor, Notification, WAKEUP};
use doorbell_platform::{CpuId, Lock, LockClass, LockGuard, Platform, Subclass, WaitType};

use super::scope::{Fault, Names, Path, Scope};

/// The lock of a CPU's list of sleeping vCPUs.
static WAKEUP_LOCK: LockClass = LockClass::new("wake-up lock", WaitType::Spin);

pub(super) struct Kvm {
    scope: Scope,
    cpus: Vec<PerCpu>,
    pub vcpus: Vec<Vcpu>,
    pub scheduler: OnceCell<Scheduler>,
}

struct PerCpu {
    /// The vCPUs that sleep, and were on this CPU before.
    sleepers: Lock<Sim, Vec<usize>>,
    /// The last that took the lock. Not a visible step: only the message of a failure depends on
    /// it.
    taken_by: Cell<Option<Path>>,
}

pub(super) struct Vcpu {
    pub descriptor: Descriptor,
    pub task: OnceCell<SchedTask>,
    /// The CPU that it was loaded on last. Only its own hooks look, so it needs no visible step.
    cpu: Cell<CpuId>,
}

impl Kvm {
    pub(super) fn new(scope: Scope) -> Rc<Kvm> {
        let cpu =
            |_| PerCpu { sleepers: Lock::new(&WAKEUP_LOCK, Vec::new()), taken_by: Cell::new(None) };
        let vcpu = |number| Vcpu {
            descriptor: Descriptor::new(
                ["vCPU 0", "vCPU 1"][number],
                NOTIFY,
                scope.first_cpu(number),
            ),
            task: OnceCell::new(),
            cpu: Cell::new(scope.first_cpu(number)),
        };
        let cpus = (0..scope.cpus).map(cpu).collect();
        Rc::new(Kvm {
            scope,
            cpus,
            vcpus: (0..scope.vcpus).map(vcpu).collect(),
            scheduler: OnceCell::new(),
        })
    }

    fn scheduler(&self) -> &Scheduler {
        self.scheduler.get().expect("it is set before anything runs")
    }

    fn task(&self, vcpu: usize) -> SchedTask {
        *self.vcpus[vcpu].task.get().expect("it is set before anything runs")
    }

    #[track_caller]
    fn wake(&self, vcpu: usize) {
        self.scheduler().wake(self.task(vcpu));
    }

    #[track_caller]
    fn lock(&self, cpu: CpuId, path: Path, subclass: u8) -> LockGuard<'_, Sim, Vec<usize>> {
        let cpu = &self.cpus[cpu.0 as usize];
        let guard = cpu.sleepers.lock_nested(Subclass::new(subclass));
        cpu.taken_by.set(Some(path));
        guard
    }

    /// The guest halts: sleeps until something is posted.
    pub(super) fn halt(&self, vcpu: usize) {
        while self.vcpus[vcpu].descriptor.observe(|posted| posted.pir == 0) {
            Sim::park();
        }
    }

    /// Another vCPU sends an interrupt: software posts it, and wakes a vCPU that is not in its
    /// guest.
    pub(super) fn send(&self, vcpu: usize, vector: u8) {
        let posted = self.vcpus[vcpu].descriptor.change(|posted| posted.post(vector));
        if posted.is_some() {
            self.wake(vcpu);
        }
    }

    /// The handler of [`WAKEUP`].
    pub(super) fn wakeup_handler(&self, cpu: CpuId) {
        let cpus = match self.scope.fault {
            Some(Fault::AllLists) => 0..self.scope.cpus,
            _ => cpu.0..cpu.0 + 1,
        };
        for cpu in cpus.map(CpuId) {
            let sleepers = self.lock(cpu, Path::Handler, 0);
            for &vcpu in &*sleepers {
                if self.vcpus[vcpu].descriptor.observe(|posted| posted.on) {
                    self.wake(vcpu);
                }
            }
        }
    }

    /// A vCPU goes to sleep, or is preempted on its way there: under the lock of its run queue,
    /// with interrupts off.
    fn sched_out(&self, me: usize, cpu: CpuId) {
        let irqs_on = self.scope.fault == Some(Fault::SchedOutIrqsOn);
        if irqs_on {
            local_irq_enable();
        }
        self.enable_wakeup(me, cpu);
        if irqs_on {
            local_irq_disable();
        }
    }

    fn enable_wakeup(&self, me: usize, cpu: CpuId) {
        self.lock(cpu, Path::SchedOut, self.scope.names.sched_out).push(me);
        let outstanding = self.vcpus[me].descriptor.change(|posted| {
            posted.nv = WAKEUP;
            posted.on
        });
        if outstanding && self.scope.fault != Some(Fault::ForgetsOutstanding) {
            // It was notified while it ran, with a vector that wakes nobody.
            Notification { vector: WAKEUP, cpu }.send();
        }
    }

    /// A vCPU runs again, perhaps elsewhere: after the lock of the run queue was dropped.
    fn sched_in(&self, me: usize, cpu: CpuId) {
        if self.scope.fault == Some(Fault::IrqsOn) {
            return self.load(me, cpu);
        }
        let irqs = Sim::irq_save();
        self.load(me, cpu);
        Sim::irq_restore(irqs);
    }

    fn load(&self, me: usize, cpu: CpuId) {
        let vcpu = &self.vcpus[me];
        if vcpu.descriptor.observe(|posted| posted.nv) == WAKEUP {
            let before = vcpu.cpu.get();
            if self.scope.fault == Some(Fault::UnderTaskLock) {
                let lock = self.scheduler().pi_lock(self.task(me));
                let _task = lock.lock();
                self.leave_list(me, before);
            } else {
                self.leave_list(me, before);
            }
        }
        vcpu.descriptor.change(|posted| (posted.nv, posted.ndst) = (NOTIFY, cpu));
        vcpu.cpu.set(cpu);
    }

    /// Takes a vCPU off the list of the CPU that it has left.
    fn leave_list(&self, me: usize, left: CpuId) {
        let Names { sched_in: (first, second), .. } = self.scope.names;
        if let Some(path) = self.scope.shows_contention {
            let free = self.cpus[left.0 as usize].sleepers.try_lock().is_some();
            let by = self.cpus[left.0 as usize].taken_by.get();
            if !free && by == Some(path) {
                witness(format!(
                    "sched-in of vCPU {me} meets {path} at the lock of the list of {left}"
                ));
            }
        }
        let mut sleepers = self.lock(left, Path::SchedIn, first);
        if let Some(second) = second {
            Sim::annotate_acquire(&WAKEUP_LOCK, Subclass::new(second));
        }
        sleepers.retain(|vcpu| *vcpu != me);
        if self.scope.fault == Some(Fault::WakesUnderIt) {
            self.wake(self.scope.vcpus - 1);
        }
        if let Some(second) = second {
            Sim::annotate_release(&WAKEUP_LOCK, Subclass::new(second));
        }
    }

    /// What must hold when all vCPUs have run again.
    pub(super) fn check(&self) -> Result<(), String> {
        for (cpu, per_cpu) in self.cpus.iter().enumerate() {
            let left = per_cpu.sleepers.lock().clone();
            if !left.is_empty() {
                return Err(format!("the list of CPU{cpu} still has {left:?}"));
            }
        }
        let asleep = self
            .vcpus
            .iter()
            .position(|vcpu| vcpu.descriptor.observe(|posted| posted.nv != NOTIFY));
        asleep
            .map_or(Ok(()), |vcpu| Err(format!("vCPU {vcpu} runs, and is notified as if it slept")))
    }
}

/// The hooks of a scheduler some of whose tasks are vCPUs. The scheduler is part of what they are
/// about, hence not an `Rc`.
pub(super) struct VcpuHooks(pub Weak<Kvm>);

impl VcpuHooks {
    fn vcpu(&self, task: SchedTask) -> Option<(Rc<Kvm>, usize)> {
        let kvm = self.0.upgrade()?;
        let number = kvm.vcpus.iter().position(|vcpu| vcpu.task.get() == Some(&task))?;
        Some((kvm, number))
    }
}

impl Hooks for VcpuHooks {
    fn sched_out(&self, task: SchedTask, cpu: CpuId, _preempted: bool) {
        if let Some((kvm, vcpu)) = self.vcpu(task) {
            kvm.sched_out(vcpu, cpu);
        }
    }

    fn sched_in(&self, task: SchedTask, cpu: CpuId) {
        if let Some((kvm, vcpu)) = self.vcpu(task) {
            kvm.sched_in(vcpu, cpu);
        }
    }
}
