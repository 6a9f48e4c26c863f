//! F09: an acknowledgement that is reported from inside the pin update that caused it.
//!
//! On AMD's AVIC the guest's end-of-interrupt of an edge-triggered interrupt does not exit, so
//! KVM's IOAPIC notices it late: when the pin is raised the next time, it first looks whether the
//! local APICs are done with the last one, and if so, tells the ack notifiers. One of them belongs
//! to a resampling irqfd, and lowers its own source of the same pin. The pin's level is the OR over
//! all sources: with another one still up, that is one more update of a pin that is up, which again
//! finds the local APICs done, and so on until the stack ends.
//!
//! The IOAPIC's lock is not held over the notifiers, so nothing deadlocks; the depth of `set_irq`
//! on one stack is the invariant, and a deeper call ends the run, as the guard page does.
//!
//! The controller is a small rendering of an IOAPIC with one pin in all variants; in `shipped`,
//! everything between the device and its pin is the real `doorbell-irqfd`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use doorbell_explore::sim::{Model, fail, remark};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{Controller, Gsi, Irqfds, Limits, Msi, Pin, Route, RoutingTable, SourceId};
use doorbell_platform::{Lock, LockClass, Platform, ReadDomain, WaitType};

use crate::{Case, Expected, Variant};

static IOAPIC: LockClass = LockClass::new("ioapic.lock", WaitType::Spin);

/// Calls of `set_irq` on one stack. One is inside an acknowledgement that was reported from
/// outside; a third one has no business there.
const MOST_NESTED: u32 = 3;

/// The case.
pub(crate) fn case() -> Case {
    let recursion = Expected::Found(FailureKind::Invariant);
    Case::new(
        "lazy-eoi-recursion",
        "a pin update reports an acknowledgement to who updates the pin",
        "known-races F09: Linux 8be8f932e3db, 77377064c3a9 (2020), CVE-2020-27152",
        vec![
            rendering(
                "as-reported",
                recursion,
                "the ack lowers one source while the other is up, which is an update of a raised pin, which acks again",
                Scope { lazy: Lazy::Notifies, ..LEVEL },
            ),
            rendering(
                "as-reported-one-source",
                Expected::Exhausted,
                "with nobody else on the pin the ack lowers it, and lowering does not look for a late EOI",
                Scope { lazy: Lazy::Notifies, other_source: false, ..LEVEL },
            ),
            rendering(
                "edge-only",
                Expected::Exhausted,
                "a level-triggered EOI exits, so raising the pin needs not look for it, and nobody is called from inside",
                Scope { lazy: Lazy::NotifiesIfEdge, ..LEVEL },
            ),
            rendering(
                "edge-only-reset",
                recursion,
                "a reset makes the pin edge-triggered under a registered resampler, and the condition does not protect any more",
                Scope { lazy: Lazy::NotifiesIfEdge, reset: true, ..LEVEL },
            ),
            rendering(
                "fixed",
                Expected::Exhausted,
                "a late EOI is only noted, never reported from inside an update",
                Scope { lazy: Lazy::Notes, ..LEVEL },
            ),
            rendering(
                "fixed-reset",
                Expected::Exhausted,
                "also when a reset makes the pin edge-triggered under a registered resampler",
                Scope { lazy: Lazy::Notes, reset: true, ..LEVEL },
            ),
            Variant::new(
                "shipped",
                Expected::Exhausted,
                "a controller cannot report an ack from inside an update: the caller does so afterwards, in a loop, not a recursion",
                scope_text(SHIPPED),
                |m| shipped(m, SHIPPED),
            ),
            Variant::new(
                "shipped-reset",
                Expected::Exhausted,
                "and so it does not matter what a reset makes of the pin meanwhile",
                scope_text(Scope { reset: true, ..SHIPPED }),
                |m| shipped(m, Scope { reset: true, ..SHIPPED }),
            ),
        ],
    )
}

fn rendering(
    name: &'static str,
    expected: Expected,
    summary: &'static str,
    scope: Scope,
) -> Variant {
    Variant::new(name, expected, summary, scope_text(scope), move |m| reported(m, scope))
}

