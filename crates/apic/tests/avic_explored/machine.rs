//! CPUs with AVIC, an IOMMU with a log, and a vCPU that runs on them.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::GuestVector;
use doorbell_apic::avic::spec::{HostApicId, LogEntry, PageAddress, register};
use doorbell_apic::avic::{
    Avic, AvicVcpu, BackingPage, GaLog, IncompleteIpi, Kind, PhysicalTable, TableError, incomplete_ipi,
};
use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable};
use doorbell_explore::{Ended, Machine, Sim};
use doorbell_hardware::cpu::Cpu;
use doorbell_hardware::ga_log;
use doorbell_platform::{Atomic, CpuId, IrqGuard, Platform};
use doorbell_post::{Mirror, Notice, Requests, Residency};

type AtomicU64 = <Sim as Platform>::AtomicU64;
type AtomicU32 = <Sim as Platform>::AtomicU32;

pub struct Host;

impl Avic for Host {
    type Platform = Sim;
    type Page = Arc<BackingPage<Sim>>;
    type Physical = Arc<[AtomicU64]>;
    type Logical = Arc<[AtomicU32]>;
    type Irte = Irte;
}

/// The vectors of the programs are bits of this register.
const FIRST: u8 = 0x40;
const IRR: usize = register::IRR + 0x20;
const ISR: usize = register::ISR + 0x20;

pub fn vector(number: u8) -> GuestVector {
    GuestVector::new(FIRST + number).expect("a legal vector")
}

/// An IRTE, of which hardware reads all in one step.
pub struct Irte {
    word: AtomicU64,
    pub flaw: Flaw,
}

/// What is wrong with how an IRTE is written.
#[derive(Clone, Copy, PartialEq)]
pub enum Flaw {
    None,
    /// Log entries are never asked for.
    NoLog,
    /// It goes on saying that the vCPU runs when log entries are asked for.
    StaysRunning,
}

const RUN: u64 = 1 << 32;
const LOG: u64 = 1 << 33;
const GUEST_MODE: u64 = 1 << 34;

impl Irte {
    /// In host mode.
    pub fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Irte { word: AtomicU64::new(0), flaw })
    }
}

impl Mirror for Irte {
    fn reflect(&self, residency: Residency) {
        let gate = match (residency, self.flaw) {
            (Residency::Running { apic_id }, _) => RUN | u64::from(apic_id),
            (Residency::Away { log: true }, Flaw::StaysRunning) => RUN,
            (Residency::Away { log }, flaw) => u64::from(log && flaw != Flaw::NoLog) * LOG,
        };
        self.word.store(GUEST_MODE | gate, SeqCst);
    }
}

/// A vCPU, and what its guest has got.
pub struct Vcpu {
    pub avic: AvicVcpu<Host>,
    got: Model<u32>,
    task: Model<Option<<Sim as Platform>::Task>>,
    /// Where it is loaded. Of its task and its hooks.
    on: Model<CpuId>,
}

