//! Level-triggered devices behind irqfds: the end of an interrupt goes back to them.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_gic::{Ended, Pins, VcpuId};
use doorbell_irqfd::{Gsi, Irqfd, Irqfds, Limits, Notify, Pin, Route, RoutingTable, Signalled};
use doorbell_platform::{CpuId, Std};
use doorbell_post::Notice;

use vm::{Vm, intid};

type SpiPins = Pins<Std>;

const GSI: Gsi = Gsi(5);
const SPI: u32 = 40;

/// A device that is told that its line was lowered, and raises it again while it wants to.
struct Device {
    irqfd: Irqfd<Std, Arc<SpiPins>>,
    wants: AtomicBool,
}

struct Resample(Arc<Device>);

impl Notify for Resample {
    fn notify(&self) {
        if self.0.wants.load(SeqCst) {
            let (_, owed) = self.0.irqfd.signal_owing();
            assert!(owed.is_empty(), "nobody is in the guest");
        }
    }
}

#[test]
fn a_device_that_still_wants_an_interrupt_at_the_end_gets_another_one_and_the_line_is_low_when_it_does_not()
 {
    let mut vm = Vm::new(1, 32);
    vm.enable_spi(SPI);
    let pins = Arc::new(Pins::new(Arc::clone(&vm.gic)));
    let irqfds = Irqfds::<Std, _>::new(Arc::clone(&pins), Limits::default());
    let pin = pins.pin(intid(SPI)).expect("it is an SPI");
    assert_eq!(pin, Pin::new(0, 8));
    let table = RoutingTable::new(&[(GSI, Route::Level(pin))]).expect("a good table");
    let _ = irqfds.reroute(table).expect("an open VM");
    let device = Arc::new(Device { irqfd: irqfds.irqfd(), wants: AtomicBool::new(true) });
    let sink = Arc::new(Resample(Arc::clone(&device)));
    assert!(device.irqfd.assign_resample(GSI, sink).expect("it is routed").is_empty());

    let line = |vm: &Vm| vm.gic.spi(intid(SPI)).expect("there is one").state();
    let tells_ends = |vm: &mut Vm| {
        for ended in std::mem::take(&mut vm.asked.ended) {
            assert_eq!(ended, Ended::Level(intid(SPI)));
            irqfds.ack(pins.pin(intid(SPI)).expect("it is an SPI"));
        }
    };
    let (signalled, owed) = device.irqfd.signal_owing();
    assert_eq!((signalled, owed.is_empty()), (Signalled::Delivered, true));
    assert_eq!(device.irqfd.signal_owing().0, Signalled::Coalesced);
    for _ in 0..3 {
        assert_eq!(vm.acknowledges(0), SPI);
        assert!(line(&vm).is_active());
        vm.ends(0, SPI);
        tells_ends(&mut vm);
        assert!(line(&vm).is_pending(), "the device has raised its line again");
    }
    assert_eq!(vm.acknowledges(0), SPI);
    device.wants.store(false, SeqCst);
    vm.ends(0, SPI);
    tells_ends(&mut vm);
    assert!(!line(&vm).is_pending() && !line(&vm).is_active());
    assert_eq!(vm.acknowledges(0), 1023);
    device.irqfd.deassign().expect("it is assigned");
}

#[test]
fn a_pin_of_another_chip_or_past_the_last_spi_is_none() {
    use doorbell_irqfd::{Controller, Delivery, Outcome, SourceId};
    let vm = Vm::new(1, 32);
    let pins = Pins::new(Arc::clone(&vm.gic));
    assert_eq!((pins.pins(0), pins.pins(1)), (32, 0));
    for pin in [Pin::new(1, 8), Pin::new(0, 32), Pin::new(0, u32::MAX)] {
        for told in [pins.set_irq(pin, SourceId::USERSPACE, true), pins.edge(pin), pins.pulse(pin)]
        {
            assert_eq!(told.outcome(), Outcome::Failed);
            assert!(told.owed().is_empty());
        }
    }
    let all = (32..64).map(|number| vm.gic.spi(intid(number)).expect("there is one").state());
    assert!(all.into_iter().all(|state| !state.is_pending()));
    assert_eq!(pins.pin(intid(31)), None);
}

#[test]
fn an_edge_of_an_irqfd_makes_its_pin_pending_and_its_vcpu_is_told() {
    use doorbell_irqfd::{Controller, Delivery, Outcome};
    let mut vm = Vm::new(1, 32);
    vm.enable_spi(SPI);
    vm.write(doorbell_gic::Frame::Distributor, 0xc08, 0b10 << (2 * (SPI % 16)));
    let pins = Arc::new(Pins::new(Arc::clone(&vm.gic)));
    let state = |vm: &Vm| vm.gic.spi(intid(SPI)).expect("there is one").state();
    // A vCPU that waits is woken by what comes back.
    let gic = Arc::clone(&vm.gic);
    let redistributor =
        gic.redistributor(VcpuId::new(0).expect("it is small")).expect("there is one");
    let news = redistributor.news();
    let vm::Vcpu { interface, registers } = &mut vm.vcpus[0];
    assert!(!interface.signals(&gic, registers, &mut vm.asked));
    let blocked = news.block().expect("there are no news");
    let told = pins.edge(Pin::new(0, 8));
    assert_eq!(told.outcome(), Outcome::Delivered);
    // The second of two pins owes nothing, and hides nothing.
    let both = told.and(pins.edge(Pin::new(0, 8)));
    assert_eq!(both.outcome(), Outcome::Delivered, "one of the pins was not pending");
    assert!(state(&vm).is_pending() && state(&vm).sources() == 0);
    let mut told = Vec::new();
    both.owed().give(&mut |vcpu, notice: Notice<CpuId>| told.push((vcpu, notice)));
    assert_eq!(told, [(redistributor.id(), Notice::Wake)]);
    assert!(!blocked.asleep());
    drop(blocked);
    assert_eq!(vm.acknowledges(0), SPI);
}

#[test]
fn an_event_without_resampling_is_an_edge_or_a_glimpse_as_the_guest_has_it_and_leaves_no_level() {
    use doorbell_irqfd::Controller;
    let mut vm = Vm::new(1, 32);
    vm.enable_spi(SPI);
    let pins = Arc::new(Pins::new(Arc::clone(&vm.gic)));
    let irqfds = Irqfds::<Std, _>::new(Arc::clone(&pins), Limits::default());
    let table = RoutingTable::new(&[(GSI, Route::Pin(Pin::new(0, 8)))]).expect("a good table");
    let _ = irqfds.reroute(table).expect("an open VM");
    let irqfd = irqfds.irqfd();
    assert!(irqfd.assign(GSI).expect("a pin of any trigger will do").is_empty());
    let state = |vm: &Vm| vm.gic.spi(intid(SPI)).expect("there is one").state();
    let signals = || assert!(irqfd.signal_owing().1.is_empty(), "nobody is in the guest");
    signals();
    assert!(!state(&vm).is_pending() && state(&vm).sources() == 0, "it is a level, which is over");
    vm.write(doorbell_gic::Frame::Distributor, 0xc08, 0b10 << (2 * (SPI % 16)));
    // Another pulse is between its two halves.
    let _ = pins.set_irq(Pin::new(0, 8), doorbell_irqfd::SourceId::IRQFD, true);
    assert_eq!(vm.acknowledges(0), SPI);
    signals();
    assert!(state(&vm).is_pending(), "the event is an edge of its own");
    pins.lower(Pin::new(0, 8), doorbell_irqfd::SourceId::IRQFD);
    assert!(state(&vm).is_pending() && state(&vm).sources() == 0);
}
