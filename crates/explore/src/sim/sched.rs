//! A scheduler with locks of its own: several tasks share CPUs, and what switches between them can
//! deadlock like everything else.
//!
//! Waking a task takes its lock (`pi_lock`), then that of a run queue. Switching away runs the
//! sched-out hook under the run queue's lock with interrupts off; the lock is handed to the next
//! task, which drops it, turns interrupts on and then runs the sched-in hook. A task is preempted,
//! where that is allowed, when an interrupt that asks for it returns.
//!
//! Tasks of a scheduler sleep by [`Platform::park`](doorbell_platform::Platform::park) and what is
//! built of it (`doorbell_platform`'s generic mutex, completion and wait queue); a simulated mutex
//! would keep their CPU busy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use doorbell_platform::{Acquire, CpuId, Lock, LockClass, RawLock, WaitType};

use crate::ids::CtxId;
use crate::machine::cell::with;
use crate::machine::leaf::acts;
use crate::machine::record::remark;
use crate::machine::scheduled::Scheduled;
use crate::machine::step::{step, try_step};
use crate::machine::world::Ended;
use crate::machine::{HandlerHandle, Machine, may_not_run};
use crate::op::{NO_OBJ, Op, OpKind};
use crate::sim::cpu::{IrqDepth, RESCHEDULE, irq_restore, irq_save, local_irq_enable};
use crate::sim::lock::SimSpin;
use crate::sim::model::Model;
use crate::sim::platform::Sim;
use crate::sim::wait::{Park, SimTask, parks_by};

/// The class of the lock of a task.
pub static PI_LOCK: LockClass = LockClass::new("pi_lock", WaitType::Spin);
/// The class of the lock of a run queue.
pub static RQ_LOCK: LockClass = LockClass::new("rq lock", WaitType::Spin);

/// Where a woken task goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// To the CPU that it last ran on.
    Previous,
    /// To the CPU of who wakes it: the task migrates.
    Waker,
}

/// What is called when tasks are switched.
pub trait Hooks {
    /// Hears that `task` leaves `cpu`: under the lock of its run queue, interrupts off. The task
    /// may be `preempted`, or sleep.
    fn sched_out(&self, task: SchedTask, cpu: CpuId, preempted: bool) {
        let _ = (task, cpu, preempted);
    }

    /// Hears that `task` is on `cpu` again: no lock is held, interrupts are on.
    fn sched_in(&self, task: SchedTask, cpu: CpuId) {
        let _ = (task, cpu);
    }
}

/// No hooks.
impl Hooks for () {}

/// A task of a scheduler, by its number in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchedTask(usize);

/// A scheduler over some CPUs.
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::sim::{Placement, Scheduler, yield_now};
/// use doorbell_explore::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// use doorbell_explore::{Explore, Machine, trace::FailureKind};
/// use doorbell_platform::CpuId;
///
/// // Two tasks of one CPU lose an update only if one gives up the CPU in the middle of it.
/// let count = |yields: bool| {
///     Explore::new("two tasks of one CPU").run(move |m: &Machine| {
///         let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
///         let word = Arc::new(AtomicU32::new(0));
///         for name in ["one", "two"] {
///             let word = Arc::clone(&word);
///             scheduler.task(m, CpuId(0), name, move || {
///                 let held = word.load(SeqCst);
///                 if yields {
///                     yield_now();
///                 }
///                 word.store(held + 1, SeqCst);
///             });
///         }
///         m.at_quiescence("both have counted", move || match word.load(SeqCst) {
///             2 => Ok(()),
///             other => Err(format!("the word is {other}")),
///         });
///     })
/// };
/// count(false).assert_exhausted();
/// count(true).assert_found(FailureKind::Quiescence);
/// ```
#[derive(Clone)]
pub struct Scheduler(Rc<Inner>);

doorbell_platform::opaque_debug!([] Scheduler);

struct Inner {
    queues: Vec<RunQueue>,
    tasks: RefCell<Vec<Task>>,
    hooks: Box<dyn Hooks>,
    placement: Placement,
    preemptible: bool,
}

struct RunQueue {
    lock: SimSpin,
    /// Protected by `lock`.
    state: RefCell<Queue>,
    /// What the idle task waits for.
    kicks: Model<u32>,
    idle: CtxId,
    reschedule: Option<HandlerHandle>,
}

