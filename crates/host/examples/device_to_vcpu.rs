//! The way of an interrupt from a device to a vCPU's thread, through all the crates:
//!
//! ```text
//! eventfd ─▶ irqfd ─▶ route ─▶ postable? ─▶ post ─▶ the vCPU's thread
//!              ▲                             ▲
//! device ─▶ IRTE ─▶ host's vector            │
//!             └──────── posted ──────────────┘
//! ```
//!
//! A monitor's own device signals an eventfd. An assigned one arrives in the host, whose handler
//! signals an irqfd, until IRQ bypass has the IOMMU post it. Then the guest directs it to its other
//! vCPU, the host moves it to another CPU, and all is torn down. What is simulated is what only
//! hardware does: [`Device::interrupts`] and [`Host::takes`].
//!
//! ```sh
//! cargo run -p doorbell-host --example device_to_vcpu
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;

use doorbell_apic::vmx::{PiHost, PiVcpu, WakeupVcpus};
use doorbell_apic::{
    ApicMap, ApicTable, DestinationIds, Eoi, InterruptMessage, Registers, postable,
};
use doorbell_host::irte::intel::{RemappedIrte, Source};
use doorbell_host::vector::{Affinity, Arrived, Cleaned, CpuVector, Irq, Update, Vectors};
use doorbell_host::{
    Bypass, Consumer, CpuSet, Followed, Handler, IntelBinding, IntelInterrupt, IrqDesc, IrqReturn,
    PiTarget, Producer, RemapTable, Sharing, Token,
};
use doorbell_irqfd::{
    Controller, FollowRoutes, Gsi, Irqfd, Irqfds, Limits, Msi, NoBypass, Pin, Route, RoutingTable,
    Signalled, SourceId,
};
use doorbell_platform::{Atomic, CpuId, IrqGuard, Platform, ReadDomain, Std, Vector};
use doorbell_post::{
    Destination, Gate, Guest, Layout, Notice, Pending, PiDescriptor, PiGate, Requests, SelfNotify,
};

type Memory = Box<[<Std as Platform>::AtomicU128]>;
type Binding = IntelBinding<Std, Memory, Vcpu>;

const NOTIFY: Vector = Vector(0xf2);
const WAKE_UP: Vector = Vector(0xf1);
const STOP: Requests = Requests(1);
const IRQ: Irq = Irq(0);
const DISK: Gsi = Gsi(24);
const NIC: Gsi = Gsi(25);

struct Vcpu {
    descriptor: PiDescriptor<Std>,
    thread: OnceLock<<Std as Platform>::Task>,
}

impl PiVcpu<Std> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Std> {
        &self.descriptor
    }
}

impl PiTarget for Vcpu {
    fn address(&self) -> u64 {
        // In a kernel, its physical address.
        (&raw const self.descriptor).addr() as u64
    }
}

impl Vcpu {
    fn act(&self, notice: Notice<doorbell_post::Notification>) {
        match notice {
            Notice::Wake => Std::wake(self.thread.get().expect("only its thread blocks it")),
            // A guest that runs exits by a signal. This one halts at once, and its vCPU looks
            // before it sleeps.
            Notice::Kick(_) | Notice::Notify(_) | Notice::Nothing => {}
        }
    }

    /// The vCPU's thread: it enters the guest, leaves it, and sleeps while nothing is pending.
    fn run(self: &Arc<Self>, cpu: CpuId, host: &Host, guest: impl Fn(usize)) {
        let _ = self.thread.set(Std::current_task());
        let mut hooks = host.wakeup.register(Arc::clone(self)).expect("there is room");
        loop {
            hooks.load(cpu);
            let irqs_off = IrqGuard::<Std>::new();
            match self.descriptor.enter(&irqs_off, Guest { cpu, posted: false }) {
                Err(requests) => return assert_eq!(requests, STOP),
                Ok(entering) => {
                    let (in_guest, _) =
                        entering.rescan(|pir| pir.take(|vector| guest(vector.number())));
                    in_guest.exited();
                }
            }
            drop(irqs_off);
            let Ok(blocked) = self.descriptor.block() else { continue };
            if hooks.put(false) == SelfNotify(true) {
                host.takes(cpu, WAKE_UP);
            }
            blocked.wait();
        }
    }
}

