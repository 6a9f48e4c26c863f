//! The host's interrupt core, as far as the case goes: a descriptor, its lock, its thread, and who
//! hears of a new affinity.

use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{SchedTask, Scheduler, remark};
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, CpuId, Lock, LockClass, Platform, WaitType};

static IRQ_DESC: LockClass = LockClass::new("irq_desc", WaitType::Spin);
static POOL: LockClass = LockClass::new("worker_pool", WaitType::Spin);

/// When whoever writes an affinity wakes somebody for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WakeUp {
    Never,
    /// With the descriptor's lock held.
    UnderLock,
    /// When it is gone.
    AfterLock,
}

/// The descriptor of an interrupt of the host.
pub(super) struct IrqDesc {
    /// Protects the affinity.
    lock: Lock<Sim, CpuId>,
    thread: Option<Rc<IrqThread>>,
    notifier: Option<Notifier>,
}

impl IrqDesc {
    pub(super) fn new(thread: Option<Rc<IrqThread>>, notifier: Option<Notifier>) -> Self {
        IrqDesc { lock: Lock::new(&IRQ_DESC, CpuId(0)), thread, notifier }
    }

    /// Somebody writes the affinity.
    pub(super) fn set_affinity(&self, cpu: CpuId) {
        let mut affinity = self.lock.lock_irqsave();
        *affinity = cpu;
        if let Some(thread) = &self.thread {
            thread.moves.store(true, SeqCst);
            if thread.woken == WakeUp::Never {
                remark(|| format!("the interrupt goes to {cpu}, and its thread is not woken"));
            }
        }
        self.wake(WakeUp::UnderLock);
        drop(affinity);
        self.wake(WakeUp::AfterLock);
    }

    fn wake(&self, now: WakeUp) {
        if let Some(thread) = self.thread.as_ref().filter(|thread| thread.woken == now) {
            thread.wake();
        }
        if let Some(notifier) = self.notifier.as_ref().filter(|notifier| notifier.queues == now) {
            notifier.schedule_work();
        }
    }

    /// `irq_set_vcpu_affinity`: the interrupt chip binds the interrupt to a vCPU.
    pub(super) fn set_vcpu_affinity(&self, chip: impl FnOnce()) {
        let _desc = self.lock.lock_irqsave();
        chip();
    }

    /// The interrupt comes: its thread is woken when the descriptor's lock is gone.
    pub(super) fn handle(&self) {
        drop(self.lock.lock_irqsave());
        if let Some(thread) = &self.thread {
            thread.wake();
        }
    }

    /// What the thread does each time it runs, before it handles anything.
    pub(super) fn thread_runs(&self) {
        let Some(thread) = &self.thread else { return };
        if thread.moves.swap(false, SeqCst) {
            let cpu = *self.lock.lock_irqsave();
            thread.affinity.store(cpu.0, SeqCst);
        }
    }

    /// Whether the thread's affinity is that of its interrupt, for conditions of quiescence.
    pub(super) fn thread_follows(&self) -> Result<(), String> {
        let wanted = *self.lock.lock_irqsave();
        let Some(thread) = &self.thread else { return Ok(()) };
        match CpuId(thread.affinity.load(SeqCst)) {
            cpu if cpu == wanted => Ok(()),
            cpu => Err(format!(
                "the interrupt goes to {wanted}, and its thread is still bound to {cpu}"
            )),
        }
    }
}

/// The thread of an interrupt: its handler's, if handlers are forced into threads.
pub(super) struct IrqThread {
    scheduler: Scheduler,
    task: SchedTask,
    /// When a new affinity wakes it.
    woken: WakeUp,
    /// Whether its own affinity is to be set: the thread does so itself when it runs next.
    moves: <Sim as Platform>::AtomicBool,
    affinity: <Sim as Platform>::AtomicU32,
}

impl IrqThread {
    pub(super) fn new(scheduler: &Scheduler, task: SchedTask, woken: WakeUp) -> Rc<Self> {
        Rc::new(IrqThread {
            scheduler: scheduler.clone(),
            task,
            woken,
            moves: <Sim as Platform>::AtomicBool::new(false).named("IRQTF_AFFINITY"),
            affinity: <Sim as Platform>::AtomicU32::new(0).named("thread's affinity"),
        })
    }

    fn wake(&self) {
        self.scheduler.wake(self.task);
    }
}

/// Work that tells somebody of a new affinity. What it tells is nobody's business here.
pub(super) struct Notifier {
    /// The lock of the pool; whether the work is on its list.
    pool: Rc<Lock<Sim, bool>>,
    scheduler: Scheduler,
    worker: SchedTask,
    /// When a new affinity queues the work.
    queues: WakeUp,
}

impl Notifier {
    /// The worker that takes it sleeps on `cpu`.
    pub(super) fn new(m: &Machine, scheduler: &Scheduler, cpu: CpuId, queues: WakeUp) -> Self {
        let pool = Rc::new(Lock::new(&POOL, false));
        let list = Rc::clone(&pool);
        let worker = scheduler.service(m, cpu, "kworker", move || *list.lock_irqsave() = false);
        Notifier { pool, scheduler: scheduler.clone(), worker, queues }
    }

    fn schedule_work(&self) {
        let mut listed = self.pool.lock_irqsave();
        if !std::mem::replace(&mut *listed, true) {
            self.scheduler.wake(self.worker);
        }
    }
}
