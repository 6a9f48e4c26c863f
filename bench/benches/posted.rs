//! How many instructions it takes from an event of an irqfd to a bit in a vCPU's posted-interrupt descriptor and the
//! decision to notify it: a cached MSI route, a physical destination, fixed, an edge, one target. Callgrind counts, so
//! the result is the same each time. Fails if it takes more than it may, beside the read sections.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench posted
//! ```
//!
//! Twice: on `Std`, whose read sections count readers, and on a host whose read sections cost nothing, as a kernel's do
//! that is not preempted in them. What is between the two is the share of SRCU (the irqfd's) and RCU (the APIC map's).

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, Ordering::Relaxed};

use doorbell_apic::{ApicMap, DestinationIds, Eoi, Message, Registers, Table, postable};
use doorbell_bench::callgrind;
use doorbell_irqfd::{Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, RoutingTable, Signalled, SourceId};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain, Std, Vector};
use doorbell_post::{Coalescing, Destination, Guest, Notice, Pending, PiDescriptor};

/// `Std` with read sections that cost nothing.
struct Kernel;

// SAFETY: the atomics and the fence are those of `Std`.
unsafe impl Platform for Kernel {
    type AtomicBool = <Std as Platform>::AtomicBool;
    type AtomicU32 = <Std as Platform>::AtomicU32;
    type AtomicU64 = <Std as Platform>::AtomicU64;
    type AtomicU128 = <Std as Platform>::AtomicU128;
    type AtomicPtr<T: 'static> = <Std as Platform>::AtomicPtr<T>;
    type RawSpin = <Std as Platform>::RawSpin;
    type RawMutex = <Std as Platform>::RawMutex;
    type IrqState = <Std as Platform>::IrqState;
    type Task = <Std as Platform>::Task;
    type Completion = <Std as Platform>::Completion;
    type WaitQueue = <Std as Platform>::WaitQueue;
    type Rcu = Free;
    type Srcu = Free;
    type WorkQueue = <Std as Platform>::WorkQueue;

    #[inline(always)]
    fn fence(order: Ordering) {
        Std::fence(order);
    }
    fn cpu_relax() {
        Std::cpu_relax();
    }
    fn current_cpu() -> CpuId {
        Std::current_cpu()
    }
    fn cpu_count() -> u32 {
        Std::cpu_count()
    }
    fn irq_save() -> Self::IrqState {
        Std::irq_save()
    }
    fn irq_restore(state: Self::IrqState) {
        Std::irq_restore(state);
    }
    fn irqs_enabled() -> bool {
        Std::irqs_enabled()
    }
    fn in_hardirq() -> bool {
        Std::in_hardirq()
    }
    fn preempt_disable() {
        Std::preempt_disable();
    }
    fn preempt_enable() {
        Std::preempt_enable();
    }
    fn send_ipi(cpu: CpuId, vector: Vector) {
        Std::send_ipi(cpu, vector);
    }
    fn current_task() -> Self::Task {
        Std::current_task()
    }
    fn park() {
        Std::park();
    }
    fn wake(task: &Self::Task) {
        Std::wake(task);
    }
}

/// Read sections of a program with one thread, which asks for no grace period in one.
struct Free;

// SAFETY: there is one thread, and it is in no read section when it asks for a grace period.
unsafe impl ReadDomain for Free {
    type Token = ();

    fn new(_name: &'static str) -> Self {
        Free
    }
    #[inline(always)]
    fn read_lock(&self) {}
    #[inline(always)]
    unsafe fn read_unlock(&self, (): ()) {}
    fn synchronize(&self) {}
    fn synchronize_expedited(&self) {}
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>) {
        f();
    }
    fn barrier(&self) {}
}

/// An interrupt controller that posts what can be posted.
struct Chip<P: Platform> {
    map: ApicMap<P, Arc<PiDescriptor<P>>>,
    /// What a host would write into its interrupt command register.
    /// The vector is known: to a vCPU in guest mode it is always the same.
    icr_high: AtomicU32,
    fell_back: AtomicU64,
}