/// The guest's interrupt controllers: here, nothing but messages, all of which can be posted.
struct Chip(ApicMap<Std, Arc<Vcpu>>);

impl Chip {
    fn posted<R>(&self, msi: Msi, to: impl FnOnce(&Arc<Vcpu>, u8) -> R) -> Option<R> {
        let table = self.0.read();
        let message = InterruptMessage::decode(msi.message, DestinationIds::Eight).ok()?;
        let posted = postable(&message, &table, Eoi::NotIntercepted).ok()?;
        Some(to(posted.target, posted.vector.number()))
    }
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _: Pin, _: SourceId, _: bool) {}
    fn edge(&self, _: Pin) {}
    fn msi(&self, msi: Msi) {
        let posted = self.posted(msi, |vcpu, vector| vcpu.act(vcpu.descriptor.post(vector.into())));
        assert_eq!(
            posted,
            Some(()),
            "a host without hardware for it injects by software what cannot be posted"
        );
    }
}

/// The host: its vectors, the descriptor of the device's interrupt, and who sleeps where.
struct Host {
    vectors: Vectors<Std>,
    desc: IrqDesc<Std>,
    online: CpuSet,
    wakeup: Arc<WakeupVcpus<Std, Vcpu>>,
}

impl Host {
    /// An interrupt comes to a CPU.
    fn takes(&self, cpu: CpuId, vector: Vector) {
        match vector {
            WAKE_UP => self.wakeup.handle_wakeup(cpu, |vcpu| vcpu.act(Notice::Wake)),
            NOTIFY => {}
            vector => match self.vectors.cpu(cpu).expect("it is online").arrived(vector) {
                Arrived::Irq(irq) => {
                    assert_eq!(irq, IRQ);
                    self.desc.handle().wake.act();
                }
                Arrived::Unhandled => panic!("nobody's vector"),
            },
        }
    }
}

/// What VFIO's handler does with an interrupt that arrives in the host.
struct Forward {
    irqfd: Irqfd<Std, Chip>,
    calls: AtomicU32,
}

impl Handler for Forward {
    fn handle(&self) -> IrqReturn {
        self.calls.fetch_add(1, SeqCst);
        let _: Signalled = self.irqfd.signal();
        IrqReturn::Handled
    }
}

/// An assigned device behind a VT-d unit. It has the binding while no irqfd has.
struct Device {
    host: Arc<Host>,
    vcpus: [Arc<Vcpu>; 2],
    interrupt: Arc<IntelInterrupt<Std, Memory>>,
    binding: Mutex<Option<Binding>>,
}

impl Producer for Device {}

impl Device {
    /// The device sends its message, and the unit goes by its entry.
    fn interrupts(&self) {
        let entry = self.interrupt.load();
        if let Some(posted) = entry.as_posted() {
            let vcpu = self
                .vcpus
                .iter()
                .find(|vcpu| vcpu.address() == posted.descriptor)
                .expect("a descriptor");
            vcpu.descriptor.layout().publish(posted.vector.into());
            if vcpu.descriptor.gate().announce().is_some() {
                let control = vcpu.descriptor.gate().load();
                self.host.takes(CpuId(control.destination().bits()), control.vector());
            }
        } else {
            let host = entry.as_remapped().expect("it is present");
            self.host.takes(CpuId(host.destination), Vector(host.vector));
        }
    }
}

/// What the irqfd is to IRQ bypass.
struct Assigned {
    vm: Irqfds<Std, Chip>,
}

impl Assigned {
    fn go_by_route(&self, binding: &mut Binding) -> Followed {
        let table = self.vm.table();
        let to = match table.routes(NIC).next() {
            Some(&Route::Msi(msi)) => {
                self.vm.controller().posted(msi, |vcpu, vector| (Arc::clone(vcpu), vector, false))
            }
            _ => None,
        };
        // A host sends the invalidation of the entry here, and waits for it.
        binding.follow(to, |_entry| {})
    }
}

