//! What a careless or hostile caller can do: typed errors, and nothing half-done.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use common::*;
use doorbell_irqfd::{
    Controller, Error, Gsi, Irqfds, Limits, Msi, Notify, Pin, Route, Signalled, SourceId,
};
use doorbell_platform::Std;

#[test]
fn an_unknown_gsi_is_refused_and_the_irqfd_stays_free() {
    let vm = vm::<Std>();
    let (irqfd, sink) = (vm.irqfd(), Count::new());
    for gsi in [UNROUTED, Gsi(64), Gsi(4096), Gsi(u32::MAX)] {
        assert_eq!(irqfd.assign(gsi), Err(Error::UnknownGsi(gsi)));
        assert_eq!(irqfd.assign_resample(gsi, sink.clone()), Err(Error::UnknownGsi(gsi)));
        assert_eq!(vm.set_irq(gsi, SourceId::USERSPACE, true), Err(Error::UnknownGsi(gsi)));
    }
    assert_eq!(Arc::strong_count(&sink), 1);
    assert_eq!(vm.assigned(), 0);
    irqfd.assign(MSI).unwrap();
}

#[test]
fn a_gsi_above_the_limit_has_no_ack_notifiers() {
    let vm = vm::<Std>();
    let error = vm.register_ack_notifier(Gsi(64), Count::new()).err();
    assert_eq!(error, Some(Error::GsiOutOfRange(Gsi(64))));
}

#[test]
fn an_irqfd_is_assigned_once_at_a_time() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    assert_eq!(irqfd.assign(MSI), Err(Error::Busy));
    assert_eq!(irqfd.assign(EDGE), Err(Error::Busy));
    let sink = Count::new();
    assert_eq!(irqfd.assign_resample(LEVEL, sink.clone()), Err(Error::Busy));
    assert_eq!(Arc::strong_count(&sink), 1);
    irqfd.signal();
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE)], "the first assignment is untouched");

    let leaving = irqfd.deassign_begin().unwrap();
    assert_eq!(
        irqfd.assign(EDGE),
        Err(Error::Busy),
        "events of the first assignment may be under way"
    );
    assert_eq!(irqfd.deassign(), Err(Error::NotAssigned));
    leaving.wait();
    irqfd.assign(EDGE).unwrap();
}

#[test]
fn what_is_not_assigned_cannot_be_deassigned() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    assert_eq!(irqfd.deassign(), Err(Error::NotAssigned));
    irqfd.assign(MSI).unwrap();
    irqfd.deassign().unwrap();
    assert_eq!(irqfd.deassign(), Err(Error::NotAssigned));
    assert_eq!(irqfd.deassign_begin().err(), Some(Error::NotAssigned));
}

#[test]
fn a_pulse_on_a_level_and_resampling_of_an_edge_are_refused() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    assert_eq!(irqfd.assign(LEVEL), Err(Error::NeedsResampling(LEVEL)));
    for gsi in [EDGE, MSI] {
        assert_eq!(irqfd.assign_resample(gsi, Count::new()), Err(Error::NotLevel(gsi)));
    }
    assert!(!irqfd.is_assigned());
}

#[test]
fn a_table_that_the_vm_cannot_have_changes_nothing() {
    let limits = Limits { gsis: 64, routes: 3, irqfds: 2 };
    let vm = Irqfds::<Std, Chip>::new(Chip::default(), limits);
    let _ = vm.reroute(table(&standard())).unwrap();
    let mut long = standard();
    long.push((Gsi(6), Route::Edge(PIN)));
    let edge = |gsi, pin| table(&[(Gsi(gsi), Route::Edge(pin))]);
    assert_eq!(vm.reroute(table(&long)).err(), Some(Error::TooManyRoutes(3)));
    assert_eq!(vm.reroute(edge(64, PIN)).err(), Some(Error::GsiOutOfRange(Gsi(64))));
    for pin in [Pin::new(0, PINS), Pin::new(2, 0), Pin::new(u16::MAX, u32::MAX)] {
        assert_eq!(vm.reroute(edge(1, pin)).err(), Some(Error::PinOutOfRange(pin)));
    }
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    irqfd.signal();
    assert_eq!(vm.controller().take(), [Seen::Msi(MESSAGE)]);
}

