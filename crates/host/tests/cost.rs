//! What it costs, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use doorbell_host::intx::{Fired, Intx, IntxLine, IntxPending, Status};
use doorbell_host::irte::amd::HostMode;
use doorbell_host::msi::spec::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use doorbell_host::msi::{
    ConsumerSwitch, Drain, MsiConsumer, Msix, MsixSignalled, MsixWritten, Signal,
};
use doorbell_host::vector::{Affinity, Arrived, Cleaned, Irq, Update, Vectors};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, CpuSet, Enabled, Handler, Handling, IrqDesc, IrqReturn,
    IrteMemory, Posting, RemapTable, Sharing,
};
use doorbell_platform::{Atomic, Counting, Counts, CpuId, Platform, ReadDomain, Std, Vector};
use doorbell_post::{Mirror, Residency, ResidencyCopies};

/// Counts allocations of each thread.
struct Counted;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is `System`'s to do; the counter is a plain cell of this thread, and does not
// allocate.
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

struct Vcpu(ResidencyCopies<P, Own, AmdInterrupt<P, Memory>>);

impl AvicTarget<P, Memory> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &ResidencyCopies<P, Own, AmdInterrupt<P, Memory>> {
        &self.0
    }
}

const HOST: HostMode = HostMode { destination: 3, logical: false, vector: 0x31, kind: 0 };
const POSTING: Posting = Posting { backing_page: 5, vector: 0x41, tag: 1 };
const RUNNING: Residency = Residency::Running { apic_id: 1 };

fn bindings(count: usize) -> Vec<AmdBinding<P, Memory, Vcpu>> {
    let memory: Memory = (0..count).map(|_| <P as Platform>::AtomicU128::new(0)).collect();
    let table = RemapTable::<P, Memory>::new(memory).unwrap();
    (0..count)
        .map(|_| AmdBinding::new(AmdInterrupt::new(table.allocate().unwrap(), HOST)))
        .collect()
}

#[test]
fn a_vcpu_that_moves_takes_one_lock_and_a_load_and_a_store_for_each_interrupt() {
    for count in [0, 1, 8] {
        let vcpu = Arc::new(Vcpu(ResidencyCopies::new(Own)));
        let mut bindings = bindings(count);
        for binding in &mut bindings {
            binding.bind(Arc::clone(&vcpu), POSTING).unwrap().by(|_| ());
        }
        let ((), counts, allocations) = of(|| vcpu.0.set(RUNNING));
        let n = count as u64;
        assert_eq!(
            counts,
            Counts { spins: 1, irq_saves: 1, loads: n, stores: n, ..Counts::default() },
            "{count}"
        );
        assert_eq!(allocations, 0);
    }
}

