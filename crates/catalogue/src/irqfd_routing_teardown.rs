//! F01: a field that is overwritten to tell one reader something, and is read by another one.
//!
//! An irqfd caches its route. Deassigning takes it off the list of irqfds that routing updates go
//! through, so from then on its cached route may be out of date. KVM told the delivery path by
//! overwriting the route's type; what tears the irqfd down later asks the very same type whether it
//! has to stop the device from posting to a virtual CPU. It concludes that there is nothing to
//! stop, frees the irqfd, and leaves it on the list that the virtual CPU walks when it is loaded.
//!
//! The rendering has no IOMMU: deliveries go through the eventfd, and the list of each virtual CPU
//! is software. `bypassed.rs` has one, and what is shipped. Invariants: an irqfd is freed only when
//! it is on no such list; after a routing update has returned, no delivery goes by the old route; a
//! delivery that begins when the irqfd is off the update list does not go by the cached route,
//! whether an update has passed it over yet or not.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Ghost, Model, Pool, SimWork, fail, note, remark};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, Lock, LockClass, Platform, ReadDomain, WaitType, Work, WorkQueue};

use crate::case::{self, variant};
use crate::{Case, Expected};

mod bypassed;
mod shipped;

static IRQFDS: LockClass = LockClass::new("irqfds.lock", WaitType::Spin);
static IR_LIST: LockClass = LockClass::new("ir_list_lock", WaitType::Spin);
static WAIT_QUEUE: LockClass = LockClass::new("eventfd.wqh", WaitType::Spin);

// KVM takes these with interrupts off, because an eventfd is signalled from interrupt handlers too.
// There are none here.

/// The case.
pub(crate) fn case() -> Case {
    let exhausted = Expected::Exhausted;
    let mut variants = vec![
        variant(
            "as-reported",
            Expected::Found(FailureKind::UseAfterFree),
            "deassign wipes the route's type, so the teardown believes that nothing is posted and frees what is still listed",
            Scope {
                late_event: Late::WipedType,
                actors: Actors { load: true, ..NOBODY },
                ..POSTED
            },
        ),
        variant(
            "as-reported-not-posted",
            exhausted,
            "where nothing is posted, the wiped type does what it was meant for: late events look into the new table",
            Scope { late_event: Late::WipedType, actors: ALL, posted: false, ..POSTED },
        ),
        variant(
            "keep-type",
            Expected::Found(FailureKind::Invariant),
            "without the wiped type, an event that comes late goes by a cached route that the update has passed over",
            Scope { late_event: Late::Unnoticed, actors: Actors { load: false, ..ALL }, ..POSTED },
        ),
        variant(
            "keep-type-without-update",
            Expected::Found(FailureKind::Invariant),
            "also when no update has passed it over yet, an irqfd off the list is asked for a route that nobody keeps up",
            Scope {
                late_event: Late::Unnoticed,
                actors: Actors { fire: true, ..NOBODY },
                off_list: true,
                ..POSTED
            },
        ),
        variant(
            "ask-the-list",
            exhausted,
            "the teardown asks the virtual CPU's list instead of the wiped type, which leaves the type with one meaning",
            Scope { late_event: Late::WipedType, teardown_asks_list: true, actors: ALL, ..POSTED },
        ),
        variant(
            "active-outside-section",
            Expected::Found(FailureKind::Invariant),
            "between the look at 'active' and the delivery, deassign and a whole routing update fit",
            Scope {
                late_event: Late::Inactive { in_section: false },
                actors: Actors { load: false, ..ALL },
                ..POSTED
            },
        ),
        variant(
            "fixed",
            exhausted,
            "the type stays, and a delivery asks 'is it active?' in the read section that the routing update waits for",
            Scope {
                late_event: Late::Inactive { in_section: true },
                actors: ALL,
                off_list: true,
                ..POSTED
            },
        ),
    ];
    variants.extend(shipped::variants());
    variants.extend(bypassed::variants());
    Case::new(
        "irqfd-routing-teardown",
        "deassign wipes a route's type to warn deliveries, and the teardown takes the wrong branch",
        "known-races F01: Linux b4d37cdb77a0 (2026), CVE-2026-23198",
        variants,
    )
}

/// How a delivery learns that the cached route may be out of date.
#[derive(Clone, Copy, PartialEq)]
enum Late {
    /// Deassign has wiped its type.
    WipedType,
    /// Not at all.
    Unnoticed,
    /// The irqfd is not active any more.
    Inactive { in_section: bool },
}

