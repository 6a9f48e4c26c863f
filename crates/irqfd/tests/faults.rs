//! What a careless or hostile caller can do: typed errors, and nothing half-done.

mod common;

use std::sync::Arc;

use common::*;
use doorbell_irqfd::{Error, Gsi, Irqfds, Limits, Pin, Route, Signalled, SourceId};
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
    assert_eq!(irqfd.assign(EDGE), Err(Error::Busy), "events of the first assignment may be under way");
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
    let vm = Irqfds::<Std, Chip>::new(Chip::default(), Limits { gsis: 64, irqfds: 2, ..Limits::default() });
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
    assert_eq!(irqfd.signal(), Signalled::Kept);
    assert!(irqfd.take_kept(), "handed back to who still wants it");
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
