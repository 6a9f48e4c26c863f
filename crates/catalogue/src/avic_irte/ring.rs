//! The three parties of the report on `doorbell-host` and `doorbell-post`: the same interrupt has a
//! thread, is given another affinity, and is bound to a vCPU that leaves its CPU.
//!
//! Who writes the affinity stores the entry under the descriptor's lock, and wakes and calls when
//! that is gone. Who binds takes the lock of the vCPU's copies and no other. The hooks take that
//! one under the run queue's. So the three edges of the report's ring are not there: neither the
//! search nor the validator has anything to ask.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{
    DropUnlocked, Hooks, Placement, SchedTask, Scheduler, SimTask, yield_now,
};
use doorbell_explore::{Machine, Sim};
use doorbell_host::irte::amd::HostMode;
use doorbell_host::{
    AffinityNotifier, AmdBinding, AmdInterrupt, AvicTarget, CpuSet, IrqDesc, Posting, RemapTable,
};
use doorbell_platform::{Atomic, CpuId, Platform, ReadDomain, Vector};
use doorbell_post::{Mirror, Residency, ResidencyCopies};

use super::parties::Leaves;
use crate::count::count;

type Memory = Box<[<Sim as Platform>::AtomicU128]>;

/// The parameters.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    /// Why the vCPU leaves its CPU: [`Leaves::Halts`] is no other than [`Leaves::Sleeps`] here.
    pub(super) vcpu: Leaves,
    /// Whether somebody is told of the affinity, by work on the vCPU's CPU.
    pub(super) notifier: bool,
}

const VCPUS_CPU: CpuId = CpuId(0);
const WRITERS_CPU: CpuId = CpuId(1);
const HOST: HostMode = HostMode { destination: VCPUS_CPU.0, logical: false, vector: 0x31, kind: 0 };

/// The vCPU's own copy: its entry in the physical ID table. Whether it runs.
struct Own(<Sim as Platform>::AtomicBool);

impl Mirror for Own {
    fn reflect(&self, residency: Residency) {
        self.0.store(
            matches!(residency, Residency::Running { .. }),
            std::sync::atomic::Ordering::SeqCst,
        );
    }
}

struct Vcpu {
    copies: ResidencyCopies<Sim, Own, AmdInterrupt<Sim, Memory>>,
    _dropped: DropUnlocked,
}

impl AvicTarget<Sim, Memory> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &ResidencyCopies<Sim, Own, AmdInterrupt<Sim, Memory>> {
        &self.copies
    }
}

struct VcpuHooks {
    vcpu: Arc<Vcpu>,
    task: Rc<Cell<Option<SchedTask>>>,
}

impl Hooks for VcpuHooks {
    fn sched_out(&self, task: SchedTask, _cpu: CpuId, preempted: bool) {
        if self.task.get() == Some(task) {
            self.vcpu.copies.set(Residency::Away { log: !preempted });
        }
    }

    fn sched_in(&self, task: SchedTask, cpu: CpuId) {
        if self.task.get() == Some(task) {
            self.vcpu.copies.set(Residency::Running { apic_id: cpu.0 });
        }
    }
}

/// Work on the vCPU's CPU.
struct Worker {
    task: SimTask,
    _dropped: DropUnlocked,
}