/// What raising a pin does when the local APICs turn out to be done with the last interrupt.
#[derive(Clone, Copy, PartialEq)]
enum Lazy {
    /// Calls the ack notifiers.
    Notifies,
    /// The same, but only if the pin is edge-triggered.
    NotifiesIfEdge,
    /// Remembers it.
    Notes,
}

#[derive(Clone, Copy)]
struct Scope {
    lazy: Lazy,
    /// Another source holds the pin up.
    other_source: bool,
    /// A reset makes the pin edge-triggered at any moment.
    reset: bool,
}

const LEVEL: Scope = Scope { lazy: Lazy::Notes, other_source: true, reset: false };
const SHIPPED: Scope = LEVEL;

fn scope_text(scope: Scope) -> String {
    let sources = if scope.other_source { "2 sources" } else { "1 source" };
    let reset = if scope.reset { ", a reset of the IOAPIC" } else { "" };
    format!(
        "1 pin, {sources}, 1 resampling irqfd that fires once, 1 EOI{reset}; set_irq at most {MOST_NESTED} deep"
    )
}

/// How deep `set_irq` is nested on each CPU, hence on each stack: every task has a CPU of its own
/// here. Not a visible step: nobody looks at another one's depth.
#[derive(Default)]
struct Depth([AtomicU32; 8]);

struct Deeper<'a>(&'a AtomicU32);

impl Depth {
    fn enter(&self) -> Deeper<'_> {
        let depth = &self.0[Sim::current_cpu().0 as usize];
        let before = depth.fetch_add(1, Relaxed);
        let guard = Deeper(depth);
        if before == MOST_NESTED {
            fail(format_args!(
                "set_irq is called {MOST_NESTED} deep, and once more: the stack ends somewhere"
            ));
        }
        guard
    }
}

impl Drop for Deeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An IOAPIC with one pin, and as much of the local APICs as it looks at.
struct Ioapic {
    lazy: Lazy,
    depth: Depth,
    pin: Lock<Sim, State>,
}

struct State {
    edge: bool,
    /// Bits of the sources that hold the pin up.
    sources: u8,
    /// An interrupt was delivered, and a local APIC has not seen its end yet.
    in_service: bool,
    /// An end was noticed late, and nobody has been told.
    late_eoi: bool,
}

impl Ioapic {
    fn new(scope: Scope) -> Self {
        let sources = if scope.other_source { 1 << SourceId::USERSPACE.number() } else { 0 };
        let state = State { edge: false, sources, in_service: false, late_eoi: false };
        Ioapic { lazy: scope.lazy, depth: Depth::default(), pin: Lock::new(&IOAPIC, state) }
    }

    fn set_irq(&self, source: SourceId, level: bool, notify: &dyn Fn()) {
        let _deeper = self.depth.enter();
        let mut pin = self.pin.lock();
        let bit = 1 << source.number();
        pin.sources = if level { pin.sources | bit } else { pin.sources & !bit };
        remark(|| {
            let does = if level { "raises" } else { "lowers" };
            let of = if source == SourceId::RESAMPLE { "the irqfds'" } else { "user space's" };
            let others = if pin.sources & !bit == 0 { "no other" } else { "another" };
            format!("{does} {of} source, {others} is up")
        });
        if pin.sources == 0 {
            return;
        }
        if !pin.in_service {
            match self.lazy {
                Lazy::NotifiesIfEdge if !pin.edge => {}
                Lazy::Notifies | Lazy::NotifiesIfEdge => {
                    // The notifiers update pins, so the lock is dropped for them.
                    drop(pin);
                    remark(|| "the pin is up, and its last interrupt is over".to_owned());
                    notify();
                    pin = self.pin.lock();
                }
                Lazy::Notes => pin.late_eoi = true,
            }
        }
        pin.in_service = true;
    }

    /// The guest ends the interrupt. If there was one, tells the ack notifiers, and then delivers
    /// it again if a level is still up: without any lock of this chip's while it tells.
    fn eoi(&self, notify: &dyn Fn()) {
        let ended = {
            let mut pin = self.pin.lock();
            remark(|| {
                if pin.in_service { "ends the interrupt" } else { "no interrupt to end" }.to_owned()
            });
            std::mem::take(&mut pin.in_service)
        };
        if ended {
            notify();
            let mut pin = self.pin.lock();
            pin.in_service |= pin.sources != 0 && !pin.edge;
        }
    }

