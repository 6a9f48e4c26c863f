//! CPUs with AVIC, an IOMMU with a log of guest interrupts, and the vCPUs of `doorbell-apic` on
//! them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::GuestVector;
use doorbell_apic::avic::spec::{HostApicId, LogEntry, PageAddress, register};
use doorbell_apic::avic::{
    Avic, AvicVcpu, BackingPage, GaLog, GaTag, Kind, PhysicalId, PhysicalTable, VmTag, Vmrun,
};
use doorbell_explore::Sim;
use doorbell_explore::sim::{Ghost, Model, note};
use doorbell_hardware::cpu::{self, Cpu};
use doorbell_hardware::ga_log;
use doorbell_host::irte::amd::{GuestMode, HostMode};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, Bound, Invalidate, Posting, RemapTable, RescanRequired,
};
use doorbell_platform::{Atomic, CpuId, IrqGuard, Lock, LockClass, Platform, WaitType};
use doorbell_post::{Notice, Requests, Residency, ResidencyCopies};

/// The scheduler's: hooks run under it, and to wake somebody takes it.
static RUN_QUEUE: LockClass = LockClass::new("rq->lock", WaitType::Spin);

pub(super) struct Host;

impl Avic for Host {
    type Platform = Sim;
    type Page = Arc<BackingPage<Sim>>;
    type Physical = Arc<[<Sim as Platform>::AtomicU64]>;
    type Logical = Arc<[<Sim as Platform>::AtomicU32]>;
    type Irte = AmdInterrupt<Sim, Memory>;
}

type Memory = Box<[<Sim as Platform>::AtomicU128]>;

/// An interrupt of a device, as `doorbell-host` has it, and the posts that may have read its entry.
pub(super) struct Irte {
    interrupt: Arc<AmdInterrupt<Sim, Memory>>,
    /// The binding, which one task at a time uses.
    binding: RefCell<AmdBinding<Sim, Memory, Vcpu>>,
    under_way: Model<u32>,
}

impl Irte {
    /// In host mode.
    #[track_caller]
    pub(super) fn new() -> Rc<Self> {
        let memory: Memory = Box::new([<Sim as Platform>::AtomicU128::new(0).named("IRTE")]);
        let entry = RemapTable::new(memory)
            .expect("its words are lock-free")
            .allocate()
            .expect("it has one entry");
        let host = HostMode { destination: 0, logical: false, vector: 0x31, kind: 0 };
        let binding = AmdBinding::new(AmdInterrupt::new(entry, host));
        let interrupt = Arc::clone(binding.interrupt());
        Rc::new(Irte {
            interrupt,
            binding: RefCell::new(binding),
            under_way: Model::new("posts under way", 0),
        })
    }
}

impl Irte {
    /// What the IOMMU reads, if it is in guest mode.
    fn read(&self) -> Option<GuestMode> {
        let guest = self.interrupt.load().as_guest();
        note(|| match guest {
            None => "reads IRTE: the host".to_owned(),
            Some(GuestMode { backing_page, residency, .. }) => {
                let so = match residency {
                    Residency::Running { apic_id } => format!("running on CPU{apic_id}"),
                    Residency::Away { log: true } => "away, log".to_owned(),
                    Residency::Away { log: false } => "away".to_owned(),
                };
                format!("reads IRTE: vCPU {}, {so}", backing_page - 1)
            }
        });
        guest
    }

    fn ends_post(&self) {
        self.under_way.change(|posts| *posts -= 1);
        note(|| "the post is over".to_owned());
    }
}

impl Drop for Irte {
    /// Hardware is no more, so nothing has to be waited for. (A binding that is dropped keeps its
    /// vCPU for good.)
    fn drop(&mut self) {
        if let Ok(invalidate) = self.binding.get_mut().unbind() {
            drop(invalidate.by(|_| ()));
        }
    }
}

impl AvicTarget<Sim, Memory> for Vcpu {
    type Own = PhysicalId<Host>;
    fn copies(&self) -> &ResidencyCopies<Sim, PhysicalId<Host>, AmdInterrupt<Sim, Memory>> {
        self.avic.copies()
    }
}

/// A vCPU, as the host has it.
pub(super) struct Vcpu {
    pub(super) avic: AvicVcpu<Host>,
    tag: GaTag,
    guest: Model<u32>,
    task: Model<Option<<Sim as Platform>::Task>>,
    /// The lock of the run queue, on which it is alone.
    run_queue: Lock<Sim, ()>,
    /// What freeing the vCPU would free.
    memory: Ghost,
}