#[derive(Default)]
struct Queue {
    current: Option<usize>,
    waiting: VecDeque<usize>,
}

struct Task {
    ctx: CtxId,
    pi_lock: Rc<Lock<Sim, ()>>,
    /// Protected by the lock of the run queue that it is on, and by `pi_lock` while it is on none.
    sleeping: bool,
    woken: bool,
    cpu: CpuId,
}

/// A task's way to its scheduler, for `park` and for preemption.
struct Entity {
    scheduler: Scheduler,
    task: usize,
}

impl Scheduler {
    /// Creates a scheduler for the CPUs `0..cpus`. With `preemptible`, a task that is woken
    /// preempts the one that runs on its CPU.
    #[track_caller]
    pub fn new(
        machine: &Machine,
        cpus: u32,
        placement: Placement,
        preemptible: bool,
        hooks: impl Hooks + 'static,
    ) -> Self {
        let inner = Rc::new_cyclic(|inner: &std::rc::Weak<Inner>| {
            let queues = (0..cpus)
                .map(|cpu| {
                    let (weak, cpu) = (inner.clone(), CpuId(cpu));
                    let idle = machine
                        .task_on(cpu, format!("idle {cpu}"), move || {
                            let Some(inner) = weak.upgrade() else { return };
                            let this = Scheduler(inner);
                            let kicks = || &this.0.queues[cpu.0 as usize].kicks;
                            while kicks().serve(|kicks| *kicks > 0, |kicks| *kicks = 0).is_ok() {
                                // The idle task waits elsewhere for something to do.
                                let _ = this.schedule(cpu, None, Switch::Yield);
                            }
                        })
                        .may_not_run()
                        .id();
                    let reschedule = preemptible.then(|| {
                        machine
                            .handler(cpu, RESCHEDULE, format!("reschedule {cpu}"), || ())
                            .may_not_run()
                    });
                    if let Some(handler) = reschedule {
                        with(|w| w.ctx_mut(handler.id()).reschedules = true);
                    }
                    with(|w| w.schedule_cpu(cpu));
                    RunQueue {
                        lock: SimSpin::new(&RQ_LOCK),
                        state: RefCell::new(Queue::default()),
                        kicks: Model::new("run queue", 0),
                        idle,
                        reschedule,
                    }
                })
                .collect();
            Inner {
                queues,
                tasks: RefCell::default(),
                hooks: Box::new(hooks),
                placement,
                preemptible,
            }
        });
        let this = Scheduler(inner);
        for cpu in (0..cpus).map(CpuId) {
            // Locks are numbered as they are first taken: the validator compares those of different
            // runs by number.
            this.lock(cpu);
            this.unlock(cpu);
        }
        this
    }

    /// Creates a task that begins on the run queue of `cpu`.
    #[track_caller]
    pub fn task(
        &self,
        machine: &Machine,
        cpu: CpuId,
        name: impl Into<String>,
        f: impl FnOnce() + 'static,
    ) -> SchedTask {
        let task = self.add(machine, cpu, name.into(), false, move |this, me| {
            this.arrive(me);
            f();
            let cpu = this.cpu_of(me);
            // Nobody switches back to a task that has ended.
            let _ = this.schedule(cpu, Some(me), Switch::End);
        });
        let queue = &self.0.queues[cpu.0 as usize];
        queue.state.borrow_mut().waiting.push_back(task.0);
        queue.kicks.change(|kicks| *kicks += 1);
        task
    }

    /// Creates a task that calls `f` once for each wake-up, and sleeps on `cpu` until then: an
    /// interrupt's thread, a worker. It may sleep when the run is over.
    #[track_caller]
    pub fn service(
        &self,
        machine: &Machine,
        cpu: CpuId,
        name: impl Into<String>,
        f: impl Fn() + 'static,
    ) -> SchedTask {
        self.add(machine, cpu, name.into(), true, move |this, me| {
            let mut woken = this.arrive_with(me, None, true);
            while woken.is_ok() {
                f();
                let cpu = this.cpu_of(me);
                woken = this.schedule(cpu, Some(me), Switch::Idle);
            }
        })
    }