impl Consumer<Device> for Assigned {
    type Link = Binding;
    type Refusal = ();

    fn connect(&self, device: &Arc<Device>) -> Result<Binding, ()> {
        let mut binding = device.binding.lock().unwrap().take().ok_or(())?;
        let _ = self.go_by_route(&mut binding);
        Ok(binding)
    }
    fn follow(&self, binding: &mut Binding) -> Followed {
        self.go_by_route(binding)
    }
    fn disconnect(&self, device: &Arc<Device>, mut binding: Binding) {
        let _ = binding.follow(None, |_entry| {});
        *device.binding.lock().unwrap() = Some(binding);
    }
}

/// The owner of the bypass, which hears of routes that have changed. The device's irqfd is the only
/// one that is posted.
struct Posts<'a>(&'a Bypass<Std, Device, Assigned>);

impl FollowRoutes for Posts<'_> {
    fn follow(&self, gsi: Gsi) {
        if gsi == NIC {
            self.0.follow(Token(1));
        }
    }
}

fn at(place: CpuVector) -> RemappedIrte {
    let CpuVector { cpu, vector } = place;
    RemappedIrte {
        destination: cpu.0,
        logical: false,
        redirection_hint: false,
        level: false,
        delivery: 0,
        vector: vector.0,
    }
}

fn message(vcpu: u64, vector: u32) -> Route {
    Route::Msi(Msi::new(0xfee0_0000 | vcpu << 12, vector))
}

/// Runs it.
#[cfg(not(target_os = "linux"))]
pub fn main() {
    println!("skipped: no eventfds here");
}

