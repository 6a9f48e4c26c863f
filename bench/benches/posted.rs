//! How many instructions it takes from an event of an irqfd to a bit in a vCPU's posted-interrupt
//! descriptor and the decision to notify it: a cached MSI route, a physical destination, fixed, an
//! edge, one target. Callgrind counts, so the result is the same each time. Fails if it takes more
//! than it may, beside the read sections.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench posted
//! ```
//!
//! Twice: on `Std`, whose read sections count readers, and on a host whose read sections cost
//! nothing, as a kernel's do that is not preempted in them. What is between the two is the share of
//! SRCU (the irqfd's) and RCU (the APIC map's).

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use doorbell_apic::{
    ApicMap, ApicTable, DestinationIds, Eoi, InterruptMessage, Registers, postable,
};
use doorbell_bench::{Kernel, callgrind};
use doorbell_irqfd::{
    Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, RoutingTable, Signalled, SourceId,
};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain, Std, Vector};
use doorbell_post::{Destination, Guest, Notice, Pending, PiDescriptor, PiGate};

/// An interrupt controller that posts what can be posted.
struct Chip<P: Platform> {
    map: ApicMap<P, Arc<PiDescriptor<P>>>,
    /// What a host would write into its interrupt command register.
    /// The vector is known: to a vCPU in guest mode it is always the same.
    icr_high: AtomicU32,
    fell_back: AtomicU64,
}

impl<P: Platform> Controller for Chip<P> {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}

    #[inline(always)]
    fn msi(&self, msi: Msi) {
        let table = self.map.read();
        let message = InterruptMessage::decode(msi.message, DestinationIds::Eight);
        let posted =
            message.ok().and_then(|message| postable(&message, &table, Eoi::NotIntercepted).ok());
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

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
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
        .map(|cpu| {
            Arc::new(PiDescriptor::new(
                Pending::new(),
                PiGate::new(Destination::x2apic(cpu), Vector(0xf2)),
            ))
        })
        .collect();
    let table = ApicTable::new(
        (0..).zip(&vcpus).map(|(id, vcpu)| (Registers::X2Apic { id }, Arc::clone(vcpu))),
    );
    let chip = Arc::new(Chip {
        map: ApicMap::new(&rcu, table),
        icr_high: AtomicU32::new(0),
        fell_back: AtomicU64::new(0),
    });
    let vm = Irqfds::<P, _>::new(Arc::clone(&chip), Limits::default());
    let route = Route::Msi(Msi::new(0xfee0_2000, 0x41));
    let _ =
        vm.reroute(RoutingTable::new(&[(GSI, route)]).expect("a good table")).expect("an open VM");
    let irqfd = vm.irqfd();
    irqfd.assign(GSI).expect("the GSI is routed");
    let target = &vcpus[2];
    let irqs_off = IrqGuard::new();
    for _ in 0..ROUNDS {
        let guest = Guest { cpu: CpuId(2), posted: true };
        let (in_guest, _) =
            target.enter(&irqs_off, guest).expect("nothing is requested").rescan(|_| ());
        black_box(signal(black_box(&irqfd)));
        assert_eq!(chip.icr_high.swap(0, Relaxed), 2, "it was notified");
        in_guest.exited();
        let mut taken = 0;
        let _taken = target.synchronize(|pir| pir.take_words(|_, bits| taken |= bits));
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
    println!(
        "  on `Std`                        {std:>12}, {} for SRCU and RCU",
        std.saturating_sub(kernel)
    );
    assert!(kernel <= LIMIT, "more instructions than it may take");
}
