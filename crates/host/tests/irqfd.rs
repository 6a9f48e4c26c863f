//! The irqfds of `doorbell-irqfd` as consumers of an assigned device's interrupt: all that a host
//! writes to join the two. To be copied; the case `irqfd-routing-teardown` explores the same.
//!
//! The device signals its irqfd whenever its interrupt arrives in the host. While both are
//! registered with one token, it is posted to the vCPU that the irqfd's route names, if the route
//! is a message for one vCPU; else it goes on to arrive.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use doorbell_host::irte::amd::HostMode;
use doorbell_host::msi::{DestinationIds, message};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, Bypass, Consumer, Followed, Posting, Producer,
    RemapTable, Token,
};
use doorbell_irqfd::{
    Controller, FollowRoutes, Gsi, Irqfds, Limits, Msi, Pin, Rerouted, Route, RoutingTable,
    SourceId,
};
use doorbell_platform::{Atomic, Platform, Std, Vector};
use doorbell_post::{Mirror, Residency, ResidencyCopies};

type Memory = Box<[<Std as Platform>::AtomicU128]>;
type Interrupt = AmdInterrupt<Std, Memory>;
type Posted = AmdBinding<Std, Memory, Vcpu>;

/// A vCPU; `host/tests/avic.rs` has one of `doorbell-apic`.
struct Vcpu {
    copies: ResidencyCopies<Std, Own, Interrupt>,
    looked_at: Mutex<u32>,
}

struct Own;

impl Mirror for Own {
    fn reflect(&self, _: Residency) {}
}

impl AvicTarget<Std, Memory> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &ResidencyCopies<Std, Own, Interrupt> {
        &self.copies
    }
}

/// The interrupt controllers of the VM, which inject by software what is not posted.
struct Chip {
    vcpus: Vec<Arc<Vcpu>>,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        24
    }
    fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
    fn edge(&self, _: Pin) {}
    fn msi(&self, _: Msi) {}
}

/// The interrupt of an assigned device. It has the binding while nobody else has.
struct Device(Mutex<Option<Posted>>);

impl Producer for Device {}

/// What an irqfd does as a consumer.
struct Assigned {
    vm: Irqfds<Std, Chip>,
    gsi: Gsi,
}

impl Assigned {
    /// Whom the interrupt can be posted to, by the table in force: one that replaces it is followed
    /// later.
    fn target(&self) -> Option<(Arc<Vcpu>, Posting)> {
        let table = self.vm.table();
        let Some(Route::Msi(msi)) = table.routes(self.gsi).next() else { return None };
        // The destination of a message in the xAPIC format. `doorbell_apic::Message` knows the
        // others, and what can be posted.
        let id = (msi.message.address >> 12 & 0xff) as usize;
        let vcpu = self.vm.controller().vcpus.get(id)?;
        Some((
            Arc::clone(vcpu),
            Posting { backing_page: id as u64, vector: msi.message.data as u8, tag: id as u32 },
        ))
    }

    fn go_by(&self, target: Option<(Arc<Vcpu>, Posting)>, binding: &mut Posted) -> Followed {
        // Here a host sends the invalidation of that entry, and waits for it.
        let invalidate = |_entry| {};
        // What was posted until now is the former vCPU's to find: it is kicked or woken.
        binding.follow(target, invalidate, |former| *former.looked_at.lock().unwrap() += 1)
    }
}

/// The device has no remapping entry left.
struct NoEntry;

impl Consumer<Device> for Assigned {
    type Link = Posted;
    type Refusal = NoEntry;

    fn connect(&self, producer: &Arc<Device>) -> Result<Posted, NoEntry> {
        let mut binding = producer.0.lock().unwrap().take().ok_or(NoEntry)?;
        let _ = self.go_by(self.target(), &mut binding);
        Ok(binding)
    }

    fn follow(&self, binding: &mut Posted) -> Followed {
        self.go_by(self.target(), binding)
    }

    fn disconnect(&self, producer: &Arc<Device>, mut binding: Posted) {
        let _ = self.go_by(None, &mut binding);
        *producer.0.lock().unwrap() = Some(binding);
    }
}

/// The tokens of the irqfds, each with its GSI.
type Tokens = Vec<(Gsi, Token)>;

