//! The CPUs, and how they are started.

use core::arch::global_asm;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

use doorbell_platform::{CpuId, Platform};
use smccc::{Smc, psci};

use crate::bare::Bare;
use crate::run_queue::RunQueue;
use crate::sysreg::{isb, write_sysreg};
use crate::task::Task;
use crate::time::Clock;
use crate::trace::Trace;
use crate::{irq, scheduler, time};

/// How many CPUs there may be.
pub const CPUS: usize = 8;

/// The number of no task.
pub(crate) const NONE: usize = usize::MAX;

/// What each CPU has.
pub(crate) struct Cpu {
    /// The tasks that wait for it.
    pub(crate) queue: RunQueue,
    /// Whether the current task is to make way. Written on this CPU.
    pub(crate) resched: AtomicBool,
    /// Whether it has nothing to do.
    pub(crate) idles: AtomicBool,
    /// What its timer is set for.
    pub(crate) clock: Clock,
    /// The number of the task whose vCPU's registers it has. Written on this CPU, with interrupts
    /// off.
    pub(crate) loaded: AtomicUsize,
    /// The last exits of the guests that it has run.
    pub(crate) trace: Trace,
    mpidr: AtomicU64,
    number: u32,
}

static ALL: [Cpu; CPUS] = {
    let mut all = [const { Cpu::new(0) }; CPUS];
    let mut number = 1;
    while number < CPUS {
        all[number] = Cpu::new(number as u32);
        number += 1;
    }
    all
};

/// How many CPUs there are.
static COUNT: AtomicU32 = AtomicU32::new(1);
/// How many of them run.
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Cpu {
    const fn new(number: u32) -> Self {
        Cpu {
            queue: RunQueue::new(),
            resched: AtomicBool::new(false),
            idles: AtomicBool::new(false),
            clock: Clock::new(),
            loaded: AtomicUsize::new(NONE),
            trace: Trace::new(),
            mpidr: AtomicU64::new(0),
            number,
        }
    }

    /// Returns how many there are. By anybody.
    #[inline]
    pub(crate) fn count() -> u32 {
        COUNT.load(Relaxed)
    }

    /// Returns that of a number.
    #[inline]
    pub(crate) fn of(cpu: CpuId) -> &'static Cpu {
        &ALL[cpu.0 as usize % CPUS]
    }

    /// Returns the one that this runs on. With interrupts or preemption off, or by its idle task.
    #[inline]
    pub(crate) fn this() -> &'static Cpu {
        Cpu::of(Bare::current_cpu())
    }

    /// Returns whether the current task is to make way. On this CPU.
    #[inline]
    pub(crate) fn resched(&self) -> bool {
        self.resched.load(Relaxed)
    }

    /// Returns all that there are.
    pub(crate) fn all() -> impl Iterator<Item = &'static Cpu> {
        ALL.iter().take(Cpu::count() as usize)
    }

    pub(crate) fn id(&self) -> CpuId {
        CpuId(self.number)
    }

    pub(crate) fn idle(&self) -> &'static Task {
        Task::of(RunQueue::TASKS + self.number as usize)
    }

    /// Returns its MPIDR_EL1, without the bits that are no affinity.
    pub(crate) fn mpidr(&self) -> u64 {
        self.mpidr.load(Relaxed)
    }
}

global_asm!(
    ".pushsection .text.secondary, \"ax\"",
    // X0 is the idle task of the CPU.
    ".global cpu_secondary",
    "cpu_secondary:",
    "   bl mmu_on",
    "   msr tpidr_el2, x0",
    "   ldr x1, [x0]",
    "   mov sp, x1",
    "   bl {start}",
    ".popsection",
    start = sym secondary_start,
);

unsafe extern "C" {
    fn cpu_secondary();
}

/// Takes note of the CPUs that there are. On the first CPU, before the others run.
///
/// # Panics
/// If there are too many.
pub(crate) fn init(mpidrs: impl Iterator<Item = u64>) {
    let mut count = 0;
    for mpidr in mpidrs {
        assert!(count < CPUS, "there may be at most {CPUS} CPUs");
        ALL[count].mpidr.store(mpidr, Relaxed);
        count += 1;
    }
    COUNT.store(count as u32, Relaxed);
}

/// Makes the idle task of the first CPU the current one: before this, there is no current CPU.
pub(crate) fn begin() {
    let task: *const Task = Task::idle(CpuId(0));
    // SAFETY: the current task of a CPU belongs there.
    unsafe { write_sysreg!("tpidr_el2", task.expose_provenance() as u64) };
}

/// Starts the CPUs, and waits until all run. On the first one.
///
/// # Panics
/// If the firmware does not start them.
pub(crate) fn start() {
    init_this(CpuId(0));
    for number in 1..Cpu::count() {
        let cpu = Cpu::of(CpuId(number));
        let idle: *const Task = Task::idle(cpu.id());
        let entry = (cpu_secondary as *const ()).expose_provenance();
        let started =
            psci::cpu_on::<Smc>(cpu.mpidr(), entry as u64, idle.expose_provenance() as u64);
        assert!(started.is_ok(), "CPU {number} does not start: {started:?}");
    }
    while STARTED.load(SeqCst) != Cpu::count() {
        Bare::cpu_relax();
    }
}

extern "C" fn secondary_start() -> ! {
    init_this(Bare::current_cpu());
    scheduler::idle()
}

/// Sets up what each CPU has of its own.
fn init_this(cpu: CpuId) {
    // Interrupts come to EL2, whether a guest runs or not; EL1 is AArch64.
    const HCR: u64 = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 3;
    // SAFETY: nothing that Rust knows of changes.
    unsafe { write_sysreg!("hcr_el2", HCR) };
    isb();
    irq::init_this(cpu);
    time::init_this();
    STARTED.fetch_add(1, SeqCst);
}