/// The actors beside deassign and its worker.
#[derive(Clone, Copy)]
struct Actors {
    update: bool,
    fire: bool,
    load: bool,
}

const NOBODY: Actors = Actors { update: false, fire: false, load: false };
const ALL: Actors = Actors { update: true, fire: true, load: true };

#[derive(Clone, Copy)]
struct Scope {
    late_event: Late,
    teardown_asks_list: bool,
    posted: bool,
    /// Whether a delivery that begins when the irqfd is off the list must not go by the cached
    /// route.
    off_list: bool,
    actors: Actors,
}

const POSTED: Scope = Scope {
    late_event: Late::Unnoticed,
    teardown_asks_list: false,
    posted: true,
    off_list: false,
    actors: NOBODY,
};

impl case::Scope for Scope {
    fn text(self) -> String {
        let Actors { update, fire, load } = self.actors;
        let who = [(update, "routing update"), (fire, "event"), (load, "vCPU load")];
        let who: Vec<&str> = who.iter().filter(|(there, _)| *there).map(|(_, who)| *who).collect();
        let posted = if self.posted { "posted to a vCPU" } else { "not posted" };
        format!("1 irqfd, {posted}; deassign and its worker ‖ {}", who.join(" ‖ "))
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// What a route's type and target come to: nothing, or an MSI to one of two virtual CPUs.
const WIPED: u32 = 2;
const OLD: u32 = 0;
const NEW: u32 = 1;

/// A route, for traces.
fn told(route: u32) -> String {
    match route {
        WIPED => "wiped",
        OLD => "the old vCPU",
        _ => "the new vCPU",
    }
    .to_owned()
}

type Word = <Sim as Platform>::AtomicU32;

struct Irqfd {
    /// The memory of the irqfd.
    life: Ghost,
    /// The cached route. One word here, so it needs no sequence counter.
    route: Word,
    active: <Sim as Platform>::AtomicBool,
}

impl Irqfd {
    fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
    }
}

struct Kvm {
    scope: Scope,
    /// Those that routing updates go through.
    irqfds: Lock<Sim, Vec<Arc<Irqfd>>>,
    /// The irqfds that are posted to each virtual CPU.
    ir_list: [Lock<Sim, Vec<Arc<Irqfd>>>; 2],
    /// The listeners of the eventfd, under the lock of its wait queue.
    eventfd: Lock<Sim, Option<Arc<Irqfd>>>,
    irq_srcu: <Sim as Platform>::Srcu,
    /// The routing table.
    table: Word,
    chip: Model<Chip>,
}

/// Ghost state: what a delivery that arrives at the interrupt controller must not contradict.
#[derive(Default)]
struct Chip {
    /// The routing update has returned.
    updated: bool,
    /// The irqfd is off the update list, and who took it off has let go of the lock.
    off_list: bool,
}

impl Kvm {
    /// Takes an irqfd off the list; the rest is the worker's.
    fn deassign(&self, irqfd: &Arc<Irqfd>, shutdown: &SimWork) {
        {
            let mut irqfds = self.irqfds.lock();
            remark(|| "takes the irqfd off the list".to_owned());
            if self.scope.late_event == Late::WipedType {
                irqfd.route.store(WIPED, SeqCst);
                remark(|| told(WIPED));
            }
            irqfds.retain(|other| !other.is(irqfd));
            irqfd.active.store(false, SeqCst);
            shutdown.queue();
        }
        if self.scope.off_list {
            self.chip.change(|chip| chip.off_list = true);
            note(|| "from now on no event may go by the cached route".to_owned());
        }
        shutdown.flush();
    }

    /// The worker's part.
    fn shutdown(&self, irqfd: &Arc<Irqfd>) {
        // Its wait queue's lock waits for a delivery that is under way.
        {
            let mut hears = self.eventfd.lock();
            remark(|| "events come here no more".to_owned());
            *hears = None;
        }
        {
            let _irqfds = self.irqfds.lock();
            if self.scope.teardown_asks_list {
                self.ir_list.iter().for_each(|list| list.lock().retain(|other| !other.is(irqfd)));
            } else {
                let route = irqfd.route.load(SeqCst);
                remark(|| match route {
                    WIPED => "not posted, as it seems, so off no vCPU's list".to_owned(),
                    _ => told(route),
                });
                if route != WIPED {
                    self.ir_list[route as usize].lock().retain(|other| !other.is(irqfd));
                }
            }
        }
        irqfd.life.free();
    }

