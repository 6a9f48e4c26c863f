//! Level-triggered sources under every interleaving: whatever an acknowledgement, an irqfd that
//! leaves, a shutdown or a routing update lowers, a device that still wants an interrupt has raised
//! again by the end; and whoever has left is told nothing more.

use std::sync::Arc;

use doorbell_explore::sim::{Ghost, Model};
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_irqfd::{
    Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Notify, Pin, Route, RoutingTable, SourceId,
};

const GSI: Gsi = Gsi(1);
const PIN: Pin = Pin::new(0, 0);
const OTHER_PIN: Pin = Pin::new(0, 1);

/// Two lines, each high or low.
struct Chip(Model<[bool; 2]>);

impl Chip {
    fn is_high(&self, pin: Pin) -> bool {
        self.0.observe(|lines| lines[pin.number as usize])
    }
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        2
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        assert_eq!(source, SourceId::RESAMPLE);
        self.0.change(|lines| lines[pin.number as usize] = level);
    }
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, _msi: Msi) {}
}

type Vm = Irqfds<Sim, Arc<Chip>>;
type Source = Irqfd<Sim, Arc<Chip>>;

fn table(pin: Pin) -> RoutingTable {
    RoutingTable::new(&[(GSI, Route::Level(pin))]).expect("a good table")
}

fn vm() -> Vm {
    let vm = Vm::new(
        Arc::new(Chip(Model::new("lines", [false; 2]))),
        Limits { gsis: 2, ..Limits::default() },
    );
    let _ = vm.reroute(table(PIN)).expect("an open VM");
    vm
}

/// A device, and its irqfd.
struct Device {
    irqfd: Source,
    wants: Model<bool>,
    /// Until its irqfd has left.
    memory: Ghost,
}

/// A device is asked whether it still wants an interrupt.
struct Resample(Arc<Device>);

impl Notify for Resample {
    fn notify(&self) {
        self.0.memory.access();
        if self.0.wants.observe(|wants| *wants) {
            self.0.irqfd.signal();
        }
    }
}

impl Device {
    fn new(vm: &Vm, name: &'static str) -> Arc<Self> {
        Arc::new(Device {
            irqfd: vm.irqfd(),
            wants: Model::new(name, false),
            memory: Ghost::new("sink"),
        })
    }

    fn assign(self: &Arc<Self>) {
        self.irqfd
            .assign_resample(GSI, Arc::new(Resample(Arc::clone(self))))
            .expect("the GSI is routed");
    }

    fn raise(&self) {
        self.wants.change(|wants| *wants = true);
        self.irqfd.signal();
    }

    /// Serves the device, as the guest's driver does.
    fn serve(&self) {
        self.wants.change(|wants| *wants = false);
    }

    fn wants(&self) -> bool {
        self.wants.observe(|wants| *wants)
    }
}

/// What a device wants is on the line that its GSI has in the end, and a line that it no longer has
/// is low.
fn is_heard(m: &Machine, vm: &Vm, device: &Arc<Device>, pin: Pin) {
    let (vm, device) = (vm.clone(), Arc::clone(device));
    m.at_quiescence("a device that wants an interrupt has raised the line", move || {
        let chip = vm.controller();
        let former = if pin == PIN { OTHER_PIN } else { PIN };
        let (wants, line, former) = (device.wants(), chip.is_high(pin), chip.is_high(former));
        (!former && (line || !wants))
            .then_some(())
            .ok_or(format!("wants: {wants}, line: {line}, former: {former}"))
    });
}

/// A device raises the line while the guest serves another of the same line, or itself, and
/// acknowledges.
fn acknowledged(devices: usize, acks: u32) -> Report {
    Explore::new("acknowledged").run(move |m: &Machine| {
        let vm = vm();
        let devices: Vec<_> = ["device", "other device"][..devices]
            .iter()
            .map(|name| Device::new(&vm, name))
            .collect();
        devices.iter().for_each(Device::assign);
        devices[0].raise();
        let (raised, raises) =
            (Arc::clone(&devices[0]), Arc::clone(devices.last().expect("there is one")));
        m.task("device", move || raises.raise());
        let guest = vm.clone();
        m.task("guest", move || {
            for _ in 0..acks {
                raised.serve();
                guest.ack(PIN);
            }
        });
        devices.iter().for_each(|device| is_heard(m, &vm, device, PIN));
    })
}

