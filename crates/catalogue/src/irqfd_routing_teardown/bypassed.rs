//! The same with an IOMMU, on the real `doorbell-irqfd`, `doorbell-host` and `doorbell-post`: the
//! device is assigned, and posts to the vCPU that the irqfd's route names.

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{DropUnlocked, Ghost, Model, fail, note};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::copies;
use doorbell_hardware::entry_cache::EntryCache;
use doorbell_host::irte::amd::{AmdIrte, HostMode};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, Bypass, Consumer, Followed, Invalidate, IrteMemory,
    Posting, Producer, RemapTable, RescanRequired, Token,
};
use doorbell_irqfd::{
    Controller, FollowRoutes, Gsi, Irqfd, Irqfds, Limits, Msi, Pin, Route, RoutingTable, SourceId,
};
use doorbell_platform::{Atomic, CpuId, Platform};
use doorbell_post::{Bit, Layout, Mirror, Notice, Residency, ResidencyCopies};

use crate::case::{self, variant};
use crate::{Expected, Variant};

const GSI: Gsi = Gsi(1);
const TOKEN: Token = Token(1);
/// vCPUs by their number, which is also the destination of an MSI and, by itself, its data.
const OLD: usize = 0;
const NEW: usize = 1;

const fn msi(vcpu: usize) -> Msi {
    Msi::new(0xfee0_0000 | (vcpu as u64) << 12, vcpu as u32)
}

/// The actors beside the device.
#[derive(Clone, Copy)]
struct Scope {
    deassign: bool,
    reroute: bool,
    moves: bool,
    /// The route's change has the connection follow.
    follows: bool,
    /// Deassign unregisters the consumer.
    unregisters: bool,
    interrupts: usize,
}