    #[track_caller]
    fn add(
        &self,
        machine: &Machine,
        cpu: CpuId,
        name: String,
        sleeping: bool,
        run: impl FnOnce(&Scheduler, usize) + 'static,
    ) -> SchedTask {
        let number = self.0.tasks.borrow().len();
        let this = self.clone();
        let ctx = machine.scheduled(cpu, name.into(), move || run(&this, number));
        let entity = Rc::new(Entity { scheduler: self.clone(), task: number });
        with(|w| w.ctx_mut(ctx).scheduled = Some(Rc::clone(&entity) as _));
        parks_by(ctx, entity);
        let pi_lock = Rc::new(Lock::new(&PI_LOCK, ()));
        self.0.tasks.borrow_mut().push(Task { ctx, pi_lock, sleeping, woken: false, cpu });
        SchedTask(number)
    }

    fn cpu_of(&self, task: usize) -> CpuId {
        self.0.tasks.borrow()[task].cpu
    }

    /// Says that the task need not run in any execution, as
    /// [`TaskHandle::may_not_run`](crate::TaskHandle::may_not_run) does.
    pub fn may_not_run(&self, task: SchedTask) {
        may_not_run(self.0.tasks.borrow()[task.0].ctx);
    }

    /// Returns a handle with which others wake a task
    /// ([`Platform::wake`](doorbell_platform::Platform::wake)).
    pub fn handle(&self, task: SchedTask) -> SimTask {
        SimTask::of(self.0.tasks.borrow()[task.0].ctx)
    }

    /// Wakes a task, or lets its next sleep return at once. Takes its lock, then that of a run
    /// queue.
    #[track_caller]
    pub fn wake(&self, task: SchedTask) {
        acts(|| {
            format!("wakes {}", with(|w| w.ctx(self.0.tasks.borrow()[task.0].ctx).name.clone()))
        });
        let pi_lock = self.pi_lock(task);
        let _pi = pi_lock.lock_irqsave();
        let before = self.0.tasks.borrow()[task.0].cpu;
        self.lock(before);
        let asleep = {
            let mut tasks = self.0.tasks.borrow_mut();
            let this = &mut tasks[task.0];
            let asleep = std::mem::take(&mut this.sleeping);
            this.woken |= !asleep;
            asleep
        };
        remark(|| {
            let ctx = self.0.tasks.borrow()[task.0].ctx;
            let name = with(|w| w.ctx(ctx).name.clone());
            if asleep { format!("wakes {name}") } else { format!("{name} does not sleep yet") }
        });
        let cpu = match self.0.placement {
            Placement::Waker if asleep => {
                with(|w| w.current_cpu()).filter(|cpu| (cpu.0 as usize) < self.0.queues.len())
            }
            _ => None,
        };
        let cpu = cpu.unwrap_or(before);
        if cpu != before {
            // Off every queue, it is `pi_lock` that protects where it is.
            self.unlock(before);
            let ctx = self.0.tasks.borrow()[task.0].ctx;
            with(|w| w.ctx_mut(ctx).cpu = Some(cpu));
            self.0.tasks.borrow_mut()[task.0].cpu = cpu;
            self.lock(cpu);
        }
        let queue = &self.0.queues[cpu.0 as usize];
        let mut interrupt = None;
        if asleep {
            let idle = {
                let mut state = queue.state.borrow_mut();
                state.waiting.push_back(task.0);
                state.current.is_none()
            };
            if idle {
                queue.kicks.change(|kicks| *kicks += 1);
            } else {
                interrupt = queue.reschedule.filter(|_| self.0.preemptible);
            }
        }
        self.unlock(cpu);
        if let Some(handler) = interrupt {
            handler.raise();
        }
    }

    /// The lock of a task, for what else is serialised by it.
    pub fn pi_lock(&self, task: SchedTask) -> Rc<Lock<Sim, ()>> {
        Rc::clone(&self.0.tasks.borrow()[task.0].pi_lock)
    }

    #[track_caller]
    fn lock(&self, cpu: CpuId) {
        self.0.queues[cpu.0 as usize].lock.lock(Acquire::of(&RQ_LOCK));
    }

