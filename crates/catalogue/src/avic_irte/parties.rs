//! The three parties of the report, each with interrupts off: who writes an affinity, the scheduler
//! on the vCPU's CPU, and who binds a device's interrupt to the vCPU.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use doorbell_explore::sim::{Hooks, Placement, SchedTask, Scheduler, yield_now};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::avic::{Gate, Memory};
use doorbell_hardware::iommu_amd::{Entry, Irte};
use doorbell_platform::{CpuId, Platform, Vector};

use super::irq::{IrqDesc, IrqThread, Notifier, WakeUp};
use super::svm::{EntryWrite, PutLooks, Vcpu};

/// The parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    pub vcpu: Leaves,
    pub put_looks: PutLooks,
    /// Whether the descriptor that is bound has the thread and the notifier. If not, they are
    /// another descriptor's.
    pub own: bool,
    /// When a new affinity wakes the thread.
    pub wake_up: WakeUp,
    pub notifier: Option<Notified>,
    pub bind: Bind,
    /// What must hold of the thread in the end.
    pub thread: ThreadMust,
}

/// Why the vCPU leaves its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    /// Another task is to run.
    Preempted,
    /// The vCPU sleeps, but is not halted: for a mutex, or a page.
    Sleeps,
    /// The guest has nothing to do.
    Halts,
}

/// An affinity notifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Notified {
    pub worker: WorkerOn,
    pub queues: WakeUp,
}

/// Where the notifier's work finds a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WorkerOn {
    /// On the CPU of who writes the affinity: what a per-CPU workqueue does.
    WritersCpu,
    /// On the CPU of the vCPU: what an unbound workqueue may do, and a per-CPU one while the work
    /// still runs there.
    VcpusCpu,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bind {
    UnderListLock,
    Leaf,
}

/// What must hold of the thread's affinity when nothing more can happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ThreadMust {
    Nothing,
    Follow,
    /// The same, but the interrupt comes once more.
    FollowByNextInterrupt,
}

/// The report, with the handlers forced into threads.
pub(super) const REPORTED: Scope = Scope {
    vcpu: Leaves::Preempted,
    put_looks: PutLooks::BeforeLock,
    own: true,
    wake_up: WakeUp::UnderLock,
    notifier: None,
    bind: Bind::UnderListLock,
    thread: ThreadMust::Nothing,
};

/// KVM's notifiers of preemption, for the one task that is a vCPU.
struct VcpuHooks {
    vcpu: Rc<Vcpu>,
    task: Rc<Cell<Option<SchedTask>>>,
}

impl Hooks for VcpuHooks {
    fn sched_out(&self, task: SchedTask, _cpu: CpuId, _preempted: bool) {
        if self.task.get() == Some(task) {
            self.vcpu.put();
        }
    }

    fn sched_in(&self, task: SchedTask, cpu: CpuId) {
        if self.task.get() == Some(task) && !self.vcpu.is_halted() {
            self.vcpu.load(cpu.0);
        }
    }
}