pub(super) struct System {
    pub(super) vcpus: Vec<Arc<Vcpu>>,
    cpus: Vec<Cpu>,
    log: Arc<GaLog<Sim, Vcpu>>,
    _vm: VmTag<Sim, Vcpu>,
    entries: ga_log::GaLog,
    pub(super) inhibited: <Sim as Platform>::AtomicBool,
}

fn vector(number: u8) -> GuestVector {
    GuestVector::new(0x40 + number).expect("a legal vector")
}

const IRR: usize = register::IRR + 0x20;

impl System {
    #[track_caller]
    pub(super) fn new(vcpus: usize, cpus: usize, log_capacity: usize) -> Arc<Self> {
        let words = (0..512).map(|_| Atomic::ZERO).collect();
        let table = PhysicalTable::new(Kind::X2Avic, words).expect("one page");
        let log = GaLog::new(1);
        let vm = log.open().expect("there is room for one VM");
        let vcpu = |number: usize| {
            let page = PageAddress::new((number as u64 + 1) << 12).expect("an address of a page");
            Arc::new(Vcpu {
                avic: AvicVcpu::new(&table, number as u32, Arc::default(), page, Requests(0))
                    .expect("its ID is free"),
                tag: vm.tag(number as u32).expect("a small number"),
                guest: Model::new("guest", 0),
                task: Model::new("task", None),
                run_queue: Lock::new(&RUN_QUEUE, ()),
                memory: Ghost::new("vCPU"),
            })
        };
        let vcpus: Vec<_> = (0..vcpus).map(vcpu).collect();
        for (number, vcpu) in (0..).zip(&vcpus) {
            drop(vm.add(number, Arc::clone(vcpu)).map(|former| former.synchronize()));
        }
        Arc::new(System {
            cpus: (0..cpus).map(|_| Cpu::new("CPU")).collect(),
            vcpus,
            log,
            _vm: vm,
            entries: ga_log::GaLog::new(log_capacity),
            inhibited: <Sim as Platform>::AtomicBool::new(false).named("inhibited"),
        })
    }

    fn cpu(&self, cpu: CpuId) -> &Cpu {
        &self.cpus[cpu.0 as usize]
    }

    pub(super) fn act(&self, vcpu: &Vcpu, notice: Notice<CpuId>) {
        cpu::act(&self.cpus, notice, || {
            let task = vcpu.task.observe(Clone::clone).expect("it sleeps, so it has begun");
            let _run_queue = vcpu.run_queue.lock_irqsave();
            Sim::wake(&task);
        });
    }

    /// An MSI of a device: the IOMMU reads the IRTE, sets the bit, then takes running bit,
    /// destination, log and tag, which it does not cache, from the IRTE as it is by then. In host
    /// mode, the host posts to `by_now`.
    pub(super) fn msi(&self, irte: &Irte, by_now: usize, number: u8) {
        irte.under_way.change(|posts| *posts += 1);
        note(|| "an MSI comes".to_owned());
        let Some(read) = irte.read() else {
            irte.ends_post();
            let vcpu = &self.vcpus[by_now];
            return self.act(vcpu, vcpu.avic.post(vector(number)));
        };
        let vcpu = &self.vcpus[read.backing_page as usize - 1];
        vcpu.memory.access();
        vcpu.avic.page().register(IRR).fetch_or(1 << (read.vector % 32), SeqCst);
        note(|| format!("sets the IRR bit of vCPU {}", read.backing_page - 1));
        match irte.read() {
            Some(GuestMode { residency: Residency::Running { apic_id }, .. }) => {
                self.cpu(CpuId(apic_id)).ring()
            }
            Some(GuestMode { residency: Residency::Away { log: true }, tag, .. }) => {
                self.entries.write(tag)
            }
            _ => {}
        }
        irte.ends_post();
    }

    pub(super) fn bind(&self, irte: &Irte, vcpu: usize, number: u8) {
        let bound = irte
            .binding
            .borrow_mut()
            .bind(Arc::clone(&self.vcpus[vcpu]), self.posting(vcpu, number));
        bound.expect("it is bound to none").by(|_| ());
    }

    /// From A to B, as `doorbell-host` has it done; or without what it says is to be done about A.
    pub(super) fn retarget(&self, irte: &Irte, to: usize, number: u8, looks: bool) {
        let invalidate = irte.binding.borrow_mut().unbind().expect("it is bound");
        self.arrives(irte, invalidate, looks);
        self.bind(irte, to, number);
    }