/// Runs it, and asserts where each interrupt goes.
#[cfg(target_os = "linux")]
pub fn main() -> Result<(), Box<dyn Error>> {
    // The host: two CPUs, with the APIC ids 0 and 1.
    let rcu = Arc::new(<Std as Platform>::Rcu::new("host"));
    let online = CpuSet::of([CpuId(0), CpuId(1)]);
    let host = Arc::new(Host {
        vectors: Vectors::new(2, 8, 0x30..=0xeb)?,
        desc: IrqDesc::new(&rcu, CpuSet::of([CpuId(0)]), &online)?,
        wakeup: WakeupVcpus::new(PiHost::x2apic(NOTIFY, WAKE_UP, [0, 1]), 8, &rcu)
            .map_err(|_| "too many vCPUs")?,
        online,
    });
    for cpu in host.online.iter() {
        let _ = host.vectors.online(cpu)?;
    }

    // The guest: two vCPUs, each of which tells what it gets.
    let gate = || PiGate::new(Destination::x2apic(0), NOTIFY);
    let vcpus = [(); 2].map(|()| {
        Arc::new(Vcpu {
            descriptor: PiDescriptor::new(Pending::new(), gate()),
            thread: OnceLock::new(),
        })
    });
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..)
        .zip(&vcpus)
        .map(|(id, vcpu)| {
            let (vcpu, host, tell) = (Arc::clone(vcpu), Arc::clone(&host), tell.clone());
            thread::spawn(move || {
                vcpu.run(CpuId(id), &host, |vector| tell.send((id, vector)).expect("main listens"))
            })
        })
        .collect();
    drop(tell);
    let ids = (0..).zip(&vcpus).map(|(id, vcpu)| (Registers::X2Apic { id }, Arc::clone(vcpu)));
    let chip = Chip(ApicMap::new(&rcu, ApicTable::new(ids)));
    let vm = Irqfds::<Std, _>::new(chip, Limits { gsis: 64, ..Limits::default() });
    vm.reroute(RoutingTable::new(&[(DISK, message(0, 0x41)), (NIC, message(0, 0x42))])?)?
        .follow(&NoBypass);

    // A device of the monitor's own: eventfd, irqfd, route, post, thread.
    let events = doorbell_irqfd::eventfd::EventLoop::<Std, Chip>::spawn()?;
    let (disk, served) = events.open(&vm, DISK)?;
    File::from(disk).write_all(&1_u64.to_ne_bytes())?;
    assert_eq!(told.recv()?, (0, 0x41));

    // An assigned device: its interrupt arrives at CPU 0, whose handler signals the irqfd.
    let forward = Arc::new(Forward { irqfd: vm.irqfd(), calls: AtomicU32::new(0) });
    host.desc
        .request(Arc::clone(&forward) as Arc<dyn Handler>, Sharing::Exclusive)?
        .reclaim_later();
    forward.irqfd.assign(NIC)?;
    let place = host.vectors.activate(IRQ, Affinity::In(&host.desc.affinity()))?;
    let memory: Memory = (0..4).map(|_| Atomic::new(0)).collect();
    let entry = RemapTable::new(memory)?.allocate()?;
    let binding = Binding::new(IntelInterrupt::new(entry, Source::Function(0x0100), at(place)));
    let interrupt = Arc::clone(binding.interrupt());
    let nic = Arc::new(Device {
        host: Arc::clone(&host),
        vcpus: vcpus.clone(),
        interrupt,
        binding: Mutex::new(Some(binding)),
    });
    nic.interrupts();
    assert_eq!((told.recv()?, forward.calls.load(SeqCst)), ((0, 0x42), 1));

    // Both sides of the bypass are there: from now on the unit posts it, and the host hears
    // nothing.
    let bypass = Bypass::<Std, Device, Assigned>::new();
    let produces = bypass.produce(Token(1), Arc::clone(&nic)).map_err(|_| "registered")?;
    let consumes = bypass
        .consume(Token(1), Arc::new(Assigned { vm: vm.clone() }))
        .map_err(|_| "registered")?;
    nic.interrupts();
    assert_eq!((told.recv()?, forward.calls.load(SeqCst)), ((0, 0x42), 1));

    // The guest directs it to its vCPU 1. When `follow` has returned, nothing is posted by the
    // former route.
    let rerouted =
        vm.reroute(RoutingTable::new(&[(DISK, message(0, 0x41)), (NIC, message(1, 0x52))])?)?;
    assert!(rerouted.gsis().eq([NIC]));
    rerouted.follow(&Posts(&bypass));
    nic.interrupts();
    assert_eq!((told.recv()?, forward.calls.load(SeqCst)), ((1, 0x52), 1));

    // The host moves it to CPU 1 meanwhile. Both places are installed until CPU 0 has looked at its
    // IRR.
    let to = CpuSet::of([CpuId(1)]);
    let moved = host
        .vectors
        .begin_move(IRQ, Affinity::In(&to), Update::Whole)?
        .ok_or("it is there already")?;
    let change =
        host.desc.set_affinity(to, &host.online, |_| nic.interrupt.set_host(at(moved.to())))?;
    change.ok_or("it is there already")?.act().by(|_| ());
    assert_eq!(host.vectors.moved(moved)?.cpu(), CpuId(0));
    assert_eq!(host.vectors.cleanup(CpuId(0), |_vector| false), Cleaned::All);

    // The bypass goes: it arrives in the host again, at CPU 1, and still reaches the guest by the
    // irqfd.
    drop((produces, consumes));
    assert_eq!(nic.interrupt.load().as_remapped().map(|host| host.destination), Some(1));
    nic.interrupts();
    assert_eq!((told.recv()?, forward.calls.load(SeqCst)), ((1, 0x52), 2));

    // The irqfds go. What comes later reaches nobody, and stays pending.
    forward.irqfd.deassign()?;
    events.deassign(served)?;
    nic.interrupts();
    assert_eq!((forward.irqfd.signal(), forward.calls.load(SeqCst)), (Signalled::Pending, 3));
    vm.close().wait();
    for vcpu in &vcpus {
        vcpu.act(vcpu.descriptor.run_state().request(STOP));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a vCPU's thread"));
    assert!(told.recv().is_err(), "nothing else was delivered");
    println!("5 of 6 interrupts reached the guest, and the last is pending");
    println!("of the assigned device's, 3 arrived in the host, and 2 were posted");
    Ok(())
}
