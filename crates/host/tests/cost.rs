//! What it costs, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use doorbell_host::irte::amd::HostMode;
use doorbell_host::{AmdInterrupt, Binding, CpuSet, Entries, IrqDesc, Posting, Table, Target};
use doorbell_platform::{Atomic, Counting, Counts, CpuId, Platform, Std};
use doorbell_post::{Copies, Mirror, Residency};

/// Counts allocations of each thread.
struct Counted;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is `System`'s to do; the counter is a plain cell of this thread, and does not allocate.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: what is asked of this allocator is asked of that one.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `alloc` had it from there.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

type P = Counting<Std>;
type Memory = Box<[<P as Platform>::AtomicU128]>;

/// What `f` costs, and how often it allocates.
fn of<R>(f: impl FnOnce() -> R) -> (R, Counts, u64) {
    let before = ALLOCATIONS.get();
    let (result, counts) = P::measure(f);
    (result, counts, ALLOCATIONS.get() - before)
}

struct Own;

impl Mirror for Own {
    fn reflect(&self, _: Residency) {}
}

struct Vcpu(Copies<P, Own, AmdInterrupt<P, Memory>>);

impl Target<P, Memory> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &Copies<P, Own, AmdInterrupt<P, Memory>> {
        &self.0
    }
}

const HOST: HostMode = HostMode { destination: 3, logical: false, vector: 0x31, kind: 0 };
const POSTING: Posting = Posting { backing_page: 5, vector: 0x41, tag: 1 };
const RUNNING: Residency = Residency::Running { apic_id: 1 };

fn bindings(count: usize) -> Vec<Binding<P, Memory, Vcpu>> {
    let memory: Memory = (0..count).map(|_| <P as Platform>::AtomicU128::new(0)).collect();
    let table = Table::<P, Memory>::new(memory);
    (0..count).map(|_| Binding::new(AmdInterrupt::new(table.allocate().unwrap(), HOST))).collect()
}

#[test]
fn a_vcpu_that_moves_takes_one_lock_and_a_load_and_a_store_for_each_interrupt() {
    for count in [0, 1, 8] {
        let vcpu = Arc::new(Vcpu(Copies::new(Own)));
        let mut bindings = bindings(count);
        for binding in &mut bindings {
            binding.bind(Arc::clone(&vcpu), POSTING).unwrap().completed();
        }
        let ((), counts, allocations) = of(|| vcpu.0.set(RUNNING));
        let n = count as u64;
        assert_eq!(counts, Counts { spins: 1, irq_saves: 1, loads: n, stores: n, ..Counts::default() }, "{count}");
        assert_eq!(allocations, 0);
    }
}

#[test]
fn to_bind_and_to_unbind_takes_one_lock_and_no_memory_once_the_list_has_been_as_long() {
    let vcpu = Arc::new(Vcpu(Copies::new(Own)));
    let mut bindings = bindings(1);
    let binding = &mut bindings[0];
    binding.bind(Arc::clone(&vcpu), POSTING).unwrap().completed();
    let (left, counts, allocations) = of(|| binding.unbind().unwrap());
    let _ = left.completed();
    // The entry, and what the host wants of it, each once more to see whether that has changed.
    assert_eq!(counts, Counts { spins: 1, irq_saves: 1, loads: 3, stores: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
    let again = Arc::clone(&vcpu);
    let (token, counts, allocations) = of(|| binding.bind(again, POSTING).unwrap());
    token.completed();
    assert_eq!(counts, Counts { spins: 1, irq_saves: 1, stores: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
    let _ = binding.unbind().unwrap().completed();
}

#[test]
fn an_interrupt_whose_thread_is_to_be_woken_takes_one_read_modify_write_and_one_lock() {
    let here = CpuSet::of([CpuId(0)]);
    let desc = IrqDesc::<P>::new(here.clone(), &here).unwrap();
    desc.attach_thread(P::current_task()).unwrap().act();
    let (wake, counts, allocations) = of(|| desc.wake_thread());
    assert_eq!(counts, Counts { spins: 1, irq_saves: 1, rmws: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
    wake.act();
    // Before the thread has taken it, another costs no lock.
    let (wake, counts, allocations) = of(|| desc.wake_thread());
    wake.act();
    assert_eq!((counts, allocations), (Counts { rmws: 1, ..Counts::default() }, 0));
    let (work, counts, allocations) = of(|| desc.take_work());
    assert!(work.is_some_and(|work| work.run && !work.moved));
    assert_eq!((counts, allocations), (Counts { loads: 1, rmws: 1, ..Counts::default() }, 0));
    let (work, counts, _) = of(|| desc.take_work());
    assert_eq!((work, counts), (None, Counts { loads: 1, ..Counts::default() }));
}

#[test]
fn to_move_an_interrupt_in_the_host_takes_no_lock_and_no_memory() {
    let mut bindings = bindings(1);
    let interrupt = Arc::clone(bindings.remove(0).interrupt());
    let (token, counts, allocations) = of(|| interrupt.set_host(HostMode { destination: 4, ..HOST }));
    token.completed();
    // Twice: who has written looks again.
    assert_eq!(counts, Counts { stores: 1, loads: 4, rmws: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
}

#[test]
fn entries_are_taken_and_given_back_without_memory() {
    let memory: Memory = (0..2).map(|_| <P as Platform>::AtomicU128::new(0)).collect();
    assert_eq!(Entries::<P>::entries(&memory).len(), 2);
    let table = Table::<P, Memory>::new(memory);
    let ((), _, allocations) = of(|| drop(table.allocate().unwrap().retire().completed()));
    assert_eq!((allocations, table.free()), (0, 2));
}
