//! What one thread can see: routes, resampling, acknowledgements, what is kept, what it costs.

mod common;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::*;
use doorbell_irqfd::{
    Controller, Deassigning, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, Signalled, SourceId,
};
use doorbell_platform::{Counting, Std};

const RAISED: u64 = 1 << SourceId::RESAMPLE.number();

#[test]
fn each_kind_of_route_reaches_the_controller_as_what_it_is() {
    let vm = vm::<Std>();
    let (edge, msi) = (vm.irqfd(), vm.irqfd());
    edge.assign(EDGE).unwrap();
    msi.assign(MSI).unwrap();
    assert_eq!(edge.signal(), Signalled::Delivered);
    assert_eq!(msi.signal(), Signalled::Delivered);
    assert_eq!(vm.controller().take(), [Seen::Edge(EDGE_PIN), Seen::Msi(MESSAGE)]);
}

#[test]
fn a_gsi_with_several_pins_reaches_all_of_them() {
    let vm = vm::<Std>();
    let second = Pin::new(1, 9);
    let _ =
        vm.reroute(table(&[(EDGE, Route::Edge(EDGE_PIN)), (EDGE, Route::Edge(second))])).unwrap();
    vm.controller().take();
    let irqfd = vm.irqfd();
    irqfd.assign(EDGE).unwrap();
    irqfd.signal();
    let mut seen = vm.controller().take();
    seen.sort();
    assert_eq!(seen, [Seen::Edge(EDGE_PIN), Seen::Edge(second)]);
}

#[test]
fn a_resampling_irqfd_raises_each_pin_of_its_gsi_until_one_is_acknowledged() {
    let vm = vm::<Std>();
    let _ =
        vm.reroute(table(&[(LEVEL, Route::Level(PIN)), (LEVEL, Route::Level(OTHER_PIN))])).unwrap();
    let irqfd = vm.irqfd();
    irqfd.assign_resample(LEVEL, Count::new()).unwrap();
    irqfd.signal();
    let levels = || [PIN, OTHER_PIN].map(|pin| vm.controller().level(pin));
    assert_eq!(levels(), [RAISED; 2]);
    vm.ack(PIN);
    assert_eq!(levels(), [0; 2]);
}

#[test]
fn an_event_that_stays_kept_is_not_in_the_way_of_one_whose_gsi_has_a_route_again() {
    let vm = vm::<Std>();
    let [stays, comes] = [EDGE, MSI].map(|gsi| {
        let irqfd = vm.irqfd();
        irqfd.assign(gsi).unwrap();
        irqfd
    });
    let _ = vm.reroute(table(&[])).unwrap();
    assert_eq!([stays.signal(), comes.signal()], [Signalled::Pending; 2]);
    vm.controller().take();
    let (host, (done, rerouted)) = (vm.clone(), mpsc::channel());
    thread::spawn(move || {
        done.send(host.reroute(table(&[(MSI, Route::Msi(MESSAGE))])).is_ok()).unwrap()
    });
    assert_eq!(
        rerouted.recv_timeout(Duration::from_secs(60)),
        Ok(true),
        "it may look at one event for ever"
    );
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE)]);
    assert!(stays.take_pending() && !comes.take_pending());
}

#[test]
fn a_message_carries_its_device_id() {
    let vm = vm::<Std>();
    let message = Msi::from_device(0x1234, 0x0808_0040, 7);
    let _ = vm.reroute(table(&[(MSI, Route::Msi(message))])).unwrap();
    vm.controller().take();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    irqfd.signal();
    assert_eq!(vm.controller().take(), [Seen::Msi(message)]);
}