    /// What must hold in the end, whatever was noticed late.
    fn check(&self) -> Result<(), String> {
        let pin = self.pin.lock();
        let lost = pin.sources != 0 && !pin.edge && !pin.in_service;
        if lost {
            Err(format!("the sources {:#b} hold it up, and it is not in service", pin.sources))
        } else {
            Ok(())
        }
    }

    fn take_late_eoi(&self) -> bool {
        std::mem::take(&mut self.pin.lock().late_eoi)
    }

    fn reset(&self) {
        let mut pin = self.pin.lock();
        remark(|| "the pin is edge-triggered".to_owned());
        pin.edge = true;
        pin.in_service = false;
    }
}

/// KVM's way from the device to the pin and back, in a few lines.
struct Kvm {
    ioapic: Ioapic,
    /// Read sections are walks over the ack notifiers, of which there is one.
    irq_srcu: <Sim as Platform>::Srcu,
    resamplefd: Model<u32>,
}

impl Kvm {
    fn set_irq(&self, source: SourceId, level: bool) {
        self.ioapic.set_irq(source, level, &|| self.notify_acked());
    }

    fn notify_acked(&self) {
        let _section = self.irq_srcu.read();
        remark(|| "calls the ack notifier of the irqfd".to_owned());
        self.set_irq(SourceId::RESAMPLE, false);
        self.resamplefd.change(|count| *count += 1);
    }
}

const DELIVERED: &str = "a level-triggered pin that is up is in service";

fn reported(m: &Machine, scope: Scope) {
    let kvm = Arc::new(Kvm {
        ioapic: Ioapic::new(scope),
        irq_srcu: <Sim as Platform>::Srcu::new("irq_srcu"),
        resamplefd: Model::new("resamplefd", 0),
    });
    let [device, guest, resetting] = [(); 3].map(|()| kvm.clone());
    m.task("device", move || device.set_irq(SourceId::RESAMPLE, true));
    m.task("guest", move || guest.ioapic.eoi(&|| guest.notify_acked()));
    if scope.reset {
        m.task("reset", move || resetting.ioapic.reset());
    }
    m.at_quiescence(DELIVERED, move || kvm.ioapic.check());
}

const GSI: Gsi = Gsi(5);
const PIN: Pin = Pin::new(0, 5);

impl Controller for Ioapic {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        24
    }
    fn set_irq(&self, _pin: Pin, source: SourceId, level: bool) {
        Ioapic::set_irq(self, source, level, &|| unreachable!("a controller has nobody to call"));
    }
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, _msi: Msi) {}
}

type Vm = Irqfds<Sim, Arc<Ioapic>>;

/// After whatever may have raised a pin: the late ends that were noticed meanwhile are
/// acknowledgements.
fn report_late_eois(vm: &Vm) {
    while vm.controller().take_late_eoi() {
        vm.ack(PIN);
    }
}

fn shipped(m: &Machine, scope: Scope) {
    let ioapic = Arc::new(Ioapic::new(scope));
    let vm: Vm = Irqfds::new(ioapic.clone(), Limits { gsis: 6, ..Limits::default() });
    let _ = vm
        .reroute(RoutingTable::new(&[(GSI, Route::Level(PIN))]).expect("a good table"))
        .expect("an open VM");
    let irqfd = Arc::new(vm.irqfd());
    let resamples = Arc::new(Model::new("resamplefd", 0));
    let sink = {
        let resamples = resamples.clone();
        Arc::new(move || resamples.change(|count| *count += 1))
    };
    irqfd.assign_resample(GSI, sink).expect("the GSI is level-sensitive");
    let [device_vm, guest_vm] = [vm.clone(), vm];
    let [guest_ioapic, resetting] = [ioapic.clone(), ioapic.clone()];
    m.task("device", move || {
        let _ = irqfd.signal();
        report_late_eois(&device_vm);
    });
    m.task("guest", move || {
        guest_ioapic.eoi(&|| guest_vm.ack(PIN));
        report_late_eois(&guest_vm);
    });
    if scope.reset {
        m.task("reset", move || resetting.reset());
    }
    m.at_quiescence(DELIVERED, move || ioapic.check());
}