#[test]
fn a_vm_has_no_more_irqfds_than_its_limit() {
    let vm = Irqfds::<Std, Chip>::new(
        Chip::default(),
        Limits { gsis: 64, irqfds: 2, ..Limits::default() },
    );
    let _ = vm.reroute(table(&standard())).unwrap();
    let sources: Vec<_> = (0..3).map(|_| vm.irqfd()).collect();
    let sink = Count::new();
    sources[0].assign(MSI).unwrap();
    sources[1].assign(MSI).unwrap();
    assert_eq!(sources[2].assign(MSI), Err(Error::TooManyIrqfds(2)));
    assert_eq!(sources[2].assign_resample(LEVEL, sink.clone()), Err(Error::TooManyIrqfds(2)));
    assert_eq!(Arc::strong_count(&sink), 1);
    sources[0].deassign().unwrap();
    sources[2].assign_resample(LEVEL, sink).unwrap();
}

#[test]
fn the_source_ids_of_irqfds_are_reserved() {
    let vm = vm::<Std>();
    for source in [SourceId::RESAMPLE, SourceId::IRQFD] {
        assert_eq!(vm.set_irq(LEVEL, source, true), Err(Error::ReservedSource));
    }
    assert_eq!(vm.controller().take(), []);
}

#[test]
fn a_vm_that_was_shut_down_refuses_politely() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    vm.close().later();
    assert_eq!(irqfd.deassign(), Err(Error::NotAssigned));
    assert_eq!(irqfd.assign(MSI), Err(Error::Closed));
    assert_eq!(vm.reroute(table(&[])).err(), Some(Error::Closed));
    assert_eq!(irqfd.signal(), Signalled::Pending);
    assert!(irqfd.take_pending(), "handed back to who still wants it");
}

#[test]
fn a_gsi_that_became_level_sensitive_under_a_plain_irqfd_is_pulsed() {
    let vm = vm::<Std>();
    let irqfd = vm.irqfd();
    irqfd.assign(EDGE).unwrap();
    let _ = vm.reroute(table(&[(EDGE, Route::Level(PIN))])).unwrap();
    vm.controller().take();
    irqfd.signal();
    let pulse = [true, false].map(|level| Seen::Level(PIN, SourceId::IRQFD, level));
    assert_eq!(vm.controller().take(), pulse);
}

#[test]
fn a_resampling_irqfd_whose_gsi_became_a_message_still_delivers() {
    let vm = vm::<Std>();
    let (irqfd, sink) = (vm.irqfd(), Count::new());
    irqfd.assign_resample(LEVEL, sink.clone()).unwrap();
    irqfd.signal();
    vm.controller().take();
    let _ = vm.reroute(table(&[(LEVEL, Route::Msi(MESSAGE))])).unwrap();
    assert_eq!((vm.controller().level(PIN), sink.get()), (0, 1));
    irqfd.signal();
    assert_eq!(vm.controller().take().last(), Some(&Seen::Msi(MESSAGE)));
    irqfd.deassign().unwrap();
}

#[test]
fn each_source_has_a_bit_of_its_own_in_a_word_and_there_are_no_others() {
    let bits = (0..=u8::MAX).filter_map(SourceId::new).fold(0u32, |all, source| {
        assert_eq!((all & source.bit(), source.bit()), (0, 1 << source.number()));
        all | source.bit()
    });
    assert_eq!((bits, SourceId::new(32), SourceId::new(255)), (u32::MAX, None, None));
    assert_eq!(SourceId::new(0), Some(SourceId::USERSPACE));
}

/// Returns whether a call panics.
fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn a_sink_that_panics_keeps_no_other_from_being_told() {
    let vm = vm::<Std>();
    let other = Gsi(6);
    let _ = vm.reroute(table(&[(LEVEL, Route::Level(PIN)), (other, Route::Level(PIN))])).unwrap();
    let bad: Arc<dyn Notify> = Arc::new(|| panic!("a sink that is wrong"));
    let sinks: Vec<_> = (0..10).map(|_| Count::new()).collect();
    let mut sources = Vec::new();
    for (n, sink) in sinks.iter().enumerate() {
        let irqfd = vm.irqfd();
        irqfd.assign_resample(if n < 7 { LEVEL } else { other }, sink.clone()).unwrap();
        sources.push(irqfd);
        if n == 2 {
            let irqfd = vm.irqfd();
            irqfd.assign_resample(LEVEL, bad.clone()).unwrap();
            sources.push(irqfd);
        }
    }
    for round in 1..=2 {
        sources[0].signal();
        assert!(panics(|| vm.ack(PIN)));
        assert_eq!(vm.controller().level(PIN), 0);
        assert!(sinks.iter().all(|sink| sink.get() == round));
    }
    // The last one that leaves lowers the line, and a table that takes it away does: both tell
    // everyone.
    assert!(panics(|| vm.reroute(table(&standard()))));
    assert!(sinks.iter().all(|sink| sink.get() > 2));
    sources.iter().for_each(|irqfd| irqfd.deassign().unwrap());
    assert_eq!(vm.controller().level(PIN), 0);
}