#[test]
fn a_direct_delivery_of_a_cached_msi_or_pin_costs_two_read_modify_writes_and_no_lock() {
    struct Null;
    impl Controller for Null {
        type Delivery = ();

        fn pins(&self, _: u16) -> u32 {
            8
        }
        fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
        fn edge(&self, _: Pin) {}
        fn msi(&self, _: Msi) {}
    }
    type P = Counting<Std>;
    let vm = Irqfds::<P, Null>::new(Null, Limits { gsis: 32, ..Limits::default() });
    let _ = vm.reroute(table(&[(MSI, Route::Msi(MESSAGE)), (LEVEL, Route::Pin(PIN))])).unwrap();
    for gsi in [MSI, LEVEL] {
        let irqfd = vm.irqfd();
        irqfd.assign(gsi).unwrap();
        let (result, counts) = P::measure(|| irqfd.signal());
        assert_eq!(result, Signalled::Delivered);
        println!("{counts:?}");
        assert_eq!(counts.read_sections, 1);
        assert_eq!(counts.rmws, 2, "the two ends of the SRCU section (the issue allows 3)");
        assert_eq!((counts.spins, counts.mutexes, counts.irq_saves, counts.stores), (0, 0, 0, 0));
        assert_eq!((counts.wakes, counts.parks, counts.queued, counts.ipis), (0, 0, 0, 0));
    }
}

#[test]
fn an_operation_takes_as_few_locks_as_it_needs() {
    type P = Counting<Std>;
    let vm = vm::<P>();
    let (irqfd, sink) = (vm.irqfd(), Count::new());
    // Makes room in the lists.
    irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    irqfd.deassign().unwrap();

    let show = |what, spins, f: &mut dyn FnMut()| {
        let ((), counts) = P::measure(f);
        println!("{what}: {counts:?}");
        assert_eq!((counts.spins, counts.mutexes), (spins, 0), "{what}");
        assert_eq!((counts.wakes, counts.parks, counts.queued), (0, 0, 0), "{what}");
    };
    // Those with a grace period take the lock of the grace period.
    show("assign", 1, &mut || irqfd.assign(MSI).unwrap());
    show("deassign", 2, &mut || irqfd.deassign().unwrap());
    show("resampling assign", 3, &mut || irqfd.assign_resample(LEVEL, sink.clone()).unwrap());
    show("a raised level", 0, &mut || assert_eq!(irqfd.signal(), Signalled::Delivered));
    show("ack", 1, &mut || vm.ack(PIN));
    show("ack of a pin without listeners", 0, &mut || vm.ack(EDGE_PIN));
    show("resampling deassign", 3, &mut || irqfd.deassign().unwrap());
    show("reroute", 2, &mut || drop(vm.reroute(table(&standard())).unwrap()));
}

#[test]
fn assigning_waits_for_no_grace_period_even_with_resampling() {
    let vm = vm::<Std>();
    let irqfd = Arc::new(vm.irqfd());
    let inside = Arc::new(Mutex::new(Vec::new()));
    // From a notification, that is, from inside a read section: a grace period would never end.
    let notifier = {
        let (irqfd, inside, sink) = (irqfd.clone(), inside.clone(), Count::new());
        vm.register_ack_notifier(
            LEVEL,
            Arc::new(move || {
                inside.lock().unwrap().push(irqfd.assign_resample(LEVEL, sink.clone()))
            }),
        )
        .unwrap()
    };
    vm.ack(PIN);
    assert_eq!(*inside.lock().unwrap(), [Ok(())]);
    notifier.unregister();
    irqfd.deassign().unwrap();
}

#[test]
fn an_event_that_came_before_assignment_is_injected_by_it() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    assert_eq!(irqfd.signal(), Signalled::Pending);
    assert_eq!(irqfd.signal(), Signalled::Pending);
    assert_eq!(vm.controller().take(), []);
    irqfd.assign(MSI).unwrap();
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE)], "once: kept events coalesce");
}

#[test]
fn an_event_between_two_assignments_is_injected_by_the_second() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    irqfd.deassign().unwrap();
    assert_eq!(irqfd.signal(), Signalled::Pending);
    irqfd.assign(EDGE).unwrap();
    assert_eq!(vm.controller().take(), [Seen::Edge(EDGE_PIN)]);
    irqfd.deassign().unwrap();
    assert!(!irqfd.take_pending());
}