#[test]
fn a_device_that_raises_a_line_while_it_is_acknowledged_is_heard() {
    acknowledged(1, 1).assert_exhausted();
    acknowledged(1, 2).assert_exhausted();
    acknowledged(2, 1).assert_exhausted();
}

/// The last irqfd of the GSI leaves with the line raised, while another comes and raises it.
fn another_comes(waits: bool) -> Report {
    Explore::new("another comes").run(move |m: &Machine| {
        let vm = vm();
        let (leaves, comes) = (Device::new(&vm, "leaves"), Device::new(&vm, "comes"));
        leaves.assign();
        leaves.raise();
        let left = Arc::clone(&leaves);
        m.task("leaves", move || {
            let leaving = leaves.irqfd.deassign_begin().expect("it is assigned");
            if waits {
                leaving.wait();
                leaves.memory.free();
            } else {
                leaving.later();
            }
        });
        let raises = Arc::clone(&comes);
        m.task("comes", move || {
            raises.assign();
            raises.raise();
        });
        is_heard(m, &vm, &comes, PIN);
        let _left = left;
    })
}

#[test]
fn a_device_that_comes_when_the_last_one_leaves_is_heard() {
    another_comes(true).assert_exhausted();
    another_comes(false).assert_exhausted();
}

/// The VM is shut down while the guest acknowledges.
fn closed(waits: bool) -> Report {
    Explore::new("closed").run(move |m: &Machine| {
        let vm = vm();
        let device = Device::new(&vm, "device");
        device.assign();
        device.raise();
        let (closes, guest, checked) = (vm.clone(), vm.clone(), vm);
        m.task("closes", move || {
            if waits {
                closes.close().wait();
                device.memory.free();
            } else {
                closes.close().later();
            }
        });
        m.task("guest", move || guest.ack(PIN));
        m.at_quiescence("the line is low", move || {
            (!checked.controller().is_high(PIN)).then_some(()).ok_or("it is high".into())
        });
    })
}

#[test]
fn who_has_left_with_the_vm_is_told_nothing_more_and_has_lowered_its_line() {
    closed(true).assert_exhausted();
    closed(false).assert_exhausted();
}

/// The GSI goes to another pin while the device raises it.
fn rerouted(acknowledges: bool) -> Report {
    Explore::new("rerouted").run(move |m: &Machine| {
        let vm = vm();
        let device = Device::new(&vm, "device");
        device.assign();
        let (host, raises, guest) = (vm.clone(), Arc::clone(&device), vm.clone());
        m.task("host", move || drop(host.reroute(table(OTHER_PIN)).expect("an open VM")));
        m.task("device", move || raises.raise());
        if acknowledges {
            m.task("guest", move || guest.ack(OTHER_PIN));
        }
        is_heard(m, &vm, &device, OTHER_PIN);
    })
}

#[test]
fn a_device_whose_line_becomes_another_is_heard_there() {
    rerouted(false).assert_exhausted();
    rerouted(true).assert_exhausted();
}

/// Hears of acknowledgements, until it is unregistered.
struct Hears(Ghost);

impl Notify for Hears {
    fn notify(&self) {
        self.0.access();
    }
}

#[test]
fn who_is_unregistered_while_the_guest_acknowledges_is_told_nothing_more() {
    let report = Explore::new("unregistered").run(|m: &Machine| {
        let (vm, hears) = (vm(), Arc::new(Hears(Ghost::new("sink"))));
        let notifier = vm.register_ack_notifier(GSI, hears.clone()).expect("there is such a GSI");
        m.task("host", move || {
            notifier.unregister();
            hears.0.free();
        });
        m.task("guest", move || vm.ack(PIN));
    });
    report.assert_exhausted();
}