impl AffinityNotifier for Worker {
    fn moved(&self) {
        Sim::wake(&self.task);
    }
}

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let vcpu = Arc::new(Vcpu {
            copies: ResidencyCopies::new(Own(Atomic::new(true))),
            _dropped: DropUnlocked("drops a vCPU"),
        });
        let task = Rc::new(Cell::new(None));
        let hooks = VcpuHooks { vcpu: Arc::clone(&vcpu), task: Rc::clone(&task) };
        let scheduler = Scheduler::new(m, 1, Placement::Previous, false, hooks);
        let runs = scheduler.task(m, VCPUS_CPU, "vCPU", move || match self.vcpu {
            Leaves::Preempted => yield_now(),
            Leaves::Sleeps | Leaves::Halts => Sim::park(),
        });
        task.set(Some(runs));
        if self.vcpu == Leaves::Preempted {
            scheduler.task(m, VCPUS_CPU, "other task", || ());
        } else {
            let scheduler = scheduler.clone();
            m.task_on(CpuId(3), "waker of the vCPU", move || scheduler.wake(runs));
        }

        let online = CpuSet::of([VCPUS_CPU, WRITERS_CPU]);
        let desc = Rc::new(
            IrqDesc::<Sim>::new(
                &Arc::new(ReadDomain::new("irq")),
                CpuSet::of([VCPUS_CPU]),
                &online,
            )
            .expect("it is online"),
        );
        let bound_to = Rc::new(Cell::new(VCPUS_CPU));
        let (works, follows) = (Rc::clone(&desc), Rc::clone(&bound_to));
        let thread = scheduler.service(m, VCPUS_CPU, "irq thread", move || {
            if works.take_work().is_some_and(|work| work.moved) {
                follows.set(works.cpu());
            }
        });
        desc.attach_thread(scheduler.handle(thread)).expect("it has none").act();
        if self.notifier {
            let worker = scheduler.service(m, VCPUS_CPU, "kworker", || ());
            desc.set_notifier(Some(Arc::new(Worker {
                task: scheduler.handle(worker),
                _dropped: DropUnlocked("drops a notifier"),
            })));
        }

        let memory: Memory = Box::new([<Sim as Platform>::AtomicU128::new(0).named("IRTE")]);
        let entry = RemapTable::new(memory)
            .expect("its words are lock-free")
            .allocate()
            .expect("it has one entry");
        let binding = Rc::new(RefCell::new(AmdBinding::new(AmdInterrupt::new(entry, HOST))));
        let interrupt = Arc::clone(binding.borrow().interrupt());
        let (writes, follows) = (Rc::clone(&desc), Arc::clone(&interrupt));
        m.task_on(WRITERS_CPU, "affinity", move || {
            let program = |cpu: CpuId| follows.set_host(HostMode { destination: cpu.0, ..HOST });
            let change = writes
                .set_affinity(CpuSet::of([WRITERS_CPU]), &online, program)
                .expect("it is online");
            change.expect("it has to move").act().by(|_| ());
        });
        let (binds, target) = (Rc::clone(&binding), Arc::clone(&vcpu));
        m.task_on(CpuId(2), "bind", move || {
            let posting = Posting { backing_page: 1, vector: 0x41, tag: 1 };
            binds.borrow_mut().bind(target, posting).expect("it is bound to none").by(|_| ());
        });
        m.at_quiescence(
            "the entry says where the vCPU is, and the thread is where the interrupt goes",
            move || {
                let says = interrupt.load().as_guest().map(|guest| guest.residency);
                // Hardware is no more, so nothing has to be waited for. (A binding that is dropped
                // keeps its vCPU for good.)
                let bound = binding
                    .borrow_mut()
                    .unbind()
                    .map(|invalidate| drop(invalidate.by(|_| ())))
                    .is_ok();
                if says != Some(vcpu.copies.residency()) || !bound {
                    return Err(format!(
                        "the entry says {says:?}, and the vCPU is {:?}",
                        vcpu.copies.residency()
                    ));
                }
                let (goes_to, thread) = (desc.cpu(), bound_to.get());
                if goes_to == thread {
                    Ok(())
                } else {
                    Err(format!("it goes to {goes_to}, and its thread is on {thread}"))
                }
            },
        );
    }
}