#[test]
fn an_event_of_a_gsi_that_lost_its_route_is_kept_until_it_has_one() {
    let vm = vm::<Std>();
    let irqfds: Vec<_> = (0..3).map(|_| vm.irqfd()).collect();
    irqfds.iter().for_each(|irqfd| irqfd.assign(MSI).unwrap());
    let _ = vm.reroute(table(&[])).unwrap();
    assert_eq!(irqfds[0].signal(), Signalled::Pending);
    assert_eq!(irqfds[2].signal(), Signalled::Pending);
    vm.controller().take();
    let _ = vm.reroute(table(&standard())).unwrap();
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE); 2]);
    assert_eq!(irqfds[1].signal(), Signalled::Delivered);
}

#[test]
fn an_acknowledgement_lowers_the_line_and_then_notifies() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    let chip = vm.controller().clone();
    let levels = Arc::new(Mutex::new(Vec::new()));
    let sink = levels.clone();
    irqfd
        .assign_resample(LEVEL, Arc::new(move || sink.lock().unwrap().push(chip.level(PIN))))
        .unwrap();
    irqfd.signal();
    assert_eq!(vm.controller().level(PIN), RAISED);
    vm.ack(PIN);
    assert_eq!(*levels.lock().unwrap(), [0], "notified once, with the line low");
    vm.notify_ack(LEVEL);
    assert_eq!(levels.lock().unwrap().len(), 2);
}

/// A device that keeps its line up: it signals, and once more out of each notification.
fn signals_again(vm: &Irqfds<Std, Arc<Chip>>) -> Arc<Irqfd<Std, Arc<Chip>>> {
    let irqfd = Arc::new(vm.irqfd());
    let device = Arc::downgrade(&irqfd);
    let again = move || {
        device.upgrade().unwrap().signal();
    };
    irqfd.assign_resample(LEVEL, Arc::new(again)).unwrap();
    irqfd.signal();
    irqfd
}

#[test]
fn a_device_that_signals_again_out_of_the_notification_keeps_its_line_up() {
    let vm = vm::<Std>();
    let _irqfd = signals_again(&vm);
    for _ in 0..3 {
        vm.ack(PIN);
        assert_eq!(vm.controller().level(PIN), RAISED);
    }
}

#[test]
fn all_irqfds_of_a_resampler_are_notified_and_only_the_last_to_leave_lowers_the_line() {
    let vm = vm::<Std>();
    let devices: Vec<_> = (0..11).map(|_| (vm.irqfd(), Count::new())).collect();
    for (irqfd, sink) in &devices {
        irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    }
    devices[3].0.signal();
    vm.ack(PIN);
    assert!(devices.iter().all(|(_, sink)| sink.get() == 1));

    devices[4].0.signal();
    vm.controller().take();
    for (irqfd, _) in &devices[..10] {
        irqfd.deassign().unwrap();
    }
    assert_eq!(vm.controller().take(), [], "others are left, whose acknowledgement lowers it");
    devices[10].0.deassign().unwrap();
    assert_eq!(vm.controller().take(), [Seen::Level(PIN, SourceId::RESAMPLE, false)]);
    assert!(devices.iter().all(|(_, sink)| sink.get() == 1), "none is notified when it has left");
}

#[test]
fn a_newcomer_whose_level_the_departed_lowers_is_told_so() {
    let vm = vm::<Std>();
    let (old, new, told) = (vm.irqfd(), vm.irqfd(), Count::new());
    old.assign_resample(LEVEL, Count::new()).unwrap();
    let leaving = old.deassign_begin().unwrap();
    new.assign_resample(LEVEL, told.clone()).unwrap();
    new.signal();
    assert_eq!(told.get(), 0);
    leaving.wait();
    assert_eq!(
        (vm.controller().level(PIN), told.get()),
        (0, 1),
        "lowered, but the device is asked to raise it again"
    );
}

