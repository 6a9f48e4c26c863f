//! Tasks: each with a stack of its own.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

use doorbell_platform::CpuId;

use crate::cpu::{CPUS, Cpu, NONE};
use crate::run_queue::RunQueue;
use crate::scheduler;
use crate::sysreg::read_sysreg;

/// How large the stack of a task is.
const STACK: usize = 32 << 10;

/// The time has come that the task wanted to be woken at.
pub(crate) const DEADLINE: u32 = 1 << 0;
/// The virtual timer of its vCPU has fired.
pub(crate) const TIMER: u32 = 1 << 1;

/// Runs, or waits for its CPU.
const RUNNABLE: u32 = 0;
/// The same, and was woken since it has parked last: the next park returns at once.
const WOKEN: u32 = 1;
/// Is about to park, and still on its CPU.
const PARKING: u32 = 2;
/// Sleeps; off its CPU.
const PARKED: u32 = 3;
/// Has ended, and is still on its CPU.
const ENDED: u32 = 4;

/// A task. There is a fixed number of them, so that a handle is a plain reference. One that has
/// ended is used again; who wakes it by an old handle wakes somebody for no reason, which is
/// allowed.
#[repr(C)]
pub struct Task {
    /// The stack pointer while it is not running. At offset 0, for the switch.
    pub(crate) sp: AtomicUsize,
    state: AtomicU32,
    /// The CPU where it runs, or waits to.
    cpu: AtomicU32,
    /// The CPU where it is to run when it has left that one.
    next_cpu: AtomicU32,
    /// How often preemption was turned off. Written by the task, and by what interrupts it, which
    /// puts it back.
    pub(crate) preemption_off: AtomicU64,
    /// Whether an interrupt handler runs on its stack.
    pub(crate) in_hardirq: AtomicBool,
    /// What it is to look at: [`DEADLINE`] and [`TIMER`].
    due: AtomicU32,
    number: usize,
}

#[repr(C, align(16))]
pub(crate) struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: nobody refers to what is in a stack but the one who runs on it.
unsafe impl Sync for Stack {}

/// The tasks, and after them the idle task of each CPU.
static TASKS: [Task; RunQueue::TASKS + CPUS] = {
    let mut tasks = [const { Task::new(0) }; RunQueue::TASKS + CPUS];
    let mut number = 1;
    while number < tasks.len() {
        tasks[number] = Task::new(number);
        number += 1;
    }
    tasks
};
pub(crate) static STACKS: [Stack; RunQueue::TASKS + CPUS] =
    [const { Stack(UnsafeCell::new([0; STACK])) }; RunQueue::TASKS + CPUS];

/// Where the stack of the idle task of the first CPU ends, in `STACKS`.
pub(crate) const FIRST_IDLE_STACK_TOP: usize = (RunQueue::TASKS + 1) * STACK;

/// The tasks that are in use: a bit for each.
static USED: AtomicU64 = AtomicU64::new(0);

impl Task {
    const fn new(number: usize) -> Self {
        Task {
            sp: AtomicUsize::new(0),
            state: AtomicU32::new(RUNNABLE),
            cpu: AtomicU32::new(0),
            next_cpu: AtomicU32::new(0),
            preemption_off: AtomicU64::new(0),
            in_hardirq: AtomicBool::new(false),
            due: AtomicU32::new(0),
            number,
        }
    }

