//! Grace periods: none ends before the readers that were there have left, and each ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::Ghost;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{
    Atomic, AtomicInt, Completion, CpuId, EpochRcu, EpochSrcu, Lock, LockClass, Mutex,
    ParkCompletion, ParkWaitQueue, Platform, ReadDomain, Vector, WaitQueue, WaitType,
};

use crate::host::{Host, Word, ends_with, system_queue, system_queue_and_cpus, word};

static GRACE: LockClass = LockClass::new("grace", WaitType::Sleep);

type Srcu = EpochSrcu<Host>;
type Rcu = EpochRcu<Host>;

trait Domain: 'static {
    fn create() -> Self;
    fn section(&self, f: impl FnOnce());
    fn grace_period(&self);
}

impl<D: ReadDomain> Domain for D {
    fn create() -> Self {
        ReadDomain::new("domain")
    }
    fn section(&self, f: impl FnOnce()) {
        let _section = self.read();
        f();
    }
    fn grace_period(&self) {
        self.synchronize();
    }
}

/// Waits for its grace periods with `synchronize_expedited`.
struct Expedited<D>(D);

impl<D: ReadDomain> Domain for Expedited<D> {
    fn create() -> Self {
        Expedited(ReadDomain::new("domain"))
    }
    fn section(&self, f: impl FnOnce()) {
        self.0.section(f);
    }
    fn grace_period(&self) {
        self.0.synchronize_expedited();
    }
}

/// Objects, of which one is the current one; readers use it, writers replace it and free the
/// former.
struct Objects<D> {
    domain: D,
    current: Word,
    objects: Vec<Ghost>,
}

impl<D: Domain> Objects<D> {
    fn new(count: usize) -> Arc<Self> {
        let objects = (0..count).map(|_| Ghost::new("object")).collect();
        Arc::new(Objects { domain: D::create(), current: Word::new(0), objects })
    }

    fn read(&self) {
        self.domain.section(|| {
            let current = self.current.load(SeqCst);
            self.objects[current as usize].access();
        });
    }

    fn replace(&self, new: u64) {
        let former = self.current.swap(new, SeqCst);
        self.domain.grace_period();
        self.objects[former as usize].free();
    }
}

/// How large a program is.
#[derive(Clone, Copy)]
struct Size {
    /// Among how many CPUs the counters of a domain are divided.
    cpus: u32,
    readers: usize,
    looks: usize,
    writers: u64,
    writes: u64,
}

const SMALL: Size = Size { cpus: 1, readers: 1, looks: 1, writers: 1, writes: 1 };

/// Readers use what writers replace and free.
fn protects<D: Domain>(size: Size) -> Report {
    Explore::new("grace periods").run(move |m: &Machine| replaced_and_read::<D>(m, size))
}

fn replaced_and_read<D: Domain>(m: &Machine, size: Size) {
    let Size { cpus, readers, looks, writers, writes } = size;
    system_queue_and_cpus(m, cpus);
    let objects = Objects::<D>::new((writers * writes) as usize + 1);
    for _ in 0..readers {
        let objects = objects.clone();
        m.task("reads", move || (0..looks).for_each(|_| objects.read()));
    }
    for writer in 0..writers {
        let objects = objects.clone();
        m.task("writes", move || (1..=writes).for_each(|n| objects.replace(writer * writes + n)));
    }
}

#[test]
fn an_srcu_grace_period_waits_for_its_readers_and_ends() {
    protects::<Srcu>(SMALL).assert_exhausted();
    protects::<Srcu>(Size { readers: 2, ..SMALL }).assert_exhausted();
    protects::<Srcu>(Size { readers: 2, cpus: 2, ..SMALL }).assert_exhausted();
    protects::<Srcu>(Size { looks: 2, cpus: 2, ..SMALL }).assert_exhausted();
    protects::<Expedited<Srcu>>(Size { looks: 2, ..SMALL }).assert_exhausted();
}

