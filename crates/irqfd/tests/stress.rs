//! Many threads on one VM. A lost interrupt shows as a test that does not end.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;

use common::{PIN, table};
use doorbell_irqfd::{
    Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Notify, Pin, Route, Signalled, SourceId,
};
use doorbell_platform::Std;

/// Complains of messages that may not arrive, and counts the others; holds one line. Takes its
/// time, so that what should have waited for it has a chance to show that it did not.
#[derive(Default)]
struct Judge {
    /// The messages that may arrive, by their data.
    allowed: [AtomicBool; 8],
    messages: AtomicU64,
    forbidden: AtomicU64,
    line: AtomicU32,
}

impl Controller for Judge {
    type Delivery = ();

    fn pins(&self, _: u16) -> u32 {
        64
    }
    fn set_irq(&self, _: Pin, source: SourceId, level: bool) {
        thread::yield_now();
        match level {
            true => self.line.fetch_or(1 << source.number(), SeqCst),
            false => self.line.fetch_and(!(1 << source.number()), SeqCst),
        };
    }
    fn edge(&self, _: Pin) {}
    fn msi(&self, msi: Msi) {
        thread::yield_now();
        self.messages.fetch_add(1, SeqCst);
        if !self.allowed[msi.message.data as usize].load(SeqCst) {
            self.forbidden.fetch_add(1, SeqCst);
        }
    }
}

type Vm = Irqfds<Std, Judge>;

fn vm() -> Vm {
    Irqfds::new(Judge::default(), Limits { gsis: 64, ..Limits::default() })
}

fn message(gsi: u32, data: u32) -> (Gsi, Route) {
    (Gsi(gsi), Route::Msi(Msi::new(0xfee0_0000, data)))
}

#[test]
fn nothing_is_delivered_after_deassign_has_returned() {
    let vm = vm();
    let _ = vm.reroute(table(&[message(0, 0), message(1, 1), message(2, 2)])).unwrap();
    let sources: Vec<_> = (0..3).map(|_| vm.irqfd()).collect();
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(SeqCst) < 3 {
                    for irqfd in &sources {
                        irqfd.signal();
                    }
                }
            });
        }
        for (n, irqfd) in sources.iter().enumerate() {
            let (vm, done) = (&vm, &done);
            scope.spawn(move || {
                for _ in 0..3000 {
                    vm.controller().allowed[n].store(true, SeqCst);
                    irqfd.assign(Gsi(n as u32)).unwrap();
                    irqfd.deassign().unwrap();
                    vm.controller().allowed[n].store(false, SeqCst);
                }
                done.fetch_add(1, SeqCst);
            });
        }
    });
    assert_eq!(vm.controller().forbidden.load(SeqCst), 0);
}

#[test]
fn no_sink_is_notified_after_deassign_has_returned() {
    struct Sink {
        allowed: AtomicBool,
        forbidden: AtomicU64,
    }
    impl Notify for Sink {
        fn notify(&self) {
            if !self.allowed.load(SeqCst) {
                self.forbidden.fetch_add(1, SeqCst);
            }
        }
    }
    let vm = vm();
    let _ = vm.reroute(table(&[(Gsi(5), Route::Level(PIN))])).unwrap();
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(SeqCst) < 3 {
                vm.ack(PIN);
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let irqfd = vm.irqfd();
                let sink = Arc::new(Sink {
                    allowed: AtomicBool::new(false),
                    forbidden: AtomicU64::new(0),
                });
                for _ in 0..3000 {
                    sink.allowed.store(true, SeqCst);
                    irqfd.assign_resample(Gsi(5), sink.clone()).unwrap();
                    irqfd.signal();
                    irqfd.deassign().unwrap();
                    sink.allowed.store(false, SeqCst);
                }
                assert_eq!(sink.forbidden.load(SeqCst), 0);
                done.fetch_add(1, SeqCst);
            });
        }
    });
    assert_eq!(vm.controller().line.load(SeqCst), 0, "all have left");
}

/// A level-triggered device as it should be: wants service until it gets it, and says so again when
/// asked.
struct Device {
    wants: AtomicBool,
    irqfd: OnceLock<Irqfd<Std, Judge>>,
}