#[test]
fn to_bind_and_to_unbind_takes_one_lock_and_no_memory_once_the_list_has_been_as_long() {
    let vcpu = Arc::new(Vcpu(ResidencyCopies::new(Own)));
    let mut bindings = bindings(1);
    let binding = &mut bindings[0];
    binding.bind(Arc::clone(&vcpu), POSTING).unwrap().by(|_| ());
    let (left, counts, allocations) = of(|| binding.unbind().unwrap());
    let _ = left.by(|_| ());
    // The entry, and what the host wants of it, each once more to see whether that has changed.
    assert_eq!(counts, Counts { spins: 1, irq_saves: 1, loads: 3, stores: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
    let again = Arc::clone(&vcpu);
    let (token, counts, allocations) = of(|| binding.bind(again, POSTING).unwrap());
    token.by(|_| ());
    assert_eq!(counts, Counts { spins: 1, irq_saves: 1, stores: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
    let _ = binding.unbind().unwrap().by(|_| ());
}

#[test]
fn an_interrupt_whose_thread_is_to_be_woken_takes_one_read_modify_write_and_one_lock() {
    let here = CpuSet::of([CpuId(0)]);
    let desc = IrqDesc::<P>::new(&Arc::new(ReadDomain::new("irq")), here.clone(), &here).unwrap();
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
    // It says that it handles, for those who wait for that ..
    assert_eq!(
        (counts, allocations),
        (Counts { loads: 2, stores: 1, rmws: 1, ..Counts::default() }, 0)
    );
    let (work, counts, _) = of(|| desc.take_work());
    // .. and that it has, and looks whether somebody waits.
    assert_eq!(
        (work, counts),
        (None, Counts { loads: 3, stores: 1, fences: 1, ..Counts::default() })
    );
    let (work, counts, _) = of(|| desc.take_work());
    assert_eq!((work, counts), (None, Counts { loads: 2, ..Counts::default() }));
}

#[test]
fn to_move_an_interrupt_in_the_host_takes_no_lock_and_no_memory() {
    let mut bindings = bindings(1);
    let interrupt = Arc::clone(bindings.remove(0).interrupt());
    let (token, counts, allocations) =
        of(|| interrupt.set_host(HostMode { destination: 4, ..HOST }));
    token.by(|_| ());
    // Twice: who has written looks again.
    assert_eq!(counts, Counts { stores: 1, loads: 4, rmws: 1, ..Counts::default() });
    assert_eq!(allocations, 0);
}

#[test]
fn entries_are_taken_and_given_back_without_memory() {
    let memory: Memory = (0..2).map(|_| <P as Platform>::AtomicU128::new(0)).collect();
    assert_eq!(IrteMemory::<P>::entries(&memory).len(), 2);
    let table = RemapTable::<P, Memory>::new(memory).unwrap();
    let ((), _, allocations) = of(|| drop(table.allocate().unwrap().retire().by(|_| ())));
    assert_eq!((allocations, table.free()), (0, 2));
}

/// An enabled table of 2048 entries, of which one has a route and is not masked.
fn msix(entry: u16) -> Msix<P> {
    let msix = Msix::new(2048).unwrap();
    msix.write_control(MSIX_ENABLE).each(|_| panic!("all are masked"));
    let MsixWritten::Route(route) = mask(&msix, entry, false) else {
        panic!("it has no route yet")
    };
    assert!(matches!(route.routed(), MsixWritten::Nothing));
    msix
}

fn mask(msix: &Msix<P>, entry: u16, mask: bool) -> MsixWritten<'_, P> {
    msix.write_table(u64::from(entry) * 16 + 12, 4, mask.into())
}

#[test]
fn an_interrupt_of_an_msix_entry_takes_one_load_and_one_that_is_masked_one_read_modify_write() {
    let msix = msix(2047);
    let (signalled, counts, allocations) = of(|| msix.signal(2047).unwrap());
    assert_eq!(signalled, MsixSignalled::Deliver);
    assert_eq!((counts, allocations), (Counts { loads: 1, ..Counts::default() }, 0));
    let (signalled, counts, allocations) = of(|| msix.signal(0).unwrap());
    assert_eq!(signalled, MsixSignalled::Pending);
    assert_eq!((counts, allocations), (Counts { loads: 2, rmws: 1, ..Counts::default() }, 0));
}

#[test]
fn a_guest_masks_and_unmasks_with_one_lock_without_a_route_and_without_memory() {
    let msix = msix(7);
    let (written, counts, allocations) = of(|| mask(&msix, 7, true));
    assert!(matches!(written, MsixWritten::Nothing));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 1, ..Counts::default() }, 0));
    let (written, counts, allocations) = of(|| mask(&msix, 7, false));
    assert!(matches!(written, MsixWritten::Nothing));
    assert_eq!(
        (counts, allocations),
        (Counts { spins: 1, stores: 1, loads: 1, ..Counts::default() }, 0)
    );
    assert!(matches!(mask(&msix, 7, true), MsixWritten::Nothing));
    assert_eq!(msix.signal(7), Ok(MsixSignalled::Pending));
    let (written, counts, allocations) = of(|| mask(&msix, 7, false));
    assert!(matches!(written, MsixWritten::Deliver(7)));
    assert_eq!(
        (counts, allocations),
        (Counts { spins: 1, stores: 1, loads: 1, rmws: 1, ..Counts::default() }, 0)
    );
}