#[test]
fn a_reader_that_chose_its_counter_before_a_former_grace_period_is_waited_for() {
    protects::<Srcu>(Size { writes: 2, looks: 2, ..SMALL }).assert_exhausted();
    protects::<Srcu>(Size { writes: 3, ..SMALL }).assert_exhausted();
}

#[test]
fn grace_periods_that_are_asked_for_at_once_all_end() {
    protects::<Srcu>(Size { writers: 2, ..SMALL }).assert_exhausted();
}

#[test]
fn an_rcu_grace_period_waits_for_its_readers_and_ends() {
    protects::<Rcu>(SMALL).assert_exhausted();
    protects::<Rcu>(Size { readers: 2, cpus: 2, ..SMALL }).assert_exhausted();
    protects::<Expedited<Rcu>>(Size { looks: 2, ..SMALL }).assert_exhausted();
}

/// A handler reads, and interrupts the task of its CPU: another reader, or else the writer.
fn read_by_a_handler(m: &Machine, interrupts_the_writer: bool) {
    const CPU: CpuId = CpuId(1);
    system_queue(m);
    let objects = Objects::<Rcu>::new(2);
    let (reads, interrupted) = (objects.clone(), objects.clone());
    let handler = m.handler(CPU, Vector(0x41), "handler", move || reads.read());
    m.hardware("device", move || handler.raise());
    if interrupts_the_writer {
        m.task_on(CPU, "writes", move || objects.replace(1));
    } else {
        m.task_on(CPU, "reads", move || interrupted.read());
        m.task_on(CpuId(2), "writes", move || objects.replace(1));
    }
}

#[test]
fn a_handler_that_reads_may_interrupt_another_reader_or_the_driver_of_a_grace_period() {
    for interrupts_the_writer in [false, true] {
        Explore::new("handler")
            .run(move |m: &Machine| read_by_a_handler(m, interrupts_the_writer))
            .assert_exhausted();
    }
}

/// A reader comes while a grace period is under way, and waits for its end.
fn later_reader(m: &Machine) {
    system_queue(m);
    let domain = Arc::new(Srcu::new("domain"));
    let (inside, ended) = (
        Arc::new(ParkCompletion::<Host>::new("inside")),
        Arc::new(ParkCompletion::<Host>::new("ended")),
    );
    let former = (domain.clone(), inside.clone());
    m.task("former reader", move || {
        let _section = former.0.read();
        former.1.complete_all();
    });
    m.task("later reader", move || {
        inside.wait();
        let ends = ended.clone();
        domain.call(Box::new(move || ends.complete_all()));
        // The grace period has begun.
        let _section = domain.read();
        ended.wait();
    });
}

#[test]
fn a_section_that_begins_during_a_grace_period_does_not_hold_it_up() {
    Explore::new("later reader").run(later_reader).assert_exhausted();
}

#[test]
fn callbacks_run_once_each_after_their_readers_and_barriers_wait_for_them() {
    Explore::new("callbacks").run(called_back).assert_exhausted();
}

/// Two callbacks, and who waits for both.
fn called_back(m: &Machine) {
    system_queue(m);
    let objects = Objects::<Srcu>::new(3);
    let reads = objects.clone();
    m.task("reads", move || reads.read());
    let freed = word();
    let count = freed.clone();
    m.task("writes", move || {
        for new in 1..=2 {
            let former = objects.current.swap(new, SeqCst) as usize;
            let (frees, count) = (objects.clone(), count.clone());
            objects.domain.call(Box::new(move || {
                frees.objects[former].free();
                // In the order in which they came.
                assert_eq!(count.fetch_add(1, SeqCst), new - 1);
            }));
        }
        objects.domain.barrier();
        assert!(objects.objects[0].is_freed() && objects.objects[1].is_freed());
    });
    m.at_quiescence("both have run", move || {
        (freed.load(SeqCst) == 2).then_some(()).ok_or("not".to_owned())
    });
}