impl Notify for Device {
    fn notify(&self) {
        if self.wants.load(SeqCst) {
            self.irqfd.get().unwrap().signal();
        }
    }
}

#[test]
fn no_level_is_lost_between_acknowledgements_and_generations_of_a_resampler() {
    let vm = vm();
    let _ = vm.reroute(table(&[(Gsi(5), Route::Level(PIN))])).unwrap();
    let devices: Vec<_> = (0..3)
        .map(|_| {
            let device = Arc::new(Device { wants: AtomicBool::new(false), irqfd: OnceLock::new() });
            assert!(device.irqfd.set(vm.irqfd()).is_ok());
            device
        })
        .collect();
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| {
                let irqfd = device.irqfd.get().unwrap();
                for _ in 0..2000 {
                    irqfd.assign_resample(Gsi(5), device.clone()).unwrap();
                    device.wants.store(true, SeqCst);
                    irqfd.signal();
                    while device.wants.load(SeqCst) {
                        thread::yield_now();
                    }
                    irqfd.deassign().unwrap();
                }
                done.fetch_add(1, SeqCst);
            });
        }
        // The guest: serves one device per interrupt, so the others have to ask again.
        scope.spawn(|| {
            while done.load(SeqCst) < 3 {
                if vm.controller().line.load(SeqCst) == 0 {
                    thread::yield_now();
                    continue;
                }
                if let Some(device) = devices.iter().find(|device| device.wants.load(SeqCst)) {
                    device.wants.store(false, SeqCst);
                }
                vm.ack(PIN);
            }
        });
    });
    assert_eq!(vm.controller().line.load(SeqCst), 0);
    devices.iter().for_each(|device| assert!(!device.irqfd.get().unwrap().is_assigned()));
}

#[test]
fn no_delivery_uses_a_route_after_it_was_replaced_while_events_pour_in() {
    let vm = vm();
    let allowed = &vm.controller().allowed;
    allowed[0].store(true, SeqCst);
    let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
    let (stop, delivered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let irqfd = vm.irqfd();
                irqfd.assign(Gsi(9)).unwrap();
                while !stop.load(SeqCst) {
                    assert_eq!(irqfd.signal(), Signalled::Delivered);
                    delivered.fetch_add(1, SeqCst);
                }
            });
        }
        for n in 1..3000 {
            let (old, new) = ((n + 7) % 8, n % 8);
            allowed[new].store(true, SeqCst);
            let _ = vm.reroute(table(&[message(9, new as u32), message(8, 0)])).unwrap();
            allowed[old].store(false, SeqCst);
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(vm.controller().forbidden.load(SeqCst), 0);
    assert_eq!(vm.controller().messages.load(SeqCst), delivered.load(SeqCst), "each once");
}

/// Signals `events` events, each when the one before has arrived, while another thread does
/// `meanwhile` over and over.
fn signal_while(vm: &Vm, irqfd: &Irqfd<Std, Judge>, events: u32, meanwhile: impl Fn() + Sync) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                meanwhile();
            }
        });
        let messages = &vm.controller().messages;
        for _ in 0..events {
            let before = messages.load(SeqCst);
            irqfd.signal();
            while messages.load(SeqCst) == before {
                thread::yield_now();
            }
        }
        stop.store(true, SeqCst);
    });
}

#[test]
fn an_event_is_not_lost_while_its_route_comes_and_goes() {
    let vm = vm();
    vm.controller().allowed[0].store(true, SeqCst);
    let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
    let irqfd = vm.irqfd();
    irqfd.assign(Gsi(9)).unwrap();
    signal_while(&vm, &irqfd, 3000, || {
        let _ = vm.reroute(table(&[])).unwrap();
        let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
    });
}

#[test]
fn an_event_is_not_lost_while_its_irqfd_is_assigned_and_deassigned() {
    let vm = vm();
    vm.controller().allowed[0].store(true, SeqCst);
    let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
    let irqfd = vm.irqfd();
    signal_while(&vm, &irqfd, 3000, || {
        irqfd.assign(Gsi(9)).unwrap();
        irqfd.deassign().unwrap();
    });
    assert!(!irqfd.take_pending());
}