    #[track_caller]
    fn unlock(&self, cpu: CpuId) {
        // SAFETY: the caller took the lock, or was handed it by the switch to it.
        unsafe { self.0.queues[cpu.0 as usize].lock.unlock() };
    }

    /// Gives up `cpu`, on which `me` runs (the idle task if none), to whoever is next on its run
    /// queue. `Err` if the run ends while a service sleeps.
    fn schedule(&self, cpu: CpuId, me: Option<usize>, why: Switch) -> Result<(), Ended> {
        let irqs = irq_save();
        self.lock(cpu);
        let queue = &self.0.queues[cpu.0 as usize];
        let stays = me.is_some_and(|me| {
            let mut tasks = self.0.tasks.borrow_mut();
            let task = &mut tasks[me];
            match why {
                Switch::Sleep | Switch::Idle if std::mem::take(&mut task.woken) => true,
                Switch::Sleep | Switch::Idle => {
                    task.sleeping = true;
                    false
                }
                Switch::Yield => queue.state.borrow().waiting.is_empty(),
                Switch::End => false,
            }
        });
        let next = if stays { me } else { queue.state.borrow_mut().waiting.pop_front() };
        if next == me && why != Switch::End {
            self.unlock(cpu);
            irq_restore(irqs);
            return Ok(());
        }
        if let Some(me) = me {
            if why == Switch::Yield {
                queue.state.borrow_mut().waiting.push_back(me);
            }
            if why != Switch::End {
                self.0.hooks.sched_out(SchedTask(me), cpu, why == Switch::Yield);
            }
        }
        queue.state.borrow_mut().current = next;
        let target = next.map_or(queue.idle, |next| self.0.tasks.borrow()[next].ctx);
        let switch = with(|w| w.cpus[cpu.0 as usize].switch).expect("the CPU has a scheduler");
        step(Op { target, ..Op::new(OpKind::Switch, switch) });
        match me {
            _ if why == Switch::End => Ok(()),
            Some(me) => self.arrive_with(me, Some(irqs), why == Switch::Idle),
            None => {
                step(Op::new(OpKind::Observe, NO_OBJ));
                self.unlock(cpu);
                irq_restore(irqs);
                Ok(())
            }
        }
    }

    /// The first that a task does when it is switched to.
    fn arrive(&self, me: usize) {
        // Only services are told when the run is over.
        let _ = self.arrive_with(me, None, false);
    }

    fn arrive_with(&self, me: usize, irqs: Option<IrqDepth>, idle: bool) -> Result<(), Ended> {
        let switched_to = Op { idle, ..Op::new(OpKind::Observe, NO_OBJ) };
        match idle {
            true => try_step(switched_to)?,
            false => step(switched_to),
        }
        let cpu = self.cpu_of(me);
        self.unlock(cpu);
        match irqs {
            Some(irqs) => irq_restore(irqs),
            None => local_irq_enable(),
        }
        self.0.hooks.sched_in(SchedTask(me), cpu);
        Ok(())
    }
}

/// Gives others a chance: the current task, of a scheduler, gives up its CPU if another one waits
/// for it. The task counts as preempted: it goes on as soon as it is its turn.
///
/// # Panics
/// If the task is none of a scheduler.
#[track_caller]
pub fn yield_now() {
    acts(|| "gives up its CPU".to_owned());
    let scheduled = with(|w| {
        let me = w.current;
        w.ctx(me).scheduled.clone()
    });
    scheduled.expect("only tasks of a scheduler share a CPU").preempt();
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Switch {
    Sleep,
    /// A service sleeps.
    Idle,
    Yield,
    End,
}

impl Entity {
    fn give_up_cpu(&self, why: Switch) {
        let cpu = self.scheduler.cpu_of(self.task);
        // Only services are told when the run is over.
        let _ = self.scheduler.schedule(cpu, Some(self.task), why);
    }
}

impl Park for Entity {
    fn park(&self) {
        self.give_up_cpu(Switch::Sleep);
    }

    fn wake(&self) {
        self.scheduler.wake(SchedTask(self.task));
    }
}

impl Scheduled for Entity {
    fn preempt(&self) {
        self.give_up_cpu(Switch::Yield);
    }

    fn sleeps(&self) -> bool {
        self.scheduler.0.tasks.borrow()[self.task].sleeping
    }
}