#[test]
fn the_vmm_may_hold_a_line_up_that_an_acknowledgement_lowers() {
    let vm = vm::<Std>();
    let (irqfd, sink) = (vm.irqfd(), Count::new());
    irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    vm.set_irq(LEVEL, SourceId::USERSPACE, true).unwrap();
    irqfd.signal();
    vm.ack(PIN);
    assert_eq!((vm.controller().level(PIN), sink.get()), (1 << SourceId::USERSPACE.number(), 1));
    vm.set_irq(LEVEL, SourceId::USERSPACE, false).unwrap();
    assert_eq!(vm.controller().level(PIN), 0);
}

#[test]
fn set_irq_on_an_edge_or_a_message_is_an_event_when_it_rises() {
    let vm = vm::<Std>();
    for gsi in [EDGE, MSI] {
        vm.set_irq(gsi, SourceId::USERSPACE, true).unwrap();
        vm.set_irq(gsi, SourceId::USERSPACE, false).unwrap();
    }
    assert_eq!(vm.controller().take(), [Seen::Edge(EDGE_PIN), Seen::Msi(MESSAGE)]);
}

#[test]
fn gsis_that_share_a_pin_are_acknowledged_together() {
    let vm = vm::<Std>();
    let shared = Gsi(6);
    let _ = vm.reroute(table(&[(LEVEL, Route::Level(PIN)), (shared, Route::Level(PIN))])).unwrap();
    let devices = [LEVEL, shared].map(|gsi| (vm.irqfd(), Count::new(), gsi));
    for (irqfd, sink, gsi) in &devices {
        irqfd.assign_resample(*gsi, sink.clone()).unwrap();
    }
    devices[0].0.signal();
    devices[1].0.signal();
    vm.notify_ack(LEVEL);
    assert_eq!(vm.controller().level(PIN), 0);
    assert!(devices.iter().all(|(_, sink, _)| sink.get() == 1), "both had raised the one line");
    devices[1].0.signal();
    devices[0].0.deassign().unwrap();
    assert_eq!(
        devices[1].1.get(),
        2,
        "the last of one GSI lowered the line of the other, and told it"
    );
}

#[test]
fn an_ack_notifier_hears_of_its_gsi_until_it_is_unregistered() {
    let vm = vm::<Std>();
    let heard = Count::new();
    let notifier = vm.register_ack_notifier(EDGE, heard.clone()).unwrap();
    vm.ack(EDGE_PIN);
    vm.ack(PIN);
    vm.ack(Pin::new(9, 9));
    assert_eq!(heard.get(), 1);
    assert_eq!(vm.controller().take(), [], "an edge is not lowered");
    notifier.unregister();
    vm.ack(EDGE_PIN);
    assert_eq!(heard.get(), 1);
    let unrouted = vm.register_ack_notifier(UNROUTED, heard.clone()).unwrap();
    vm.notify_ack(UNROUTED);
    assert_eq!(heard.get(), 2);
    drop(unrouted);
    vm.notify_ack(UNROUTED);
    assert_eq!(heard.get(), 2);
}

#[test]
fn an_acknowledgement_of_a_pin_without_listeners_leaves_the_controller_alone() {
    let vm = vm::<Std>();
    vm.ack(PIN);
    vm.notify_ack(LEVEL);
    vm.notify_ack(UNROUTED);
    vm.notify_ack(Gsi(u32::MAX));
    assert_eq!(vm.controller().take(), []);
}

