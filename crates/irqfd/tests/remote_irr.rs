//! What the order of an acknowledgement and of clearing Remote IRR costs, at an IOAPIC's pin.

mod common;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::table;
use doorbell_irqfd::{Controller, Gsi, Irqfds, Limits, Msi, Pin, Route, SourceId};
use doorbell_platform::Std;

/// A level-triggered entry of an IOAPIC.
#[derive(Default)]
struct Entry {
    sources: u32,
    remote_irr: bool,
    interrupts: u32,
}

impl Entry {
    fn look(&mut self) {
        if self.sources != 0 && !self.remote_irr {
            self.remote_irr = true;
            self.interrupts += 1;
        }
    }
}

#[derive(Default)]
struct Ioapic(Mutex<Entry>);

impl Ioapic {
    fn clear_remote_irr(&self) {
        let mut entry = self.0.lock().unwrap();
        entry.remote_irr = false;
        entry.look();
    }
}

impl Controller for Ioapic {
    type Delivery = ();

    fn pins(&self, _: u16) -> u32 {
        1
    }
    fn set_irq(&self, _: Pin, source: SourceId, level: bool) {
        let mut entry = self.0.lock().unwrap();
        let bit = source.bit();
        entry.sources = if level { entry.sources | bit } else { entry.sources & !bit };
        entry.look();
    }
    fn edge(&self, _: Pin) {}
    fn msi(&self, _: Msi) {}
}

const GSI: Gsi = Gsi(5);
const PIN: Pin = Pin::new(0, 0);
const EVENTS: u32 = 2_000;

/// The spurious interrupts of a guest that serves so many events, of which so many come at a time,
/// and ends each interrupt in this order.
fn spurious(at_a_time: u32, acks_first: bool) -> u32 {
    let vm = Irqfds::<Std, _>::new(Ioapic::default(), Limits::default());
    let _ = vm.reroute(table(&[(GSI, Route::Pin(PIN))])).unwrap();
    let (irqfd, wants) = (vm.irqfd(), Arc::new(AtomicU32::new(0)));
    let still = Arc::clone(&wants);
    irqfd
        .assign_resample_with(GSI, move |irqfd| {
            if still.load(SeqCst) > 0 {
                irqfd.signal();
            }
        })
        .unwrap();
    let (mut taken, mut served) = (0, 0);
    while served < EVENTS || vm.controller().0.lock().unwrap().interrupts > taken {
        if vm.controller().0.lock().unwrap().interrupts == taken {
            wants.fetch_add(at_a_time, SeqCst);
            irqfd.signal();
            continue;
        }
        taken += 1;
        // The handler serves one event, if there is any.
        served += wants.fetch_update(SeqCst, SeqCst, |wants| wants.checked_sub(1)).map_or(0, |_| 1);
        if acks_first {
            vm.ack(PIN);
            vm.controller().clear_remote_irr();
        } else {
            vm.controller().clear_remote_irr();
            vm.ack(PIN);
        }
    }
    taken - served
}

#[test]
fn an_acknowledgement_before_remote_irr_is_cleared_costs_no_interrupt_and_one_after_it_costs_one() {
    for at_a_time in [1, 2] {
        let [first, last] = [true, false].map(|first| spurious(at_a_time, first));
        println!(
            "{EVENTS} events, {at_a_time} at a time, spurious: {first}; acknowledged last: {last}"
        );
        assert_eq!((first, last), (0, EVENTS / at_a_time));
    }
}

#[test]
fn a_listener_that_is_handed_its_irqfd_keeps_neither_it_nor_the_vm() {
    let chip = Arc::new(Ioapic::default());
    let vm = Irqfds::<Std, _>::new(Arc::clone(&chip), Limits::default());
    let _ = vm.reroute(table(&[(GSI, Route::Pin(PIN))])).unwrap();
    let (irqfd, told) = (vm.irqfd(), Arc::new(AtomicU32::new(0)));
    let tells = Arc::clone(&told);
    irqfd
        .assign_resample_with(GSI, move |irqfd| {
            if tells.fetch_add(1, SeqCst) == 0 {
                irqfd.signal();
            }
        })
        .unwrap();
    irqfd.signal();
    vm.ack(PIN);
    assert_eq!(chip.0.lock().unwrap().sources, SourceId::RESAMPLE.bit(), "it is raised again");
    vm.ack(PIN);
    assert_eq!((chip.0.lock().unwrap().sources, told.load(SeqCst)), (0, 2));
    drop((irqfd, vm));
    // The rest happens after a grace period, in deferred work.
    while Arc::strong_count(&chip) > 1 || Arc::strong_count(&told) > 1 {
        std::thread::yield_now();
    }
}