const VCPUS_CPU: CpuId = CpuId(0);
const WRITERS_CPU: CpuId = CpuId(1);

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let memory = Memory::new(1);
        let vcpu = Vcpu::new(&memory, 0, Gate::Stopped { log: false }, vec![], EntryWrite::Locked);
        let vcpu = Rc::new(vcpu.put_looks(self.put_looks));
        let vcpu_task = Rc::new(Cell::new(None));
        let hooks = VcpuHooks { vcpu: Rc::clone(&vcpu), task: Rc::clone(&vcpu_task) };
        let on_writers_cpu = |notified: Notified| notified.worker == WorkerOn::WritersCpu;
        let writer_is_scheduled = self.notifier.is_some_and(on_writers_cpu);
        let cpus = if writer_is_scheduled { 2 } else { 1 };
        let scheduler = Scheduler::new(m, cpus, Placement::Previous, false, hooks);

        let task = {
            let vcpu = Rc::clone(&vcpu);
            scheduler.task(m, VCPUS_CPU, "vCPU", move || self.vcpu_runs(&vcpu))
        };
        vcpu_task.set(Some(task));
        if self.vcpu == Leaves::Preempted {
            scheduler.task(m, VCPUS_CPU, "other task", || ());
        }
        let threaded = self.threaded(m, &scheduler);
        let bound = if self.own { Rc::clone(&threaded) } else { Rc::new(IrqDesc::new(None, None)) };
        {
            let desc = Rc::clone(&threaded);
            let next = (self.thread == ThreadMust::FollowByNextInterrupt).then(|| {
                let desc = Rc::clone(&desc);
                m.handler(WRITERS_CPU, Vector(0x51), "next interrupt", move || desc.handle())
            });
            let write = move || {
                desc.set_affinity(WRITERS_CPU);
                if let Some(next) = next {
                    next.raise();
                }
            };
            if writer_is_scheduled {
                scheduler.task(m, WRITERS_CPU, "affinity", write);
            } else {
                m.task_on(WRITERS_CPU, "affinity", write);
            }
        }
        let entry = Entry::new(&memory, Irte::HOST);
        m.task("bind", move || match self.bind {
            Bind::UnderListLock => vcpu.bind_under_lock(&bound, &entry),
            Bind::Leaf => vcpu.bind_leaf(&bound, &entry),
        });
        if self.vcpu != Leaves::Preempted {
            m.task("waker of the vCPU", move || scheduler.wake(task));
        }
        if self.thread != ThreadMust::Nothing {
            m.at_quiescence("the thread's affinity is the interrupt's", move || {
                threaded.thread_follows()
            });
        }
    }

    /// The descriptor that has a thread.
    fn threaded(self, m: &Machine, scheduler: &Scheduler) -> Rc<IrqDesc> {
        Rc::new_cyclic(|desc: &std::rc::Weak<IrqDesc>| {
            let desc = desc.clone();
            let task = scheduler.service(m, VCPUS_CPU, "irq thread", move || {
                if let Some(desc) = desc.upgrade() {
                    desc.thread_runs();
                }
            });
            if self.wake_up == WakeUp::Never {
                scheduler.may_not_run(task);
            }
            let notifier = self.notifier.map(|Notified { worker, queues }| {
                let cpu = if worker == WorkerOn::WritersCpu { WRITERS_CPU } else { VCPUS_CPU };
                Notifier::new(m, scheduler, cpu, queues)
            });
            IrqDesc::new(Some(IrqThread::new(scheduler, task, self.wake_up)), notifier)
        })
    }

    fn vcpu_runs(self, vcpu: &Vcpu) {
        match self.vcpu {
            Leaves::Preempted => yield_now(),
            Leaves::Sleeps => Sim::park(),
            Leaves::Halts => {
                vcpu.halt();
                Sim::park();
                vcpu.unhalt(VCPUS_CPU.0);
            }
        }
    }
}

impl fmt::Display for WorkerOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == WorkerOn::WritersCpu { "writer" } else { "vCPU" })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.vcpu {
            Leaves::Preempted => "1 vCPU, preempted once",
            Leaves::Sleeps => "1 vCPU, sleeps once",
            Leaves::Halts => "1 vCPU, halts once",
        })?;
        if self.put_looks == PutLooks::UnderLock {
            f.write_str(" and takes the list's lock to see that it has")?;
        }
        f.write_str(if self.own {
            "; 1 threaded interrupt"
        } else {
            "; 2 interrupts, one of them threaded"
        })?;
        f.write_str(", 1 affinity write, 1 binding")?;
        f.write_str(match self.wake_up {
            WakeUp::Never => "; nothing wakes the thread",
            WakeUp::UnderLock => "",
            WakeUp::AfterLock => "; the thread is woken when the descriptor's lock is gone",
        })?;
        if let Some(Notified { worker, queues }) = self.notifier {
            let late =
                if queues == WakeUp::AfterLock { ", queued when that lock is gone" } else { "" };
            write!(f, "; a notifier's work{late}, for a worker on the {worker}'s CPU")?;
        }
        f.write_str(match self.thread {
            ThreadMust::Nothing => "",
            ThreadMust::Follow => "; the thread must follow the affinity",
            ThreadMust::FollowByNextInterrupt => {
                "; the interrupt comes once more, and the thread must follow"
            }
        })
    }
}

impl crate::case::Scope for Scope {
    fn text(self) -> String {
        self.to_string()
    }

    fn program(self, m: &Machine) {
        Scope::program(self, m);
    }
}