#[test]
fn a_raised_line_moves_with_its_gsi() {
    let vm = vm::<Std>();
    let _irqfd = signals_again(&vm);
    let _ = vm.reroute(table(&[(LEVEL, Route::Level(OTHER_PIN))])).unwrap();
    assert_eq!((vm.controller().level(PIN), vm.controller().level(OTHER_PIN)), (0, RAISED));
    let _ = vm.reroute(table(&[])).unwrap();
    assert_eq!(vm.controller().level(OTHER_PIN), 0);
    let _ = vm.reroute(table(&standard())).unwrap();
    assert_eq!(vm.controller().level(PIN), RAISED, "kept while there was no pin");
}

#[test]
fn a_gsi_whose_route_did_not_change_does_not_notice_a_new_table() {
    let vm = vm::<Std>();
    let (irqfd, sink) = (vm.irqfd(), Count::new());
    irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    irqfd.signal();
    let mut more = standard();
    more.push((Gsi(25), Route::Msi(MESSAGE)));
    let _ = vm.reroute(table(&more)).unwrap();
    assert_eq!((vm.controller().level(PIN), sink.get()), (RAISED, 0));
}

#[test]
fn nothing_stays_behind_when_a_source_is_dropped() {
    let vm = vm::<Std>();
    let sink = Count::new();
    let irqfd = vm.irqfd();
    irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    irqfd.signal();
    drop(irqfd);
    assert_eq!(vm.assigned(), 0);
    let chip = vm.controller().clone();
    drop(vm);
    // The rest happens after a grace period, in deferred work.
    while chip.level(PIN) != 0 || Arc::strong_count(&chip) > 1 || Arc::strong_count(&sink) > 1 {
        std::thread::yield_now();
    }
}

#[test]
fn closing_a_vm_of_thousands_takes_one_grace_period_and_leaves_nothing_raised() {
    let vm = vm::<Counting<Std>>();
    let one = vm.irqfd();
    one.assign(MSI).unwrap();
    let leaving = one.deassign_begin().unwrap();
    let ((), of_one) = Counting::<Std>::measure(|| leaving.wait());
    let mut sources: Vec<Irqfd<_, _>> = (0..5000).map(|_| vm.irqfd()).collect();
    for (n, irqfd) in sources.iter().enumerate() {
        match n % 3 {
            0 => irqfd.assign(MSI).unwrap(),
            1 => irqfd.assign(EDGE).unwrap(),
            _ => irqfd.assign_resample(LEVEL, Count::new()).unwrap(),
        }
    }
    assert_eq!(vm.assigned(), 5000);
    sources[2].signal();
    let leaving = vm.close();
    assert_eq!(vm.assigned(), 0);
    let ((), counts) = Counting::<Std>::measure(|| leaving.wait());
    assert_eq!(
        counts.fences, of_one.fences,
        "a grace period has some, and nothing else that leaving does"
    );
    assert_eq!(vm.controller().level(PIN), 0);
    vm.controller().take();
    assert!(sources.iter().all(|irqfd| irqfd.signal() == Signalled::Pending));
    assert_eq!(vm.controller().take(), []);
    vm.close().wait();
    sources.clear();
}

#[test]
fn many_deassignments_share_a_grace_period() {
    let vms = [vm::<Std>(), vm::<Std>()];
    let sources: Vec<_> = (0..100).map(|n| vms[n % 2].irqfd()).collect();
    for irqfd in &sources {
        irqfd.assign_resample(LEVEL, Count::new()).unwrap();
        irqfd.signal();
    }
    Deassigning::wait_all(sources.iter().map(|irqfd| irqfd.deassign_begin().unwrap()));
    for irqfd in &sources {
        assert!(!irqfd.is_assigned());
        irqfd.assign(MSI).unwrap();
    }
    for vm in &vms {
        assert_eq!((vm.controller().level(PIN), vm.assigned()), (0, 50));
    }
}

/// A controller with one pin, whose trigger mode the guest sets.
#[derive(Default)]
struct Entry(Mutex<EntryState>);

#[derive(Default)]
struct EntryState {
    is_level: bool,
    sources: u32,
    interrupts: u32,
    /// A level-triggered interrupt has been taken, and not ended.
    remote_irr: bool,
}