#[test]
fn the_function_mask_takes_a_store_for_each_32_entries_and_its_end_a_lock_and_a_load_more() {
    let msix = msix(7);
    let ((), counts, allocations) =
        of(|| msix.write_control(MSIX_ENABLE | MSIX_FUNCTION_MASK).each(|_| ()));
    assert_eq!((counts, allocations), (Counts { spins: 1, stores: 64, ..Counts::default() }, 0));
    let ((), counts, allocations) =
        of(|| msix.write_control(MSIX_ENABLE).each(|_| panic!("none was pending")));
    assert_eq!(
        (counts, allocations),
        (Counts { spins: 1 + 64, stores: 64, loads: 64, ..Counts::default() }, 0)
    );
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
    let line =
        ConsumerSwitch::<P, _, _>::new(Event::default(), Event::default(), MsiConsumer::Direct);
    let ((), counts, allocations) = of(|| line.signal());
    assert_eq!((counts, allocations), (Counts { loads: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.switch(MsiConsumer::User));
    assert_eq!((counts, allocations), (Counts { stores: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.signal());
    assert_eq!((counts, allocations), (Counts { loads: 2, fences: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| line.switch(MsiConsumer::Direct));
    assert_eq!((counts, allocations), (Counts { stores: 1, fences: 1, ..Counts::default() }, 0));
}

/// A device that asserts its interrupt whenever it is not masked.
#[derive(Default)]
struct Device(std::sync::atomic::AtomicBool);

impl IntxLine for Device {
    fn status(&self) -> Status {
        Status {
            pending: IntxPending::Unknown,
            masked: self.0.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
    fn set_masked(&self, masked: bool) {
        self.0.store(masked, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn intx_takes_no_lock_and_no_memory() {
    let intx =
        Intx::<P, _, _>::new(Device::default(), &Arc::new(<P as Platform>::Rcu::new("triggers")));
    assert!(intx.set_trigger(Some(Event::default())).act().synchronize().is_none());
    intx.enable();
    let (fired, counts, allocations) = of(|| intx.fire());
    // The word, to see whether the device's mask is what it says.
    assert_eq!((counts, allocations), (Counts { loads: 2, rmws: 1, ..Counts::default() }, 0));
    let Fired::Ours(Some(tell)) = fired else { panic!("it is not masked") };
    let ((), counts, allocations) = of(|| tell.act());
    assert_eq!(
        (counts.spins, counts.mutexes, counts.irq_saves, counts.read_sections, allocations),
        (0, 0, 0, 1, 0)
    );
    let (told, counts, allocations) = of(|| intx.unmask().is_some());
    assert_eq!(
        (told, counts, allocations),
        (false, Counts { loads: 3, rmws: 1, ..Counts::default() }, 0)
    );
}

/// A driver that always finds the same.
struct Driver(IrqReturn);

impl Handler for Driver {
    fn handle(&self) -> IrqReturn {
        self.0
    }
}

fn desc(claim: IrqReturn) -> IrqDesc<P> {
    let here = CpuSet::of([CpuId(0)]);
    let desc = IrqDesc::new(&Arc::new(ReadDomain::new("irq")), here.clone(), &here).unwrap();
    desc.request(Arc::new(Driver(claim)), Sharing::Exclusive).unwrap().synchronize();
    desc
}

/// A read section of the list of handlers, and one load in it. What a section consists of is the
/// platform's affair.
fn list_read() -> Counts {
    let rcu = <P as Platform>::Rcu::new("list");
    drop(rcu.read());
    let ((), section, allocations) = of(|| drop(rcu.read()));
    assert_eq!((section.read_sections, section.spins, section.mutexes, allocations), (1, 0, 0, 0));
    Counts { loads: section.loads + 1, ..section }
}

/// Handles the interrupt a second time: what the platform has for each thread is there by then.
fn handled(desc: &IrqDesc<P>) -> (Handling<P>, Counts, u64) {
    let _ = desc.handle();
    of(|| desc.handle())
}

/// A spin lock with interrupts off.
fn lock() -> Counts {
    Counts { spins: 1, irq_saves: 1, ..Counts::default() }
}

#[test]
fn an_interrupt_that_arrives_takes_one_load_to_know_whose_it_is() {
    let vectors = vectors();
    let place = vectors.activate(Irq(0), Affinity::Anywhere).unwrap();
    let cpu = vectors.cpu(place.cpu).unwrap();
    let (arrived, counts, allocations) = of(|| cpu.arrived(place.vector));
    assert_eq!(
        (arrived, counts, allocations),
        (Arrived::Irq(Irq(0)), Counts { loads: 1, ..Counts::default() }, 0)
    );
    let (arrived, counts, allocations) = of(|| cpu.arrived(Vector(0x99)));
    assert_eq!(
        (arrived, counts, allocations),
        (Arrived::Unhandled, Counts { loads: 2, stores: 1, ..Counts::default() }, 0)
    );
}

#[test]
fn an_idle_interrupt_is_handled_with_two_read_modify_writes_and_two_loads_beside_the_section() {
    let list = list_read();
    let (handling, counts, allocations) = handled(&desc(IrqReturn::Handled));
    assert!(!handling.mask && !handling.resend);
    // The word twice; whether all were claimed of late.
    assert_eq!(counts, Counts { rmws: list.rmws + 2, loads: list.loads + 1, ..list });
    assert_eq!(allocations, 0);
}

#[test]
fn an_interrupt_with_a_thread_takes_one_lock_more_and_none_before_the_thread_has_run() {
    let list = list_read();
    let desc = desc(IrqReturn::WakeThread);
    desc.attach_thread(P::current_task()).unwrap().act();
    let (handling, counts, allocations) = handled(&desc);
    handling.wake.act();
    // The word three times, whether one was nobody's, what the thread has to do.
    let counted = Counts { rmws: list.rmws + 3, loads: list.loads + 2, ..list };
    assert_eq!((counts, allocations), (counted, 0));
    assert!(desc.take_work().is_some());
    let (handling, counts, allocations) = of(|| desc.handle());
    handling.wake.act();
    assert_eq!((counts, allocations), (Counts { spins: 1, irq_saves: 1, ..counted }, 0));
}

#[test]
fn a_disabled_interrupt_takes_no_lock_and_no_section_and_is_masked_with_a_load_and_a_fence() {
    let desc = desc(IrqReturn::Handled);
    let ((), counts, allocations) = of(|| desc.disable());
    assert_eq!((counts, allocations), (Counts { rmws: 1, ..lock() }, 0));
    let (handling, counts, allocations) = of(|| desc.handle());
    assert!(handling.mask);
    assert_eq!((counts, allocations), (Counts { rmws: 2, loads: 1, ..Counts::default() }, 0));
    let ((), counts, allocations) = of(|| desc.mask(|mask| assert!(mask)));
    assert_eq!((counts, allocations), (Counts { loads: 1, fences: 1, ..Counts::default() }, 0));
    let (enabled, counts, allocations) = of(|| desc.enable());
    assert_eq!(enabled, Ok(Enabled::Unmask { resend: true }));
    assert_eq!((counts, allocations), (Counts { rmws: 1, ..lock() }, 0));
}

fn vectors() -> Vectors<P> {
    let vectors = Vectors::new(2, 1, 0x41..=0x42).unwrap();
    for cpu in 0..2 {
        assert_eq!(vectors.online(CpuId(cpu)).unwrap().cpu(), CpuId(cpu));
    }
    vectors
}

#[test]
fn each_change_of_an_interrupts_vector_takes_one_lock_and_a_store_for_each_entry_and_no_memory() {
    let vectors = vectors();
    let [here, there] = [0, 1].map(|cpu| CpuSet::of([CpuId(cpu)]));
    let (place, counts, allocations) =
        of(|| vectors.activate(Irq(0), Affinity::In(&here)).unwrap());
    assert_eq!((place.cpu, counts, allocations), (CpuId(0), Counts { stores: 1, ..lock() }, 0));
    let (moved, counts, allocations) =
        of(|| vectors.begin_move(Irq(0), Affinity::In(&there), Update::Whole));
    assert_eq!((counts, allocations), (Counts { stores: 1, ..lock() }, 0));
    let moved = moved.unwrap().expect("it goes elsewhere");
    let (cleanup, counts, allocations) = of(|| vectors.moved(moved).unwrap());
    assert_eq!((cleanup.cpu(), counts, allocations), (CpuId(0), lock(), 0));
    // What the entry stands for, and that it no longer does.
    let (cleaned, counts, allocations) = of(|| vectors.cleanup(CpuId(0), |_| false));
    assert_eq!(
        (cleaned, counts, allocations),
        (Cleaned::All, Counts { loads: 1, stores: 1, ..lock() }, 0)
    );
    let (cleaned, counts, allocations) =
        of(|| vectors.cleanup(CpuId(0), |_| unreachable!("nothing is in quarantine")));
    assert_eq!((cleaned, counts, allocations), (Cleaned::All, lock(), 0));
    let (cleanup, counts, allocations) = of(|| vectors.deactivate(Irq(0)).unwrap());
    assert_eq!((cleanup.cpu(), counts, allocations), (CpuId(1), Counts { stores: 1, ..lock() }, 0));
}