/// What a host that owns a bypass is told by [`Rerouted::follow`], and how often it was.
struct Posts {
    bypass: Arc<Bypass<Std, Device, Assigned>>,
    tokens: Tokens,
    followed: Cell<usize>,
}

impl FollowRoutes for Posts {
    fn follow(&self, gsi: Gsi) {
        for (_, token) in self.tokens.iter().filter(|of| of.0 == gsi) {
            self.bypass.follow(*token);
            self.followed.set(self.followed.get() + 1);
        }
    }
}

impl Posts {
    fn follow_all(&self, rerouted: Rerouted) -> usize {
        rerouted.follow(self);
        self.followed.take()
    }
}

const HOST: HostMode = HostMode { destination: 9, logical: false, vector: 0x31, kind: 0 };
const FIRST: Gsi = Gsi(24);
const SECOND: Gsi = Gsi(25);

fn message(vcpu: u32, vector: u8) -> Route {
    Route::Msi(message::to_cpu(vcpu, Vector(vector), DestinationIds::Eight).unwrap().into())
}

fn table(routes: &[(Gsi, Route)]) -> RoutingTable {
    RoutingTable::new(routes).unwrap()
}

#[test]
fn a_device_is_posted_by_the_route_of_its_irqfd_until_either_leaves_and_only_what_has_changed_follows()
 {
    let vcpu = || Arc::new(Vcpu { copies: ResidencyCopies::new(Own), looked_at: Mutex::new(0) });
    let vcpus = [vcpu(), vcpu()];
    let vm = Irqfds::<Std, _>::new(
        Chip { vcpus: vcpus.to_vec() },
        Limits { gsis: 64, ..Limits::default() },
    );
    let bypass = Bypass::<Std, Device, Assigned>::new();
    let tokens: Tokens = vec![(FIRST, Token(1)), (SECOND, Token(2))];
    let posts =
        Posts { bypass: Arc::clone(&bypass), tokens: tokens.clone(), followed: Cell::new(0) };
    let first =
        vm.reroute(table(&[(FIRST, message(0, 0x41)), (SECOND, message(0, 0x42))])).unwrap();
    assert_eq!(posts.follow_all(first), 2, "nobody is registered yet, which is no mistake");

    let memory: Memory = (0..2).map(|_| Atomic::new(0)).collect();
    let entries = RemapTable::new(memory).unwrap();
    let device = || {
        let interrupt = AmdInterrupt::new(entries.allocate().unwrap(), HOST);
        let binding = AmdBinding::new(interrupt);
        (Arc::clone(binding.interrupt()), Arc::new(Device(Mutex::new(Some(binding)))))
    };
    let says = |interrupt: &Interrupt| {
        interrupt.load().as_guest().map(|guest| (guest.backing_page, guest.vector))
    };
    let mut registered = Vec::new();
    let interrupts: Vec<_> = tokens
        .iter()
        .map(|&(gsi, token)| {
            let (interrupt, device) = device();
            let produces = bypass.produce(token, device).unwrap();
            let consumes =
                bypass.consume(token, Arc::new(Assigned { vm: vm.clone(), gsi })).unwrap();
            registered.push((produces, consumes));
            interrupt
        })
        .collect();
    assert_eq!((says(&interrupts[0]), says(&interrupts[1])), (Some((0, 0x41)), Some((0, 0x42))));

    let moved =
        vm.reroute(table(&[(FIRST, message(0, 0x41)), (SECOND, message(1, 0x52))])).unwrap();
    assert_eq!(posts.follow_all(moved), 1);
    assert_eq!((says(&interrupts[0]), says(&interrupts[1])), (Some((0, 0x41)), Some((1, 0x52))));
    assert_eq!((*vcpus[0].looked_at.lock().unwrap(), *vcpus[1].looked_at.lock().unwrap()), (1, 0));

    // A pin cannot be posted: the interrupt arrives in the host, whose handler signals the irqfd.
    let lost = vm
        .reroute(table(&[(FIRST, Route::Edge(Pin::new(0, 4))), (SECOND, message(1, 0x52))]))
        .unwrap();
    assert_eq!(posts.follow_all(lost), 1);
    assert_eq!((says(&interrupts[0]), interrupts[0].load().as_host()), (None, Some(HOST)));

    drop(registered);
    assert_eq!(interrupts[1].load().as_host(), Some(HOST));
    assert!(vcpus.iter().all(|vcpu| vcpu.copies.is_empty()));
}