impl Controller for Entry {
    type Delivery = ();

    fn pins(&self, chip: u16) -> u32 {
        if chip == 0 { 1 } else { 0 }
    }
    fn set_irq(&self, _: Pin, source: SourceId, level: bool) {
        let mut entry = self.0.lock().unwrap();
        let before = entry.sources;
        entry.sources = if level { before | source.bit() } else { before & !source.bit() };
        let rises = before == 0 && entry.sources != 0;
        if if entry.is_level { entry.sources != 0 && !entry.remote_irr } else { rises } {
            entry.remote_irr = entry.is_level;
            entry.interrupts += 1;
        }
    }
    fn edge(&self, _: Pin) {
        self.0.lock().unwrap().interrupts += 1;
    }
    fn msi(&self, _: Msi) {}
}

#[test]
fn a_guest_that_changes_the_trigger_mode_of_a_pin_is_served_by_the_same_route() {
    let vm = Irqfds::<Std, _>::new(Arc::new(Entry::default()), Limits::default());
    let _ = vm.reroute(table(&[(LEVEL, Route::Pin(Pin::new(0, 0)))])).unwrap();
    let entry = |f: &dyn Fn(&mut EntryState) -> u32| f(&mut vm.controller().0.lock().unwrap());
    let (plain, resampling) = (vm.irqfd(), vm.irqfd());
    plain.assign(LEVEL).unwrap();
    for is_level in [false, true] {
        entry(&|entry| {
            *entry = EntryState { is_level, ..EntryState::default() };
            0
        });
        for interrupts in 1..=2 {
            assert_eq!(plain.signal(), Signalled::Delivered);
            assert_eq!(entry(&|entry| entry.interrupts), interrupts, "level: {is_level}");
            entry(&|entry| u32::from(std::mem::take(&mut entry.remote_irr)));
        }
        assert_eq!(entry(&|entry| entry.sources), 0, "a pulse leaves nothing raised");
    }
    let sink = Count::new();
    resampling.assign_resample(LEVEL, sink.clone()).unwrap();
    resampling.signal();
    assert_eq!(entry(&|entry| entry.sources), SourceId::RESAMPLE.bit());
    assert!(vm.is_listened_to(Pin::new(0, 0)) && !vm.is_listened_to(Pin::new(0, 1)));
    vm.ack(Pin::new(0, 0));
    assert_eq!((entry(&|entry| entry.sources), sink.get()), (0, 1));
    resampling.deassign().unwrap();
    assert!(!vm.is_listened_to(Pin::new(0, 0)));
}

#[test]
fn a_level_that_is_set_three_times_is_one_rise() {
    let vm = Irqfds::<Std, _>::new(Arc::new(Entry::default()), Limits::default());
    let _ = vm.reroute(table(&[(LEVEL, Route::Pin(Pin::new(0, 0)))])).unwrap();
    (0..3).for_each(|_| vm.set_irq(LEVEL, SourceId::USERSPACE, true).unwrap());
    assert_eq!(vm.controller().0.lock().unwrap().interrupts, 1);
    vm.set_irq(LEVEL, SourceId::USERSPACE, false).unwrap();
    assert_eq!(vm.controller().0.lock().unwrap().sources, 0);
}

#[test]
fn what_is_pending_is_read_without_being_taken_and_restored_in_another_vm() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    let _ = vm.reroute(table(&[])).unwrap();
    irqfd.signal();
    vm.controller().take();
    assert!(irqfd.is_pending() && irqfd.is_pending());
    let other = common::vm::<Std>();
    let restored = other.irqfd();
    assert!(!restored.is_pending());
    restored.signal();
    restored.assign(MSI).unwrap();
    assert_eq!(other.controller().take(), [Seen::Msi(MESSAGE)]);
    let _ = vm.reroute(table(&standard())).unwrap();
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE)], "the one that was saved goes on");
    assert!(!irqfd.is_pending());
}