    /// Returns the task that runs this.
    #[inline(always)]
    pub fn current() -> &'static Task {
        let task = read_sysreg!("tpidr_el2") as usize;
        // SAFETY: each CPU puts one of `TASKS` there before it runs anything in Rust that may ask,
        // and each switch puts another one.
        unsafe { &*core::ptr::with_exposed_provenance(task) }
    }

    /// Returns the idle task of a CPU, which that CPU boots on.
    pub(crate) fn idle(cpu: CpuId) -> &'static Task {
        let task = &TASKS[RunQueue::TASKS + cpu.0 as usize % CPUS];
        task.set_next_cpu(cpu);
        task.cpu.store(cpu.0, Relaxed);
        task.sp.store(task.stack_top(), Relaxed);
        task
    }

    /// Returns the task of that number.
    pub(crate) fn of(number: usize) -> &'static Task {
        TASKS.get(number).unwrap_or(&TASKS[0])
    }

    /// Returns the task whose vCPU's registers this CPU has. With interrupts off.
    pub(crate) fn loaded_here() -> Option<&'static Task> {
        let number = Cpu::this().loaded.load(Relaxed);
        (number != NONE).then(|| Task::of(number))
    }

    /// Starts a task on a CPU. By any task; does not sleep. `None` if there are too many.
    pub fn spawn(cpu: CpuId, main: impl FnOnce() + Send + 'static) -> Option<&'static Task> {
        let task = loop {
            let used = USED.load(SeqCst);
            let free = (!used).trailing_zeros();
            if free as usize == RunQueue::TASKS {
                return None;
            }
            if USED.compare_exchange(used, used | 1 << free, SeqCst, SeqCst).is_ok() {
                break Task::of(free as usize);
            }
        };
        let main: Box<dyn FnOnce() + Send> = Box::new(main);
        let main = Box::into_raw(Box::new(main)).expose_provenance();
        task.state.store(RUNNABLE, Relaxed);
        task.set_next_cpu(cpu);
        task.cpu.store(cpu.0, Relaxed);
        // SAFETY: the task was not in use, so nobody runs on its stack.
        task.sp.store(unsafe { scheduler::first_frame(task.stack_top(), main) }, Relaxed);
        scheduler::enqueue(task);
        Some(task)
    }

    /// Returns its number, which is above those of the others for an idle task.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Returns the CPU where it runs, or waits to. By anybody.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        CpuId(self.cpu.load(Relaxed))
    }

    /// Sets the CPU where it is to run when it has left the one where it is. By itself.
    pub(crate) fn set_next_cpu(&self, cpu: CpuId) {
        self.next_cpu.store(cpu.0, Relaxed);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.number >= RunQueue::TASKS
    }

    /// Returns whether it goes on if nobody else wants its CPU. By itself.
    pub(crate) fn may_go_on(&self) -> bool {
        let stays = self.next_cpu.load(Relaxed) == self.cpu.load(Relaxed);
        stays && matches!(self.state.load(SeqCst), RUNNABLE | WOKEN)
    }

    /// Says that it is about to sleep. Returns whether it is: it was not woken since it has parked
    /// last. By itself.
    pub(crate) fn begin_to_park(&self) -> bool {
        let parking = self.state.compare_exchange(RUNNABLE, PARKING, SeqCst, SeqCst).is_ok();
        if !parking {
            // Nobody else changes it from `WOKEN`. An exchange, and not a store: what the caller
            // looks at next must not be read before, and QEMU reads it (see `atomic`). A waker that
            // still sees `WOKEN` does nothing.
            self.state.swap(RUNNABLE, SeqCst);
        }
        parking
    }

    /// Wakes it. By anybody, in any context; does not sleep.
    pub fn wake(&'static self) {
        // What the caller has published comes before the look at the state.
        fence(SeqCst);
        loop {
            let state = self.state.load(SeqCst);
            let to = match state {
                RUNNABLE => WOKEN,
                PARKING | PARKED => RUNNABLE,
                _ => return,
            };
            if self.state.compare_exchange(state, to, SeqCst, SeqCst).is_ok() {
                // One that is still parking is enqueued by the CPU that it leaves: here it would be
                // on two CPUs at once.
                if state == PARKED {
                    scheduler::enqueue(self);
                }
                return;
            }
        }
    }

    /// Returns what it does, in a word. By anybody.
    pub(crate) fn does(&self) -> &'static str {
        match self.state.load(SeqCst) {
            RUNNABLE | WOKEN => "runs or waits for a CPU",
            PARKING => "is about to sleep",
            PARKED => "sleeps",
            _ => "has ended",
        }
    }

    /// Says what it is to look at, and wakes it. On its CPU, with interrupts off.
    pub(crate) fn is_due(&'static self, what: u32) {
        self.due.store(self.due.load(Relaxed) | what, Relaxed);
        self.wake();
    }

    /// Returns whether there is something to look at. By itself.
    #[inline]
    pub(crate) fn due(&self) -> bool {
        self.due.load(Relaxed) != 0
    }

    /// Returns what there is to look at, once. By itself.
    pub(crate) fn takes_due(&self) -> u32 {
        // Not a load and a store: an interrupt may come between.
        self.due.swap(0, Relaxed)
    }

    /// Says that it has ended. By itself, which is switched away from next.
    pub(crate) fn end(&self) {
        self.state.store(ENDED, SeqCst);
    }

    /// Says that nobody runs on its stack any more. By the CPU that has switched away from it.
    /// Returns whether it is to be enqueued.
    pub(crate) fn switched_away(&self) -> bool {
        if self.is_idle() {
            return false;
        }
        // Before anybody may find it parked, and enqueue it.
        self.cpu.store(self.next_cpu.load(Relaxed), Relaxed);
        match self.state.compare_exchange(PARKING, PARKED, SeqCst, SeqCst) {
            Ok(_) => false,
            Err(ENDED) => {
                USED.fetch_and(!(1 << self.number), SeqCst);
                false
            }
            Err(_) => true,
        }
    }

    fn stack_top(&self) -> usize {
        STACKS[self.number].0.get().expose_provenance() + STACK
    }
}

/// Runs the main function of a task, and ends it.
///
/// # Safety
/// `main` is from [`Task::spawn`], and was not used.
pub(crate) unsafe extern "C" fn run(main: usize) -> ! {
    // SAFETY: it is from `Box::into_raw`, by the caller's promise.
    let main = unsafe {
        Box::from_raw(core::ptr::with_exposed_provenance_mut::<Box<dyn FnOnce() + Send>>(main))
    };
    main();
    Task::current().end();
    loop {
        scheduler::schedule();
    }
}