pub struct System {
    pub vcpu: Arc<Vcpu>,
    cpus: [Cpu; 2],
    pub table: Arc<PhysicalTable<Host>>,
    pub log: GaLog<Sim, Vcpu>,
    entries: ga_log::GaLog,
    /// Whether AVIC is to be inhibited.
    pub inhibited: <Sim as Platform>::AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Ran {
    Exited,
    Requested,
    Over,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Until {
    Halts,
    Kicked,
}

pub fn table() -> Arc<PhysicalTable<Host>> {
    let words = (0..512).map(|_| <AtomicU64 as Atomic>::ZERO).collect();
    PhysicalTable::new(Kind::X2Avic, words).expect("one page")
}

pub fn address(number: u64) -> PageAddress {
    PageAddress::new(number << 12).expect("an address of a page")
}

impl System {
    pub fn new(capacity: usize) -> Arc<Self> {
        let table = table();
        let vcpu = Vcpu {
            avic: AvicVcpu::new(&table, 0, Arc::default(), address(0)).expect("its ID is free"),
            got: Model::new("guest", 0),
            task: Model::new("task", None),
            on: Model::new("place", CpuId(0)),
        };
        let system = System {
            vcpu: Arc::new(vcpu),
            cpus: ["CPU 0", "CPU 1"].map(Cpu::new),
            table,
            log: GaLog::new(1),
            entries: ga_log::GaLog::new(capacity),
            inhibited: Atomic::new(false),
        };
        let vm = system.log.open().expect("there is one");
        drop(system.log.add(&vm, 0, Arc::clone(&system.vcpu)).map(|former| former.synchronize()));
        Arc::new(system)
    }

    fn cpu(&self, cpu: CpuId) -> &Cpu {
        &self.cpus[cpu.0 as usize]
    }

    /// Heard in guest mode with AVIC only.
    fn ring(&self, cpu: CpuId) {
        self.cpu(cpu).ring();
    }

    pub fn act(&self, notice: Notice<CpuId>) {
        match notice {
            Notice::Nothing => {}
            Notice::Notify(cpu) => self.ring(cpu),
            Notice::Kick(cpu) => self.cpu(cpu).kick(),
            Notice::Wake => Sim::wake(&self.vcpu.task.observe(Clone::clone).expect("it sleeps, so it has begun")),
        }
    }

    /// Software posts.
    pub fn post(&self, number: u8) {
        self.act(self.vcpu.avic.post(vector(number)));
    }

    /// The CPU of another vCPU of the VM sends an IPI. Hardware, until it exits.
    pub fn ipi(&self, number: u8) {
        if !self.table.entry(0).valid() {
            return;
        }
        self.vcpu.avic.page().register(IRR).fetch_or(1 << number, SeqCst);
        if let Some(host) = self.table.entry(0).running() {
            return self.ring(CpuId(host.number()));
        }
        let IncompleteIpi::Tell(icr) = incomplete_ipi(vector(number).number().into(), 1 << 32) else {
            panic!("it is fixed")
        };
        icr.targets::<Host>(Kind::X2Avic, 1, self.table.last(), None, |id| {
            assert_eq!(id, 0, "it is alone");
            self.act(self.vcpu.avic.tell());
        });
    }

    /// An MSI of a device: the IOMMU reads the IRTE, sets the bit, reads the IRTE again (running bit, destination and tag are not
    /// cached), and does what it says.
    pub fn msi(&self, irte: &Irte, number: u8) {
        if irte.word.load(SeqCst) & GUEST_MODE == 0 {
            // The host's handler.
            return self.post(number);
        }
        self.vcpu.avic.page().register(IRR).fetch_or(1 << number, SeqCst);
        let now = irte.word.load(SeqCst);
        if now & RUN != 0 {
            self.ring(CpuId(now as u32));
        } else if now & LOG != 0 {
            self.entries.write(0);
        }
    }

    /// Whether a CPU is in guest mode, or was and has not told yet.
    pub fn in_guest(&self) -> bool {
        self.cpus.iter().any(Cpu::in_guest)
    }

    pub fn bind(&self, irte: &Arc<Irte>) {
        let program = |irte: &Irte, residency| {
            irte.reflect(residency);
            Ok::<_, TableError>(())
        };
        self.vcpu.avic.copies().add(Arc::clone(irte), program).expect("it can be programmed");
    }

    /// Reads the log until the run is over.
    pub fn read_log(&self, restart: Restart) {
        let look = |vcpu: &Vcpu| self.act(vcpu.avic.logged());
        while let Ok(tag) = self.entries.read() {
            if let Some(tag) = tag {
                self.log.entry(LogEntry::new(tag, 0), look).expect("the tag means somebody");
                continue;
            }
            let reset = self.log.overflowed();
            if restart == Restart::First {
                self.entries.restart();
            }
            reset.restarted(look);
            if restart == Restart::Last {
                self.entries.restart();
            }
        }
    }
}

/// When a log that was full is restarted.
#[derive(Clone, Copy, PartialEq)]
pub enum Restart {
    First,
    /// A mistake.
    Last,
}

impl Vcpu {
    pub fn begin(&self) {
        self.task.change(|task| *task = Some(Sim::current_task()));
        local_irq_disable();
        self.load(self.on.observe(|on| *on));
        local_irq_enable();
    }

    pub fn load(&self, cpu: CpuId) {
        self.on.change(|on| *on = cpu);
        self.avic.load(HostApicId::x2apic(cpu.0).expect("a small number"));
    }

    /// The scheduler moves it to another CPU.
    pub fn moves(&self, to: CpuId) {
        self.avic.put();
        self.load(to);
    }

    /// What the guest gets.
    fn gets(&self, bits: u32) {
        if bits != 0 {
            self.got.change(|got| *got |= bits);
        }
    }

    pub fn got(&self, wanted: u32) -> bool {
        self.got.observe(|got| got & wanted == wanted)
    }

    /// What hardware does on VMRUN and when the doorbell rings, as far as it matters: nothing is left behind.
    fn evaluate(&self) {
        let irr = self.avic.page().register(IRR);
        if irr.load(SeqCst) != 0 {
            self.gets(irr.swap(0, SeqCst));
        }
    }

    /// What software does in its place: one interrupt after the other, each ended at once.
    fn inject(&self, page: &BackingPage<Sim>) {
        while let Some(vector) = page.deliverable() {
            page.accept(vector);
            self.gets(1 << (vector.number() - FIRST));
            page.register(ISR).store(0, SeqCst);
        }
    }

    /// Enters the guest, and leaves it as `until` says.
    pub fn run(&self, system: &System, until: Until) -> Ran {
        let irqs = IrqGuard::<Sim>::new();
        let on = self.on.observe(|on| *on);
        let cpu = system.cpu(on);
        cpu.irqs_off();
        let entered = self.avic.enter(&irqs, on, |page| self.inject(page));
        let (ran, in_guest) = match entered {
            Err(Requests(_)) => (Ran::Requested, None),
            Ok(in_guest) => {
                let avic = in_guest.posted();
                cpu.enter(avic);
                local_irq_enable();
                let ran = self.guest(cpu, avic, until);
                local_irq_disable();
                (ran, Some(in_guest))
            }
        };
        cpu.irqs_on();
        drop(in_guest);
        ran
    }

    fn guest(&self, cpu: &Cpu, avic: bool, until: Until) -> Ran {
        loop {
            if avic {
                self.evaluate();
            }
            if until == Until::Halts {
                return Ran::Exited;
            }
            match cpu.hear() {
                Ok(false) => {}
                Ok(true) => return Ran::Exited,
                Err(Ended { .. }) => return Ran::Over,
            }
        }
    }

    /// Stays in the guest until nothing more can happen, but for requests.
    pub fn stay(&self, system: &System) {
        loop {
            match self.run(system, Until::Kicked) {
                Ran::Exited => {}
                Ran::Requested => self.avic.inhibit(system.inhibited.load(SeqCst)),
                Ran::Over => return,
            }
        }
    }

    /// Runs until the guest has got `wanted`, and sleeps between.
    pub fn run_and_sleep(&self, system: &System, wanted: u32) {
        while !self.got(wanted) {
            self.run(system, Until::Halts);
            if self.got(wanted) {
                return;
            }
            if let Ok(sleeping) = self.avic.block() {
                sleeping.wait();
            }
        }
    }
}

/// In the end the guest has got all that was posted.
pub fn all_got(m: &Machine, system: &Arc<System>, wanted: u32) {
    let system = Arc::clone(system);
    m.at_quiescence("the guest has got what was posted", move || {
        let got = system.vcpu.got.observe(|got| *got);
        (got == wanted).then_some(()).ok_or(format!("it has got {got:#b}, of {wanted:#b}"))
    });
}