pub(super) fn variants() -> Vec<Variant> {
    let all = Scope {
        deassign: true,
        reroute: true,
        moves: true,
        follows: true,
        unregisters: true,
        interrupts: 1,
    };
    let (exhausted, found) = (Expected::Exhausted, Expected::Found(FailureKind::Invariant));
    vec![
        variant(
            "shipped-bypass",
            exhausted,
            "what tears a posted irqfd down asks its binding, not its route, and waits for the IOMMU",
            Scope { reroute: false, interrupts: 2, ..all },
        ),
        variant(
            "shipped-bypass-reroute",
            exhausted,
            "a routing update returns when nothing is posted by the former route",
            Scope { deassign: false, interrupts: 2, ..all },
        ),
        variant(
            "shipped-bypass-reroute-only-irqfd",
            found,
            "who updates the routes and not the connection has the device post by the old one",
            Scope { deassign: false, follows: false, moves: false, ..all },
        ),
        variant(
            "shipped-bypass-kept-registered",
            found,
            "an irqfd that is deassigned and stays a consumer is still posted for",
            Scope { reroute: false, moves: false, unregisters: false, ..all },
        ),
        variant(
            "shipped-bypass-both",
            exhausted,
            "deassign and a routing update",
            Scope { moves: false, ..all },
        ),
        variant("shipped-bypass-all", exhausted, "all of them at once", all),
        variant(
            "shipped-bypass-all-2-interrupts",
            exhausted,
            "the second interrupt comes by what the IOMMU has cached for the first",
            Scope { interrupts: 2, ..all },
        )
        .full_only(),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let Scope { deassign, reroute, moves, follows, unregisters, interrupts } = self;
        let mut who = vec![if interrupts == 1 { "device" } else { "device, 2 interrupts" }];
        who.extend(deassign.then_some(if unregisters {
            "deassign"
        } else {
            "deassign without bypass"
        }));
        who.extend(reroute.then_some(if follows { "reroute" } else { "reroute without bypass" }));
        who.extend(moves.then_some("vCPU load and put"));
        format!("1 irqfd of an assigned device, posted to 1 of 2 vCPUs; {}", who.join(" ‖ "))
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

type Word = <Sim as Platform>::AtomicU128;
type Interrupt = AmdInterrupt<Sim, Memory>;
type Posted = AmdBinding<Sim, Memory, Vcpu>;

#[derive(Clone)]
struct Memory(Arc<[Word]>);

impl IrteMemory<Sim> for Memory {
    fn entries(&self) -> &[Word] {
        &self.0
    }
}

/// The entry in the physical ID table, which nobody here reads.
struct PhysicalId;

impl Mirror for PhysicalId {
    fn reflect(&self, _: Residency) {}
}

/// A vCPU that is in the host, and looks at its page before it enters the guest.
type Vcpu = copies::Vcpu<PhysicalId, Interrupt>;

impl AvicTarget<Sim, Memory> for Vcpu {
    type Own = PhysicalId;
    fn copies(&self) -> &ResidencyCopies<Sim, PhysicalId, Interrupt> {
        &self.copies
    }
}

/// What must not happen any more.
#[derive(Clone, Copy, Default)]
struct Over {
    rerouted: bool,
    deassigned: bool,
}

/// The hardware, and the ghost state beside it.
struct Hardware {
    memory: Memory,
    unit: EntryCache<AmdIrte>,
    vcpus: [Arc<Vcpu>; 2],
    over: Model<Over>,
}

impl Hardware {
    /// The bit of a vCPU is set, by whomever.
    fn publishes(&self, vcpu: usize, by_iommu: bool) {
        let over = self.over.observe(|over| *over);
        note(|| {
            let does = if by_iommu { "posts" } else { "injects" };
            format!("{does} for {}", if vcpu == OLD { "the old vCPU" } else { "the new vCPU" })
        });
        if over.rerouted && vcpu == OLD {
            fail("an interrupt goes by the old route, and the routing update has returned");
        }
        if over.deassigned && by_iommu {
            fail("an interrupt is posted for an irqfd that was deassigned");
        }
    }

    /// An interrupt of the device goes through the IOMMU; whether it arrives in the host.
    fn remap(&self) -> bool {
        let used = self.unit.comes().unwrap_or_else(|| {
            let read = AmdIrte::from_bits(self.memory.0[0].load(SeqCst));
            note(|| {
                match read.as_guest() {
                    Some(guest) if guest.backing_page as usize == OLD => "reads IRTE: the old vCPU",
                    Some(_) => "reads IRTE: the new vCPU",
                    None => "reads IRTE: the host",
                }
                .to_owned()
            });
            self.unit.keep(read);
            read
        });
        if let Some(guest) = used.as_guest() {
            let vcpu = &self.vcpus[guest.backing_page as usize];
            self.publishes(vcpu.page as usize, true);
            vcpu.post.layout().publish(bit());
        }
        self.unit.done();
        used.as_host().is_some()
    }

    fn invalidate<T>(&self, token: Invalidate<T>) -> T {
        token.by(|_| self.unit.invalidate())
    }
}

fn bit() -> Bit<1> {
    Bit::new(0).expect("there is one")
}

/// Injects by software.
struct Chip {
    hardware: Arc<Hardware>,
    /// What a delivery needs, and whoever has deassigned the irqfd may free.
    memory: Arc<Ghost>,
    _dropped: DropUnlocked,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        self.memory.access();
        let vcpu = &self.hardware.vcpus[msi.message.data as usize];
        self.hardware.publishes(vcpu.page as usize, false);
        if vcpu.post.post(bit()) != Notice::Nothing {
            fail("a vCPU that is in the host has to be told");
        }
    }
}

struct Device {
    /// While it is not connected.
    binding: Model<Option<Posted>>,
    _dropped: DropUnlocked,
}

impl Producer for Device {}

/// The owner of the bypass, which hears of routes that have changed.
struct Posts(Arc<Bypass<Sim, Device, Assigned>>);

impl FollowRoutes for Posts {
    fn follow(&self, gsi: Gsi) {
        if gsi == GSI {
            self.0.follow(TOKEN);
        }
    }
}

/// The adapter: what an irqfd does as a consumer.
struct Assigned {
    vm: Irqfds<Sim, Chip>,
    hardware: Arc<Hardware>,
    memory: Arc<Ghost>,
    _dropped: DropUnlocked,
}

impl Assigned {
    fn route(&self) -> (Arc<Vcpu>, Posting) {
        // Whoever changes the routes has this followed after that, so what is read here is followed
        // if it is stale.
        let table = self.vm.table();
        let Some(Route::Msi(msi)) = table.routes(GSI).next() else {
            unreachable!("it always has one")
        };
        let vcpu = &self.hardware.vcpus[msi.message.data as usize];
        let posting = Posting { backing_page: vcpu.page, vector: 0, tag: vcpu.page as u32 };
        (Arc::clone(vcpu), posting)
    }

    /// No vCPU is in the guest here: each looks before it enters.
    fn look(&self, again: Invalidate<RescanRequired<Vcpu>>) {
        let RescanRequired(_) = self.hardware.invalidate(again);
    }
}

impl Consumer<Device> for Assigned {
    type Link = Posted;
    type Refusal = Infallible;

    fn connect(&self, producer: &Arc<Device>) -> Result<Posted, Infallible> {
        self.memory.access();
        let mut binding = producer.binding.change(Option::take).expect("it is not connected");
        let (vcpu, posting) = self.route();
        self.hardware.invalidate(binding.bind(vcpu, posting).expect("it is posted to none"));
        Ok(binding)
    }

    fn follow(&self, binding: &mut Posted) -> Followed {
        self.memory.access();
        binding.follow(Some(self.route()), |_| self.hardware.unit.invalidate(), drop)
    }

    fn disconnect(&self, producer: &Arc<Device>, mut binding: Posted) {
        self.memory.access();
        self.look(binding.unbind().expect("it is posted"));
        producer.binding.change(|back| *back = Some(binding));
        self.memory.access();
    }
}

fn table(vcpu: usize) -> RoutingTable {
    RoutingTable::new(&[(GSI, Route::Msi(msi(vcpu)))]).expect("a good table")
}

fn program(m: &Machine, scope: Scope) {
    let entries = Memory(Arc::new([Word::new(0).named("IRTE")]));
    let cpus = copies::cpus();
    let hardware = Arc::new(Hardware {
        memory: entries.clone(),
        unit: EntryCache::new("IOMMU"),
        vcpus: [OLD, NEW].map(|number| Vcpu::new(number as u64, PhysicalId, &cpus)),
        over: Model::new("what is over", Over::default()),
    });
    let memory = Arc::new(Ghost::new("what deliveries use"));
    let chip = Chip {
        hardware: Arc::clone(&hardware),
        memory: Arc::clone(&memory),
        _dropped: DropUnlocked("drops a VM"),
    };
    let vm = Irqfds::<Sim, _>::new(chip, Limits { gsis: 2, ..Limits::default() });
    let _ = vm.reroute(table(OLD)).expect("an open VM");
    let irqfd: Arc<Irqfd<Sim, Chip>> = Arc::new(vm.irqfd());
    irqfd.assign(GSI).expect("the GSI is routed");

    let entry =
        RemapTable::new(entries).expect("its words are lock-free").allocate().expect("one is free");
    let host = HostMode { destination: 0, logical: false, vector: 0x31, kind: 0 };
    let device = Arc::new(Device {
        binding: Model::new("binding", Some(AmdBinding::new(AmdInterrupt::new(entry, host)))),
        _dropped: DropUnlocked("drops a device"),
    });
    let consumer = Arc::new(Assigned {
        vm: vm.clone(),
        hardware: Arc::clone(&hardware),
        memory: Arc::clone(&memory),
        _dropped: DropUnlocked("drops a consumer"),
    });
    let bypass = Bypass::<Sim, Device, Assigned>::new();
    let produces = bypass.produce(TOKEN, Arc::clone(&device)).expect("the only one");
    let consumes = bypass.consume(TOKEN, Arc::clone(&consumer)).expect("the only one");

    {
        let (irqfd, hardware) = (Arc::clone(&irqfd), Arc::clone(&hardware));
        m.hardware("device", move || {
            for _ in 0..scope.interrupts {
                if hardware.remap() {
                    // The host's handler.
                    let _ = irqfd.signal();
                }
            }
        });
    }
    // Whoever is registered to the end stays so.
    mem::forget(produces);
    if scope.deassign {
        let (irqfd, hardware) = (Arc::clone(&irqfd), Arc::clone(&hardware));
        let consumes = if scope.unregisters {
            Some(consumes)
        } else {
            mem::forget(consumes);
            None
        };
        m.task("deassign", move || {
            drop(consumes);
            irqfd.deassign().expect("it is assigned");
            hardware.over.change(|over| over.deassigned = true);
            note(|| "deassign has returned: nothing may be posted from now on".to_owned());
            memory.free();
        });
    } else {
        mem::forget(consumes);
    }
    if scope.reroute {
        let hardware = Arc::clone(&hardware);
        m.task("reroute", move || {
            let rerouted = vm.reroute(table(NEW)).expect("an open VM");
            if scope.follows {
                rerouted.follow(&Posts(bypass));
            }
            hardware.over.change(|over| over.rerouted = true);
            note(|| "the update has returned: no old route may be used from now on".to_owned());
        });
    }
    if scope.moves {
        let vcpu = Arc::clone(&hardware.vcpus[OLD]);
        m.task("vCPU", move || {
            vcpu.load(CpuId(0));
            vcpu.put();
        });
    }
    m.at_quiescence(
        "the interrupt is somewhere, and the IRTE on one list, or in host mode and on none",
        move || {
            let pending = hardware.vcpus.iter().any(|vcpu| vcpu.post.layout().any());
            if !pending && !irqfd.take_pending() {
                return Err("the interrupt is lost".into());
            }
            let entry = AmdIrte::from_bits(hardware.memory.0[0].load(SeqCst)).as_guest();
            let posted_to = entry.map(|guest| guest.backing_page as usize);
            let lists = [OLD, NEW].map(|vcpu| hardware.vcpus[vcpu].copies.len());
            let expected = [OLD, NEW].map(|vcpu| usize::from(posted_to == Some(vcpu)));
            let torn_down = scope.deassign && scope.unregisters;
            if lists != expected || posted_to.is_some() == torn_down {
                return Err(format!(
                    "the IRTE posts to {posted_to:?}, and the lists have {lists:?}"
                ));
            }
            Ok(())
        },
    );
}