/// A controller that panics a given number of calls from now.
struct Wrong {
    chip: Chip,
    countdown: AtomicU32,
}

impl Wrong {
    fn call(&self) {
        let last = |left: u32| left.checked_sub(1);
        assert!(
            self.countdown.fetch_update(SeqCst, SeqCst, last) != Ok(1),
            "a controller that is wrong"
        );
    }
}

impl Controller for Wrong {
    type Delivery = ();

    fn pins(&self, chip: u16) -> u32 {
        self.chip.pins(chip)
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        self.call();
        self.chip.set_irq(pin, source, level);
    }
    fn edge(&self, pin: Pin) {
        self.call();
        self.chip.edge(pin);
    }
    fn msi(&self, msi: Msi) {
        self.call();
        self.chip.msi(msi);
    }
}

fn wrong() -> Irqfds<Std, Arc<Wrong>> {
    let wrong = Wrong { chip: Chip::default(), countdown: AtomicU32::new(0) };
    let vm = Irqfds::new(Arc::new(wrong), Limits { gsis: 64, ..Limits::default() });
    let _ = vm.reroute(table(&standard())).unwrap();
    vm
}

#[test]
fn an_irqfd_whose_controller_has_panicked_goes_on() {
    let vm = wrong();
    let irqfd = vm.irqfd();
    irqfd.assign(MSI).unwrap();
    vm.controller().countdown.store(1, SeqCst);
    assert!(panics(|| irqfd.signal()));
    assert_eq!(irqfd.signal(), Signalled::Delivered);
    assert_eq!(vm.controller().chip.take(), [Seen::Msi(MESSAGE)]);
    irqfd.deassign().unwrap();
}

#[test]
fn a_controller_that_panics_when_lines_are_lowered_leaves_no_irqfd_busy_and_nobody_untold() {
    let vm = wrong();
    let sources: Vec<_> = (0..2).map(|_| vm.irqfd()).collect();
    let sinks = [(); 2].map(|()| Count::new());
    let second = Gsi(6);
    let _ = vm
        .reroute(table(&[(LEVEL, Route::Level(PIN)), (second, Route::Level(OTHER_PIN))]))
        .unwrap();
    sources[0].assign_resample(LEVEL, sinks[0].clone()).unwrap();
    sources[1].assign_resample(second, sinks[1].clone()).unwrap();
    sources.iter().for_each(|irqfd| assert_eq!(irqfd.signal(), Signalled::Delivered));
    vm.controller().countdown.store(1, SeqCst);
    let told = [LEVEL, second].map(|gsi| (gsi, Count::new()));
    let _notifiers =
        told.each_ref().map(|(gsi, told)| vm.register_ack_notifier(*gsi, told.clone()).unwrap());
    let leaving: Vec<_> = sources.iter().map(|irqfd| irqfd.deassign_begin().unwrap()).collect();
    assert!(panics(|| doorbell_irqfd::Deassigning::wait_all(leaving)));
    assert!(
        told.iter().all(|(_, told)| told.get() == 1),
        "also of the one whose line could not be lowered"
    );
    assert_eq!(
        [PIN, OTHER_PIN].iter().filter(|pin| vm.controller().chip.level(**pin) == 0).count(),
        1
    );
    sources[0].assign_resample(LEVEL, sinks[0].clone()).unwrap();
    sources[1].assign_resample(second, sinks[1].clone()).unwrap();
}

#[test]
fn kept_events_are_delivered_though_the_controller_panics_with_one_of_them() {
    let vm = wrong();
    let sources: Vec<_> = (0..3).map(|_| vm.irqfd()).collect();
    sources.iter().for_each(|irqfd| irqfd.assign(MSI).unwrap());
    let _ = vm.reroute(table(&[])).unwrap();
    sources.iter().for_each(|irqfd| assert_eq!(irqfd.signal(), Signalled::Pending));
    vm.controller().chip.take();
    vm.controller().countdown.store(1, SeqCst);
    assert!(panics(|| vm.reroute(table(&standard()))));
    assert_eq!(vm.controller().chip.take(), [Seen::Msi(MESSAGE); 2]);
}