impl<P: Platform> Controller for Chip<P> {
    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}

    #[inline(always)]
    fn msi(&self, msi: Msi) {
        let table = self.map.read();
        let message = Message::decode(msi.address, msi.data, DestinationIds::Eight);
        let posted = message.ok().and_then(|message| postable(&message, &table, Eoi::NotIntercepted).ok());
        match posted.map(|posted| posted.target.post(posted.vector.into())) {
            Some(Notice::Notify(to)) => {
                self.icr_high.store(to.destination.bits(), Relaxed);
            }
            Some(Notice::Nothing) => {}
            _ => self.falls_back(),
        }
    }
}

impl<P: Platform> Chip<P> {
    #[cold]
    fn falls_back(&self) {
        self.fell_back.fetch_add(1, Relaxed);
    }
}

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or they would not have
/// these names.
mod measured {
    use super::{Arc, Chip, Irqfd, Kernel, Signalled, Std};

    #[inline(never)]
    pub fn on_std(irqfd: &Irqfd<Std, Arc<Chip<Std>>>) -> Signalled {
        irqfd.signal()
    }

    #[inline(never)]
    pub fn on_kernel(irqfd: &Irqfd<Kernel, Arc<Chip<Kernel>>>) -> Signalled {
        irqfd.signal()
    }
}

const ROUNDS: u64 = 1000;
const GSI: Gsi = Gsi(24);
/// What it may take beside the read sections.
const LIMIT: u64 = 80;

/// Some rounds of it; this is what runs under callgrind.
fn run<P: Platform>(signal: fn(&Irqfd<P, Arc<Chip<P>>>) -> Signalled) {
    let rcu = Arc::new(P::Rcu::new("APIC map"));
    let vcpus: Vec<Arc<PiDescriptor<P>>> = (0..4)
        .map(|cpu| Arc::new(PiDescriptor::new(Pending::new(), Coalescing::new(Destination::x2apic(cpu), Vector(0xf2)))))
        .collect();
    let table = Table::new((0..).zip(&vcpus).map(|(id, vcpu)| (Registers::X2Apic { id }, Arc::clone(vcpu))));
    let chip =
        Arc::new(Chip { map: ApicMap::new(&rcu, table), icr_high: AtomicU32::new(0), fell_back: AtomicU64::new(0) });
    let vm = Irqfds::<P, _>::new(Arc::clone(&chip), Limits::default());
    let route = Route::Msi(Msi::new(0xfee0_2000, 0x41));
    vm.reroute(RoutingTable::new(&[(GSI, route)]).expect("a good table")).expect("an open VM");
    let irqfd = vm.irqfd();
    irqfd.assign(GSI).expect("the GSI is routed");
    let target = &vcpus[2];
    let irqs_off = IrqGuard::new();
    for _ in 0..ROUNDS {
        let guest = Guest { cpu: CpuId(2), posted: true };
        let in_guest = target.enter(&irqs_off, guest).expect("nothing is requested").rescan(|_| ());
        black_box(signal(black_box(&irqfd)));
        assert_eq!(chip.icr_high.swap(0, Relaxed), 2, "it was notified");
        drop(in_guest);
        let mut taken = 0;
        target.synchronize(|pir| pir.take_words(|_, bits| taken |= bits));
        assert_eq!(taken, 1 << 1, "it was posted");
    }
    assert_eq!(chip.fell_back.load(Relaxed), 0);
    drop(irqs_off);
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, command, operation] = &args[..]
        && command == "run"
    {
        return match &operation[..] {
            "std" => run(measured::on_std),
            "kernel" => run(measured::on_kernel),
            other => panic!("no such measurement: {other}"),
        };
    }
    if cfg!(debug_assertions) {
        return println!("posted: only an optimised build says anything");
    }
    let [Some(std), Some(kernel)] =
        ["std", "kernel"].map(|way| callgrind::instructions("posted::measured", &[way], ROUNDS))
    else {
        return println!("posted: valgrind is not installed");
    };
    println!("irqfd → MSI → posted, notified    instructions");
    println!("  read sections cost nothing      {kernel:>12}, at most {LIMIT}");
    println!("  on `Std`                        {std:>12}, {} for SRCU and RCU", std.saturating_sub(kernel));
    assert!(kernel <= LIMIT, "more instructions than it may take");
}
