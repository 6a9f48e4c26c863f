//! What comes back from a controller that tells: what became of each delivery, and what is owed
//! for it, whoever has brought it about; nobody is called from inside.

mod common;

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::{Count, table};
use doorbell_irqfd::{
    Controller, Delivery, Error, Gsi, Irqfds, Limits, Msi, NoBypass, Outcome, Pin, Route,
    Signalled, SourceId,
};
use doorbell_platform::Std;

/// Says what it is told to say.
struct Says(Mutex<Outcome>);

impl Controller for Says {
    type Delivery = Outcome;

    fn pins(&self, _: u16) -> u32 {
        2
    }
    fn set_irq(&self, _: Pin, _: SourceId, _: bool) -> Outcome {
        *self.0.lock().unwrap()
    }
    fn edge(&self, _: Pin) -> Outcome {
        *self.0.lock().unwrap()
    }
    fn msi(&self, msi: Msi) -> Outcome {
        if msi.message.data == 0 { Outcome::Failed } else { *self.0.lock().unwrap() }
    }
}

const fn msi(data: u32) -> Route {
    Route::Msi(Msi::new(0xfee0_0000, data))
}

#[test]
fn what_became_of_an_event_comes_back_and_of_several_pins_the_best() {
    let vm = Irqfds::<Std, _>::new(Says(Mutex::new(Outcome::Coalesced)), Limits::default());
    let _ = vm.reroute(table(&[(Gsi(1), msi(1)), (Gsi(2), msi(0))])).unwrap();
    let irqfds = [1, 2].map(|gsi| {
        let irqfd = vm.irqfd();
        irqfd.assign(Gsi(gsi)).unwrap();
        irqfd
    });
    assert_eq!(irqfds[0].signal(), Signalled::Coalesced);
    assert_eq!(irqfds[1].signal(), Signalled::Failed, "the message does not vanish");
    assert_eq!(vm.set_irq(Gsi(2), SourceId::USERSPACE, true), Ok(Outcome::Failed));
    assert_eq!(vm.set_irq(Gsi(2), SourceId::USERSPACE, false), Ok(Outcome::Delivered), "nothing");
    assert_eq!(vm.set_irq(Gsi(3), SourceId::USERSPACE, true), Err(Error::UnknownGsi(Gsi(3))));
    *vm.controller().0.lock().unwrap() = Outcome::Delivered;
    assert_eq!(irqfds[0].signal(), Signalled::Delivered);
    let all = [Outcome::Failed, Outcome::Coalesced, Outcome::Delivered];
    for (one, other) in all.into_iter().flat_map(|one| all.map(|other| (one, other))) {
        assert_eq!(one.and(other), one.max(other));
    }
}

#[test]
fn a_result_that_nobody_wants_takes_no_room() {
    assert_eq!(size_of::<Option<()>>(), size_of::<bool>());
    assert_eq!(size_of::<Signalled>(), 1);
}

/// Owes a kick for each delivery, and knows that nobody has called it from inside of one.
#[derive(Default)]
struct Owes {
    kicks: AtomicU32,
    inside: AtomicU32,
}

/// A number of kicks.
#[derive(Default, PartialEq, Eq, Debug)]
#[must_use]
struct Kicks(u32);

impl Delivery for Kicks {
    type Owed = Kicks;

    fn outcome(&self) -> Outcome {
        Outcome::Delivered
    }
    fn owed(self) -> Kicks {
        self
    }
    fn and(self, other: Kicks) -> Kicks {
        Kicks(self.0 + other.0)
    }
}

impl Controller for Owes {
    type Delivery = Kicks;

    fn pins(&self, _: u16) -> u32 {
        2
    }
    fn set_irq(&self, _: Pin, _: SourceId, level: bool) -> Kicks {
        self.edge_or_none(level)
    }
    fn edge(&self, _: Pin) -> Kicks {
        self.edge_or_none(true)
    }
    fn msi(&self, _: Msi) -> Kicks {
        self.edge_or_none(true)
    }
    fn lower(&self, _: Pin, _: SourceId) {}
}

impl Owes {
    fn edge_or_none(&self, owes: bool) -> Kicks {
        self.inside.fetch_add(1, SeqCst);
        self.kicks.fetch_add(u32::from(owes), SeqCst);
        self.inside.fetch_sub(1, SeqCst);
        Kicks(u32::from(owes))
    }
}

const GSI: Gsi = Gsi(1);

