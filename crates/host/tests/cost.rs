//! What it costs, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use doorbell_host::intx::{Fired, Intx, Line, Pending, Status};
use doorbell_host::irte::amd::HostMode;
use doorbell_host::msi::spec::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use doorbell_host::msi::{Consumer, ConsumerSwitch, Drain, Msix, Signal, Signalled, Written};
use doorbell_host::{AmdInterrupt, Binding, CpuSet, Entries, IrqDesc, Posting, Table, Target};
use doorbell_platform::{Atomic, Counting, Counts, CpuId, Platform, ReadDomain, Std};
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

/// An enabled table of 2048 entries, of which one has a route and is not masked.
fn msix(entry: u16) -> Msix<P> {
    let msix = Msix::new(2048).unwrap();
    msix.write_control(MSIX_ENABLE).each(|_| panic!("all are masked"));
    let Written::Route(route) = mask(&msix, entry, false) else { panic!("it has no route yet") };
    assert!(matches!(route.routed(), Written::Nothing));
    msix
}

fn mask(msix: &Msix<P>, entry: u16, mask: bool) -> Written<'_, P> {
    msix.write_table(u64::from(entry) * 16 + 12, 4, mask.into())
}

#[test]
fn an_interrupt_of_an_msix_entry_takes_one_load_and_one_that_is_masked_one_read_modify_write() {
    let msix = msix(2047);
    let (signalled, counts, allocations) = of(|| msix.signal(2047).unwrap());
    assert_eq!(signalled, Signalled::Deliver);
    assert_eq!((counts, allocations), (Counts { loads: 1, ..Counts::default() }, 0));
    let (signalled, counts, allocations) = of(|| msix.signal(0).unwrap());
    assert_eq!(signalled, Signalled::Kept);
    assert_eq!((counts, allocations), (Counts { loads: 2, rmws: 1, ..Counts::default() }, 0));
}

#[test]
fn a_guest_masks_and_unmasks_with_one_lock_without_a_route_and_without_memory() {
    let msix = msix(7);
    let (written, counts, allocations) = of(|| mask(&msix, 7, true));
    assert!(matches!(written, Written::Nothing));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 1, ..Counts::default() }, 0));
    let (written, counts, allocations) = of(|| mask(&msix, 7, false));
    assert!(matches!(written, Written::Nothing));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 1, loads: 1, ..Counts::default() }, 0));
    assert!(matches!(mask(&msix, 7, true), Written::Nothing));
    assert_eq!(msix.signal(7), Ok(Signalled::Kept));
    let (written, counts, allocations) = of(|| mask(&msix, 7, false));
    assert!(matches!(written, Written::Deliver(7)));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 1, loads: 1, rmws: 1, ..Counts::default() }, 0));
}

#[test]
fn the_function_mask_takes_a_store_for_each_32_entries_and_its_end_a_lock_and_a_load_more() {
    let msix = msix(7);
    let ((), counts, allocations) = of(|| msix.write_control(MSIX_ENABLE | MSIX_FUNCTION_MASK).each(|_| ()));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 64, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| msix.write_control(MSIX_ENABLE).each(|_| panic!("none was pending")));
    assert_eq!((counts, allocations), (Counts { spins: 1 + 64, stores: 64, loads: 64, ..Counts::default() }, 0));
}

/// Does nothing that is counted.
#[derive(Default)]
struct Event(std::sync::atomic::AtomicU64);

impl Signal for Event {
    fn signal(&self, count: u64) {
        self.0.fetch_add(count, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Drain for Event {
    fn drain(&self) -> u64 {
        self.0.swap(0, std::sync::atomic::Ordering::SeqCst)
    }
}

#[test]
fn a_line_costs_a_load_beside_its_irqfd_and_a_switch_a_store_and_a_fence() {
    let line = ConsumerSwitch::<P, _, _>::new(Event::default(), Event::default(), Consumer::Direct);
    let ((), counts, allocations) = of(|| line.signal());
    assert_eq!((counts, allocations), (Counts { loads: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.switch(Consumer::User));
    assert_eq!((counts, allocations), (Counts { stores: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.signal());
    assert_eq!((counts, allocations), (Counts { loads: 2, fences: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.switch(Consumer::Direct));
    assert_eq!((counts, allocations), (Counts { stores: 1, fences: 1, ..Counts::default() }, 0));
}

/// It asserts its interrupt whenever it is not masked.
#[derive(Default)]
struct Device(std::sync::atomic::AtomicBool);

impl Line for Device {
    fn status(&self) -> Status {
        Status { pending: Pending::Unknown, masked: self.0.load(std::sync::atomic::Ordering::SeqCst) }
    }
    fn set_masked(&self, masked: bool) {
        self.0.store(masked, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn intx_takes_no_lock_and_no_memory() {
    let intx = Intx::<P, _, _>::new(Device::default(), &Arc::new(<P as Platform>::Rcu::new("triggers")));
    assert!(intx.set_trigger(Some(Event::default())).act().synchronize().is_none());
    intx.enable();
    let (fired, counts, allocations) = of(|| intx.fire());
    // The word, to see whether the device's mask is what it says.
    assert_eq!((counts, allocations), (Counts { loads: 2, rmws: 1, ..Counts::default() }, 0));
    let Fired::Ours(Some(tell)) = fired else { panic!("it is not masked") };
    let ((), counts, allocations) = of(|| tell.act());
    assert_eq!((counts.spins, counts.mutexes, counts.irq_saves, counts.read_sections, allocations), (0, 0, 0, 1, 0));
    let (told, counts, allocations) = of(|| intx.unmask().is_some());
    assert_eq!((told, counts, allocations), (false, Counts { loads: 3, rmws: 1, ..Counts::default() }, 0));
}
