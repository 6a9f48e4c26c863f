//! Real threads, and whatever order the machine gives their accesses: a line that changes its
//! consumer, and an MSI-X entry that is masked, unmasked and given other messages, while interrupts
//! come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use doorbell_host::msi::spec::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use doorbell_host::msi::{
    ConsumerSwitch, Drain, MsiConsumer, Msix, MsixSignalled, MsixWritten, Signal,
};
use doorbell_platform::Std;

const SENDERS: u64 = 2;
const INTERRUPTS: u64 = 20_000;

#[derive(Clone, Default)]
struct Event(Arc<AtomicU64>);

impl Signal for Event {
    fn signal(&self, count: u64) {
        self.0.fetch_add(count, SeqCst);
    }
}

impl Drain for Event {
    fn drain(&self) -> u64 {
        self.0.swap(0, SeqCst)
    }
}

/// Sends from some threads, and has `meanwhile` called again and again until all is sent.
fn send(interrupt: impl Fn() + Sync, mut meanwhile: impl FnMut()) {
    let left = AtomicU64::new(SENDERS);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                (0..INTERRUPTS).for_each(|_| interrupt());
                left.fetch_sub(1, SeqCst);
            });
        }
        while left.load(SeqCst) > 0 {
            meanwhile();
        }
    });
}

#[test]
fn a_line_that_changes_its_consumer_delivers_exactly_what_was_raised() {
    let line =
        ConsumerSwitch::<Std, _, _>::new(Event::default(), Event::default(), MsiConsumer::User);
    let mut read = 0;
    send(
        || line.signal(),
        || {
            line.switch(MsiConsumer::Direct);
            line.switch(MsiConsumer::User);
            read += line.user().drain();
        },
    );
    line.switch(MsiConsumer::Direct);
    assert_eq!(line.user().drain(), 0);
    assert_eq!(line.direct().0.load(SeqCst) + read, SENDERS * INTERRUPTS);
}

#[test]
fn an_msix_entry_delivers_whatever_the_guest_does_with_it_and_keeps_nothing_in_the_end() {
    let msix = Msix::<Std>::new(1).unwrap();
    let (delivered, came) = (AtomicU64::new(0), AtomicBool::new(false));
    let deliver = || {
        delivered.fetch_add(1, SeqCst);
        came.store(true, SeqCst);
    };
    let act = |mut written: MsixWritten<'_, Std>| {
        while let MsixWritten::Route(route) = written {
            written = route.routed();
        }
        if let MsixWritten::Deliver(_) = written {
            deliver();
        }
    };
    let mut data = 0;
    let mut guest = || {
        data += 1;
        act(msix.write_table(12, 4, 1));
        act(msix.write_table(8, 4, data / 4));
        act(msix.write_table(12, 4, 0));
        msix.write_control(MSIX_ENABLE | MSIX_FUNCTION_MASK).each(&act);
        msix.write_control(MSIX_ENABLE).each(&act);
    };
    let interrupt = || {
        if msix.signal(0) == Ok(MsixSignalled::Deliver) {
            deliver();
        }
    };
    send(interrupt, &mut guest);
    guest();
    assert_eq!(msix.read_pending(0, 8), 0);
    assert!((1..=SENDERS * INTERRUPTS).contains(&delivered.load(SeqCst)));
    // One by one, each of them arrives.
    for _ in 0..1000 {
        came.store(false, SeqCst);
        thread::scope(|scope| {
            scope.spawn(interrupt);
            guest();
        });
        guest();
        assert!(came.load(SeqCst));
    }
}
