//! The choice of the task that runs next, and the switch to it.
//!
//! A task stays on its CPU until it parks, ends, or its time slice is over while others wait there.
//! It is enqueued again by the CPU that has left its stack, never before: so it is on one CPU at a
//! time.

use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_platform::{CpuId, Platform};

use crate::bare::Bare;
use crate::cpu::Cpu;
use crate::irq::{self, Sgi};
use crate::task::Task;
use crate::{task, time};

unsafe extern "C" {
    /// Saves what a function must keep on the stack of `from`, and goes on where `to` has done so.
    /// Returns, to `to`, from whom.
    fn task_switch(from: &'static Task, to: &'static Task) -> &'static Task;
}

global_asm!(
    ".pushsection .text.switch, \"ax\"",
    ".global task_switch",
    "task_switch:",
    "   stp x19, x20, [sp, #-96]!",
    "   stp x21, x22, [sp, #16]",
    "   stp x23, x24, [sp, #32]",
    "   stp x25, x26, [sp, #48]",
    "   stp x27, x28, [sp, #64]",
    "   stp x29, x30, [sp, #80]",
    "   mov x9, sp",
    "   str x9, [x0]",
    "   msr tpidr_el2, x1",
    "   ldr x9, [x1]",
    "   mov sp, x9",
    "   ldp x21, x22, [sp, #16]",
    "   ldp x23, x24, [sp, #32]",
    "   ldp x25, x26, [sp, #48]",
    "   ldp x27, x28, [sp, #64]",
    "   ldp x29, x30, [sp, #80]",
    "   ldp x19, x20, [sp], #96",
    "   ret",
    // Where a task begins: X0 is whom it comes after, X19 is from `first_frame`.
    ".global task_begin",
    "task_begin:",
    "   bl {switched}",
    "   msr daifclr, #2",
    "   mov x0, x19",
    "   bl {run}",
    ".popsection",
    switched = sym switched,
    run = sym task::run,
);

/// Prepares an empty stack, so that the switch to it calls [`task::run`] with `main`. Returns the
/// stack pointer.
///
/// # Safety
/// `top` is the end of a stack that nobody uses.
pub(crate) unsafe fn first_frame(top: usize, main: usize) -> usize {
    unsafe extern "C" {
        fn task_begin();
    }
    let mut frame = [0; 12];
    frame[0] = main; // X19
    frame[11] = (task_begin as *const ()).expose_provenance(); // X30
    let sp = top - size_of_val(&frame);
    // SAFETY: the stack is larger than that, aligned to 16, and nobody's, by the caller's promise.
    unsafe { core::ptr::with_exposed_provenance_mut::<[usize; 12]>(sp).write(frame) };
    sp
}

/// Lets a task wait for its CPU, and tells that CPU. By whoever has made it runnable, in any
/// context; does not sleep.
pub(crate) fn enqueue(task: &'static Task) {
    let irqs = Bare::irq_save();
    let there = task.cpu();
    Cpu::of(there).queue.insert(task.number());
    if there == Bare::current_cpu() && Bare::in_hardirq() {
        resched_here();
    } else {
        irq::send(there, Sgi::Resched);
    }
    Bare::irq_restore(irqs);
}

/// Takes note that somebody waits for this CPU. With interrupts off.
pub(crate) fn resched_here() {
    if Task::current().is_idle() {
        Cpu::this().resched.store(true, Relaxed);
    } else {
        time::begin_slice();
    }
}

/// Takes note that the time slice of this CPU is over. With interrupts off.
pub(crate) fn slice_is_over() {
    Cpu::this().resched.store(true, Relaxed);
}

/// Lets another task run, if that was asked for and preemption is not off. By a task, with
/// interrupts on or off, but not in hard-interrupt context.
#[inline]
pub(crate) fn preempt_point() {
    if Task::current().preemption_off.load(Relaxed) == 0 && Cpu::this().resched.load(Relaxed) {
        schedule();
    }
}

/// Does what was asked for while preemption was off, unless it is too early: then the end of the
/// interrupt does, or the next one.
#[cold]
pub(crate) fn preempted() {
    if Bare::irqs_enabled() && !Bare::in_hardirq() {
        preempt_point();
    }
}

/// Lets the next task of this CPU run. Returns when this one has its turn again. By a task.
pub fn schedule() {
    let irqs = Bare::irq_save();
    let (task, cpu) = (Task::current(), Cpu::this());
    cpu.resched.store(false, Relaxed);
    let next = match cpu.queue.take_next(task.number()) {
        Some(number) => Task::of(number),
        None if task.may_go_on() => task,
        None => cpu.idle(),
    };
    time::no_slice();
    if !cpu.queue.is_empty() {
        time::begin_slice();
    }
    if !core::ptr::eq(next, task) {
        // SAFETY: interrupts are off; `task` runs here, and `next` runs nowhere: it was taken out
        // of the queue, where only who has left its stack puts it, or it is this CPU's idle task,
        // which runs nowhere else.
        let from = unsafe { task_switch(task, next) };
        switched(from);
    }
    Bare::irq_restore(irqs);
}

/// Ends a switch, on the stack of the next task. With interrupts off.
extern "C" fn switched(from: &'static Task) {
    if !from.switched_away() {
        return;
    }
    if from.cpu() == Bare::current_cpu() {
        Cpu::this().queue.insert(from.number());
        resched_here();
    } else {
        enqueue(from);
    }
}

/// Sleeps until somebody wakes this task. By a task, with preemption on.
pub(crate) fn park() {
    if Task::current().begin_to_park() {
        schedule();
    }
}

/// Moves the current task to another CPU. By a task, with preemption on; may sleep.
pub fn move_to(cpu: CpuId) {
    Task::current().set_next_cpu(cpu);
    schedule();
}

/// Returns a CPU that has fewer tasks, at this moment, than wait for this one: the current task
/// would be better off there, and those who wait here, too. By a task, with preemption off.
pub(crate) fn better_cpu() -> Option<CpuId> {
    let waiting = Cpu::this().queue.len();
    let tasks =
        |cpu: &CpuId| Cpu::of(*cpu).queue.len() + u64::from(!Cpu::of(*cpu).idles.load(Relaxed));
    (0..Cpu::count()).map(CpuId).min_by_key(tasks).filter(|cpu| tasks(cpu) < waiting)
}

/// Waits for tasks, on a CPU that has nothing else to do.
pub(crate) fn idle() -> ! {
    let cpu = Cpu::this();
    loop {
        Bare::irq_save();
        if cpu.queue.is_empty() {
            cpu.idles.store(true, Relaxed);
            // SAFETY: a hint. It ends when an interrupt is pending, masked or not.
            unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack)) };
        }
        cpu.idles.store(false, Relaxed);
        Bare::irq_restore(Bare::IRQS_ON);
        if !cpu.queue.is_empty() {
            schedule();
        }
    }
}