/// The interrupt comes, and its thread is woken, while its affinity is written: both go by the
/// descriptor's lock.
pub(super) fn interrupted(m: &Machine) {
    let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
    let online = CpuSet::of([VCPUS_CPU, WRITERS_CPU]);
    let desc =
        IrqDesc::<Sim>::new(&Arc::new(ReadDomain::new("irq")), CpuSet::of([VCPUS_CPU]), &online)
            .expect("it is online");
    let desc = Rc::new(desc);
    let (ran, on) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(VCPUS_CPU)));
    let (works, runs, follows) = (Rc::clone(&desc), Rc::clone(&ran), Rc::clone(&on));
    let thread = scheduler.service(m, VCPUS_CPU, "irq thread", move || {
        while let Some(work) = works.take_work() {
            runs.set(runs.get() + u32::from(work.run));
            if work.moved {
                follows.set(works.cpu());
            }
        }
    });
    desc.attach_thread(scheduler.handle(thread)).expect("it has none").act();
    let wakes = Rc::clone(&desc);
    let handler = m.handler(WRITERS_CPU, Vector(0x31), "device", move || wakes.wake_thread().act());
    m.hardware("device", move || handler.raise());
    let writes = Rc::clone(&desc);
    m.task_on(WRITERS_CPU, "affinity", move || {
        let change =
            writes.set_affinity(CpuSet::of([WRITERS_CPU]), &online, |_| ()).expect("it is online");
        change.expect("it has to move").act();
    });
    m.at_quiescence(
        "the thread has handled the interrupt, and is where the next one goes",
        move || match (ran.get(), on.get()) {
            (1, WRITERS_CPU) => Ok(()),
            (ran, on) => Err(format!("it has handled {ran}, and is on {on}")),
        },
    );
}

/// A thread is attached while the interrupt comes and its affinity is written: who attaches it
/// wakes it when the descriptor's lock is gone, or, as a planted fault, does not.
pub(super) fn attached(m: &Machine, wakes: bool) {
    let scheduler = Scheduler::new(m, 1, Placement::Previous, false, ());
    let online = CpuSet::of([VCPUS_CPU, WRITERS_CPU]);
    let desc =
        IrqDesc::<Sim>::new(&Arc::new(ReadDomain::new("irq")), CpuSet::of([VCPUS_CPU]), &online)
            .expect("it is online");
    let desc = Rc::new(desc);
    // How often the interrupt has come, and of that, how much the thread has handled.
    let (came, handled) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let on = Rc::new(Cell::new(VCPUS_CPU));
    let (works, until, handles, follows) =
        (Rc::clone(&desc), Rc::clone(&came), Rc::clone(&handled), Rc::clone(&on));
    let thread = scheduler.service(m, VCPUS_CPU, "irq thread", move || {
        while let Some(work) = works.take_work() {
            if work.run {
                handles.set(until.get());
            }
            if work.moved {
                follows.set(works.cpu());
            }
        }
    });
    let (attaches, thread) = (Rc::clone(&desc), scheduler.handle(thread));
    m.task("set-up", move || {
        let wake = attaches.attach_thread(thread).expect("it has none");
        if wakes {
            wake.act();
        }
    });
    let (arrives, comes) = (Rc::clone(&desc), Rc::clone(&came));
    let handler = m.handler(WRITERS_CPU, Vector(0x31), "device", move || {
        comes.set(comes.get() + 1);
        arrives.wake_thread().act();
    });
    m.hardware("device", move || (0..2).for_each(|_| handler.raise()));
    let writes = Rc::clone(&desc);
    m.task("affinity", move || {
        let change =
            writes.set_affinity(CpuSet::of([WRITERS_CPU]), &online, |_| ()).expect("it is online");
        change.expect("it has to move").act();
    });
    m.at_quiescence(
        "the thread has handled what came, and is where the next one goes",
        move || match (came.get() - handled.get(), on.get()) {
            (0, WRITERS_CPU) => Ok(()),
            (left, on) => Err(format!(
                "{} came, of which {left} is not handled, and the thread is on {on}",
                count(came.get(), "interrupt")
            )),
        },
    );
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaves = if self.vcpu == Leaves::Preempted { "preempted" } else { "sleeps" };
        write!(
            f,
            "doorbell-host and -post, 1 vCPU, {leaves} once; 1 threaded interrupt, 1 affinity write, 1 binding"
        )?;
        if self.notifier { f.write_str("; a notifier's worker on the vCPU's CPU") } else { Ok(()) }
    }
}