/// A handler leaves a callback to the domain, and interrupts who does something with it on its CPU.
/// In the end so many have run.
fn called_by_a_handler(
    m: &Machine,
    cpu: CpuId,
    callbacks: u64,
    does: impl FnOnce(&Rcu, Callback) + 'static,
) {
    system_queue(m);
    let (domain, ran) = (Arc::new(Rcu::new("domain")), word());
    let callback = |ran: &Arc<Word>| -> Callback {
        let ran = Arc::clone(ran);
        Box::new(move || {
            ran.fetch_add(1, SeqCst);
        })
    };
    let (calls, of_handler) = (Arc::clone(&domain), Arc::clone(&ran));
    let handler =
        m.handler(cpu, Vector(0x41), "handler", move || calls.call(callback(&of_handler)));
    m.hardware("device", move || handler.raise());
    let waits = Arc::clone(&domain);
    let of_task = Arc::clone(&ran);
    m.task_on(CpuId(1), "interrupted", move || does(&domain, callback(&of_task)));
    m.task_on(CpuId(2), "waits", move || waits.synchronize());
    ends_with(m, &ran, callbacks);
}

type Callback = Box<dyn FnOnce() + Send>;

/// The worker of the system queue runs here.
const WORKER: CpuId = CpuId(0);

/// What shows what each access of a domain is for.
pub(crate) fn programs() -> Vec<Program> {
    let sized = |name: &str, run: fn(&Machine, Size), size: Size| {
        Program::new(name, move |m: &Machine| run(m, size))
    };
    vec![
        sized("a reader meets a grace period", replaced_and_read::<Srcu>, SMALL),
        sized("two readers of one CPU", replaced_and_read::<Srcu>, Size { readers: 2, ..SMALL }),
        sized(
            "a reader on either CPU",
            replaced_and_read::<Srcu>,
            Size { readers: 2, cpus: 2, ..SMALL },
        ),
        sized("an expedited grace period", replaced_and_read::<Expedited<Srcu>>, SMALL),
        sized(
            "a grace period after another",
            replaced_and_read::<Srcu>,
            Size { writes: 2, ..SMALL },
        ),
        sized(
            "two grace periods, two looks",
            replaced_and_read::<Srcu>,
            Size { writes: 2, looks: 2, ..SMALL },
        ),
        sized("two ask for one at once", replaced_and_read::<Srcu>, Size { writers: 2, ..SMALL }),
        Program::new("a handler interrupts a reader", |m: &Machine| read_by_a_handler(m, false)),
        Program::new("a handler interrupts who waits", |m: &Machine| read_by_a_handler(m, true)),
        Program::new("a reader comes during a grace period", later_reader),
        Program::new("callbacks and a barrier", called_back),
        Program::new("a handler calls back, over a call", |m: &Machine| {
            called_by_a_handler(m, CpuId(1), 2, |domain, callback| domain.call(callback));
        }),
        Program::new("a handler calls back, over who waits", |m: &Machine| {
            called_by_a_handler(m, CpuId(1), 1, |domain, _| domain.synchronize());
        }),
        Program::new("a handler calls back, over a barrier", |m: &Machine| {
            called_by_a_handler(m, CpuId(1), 1, |domain, _| domain.barrier());
        }),
        Program::new("a handler calls back, over the last reader", |m: &Machine| {
            called_by_a_handler(m, CpuId(1), 1, |domain, _| drop(domain.read()));
        }),
        Program::new("a handler calls back, over the worker", |m: &Machine| {
            called_by_a_handler(m, WORKER, 2, |domain, callback| domain.call(callback));
        }),
    ]
}

/// As `Epoch`, of one CPU, with grace periods that wait in their callers.
struct Local<const FAULT: u8> {
    readers: [Word; 2],
    index: Word,
    awaited: Word,
    driver: Mutex<Host, ()>,
    left: ParkWaitQueue<Host>,
}