#[test]
fn an_event_that_meets_its_assignment_is_delivered() {
    let vm = vm();
    vm.controller().allowed[0].store(true, SeqCst);
    let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
    let (irqfd, round) = (vm.irqfd(), AtomicU32::new(0));
    let jitter = |n| (0..n).for_each(|_| std::hint::spin_loop());
    let wait_for = |n| {
        for spins in 0.. {
            if round.load(SeqCst) >= n {
                break;
            }
            // The other may have no CPU to run on.
            if spins < 1000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..5000 {
                wait_for(3 * n + 1);
                jitter(n % 61);
                irqfd.signal();
                round.fetch_add(1, SeqCst);
            }
        });
        for n in 0..5000 {
            round.fetch_add(1, SeqCst);
            jitter(n % 67);
            irqfd.assign(Gsi(9)).unwrap();
            round.fetch_add(1, SeqCst);
            wait_for(3 * n + 3);
            assert_eq!(
                vm.controller().messages.load(SeqCst),
                u64::from(n) + 1,
                "neither lost nor doubled"
            );
            irqfd.deassign().unwrap();
        }
    });
}

#[test]
fn an_event_is_not_lost_when_nobody_waits_for_the_deassignment() {
    let vm = vm();
    vm.controller().allowed[0].store(true, SeqCst);
    let irqfd = vm.irqfd();
    signal_while(&vm, &irqfd, 1000, || {
        let _ = vm.reroute(table(&[message(9, 0)])).unwrap();
        let assigned = irqfd.assign(Gsi(9)).is_ok();
        let _ = vm.reroute(table(&[])).unwrap();
        if assigned {
            irqfd.deassign_begin().unwrap().later();
        }
    });
}

#[test]
fn the_line_is_down_when_the_last_irqfd_has_left() {
    let vm = vm();
    let _ = vm.reroute(table(&[(Gsi(5), Route::Level(PIN))])).unwrap();
    let (irqfd, stop) = (vm.irqfd(), AtomicBool::new(false));
    let sink: Arc<dyn Notify> = Arc::new(|| {});
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    irqfd.signal();
                }
            });
        }
        let mut stuck = 0;
        for _ in 0..3000 {
            irqfd.assign_resample(Gsi(5), sink.clone()).unwrap();
            irqfd.deassign().unwrap();
            stuck += u32::from(vm.controller().line.load(SeqCst) != 0);
        }
        stop.store(true, SeqCst);
        assert_eq!(stuck, 0);
    });
}

#[test]
fn a_vm_is_closed_while_others_assign_signal_and_acknowledge() {
    for _ in 0..100 {
        let vm = vm();
        vm.controller().allowed[0].store(true, SeqCst);
        let _ = vm.reroute(table(&[message(9, 0), (Gsi(5), Route::Level(PIN))])).unwrap();
        let sink: Arc<dyn Notify> = Arc::new(|| {});
        let closed = AtomicBool::new(false);
        thread::scope(|scope| {
            for n in 0..2 {
                let (vm, closed, sink) = (&vm, &closed, &sink);
                scope.spawn(move || {
                    let irqfds: Vec<_> = (0..40).map(|_| vm.irqfd()).collect();
                    while !closed.load(SeqCst) {
                        for irqfd in &irqfds {
                            let _ = if n == 0 {
                                irqfd.assign(Gsi(9))
                            } else {
                                irqfd.assign_resample(Gsi(5), sink.clone())
                            };
                            irqfd.signal();
                        }
                        vm.ack(PIN);
                        for irqfd in irqfds.iter().step_by(3) {
                            let _ = irqfd.deassign();
                        }
                    }
                });
            }
            let vm = &vm;
            scope.spawn(move || {
                while vm.reroute(table(&[message(9, 0), (Gsi(5), Route::Level(PIN))])).is_ok() {}
            });
            while vm.assigned() < 40 {
                thread::yield_now();
            }
            vm.close().wait();
            vm.controller().allowed[0].store(false, SeqCst);
            for _ in 0..10 {
                thread::yield_now();
            }
            closed.store(true, SeqCst);
        });
        assert_eq!(vm.assigned(), 0);
        assert_eq!(
            vm.controller().forbidden.load(SeqCst),
            0,
            "a delivery into a VM that was shut down"
        );
        while Arc::strong_count(&sink) > 1 {
            thread::yield_now();
        }
        assert_eq!(vm.controller().line.load(SeqCst), 0);
    }
}
