//! How many resampling irqfds four threads assign and deassign per second on one VM, here and in
//! KVM.
//!
//! `cargo run --release -p doorbell-irqfd --example assign_rate [threads [seconds]]`

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use doorbell_irqfd::{
    Controller, Gsi, Irqfds, Limits, Msi, NoBypass, Notify, Pin, Route, RoutingTable, SourceId,
};
use doorbell_platform::Std;

/// An IOAPIC as far as this needs one.
struct Pins([AtomicU32; 24]);

impl Controller for Pins {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        self.0.len() as u32
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        let (word, bit) = (&self.0[pin.number as usize], 1 << source.number());
        match level {
            true => word.fetch_or(bit, Ordering::AcqRel),
            false => word.fetch_and(!bit, Ordering::AcqRel),
        };
    }
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, _msi: Msi) {}
}

fn vm() -> Irqfds<Std, Pins> {
    let vm = Irqfds::new(Pins(Default::default()), Limits::default());
    let routes: Vec<_> = (0..24).map(|n| (Gsi(n), Route::Level(Pin::new(0, n)))).collect();
    let table = RoutingTable::new(&routes).expect("24 routes");
    vm.reroute(table).expect("24 pins").follow(&NoBypass);
    vm
}

/// Runs `pair` on each thread until the time is up; returns pairs per second of all together.
fn rate(threads: u32, time: Duration, pair: impl Fn(u32) -> Box<dyn FnMut()> + Sync) -> f64 {
    let (stop, start) = (AtomicBool::new(false), Barrier::new(threads as usize + 1));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                let (stop, start, pair) = (&stop, &start, &pair);
                scope.spawn(move || {
                    let mut pair = pair(n);
                    start.wait();
                    let mut pairs = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        pair();
                        pairs += 1;
                    }
                    pairs
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let pairs: u64 = workers.into_iter().map(|worker| worker.join().expect("a worker")).sum();
        pairs as f64 / begin.elapsed().as_secs_f64()
    })
}

/// Sources inside the process.
fn direct(threads: u32, time: Duration, gsi: impl Fn(u32) -> u32 + Sync) -> f64 {
    let vm = vm();
    rate(threads, time, |n| {
        let (irqfd, gsi) = (vm.irqfd(), Gsi(gsi(n)));
        let sink: Arc<dyn Notify> = Arc::new(|| {});
        Box::new(move || {
            irqfd.assign_resample(gsi, sink.clone()).expect("assign");
            irqfd.deassign().expect("deassign");
        })
    })
}

/// The same, while one more thread signals and acknowledges on that VM.
fn under_load(threads: u32, time: Duration) -> f64 {
    let vm = vm();
    let stop = AtomicBool::new(false);
    let source = vm.irqfd();
    source.assign_resample(Gsi(23), Arc::new(|| {})).expect("assign");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                source.signal();
                vm.ack(Pin::new(0, 23));
            }
        });
        let result = rate(threads, time, |n| {
            let irqfd = vm.irqfd();
            let sink: Arc<dyn Notify> = Arc::new(|| {});
            Box::new(move || {
                irqfd.assign_resample(Gsi(n % 20), sink.clone()).expect("assign");
                irqfd.deassign().expect("deassign");
            })
        });
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// Nanoseconds of one delivery of a cached MSI to a controller that does nothing with it, on each
/// of the threads.
fn delivery(threads: u32, time: Duration) -> f64 {
    let vm = vm();
    let _ = vm
        .reroute(
            RoutingTable::new(&[(Gsi(24), Route::Msi(Msi::new(0xfee0_0000, 0x41)))])
                .expect("a route"),
        )
        .expect("no pin");
    let thousands = rate(threads, time, |_| {
        let irqfd = vm.irqfd();
        irqfd.assign(Gsi(24)).expect("assign");
        Box::new(move || {
            for _ in 0..1000 {
                irqfd.signal();
            }
        })
    });
    1e6 * f64::from(threads) / thousands
}

#[cfg(target_os = "linux")]
mod eventfds {
    use super::*;
    use doorbell_irqfd::eventfd::{Descriptor, EventLoop, EventSink, of_eventfd};
    use kvm_ioctls::Kvm;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    fn pair() -> (EventFd, EventFd) {
        (
            EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
            EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
        )
    }

    /// Measures real eventfds, through the epoll thread: looked at once, or anew for each pair.
    pub fn ours(threads: u32, time: Duration, anew: bool) -> f64 {
        let vm = vm();
        let events = Arc::new(EventLoop::spawn().expect("a thread"));
        rate(threads, time, |n| {
            let (vm, events, (event, resample)) = (vm.clone(), events.clone(), pair());
            let look = move || {
                let sink: Arc<dyn Notify> =
                    Arc::new(EventSink::new(of_eventfd(&resample)).expect("an eventfd"));
                (Descriptor::eventfd(of_eventfd(&event)).expect("an eventfd"), sink)
            };
            let once = look();
            Box::new(move || {
                let (descriptor, sink) = if anew { look() } else { once.clone() };
                let served =
                    events.assign_resample(&vm, descriptor, Gsi(n % 24), sink).expect("assign");
                events.deassign(served).expect("deassign");
            })
        })
    }

    pub fn kvm(threads: u32, time: Duration) -> Result<f64, String> {
        let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
        let vm = kvm.create_vm().map_err(|error| format!("KVM_CREATE_VM: {error}"))?;
        vm.create_irq_chip().map_err(|error| format!("KVM_CREATE_IRQCHIP: {error}"))?;
        let (event, resample) = pair();
        vm.register_irqfd_with_resample(&event, &resample, 0)
            .map_err(|error| format!("KVM_IRQFD: {error}"))?;
        vm.unregister_irqfd(&event, 0).map_err(|error| format!("KVM_IRQFD: {error}"))?;
        let vm = Arc::new(vm);
        Ok(rate(threads, time, |n| {
            let (vm, (event, resample)) = (vm.clone(), pair());
            Box::new(move || {
                vm.register_irqfd_with_resample(&event, &resample, n % 24).expect("assign");
                vm.unregister_irqfd(&event, n % 24).expect("deassign");
            })
        }))
    }
}

fn main() {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<u32>().expect("a number"));
    let threads = args.next().unwrap_or(4).max(1);
    let time = Duration::from_secs(args.next().unwrap_or(3).into());
    println!(
        "assign + deassign with resampling, {threads} threads on one VM, {} s each, pairs per second:",
        time.as_secs()
    );

    let ours = direct(threads, time, |n| n % 24);
    println!("  doorbell, sources in the process, a GSI each   {ours:>10.0}");
    println!(
        "  doorbell, sources in the process, one GSI      {:>10.0}",
        direct(threads, time, |_| 5)
    );
    println!(
        "  doorbell, the same under signals and acks      {:>10.0}",
        under_load(threads, time)
    );
    println!("  (a delivery takes {:.1} ns on each thread)", delivery(threads, time));
    #[cfg(target_os = "linux")]
    {
        let eventfds = eventfds::ours(threads, time, false);
        println!("  doorbell, eventfds                             {eventfds:>10.0}");
        println!(
            "  doorbell, eventfds looked at for each pair     {:>10.0}",
            eventfds::ours(threads, time, true)
        );
        match eventfds::kvm(threads, time) {
            Ok(kvm) => {
                println!("  KVM, eventfds                                  {kvm:>10.0}");
                println!(
                    "ratio to KVM: {:.1} in the process, {:.1} with eventfds",
                    ours / kvm,
                    eventfds / kvm
                );
            }
            Err(why) => println!("  KVM: not measured: {why}"),
        }
    }
}