const NO_FAULT: u8 = 0;
/// Waits only for the readers that use the current counter.
const FORGETS_STALE_READERS: u8 = 1;
/// Says which counter it waits for after it has looked at it for the last time.
const SAYS_IT_LATER: u8 = 2;
/// Has its readers look whether they are awaited, and then leave.
const LOOKS_BEFORE_IT_LEAVES: u8 = 3;
/// Looks a few times whether the readers have left, and then does not wait for them.
const LOSES_PATIENCE: u8 = 4;

impl<const FAULT: u8> Local<FAULT> {
    fn drain(&self, index: u64) {
        let counter = &self.readers[index as usize];
        if FAULT != SAYS_IT_LATER {
            self.awaited.store(index + 1, SeqCst);
        }
        if FAULT == LOSES_PATIENCE {
            for _ in 0..Host::SPINS {
                if counter.load(SeqCst) == 0 {
                    break;
                }
                Host::cpu_relax();
            }
            return;
        }
        let mut looks = 0;
        self.left.wait_until(|| {
            let drained = counter.load(SeqCst) == 0;
            looks += 1;
            // The first look is before the task is on the queue.
            if FAULT == SAYS_IT_LATER && looks > 1 {
                self.awaited.store(index + 1, SeqCst);
            }
            drained
        });
        self.awaited.store(0, SeqCst);
    }
}

impl<const FAULT: u8> Domain for Local<FAULT> {
    fn create() -> Self {
        Local {
            readers: [Word::new(0), Word::new(0)],
            index: Word::new(0),
            awaited: Word::new(0),
            driver: Lock::new(&GRACE, ()),
            left: ParkWaitQueue::new("readers"),
        }
    }
    fn section(&self, f: impl FnOnce()) {
        let index = self.index.load(SeqCst);
        let counter = &self.readers[index as usize];
        counter.fetch_add(1, SeqCst);
        f();
        if FAULT == LOOKS_BEFORE_IT_LEAVES {
            let awaited = self.awaited.load(SeqCst) == index + 1;
            if counter.fetch_sub(1, SeqCst) == 1 && awaited {
                self.left.wake_all();
            }
        } else if counter.fetch_sub(1, SeqCst) == 1 && self.awaited.load(SeqCst) == index + 1 {
            self.left.wake_all();
        }
    }
    fn grace_period(&self) {
        let _driver = self.driver.lock();
        let former = self.index.load(SeqCst);
        if FAULT != FORGETS_STALE_READERS {
            self.drain(former ^ 1);
        }
        self.index.store(former ^ 1, SeqCst);
        self.drain(former);
    }
}

#[test]
fn a_grace_period_that_forgets_readers_with_an_old_index_ends_too_early() {
    let size = Size { writes: 2, ..SMALL };
    protects::<Local<FORGETS_STALE_READERS>>(size).assert_found(FailureKind::UseAfterFree);
    protects::<Local<NO_FAULT>>(size).assert_exhausted();
}

#[test]
fn a_grace_period_that_loses_patience_with_its_readers_ends_too_early() {
    protects::<Local<LOSES_PATIENCE>>(SMALL).assert_found(FailureKind::UseAfterFree);
}

#[test]
fn an_expedited_grace_period_is_explored_with_readers_that_leave_soon_and_with_others() {
    let report = protects::<Expedited<Srcu>>(SMALL);
    report.assert_exhausted();
    const { assert!(Host::SPINS >= 2) };
    assert!(
        report.spins.iter().any(|spin| spin.gives_up && spin.site.contains("epoch.rs")),
        "{:?}",
        report.spins
    );
}

#[test]
fn a_grace_period_of_which_the_last_reader_does_not_hear_never_ends() {
    protects::<Local<SAYS_IT_LATER>>(SMALL).assert_found(FailureKind::Deadlock);
    protects::<Local<LOOKS_BEFORE_IT_LEAVES>>(SMALL).assert_found(FailureKind::Deadlock);
}
