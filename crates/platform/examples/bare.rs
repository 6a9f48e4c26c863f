//! A whole host without `std`, for one CPU and no tasks: what a hypervisor on bare metal writes at
//! least. Whoever waits goes on with deferred work meanwhile, as an idle loop does.
//!
//! ```sh
//! cargo run -p doorbell-platform --example bare    # as a program
//! tools/bare                                       # linked for bare metal
//! ```
//!
//! On bare metal, boot code sets up a stack and jumps to `_start`. This is no kernel; `hv` in the
//! repository is one, with tasks and many CPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use core::sync::atomic::{self, Ordering};

use doorbell_platform::{
    AtomicU128, CpuId, EpochRcu, EpochSrcu, OnceCell, ParkCompletion, ParkMutex, ParkWaitQueue,
    Platform, PoolQueue, ReadDomain, SystemQueue, TicketLock, Vector, Work, WorkQueue, Worker,
};

enum Bare {}

// SAFETY: the atomics and the fence are those of the machine.
unsafe impl Platform for Bare {
    type AtomicBool = atomic::AtomicBool;
    type AtomicU32 = atomic::AtomicU32;
    type AtomicU64 = atomic::AtomicU64;
    type AtomicU128 = AtomicU128;
    type AtomicPtr<T: 'static> = atomic::AtomicPtr<T>;
    type RawSpin = TicketLock<Bare>;
    type RawMutex = ParkMutex<Bare>;
    type IrqState = bool;
    type Task = ();
    type Completion = ParkCompletion<Bare>;
    type WaitQueue = ParkWaitQueue<Bare>;
    type Rcu = EpochRcu<Bare>;
    type Srcu = EpochSrcu<Bare>;
    type WorkQueue = PoolQueue<Bare>;

    fn fence(order: Ordering) {
        atomic::fence(order);
    }
    fn cpu_relax() {
        core::hint::spin_loop();
    }
    fn current_cpu() -> CpuId {
        CpuId(0)
    }
    fn cpu_count() -> u32 {
        1
    }
    fn irq_save() -> bool {
        cpu::irqs_off()
    }
    fn irq_restore(were_on: bool) {
        if were_on {
            cpu::irqs_on();
        }
    }
    fn irqs_enabled() -> bool {
        cpu::irqs_are_on()
    }
    // A host whose interrupt handlers use the crates says here that one of them runs.
    fn in_hardirq() -> bool {
        false
    }
    // There is no scheduler, and no other CPU.
    fn preempt_disable() {}
    fn preempt_enable() {}
    fn send_ipi(_: CpuId, _: Vector) {}
    fn current_task() {}
    fn park() {
        // There is nobody else to do what is waited for. To return for no reason is allowed:
        // whoever waits looks again.
        pool().1.try_run();
    }
    fn wake(_: &()) {}
}

/// Returns the queue, and what makes the one context that there is its worker.
fn pool() -> &'static (PoolQueue<Bare>, Worker<Bare>) {
    static POOL: OnceCell<Bare, (PoolQueue<Bare>, Worker<Bare>)> = OnceCell::new();
    loop {
        match POOL.get() {
            Some(pool) => return pool,
            // If an interrupt comes first, its pool is the one.
            None => drop(POOL.set(Box::new(PoolQueue::unmanned()))),
        }
    }
}

impl SystemQueue for Bare {
    fn system_queue() -> PoolQueue<Bare> {
        pool().0.clone()
    }
}

/// Has a grace period end by deferred work, and waits for it and for work of its own. Returns how
/// much was done: 11.
fn use_it() -> u32 {
    static DONE: atomic::AtomicU32 = atomic::AtomicU32::new(0);
    let srcu = EpochSrcu::<Bare>::new("bare");
    srcu.call(Box::new(|| {
        DONE.fetch_add(1, Ordering::SeqCst);
    }));
    srcu.barrier();
    let work = pool().0.work("bare", || {
        DONE.fetch_add(10, Ordering::SeqCst);
    });
    work.queue();
    work.flush();
    DONE.load(Ordering::SeqCst)
}

#[cfg(not(target_os = "none"))]
fn main() {
    assert_eq!(use_it(), 11);
    println!("a grace period has passed, and deferred work was done, with no thread for it");
}

/// Interrupts of the CPU; as a program, there are none.
mod cpu {
    #[cfg(target_os = "none")]
    use core::arch::asm;

    #[cfg(all(target_os = "none", target_arch = "x86_64"))]
    pub fn irqs_are_on() -> bool {
        let flags: u64;
        // SAFETY: the flags are read by way of the stack, which is as before.
        unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
        flags & 1 << 9 != 0
    }

    #[cfg(all(target_os = "none", target_arch = "aarch64"))]
    pub fn irqs_are_on() -> bool {
        let daif: u64;
        // SAFETY: reading DAIF changes nothing.
        unsafe { asm!("mrs {}, daif", out(reg) daif) };
        daif & 1 << 7 == 0
    }

    #[cfg(not(target_os = "none"))]
    pub fn irqs_are_on() -> bool {
        true
    }

    pub fn irqs_off() -> bool {
        let were_on = irqs_are_on();
        #[cfg(all(target_os = "none", target_arch = "x86_64"))]
        // SAFETY: an interrupt that is not taken waits.
        unsafe {
            asm!("cli");
        }
        #[cfg(all(target_os = "none", target_arch = "aarch64"))]
        // SAFETY: as above.
        unsafe {
            asm!("msr daifset, #2");
        }
        were_on
    }

    pub fn irqs_on() {
        #[cfg(all(target_os = "none", target_arch = "x86_64"))]
        // SAFETY: the caller turned them off, and they were on before.
        unsafe {
            asm!("sti");
        }
        #[cfg(all(target_os = "none", target_arch = "aarch64"))]
        // SAFETY: as above.
        unsafe {
            asm!("msr daifclr, #2");
        }
    }
}

#[cfg(target_os = "none")]
mod bare {
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::UnsafeCell;
    use core::ptr;
    use core::sync::atomic::{AtomicUsize, Ordering};

    const SIZE: usize = 64 << 10;

    /// Memory that is given out once; a kernel has an allocator.
    struct Bump {
        memory: UnsafeCell<[u128; SIZE / 16]>,
        used: AtomicUsize,
    }

    // SAFETY: whoever moves `used` on has what lies between the two values alone.
    unsafe impl Sync for Bump {}

    // SAFETY: a block is within `memory`, aligned as asked for, and given out once.
    unsafe impl GlobalAlloc for Bump {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let size = layout.size() + layout.align();
            let at = self.used.fetch_add(size, Ordering::Relaxed);
            if at + size > SIZE {
                return ptr::null_mut();
            }
            // SAFETY: `at`, and what alignment adds to it, is within the memory.
            unsafe {
                let block = self.memory.get().cast::<u8>().add(at);
                block.add(block.align_offset(layout.align()))
            }
        }
        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[global_allocator]
    static HEAP: Bump = Bump { memory: UnsafeCell::new([0; SIZE / 16]), used: AtomicUsize::new(0) };

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }

    // SAFETY: a bare-metal program has no other function of this name.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        assert_eq!(super::use_it(), 11);
        loop {
            core::hint::spin_loop();
        }
    }
}