#[test]
fn each_kick_that_is_owed_comes_back_once_by_whatever_way_the_event_has_gone() {
    let vm = Irqfds::<Std, _>::new(Owes::default(), Limits::default());
    let pins = [0, 1].map(|n| (GSI, Route::Pin(Pin::new(0, n))));
    let mut all = 0;
    all += vm.reroute(table(&pins)).unwrap().follow_owing(&NoBypass).len();
    let (irqfd, line) = (vm.irqfd(), vm.line(GSI, "line").unwrap());
    assert_eq!(irqfd.signal_owing(), (Signalled::Pending, Kicks(0)));
    let owed = irqfd.assign(GSI).unwrap();
    assert_eq!(owed, Kicks(2), "the pending event, at two pins");
    all += owed.0 as usize;
    all += irqfd.signal_owing().1.0 as usize;
    all += line.set(true).0 as usize;
    assert_eq!(line.set(true), Kicks(0), "it is high");
    all += vm.set_irq(GSI, SourceId::USERSPACE, true).unwrap().0 as usize;
    assert_eq!(vm.reroute(table(&[])).unwrap().follow_owing(&NoBypass), []);
    assert_eq!(irqfd.signal_owing(), (Signalled::Pending, Kicks(0)));
    let owed = vm.reroute(table(&pins)).unwrap().follow_owing(&NoBypass);
    assert_eq!(owed.len(), 2, "of the line that has pins again, and of the event");
    all += owed.into_iter().map(|kicks| kicks.0 as usize).sum::<usize>();
    irqfd.deassign().unwrap();
    all += irqfd.assign_resample(GSI, Count::new()).unwrap().0 as usize;
    all += irqfd.signal_owing().1.0 as usize;
    vm.ack(Pin::new(0, 0));
    drop(line);
    vm.close().wait();
    assert_eq!(all as u32, vm.controller().kicks.load(SeqCst));
}

#[cfg(target_os = "linux")]
#[test]
fn a_loop_settles_what_is_owed_when_the_delivery_is_over() {
    use doorbell_irqfd::eventfd::{Descriptor, EventLoop, of_eventfd};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    let vm = Irqfds::<Std, _>::new(Owes::default(), Limits::default());
    let _ = vm.reroute(table(&[(GSI, Route::Pin(Pin::new(0, 0)))])).unwrap();
    let (settled, host) = (Arc::new(AtomicU32::new(0)), vm.clone());
    let settles = Arc::clone(&settled);
    let events = EventLoop::unthreaded_settling(move |kicks: Kicks| {
        assert_eq!(host.controller().inside.load(SeqCst), 0);
        settles.fetch_add(kicks.0, SeqCst);
    })
    .unwrap();
    // One event is there before, one comes later.
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    event.write(1).unwrap();
    let descriptor = Descriptor::eventfd(of_eventfd(&event)).unwrap();
    let served = events.assign(&vm, descriptor, GSI).unwrap();
    assert_eq!(settled.load(SeqCst), 1);
    let mut device = File::from(of_eventfd(&event).try_clone_to_owned().unwrap());
    device.write_all(&1_u64.to_ne_bytes()).unwrap();
    assert_eq!(events.dispatch().unwrap(), 1);
    assert_eq!((settled.load(SeqCst), vm.controller().kicks.load(SeqCst)), (2, 2));
    events.deassign(served).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_loop_whose_host_panics_when_it_settles_says_so_and_goes_on() {
    use doorbell_irqfd::eventfd::EventLoop;

    let vm = Irqfds::<Std, _>::new(Owes::default(), Limits::default());
    let _ = vm.reroute(table(&[(GSI, Route::Pin(Pin::new(0, 0)))])).unwrap();
    let (told, tells) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (settles, reports) = (Arc::clone(&told), Arc::clone(&tells));
    let events = EventLoop::unthreaded_settling(move |kicks: Kicks| {
        assert_ne!(settles.fetch_add(kicks.0, SeqCst) + kicks.0, 1, "this is what panics");
    })
    .unwrap()
    .reporting(move |_, _| _ = reports.fetch_add(1, SeqCst));
    let (event, served) = events.open(&vm, GSI).unwrap();
    let mut device = File::from(event);
    for _ in 0..2 {
        device.write_all(&1_u64.to_ne_bytes()).unwrap();
        assert_eq!(events.dispatch().unwrap(), 1);
    }
    assert_eq!((told.load(SeqCst), tells.load(SeqCst), events.len()), (2, 1, 1));
    events.deassign(served).unwrap();
}