    /// The guest moves its interrupt to the other virtual CPU.
    fn update_routing(&self) {
        self.table.store(NEW, SeqCst);
        remark(|| told(NEW));
        {
            let irqfds = self.irqfds.lock();
            remark(|| format!("goes through {} irqfds", irqfds.len()));
            for irqfd in irqfds.iter() {
                irqfd.route.store(NEW, SeqCst);
                remark(|| told(NEW));
                if self.scope.posted {
                    self.ir_list[OLD as usize].lock().retain(|other| !other.is(irqfd));
                    self.ir_list[NEW as usize].lock().push(irqfd.clone());
                }
            }
        }
        self.irq_srcu.synchronize_expedited();
        self.chip.change(|chip| chip.updated = true);
        note(|| "the update returns: from now on no event may go by the old route".to_owned());
    }

    /// The device signals the eventfd.
    fn fire(&self) {
        let off_list = self.scope.off_list && self.chip.observe(|chip| chip.off_list);
        if self.scope.off_list {
            note(|| {
                let so = if off_list { "has been" } else { "may be" };
                format!("signals, and the irqfd {so} taken off the list")
            });
        }
        let eventfd = self.eventfd.lock();
        let Some(irqfd) = &*eventfd else { return };
        let active = || match self.scope.late_event {
            Late::Inactive { .. } => irqfd.active.load(SeqCst),
            Late::WipedType | Late::Unnoticed => true,
        };
        let seen_before =
            (self.scope.late_event == Late::Inactive { in_section: false }).then(active);
        let _section = self.irq_srcu.read();
        irqfd.life.access();
        let route = match seen_before.unwrap_or_else(active) {
            true => {
                let route = irqfd.route.load(SeqCst);
                remark(|| told(route));
                route
            }
            false => WIPED,
        };
        let cached = route != WIPED;
        let route = if cached { route } else { self.table.load(SeqCst) };
        let updated = self.chip.observe(|chip| chip.updated);
        note(|| {
            format!("the event goes by {} route", if route == OLD { "the old" } else { "the new" })
        });
        if updated && route == OLD {
            fail("an event goes by the old route, and the routing update has returned");
        }
        if off_list && cached {
            fail("an event goes by the cached route of an irqfd that is off the update list");
        }
    }

    /// A virtual CPU begins to run somewhere: what is posted to it has to know.
    fn load_vcpu(&self, vcpu: u32) {
        for irqfd in self.ir_list[vcpu as usize].lock().iter() {
            irqfd.life.access();
        }
    }
}

fn program(m: &Machine, scope: Scope) {
    let Actors { update, fire, load } = scope.actors;
    let irqfd = Arc::new(Irqfd {
        life: Ghost::new("irqfd"),
        route: Word::new(OLD).named("cached route"),
        active: <Sim as Platform>::AtomicBool::new(true).named("active"),
    });
    let posted = if scope.posted { vec![irqfd.clone()] } else { vec![] };
    let kvm = Arc::new(Kvm {
        scope,
        irqfds: Lock::new(&IRQFDS, vec![irqfd.clone()]),
        ir_list: [Lock::new(&IR_LIST, posted), Lock::new(&IR_LIST, vec![])],
        eventfd: Lock::new(&WAIT_QUEUE, Some(irqfd.clone())),
        irq_srcu: <Sim as Platform>::Srcu::new("irq_srcu"),
        table: Word::new(OLD).named("routing table"),
        chip: Model::new("interrupt controller", Chip::default()),
    });
    let shutdown = {
        let (kvm, irqfd) = (kvm.clone(), irqfd.clone());
        Pool::new(m, "cleanup", 1).work("shutdown", move || kvm.shutdown(&irqfd))
    };
    let [updating, firing, loading] = [(); 3].map(|()| kvm.clone());
    m.task("deassign", move || kvm.deassign(&irqfd, &shutdown));
    if update {
        m.task("update", move || updating.update_routing());
    }
    if fire {
        m.task("device", move || firing.fire());
    }
    if load {
        m.task("vCPU", move || loading.load_vcpu(OLD));
    }
}