    /// Binds an IRTE to a vCPU once more without unbinding it before, which fails.
    pub(super) fn bind_again(&self, irte: &Irte, number: u8, looks: bool) {
        let failed =
            irte.binding.borrow_mut().bind(Arc::clone(&self.vcpus[0]), self.posting(0, number));
        let Bound(invalidate) = failed.expect_err("it is bound");
        self.arrives(irte, invalidate, looks);
    }

    /// Has the interrupt arrive in the host from now on.
    fn arrives(&self, irte: &Irte, invalidate: Invalidate<RescanRequired<Vcpu>>, looks: bool) {
        let RescanRequired(former) = invalidate.by(|_| {
            irte.under_way.wait(|posts| *posts == 0, |_| ());
            note(|| "the posts under way are over".to_owned());
        });
        if looks {
            self.act(&former, former.avic.logged());
        }
    }

    fn posting(&self, vcpu: usize, number: u8) -> Posting {
        let tag = self.vcpus[vcpu].tag.bits();
        Posting { backing_page: vcpu as u64 + 1, vector: vector(number).number(), tag }
    }

    /// Returns whether the log has entries that nobody has read.
    pub(super) fn has_logged(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The handler of the log, until the run is over.
    pub(super) fn read_log(&self) {
        let look = |vcpu: &Vcpu| {
            vcpu.memory.access();
            self.act(vcpu, vcpu.avic.logged());
        };
        while let Ok(tag) = self.entries.read() {
            if let Some(tag) = tag {
                self.log.entry(LogEntry::new(tag, 0), look).expect("the tag means somebody");
            } else {
                let reset = self.log.overflowed();
                self.entries.restart();
                reset.restarted(look);
            }
        }
    }
}

impl Vcpu {
    pub(super) fn got(&self) -> u32 {
        self.guest.observe(|guest| *guest)
    }

    pub(super) fn pending(&self) -> bool {
        self.avic.page().register(IRR).load(SeqCst) != 0
    }

    fn gets(&self, bits: u32) {
        if bits != 0 {
            self.guest.change(|guest| *guest |= bits);
            note(|| format!("the guest gets {bits:#x}"));
        }
    }

    pub(super) fn begin(&self) {
        self.task.change(|task| *task = Some(Sim::current_task()));
    }

    pub(super) fn load(&self, system: &System, cpu: CpuId) {
        system.cpu(cpu).take();
        let _run_queue = self.run_queue.lock_irqsave();
        self.avic.load(HostApicId::x2apic(cpu.0).expect("a small number"));
    }

    pub(super) fn put(&self, system: &System, cpu: CpuId) {
        {
            let _run_queue = self.run_queue.lock_irqsave();
            self.avic.put();
        }
        system.cpu(cpu).free();
    }

    /// Sleeps on `cpu`, if there is nothing to do, and runs on `then` when it is woken.
    pub(super) fn sleep(&self, system: &System, cpu: CpuId, then: CpuId) {
        let sleeping = self.avic.block();
        self.put(system, cpu);
        if let Ok(sleeping) = sleeping {
            sleeping.wait();
        }
        self.load(system, then);
    }

    fn inject(&self, page: &BackingPage<Sim>) {
        while let Some(vector) = page.deliverable() {
            page.accept(vector);
            self.gets(1 << (vector.number() - 0x40));
            page.register(register::ISR + 0x20).store(0, SeqCst);
        }
    }

    /// Enters the guest, which leaves at once, or stays there until it is kicked. Whether the run
    /// goes on.
    pub(super) fn run(&self, system: &System, on: CpuId, stays: bool) -> bool {
        let irqs = IrqGuard::<Sim>::new();
        let cpu = system.cpu(on);
        cpu.irqs_off();
        let entered = self.avic.enter(&irqs, on, |page| self.inject(page));
        let mut goes_on = true;
        match entered {
            Err(Requests(_)) => self.avic.inhibit(system.inhibited.load(SeqCst)),
            Ok((in_guest, vmrun)) => {
                let avic = vmrun == Vmrun::WithAvic;
                goes_on = cpu.enter(avic, || self.guest(cpu, avic, stays));
                cpu.leave();
                in_guest.exited();
            }
        }
        cpu.irqs_on();
        goes_on
    }

    fn guest(&self, cpu: &Cpu, avic: bool, stays: bool) -> bool {
        let looks = || {
            let irr = self.avic.page().register(IRR);
            if avic && irr.load(SeqCst) != 0 {
                self.gets(irr.swap(0, SeqCst));
            }
        };
        looks();
        !stays || cpu.stay(looks).is_ok()
    }
}
