//! AVIC, and an IOMMU with a log, of one simulated vCPU.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_apic::GuestVector;
use doorbell_apic::avic::spec::{HostApicId, LogEntry, PageAddress, register};
use doorbell_apic::avic::{
    Avic, AvicVcpu, BackingPage, GaLog, IncompleteIpi, Kind, PhysicalTable, TableError, Vmrun,
    incomplete_ipi,
};
use doorbell_explore::Sim;
use doorbell_explore::sim::DropUnlocked;
use doorbell_hardware::ga_log;
use doorbell_hardware::vcpu::{self, Delivery, Entry};
use doorbell_platform::{Atomic, CpuId, IrqGuard, Platform};
use doorbell_post::{Mirror, Requests, Residency};

type AtomicU64 = <Sim as Platform>::AtomicU64;
type AtomicU32 = <Sim as Platform>::AtomicU32;
pub type AtomicBool = <Sim as Platform>::AtomicBool;

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
const TPR: usize = register::TPR;

pub fn vector(number: u8) -> GuestVector {
    GuestVector::new(FIRST + number).expect("a legal vector")
}

/// An IRTE, of which hardware reads all in one step.
pub struct Irte {
    word: AtomicU64,
    pub flaw: Flaw,
}

/// What is wrong with how an IRTE is written, or with what is done about a vCPU whose priority is
/// high.
#[derive(Clone, Copy, PartialEq)]
pub enum Flaw {
    None,
    /// Log entries are never asked for.
    NoLog,
    /// The IRTE goes on saying that the vCPU runs when log entries are asked for.
    StaysRunning,
    /// The log's handler leaves a vCPU alone whose priority is too high for what is pending.
    AsksPriority,
    /// CR8 is not intercepted when a vector waits for a lower priority.
    NoIntercept,
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

/// A vCPU, with what its guest and its host do about its task priority.
pub struct Vcpu {
    pub avic: AvicVcpu<Host>,
    hardware: vcpu::Vcpu,
    /// Whether AVIC is to be inhibited in its VM.
    pub inhibited: Arc<AtomicBool>,
    /// Whether the guest, whose priority is above every vector, is still going to lower it: its
    /// task's own.
    masks: std::sync::atomic::AtomicBool,
    flaw: Flaw,
    _dropped: DropUnlocked,
}

pub struct System {
    pub vcpu: Arc<Vcpu>,
    pub table: Arc<PhysicalTable<Host>>,
    pub log: Arc<GaLog<Sim, Vcpu>>,
    entries: ga_log::GaLog,
}

pub fn table() -> Arc<PhysicalTable<Host>> {
    let words = (0..512).map(|_| <AtomicU64 as Atomic>::ZERO).collect();
    PhysicalTable::new(Kind::X2Avic, words).expect("one page")
}

pub fn address(number: u64) -> PageAddress {
    PageAddress::new(number << 12).expect("an address of a page")
}

impl System {
    pub fn new(capacity: usize, moves: bool, flaw: Flaw) -> Arc<Self> {
        let table = table();
        let vcpu = Vcpu::new(&table, moves, flaw, &Arc::new(Atomic::new(false)), Requests(0));
        let system =
            System { vcpu, table, log: GaLog::new(1), entries: ga_log::GaLog::new(capacity) };
        let vm = system.log.open().expect("there is one");
        drop(vm.add(0, Arc::clone(&system.vcpu)).map(|former| former.synchronize()));
        Arc::new(system)
    }

    /// Software posts.
    pub fn post(&self, number: u8) {
        self.vcpu.act(self.vcpu.avic.post(vector(number)));
    }

    /// The CPU of another vCPU of the VM sends an IPI. Hardware, until it exits.
    pub fn ipi(&self, number: u8) {
        if !self.table.entry(0).valid() {
            return;
        }
        self.vcpu.avic.page().register(IRR).fetch_or(1 << number, SeqCst);
        if let Some(host) = self.table.entry(0).running() {
            return self.vcpu.vcpu().ring(CpuId(host.number()));
        }
        let IncompleteIpi::Tell(icr) = incomplete_ipi(vector(number).number().into(), 1 << 32)
        else {
            panic!("it is fixed")
        };
        icr.targets::<Host>(Kind::X2Avic, 1, self.table.last(), None, |id| {
            assert_eq!(id, 0, "it is alone");
            self.vcpu.act(self.vcpu.avic.tell());
        });
    }

    /// An MSI of a device: the IOMMU reads the IRTE, sets the bit, reads the IRTE again (running
    /// bit, destination and tag are not cached), and does what it says.
    pub fn msi(&self, irte: &Irte, number: u8) {
        if irte.word.load(SeqCst) & GUEST_MODE == 0 {
            // The host's handler.
            return self.post(number);
        }
        self.vcpu.avic.page().register(IRR).fetch_or(1 << number, SeqCst);
        let now = irte.word.load(SeqCst);
        if now & RUN != 0 {
            self.vcpu.vcpu().ring(CpuId(now as u32));
        } else if now & LOG != 0 {
            self.entries.write(0);
        }
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
        let look = |vcpu: &Vcpu| {
            if vcpu.flaw != Flaw::AsksPriority || vcpu.avic.page().deliverable().is_some() {
                vcpu.act(vcpu.avic.logged());
            }
        };
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
    /// Returns the vCPU of ID 0, with the address of page 0; `inhibition` is what it is asked
    /// before it first enters.
    pub fn new(
        table: &Arc<PhysicalTable<Host>>,
        moves: bool,
        flaw: Flaw,
        inhibited: &Arc<AtomicBool>,
        inhibition: Requests,
    ) -> Arc<Self> {
        Arc::new(Vcpu {
            avic: AvicVcpu::new(table, 0, Arc::default(), address(0), inhibition)
                .expect("its ID is free"),
            hardware: vcpu::Vcpu::new(vcpu::A, moves),
            inhibited: Arc::clone(inhibited),
            masks: false.into(),
            _dropped: DropUnlocked("drops a vCPU"),
            flaw,
        })
    }

    /// The guest begins with a priority above every vector. By its task, before it enters.
    pub fn masks(&self) {
        self.avic.page().register(TPR).store(0xf0, SeqCst);
        self.masks.store(true, Relaxed);
    }

    /// What hardware does on VMRUN and when the doorbell rings, as far as it matters: nothing is
    /// left behind.
    fn evaluate(&self) {
        let irr = self.avic.page().register(IRR);
        if irr.load(SeqCst) != 0 {
            self.hardware.gets(irr.swap(0, SeqCst).into());
        }
    }

    /// What software does in its place: one interrupt after the other, each ended at once.
    fn inject(&self, page: &BackingPage<Sim>) {
        while let Some(vector) = page.deliverable() {
            page.accept(vector);
            self.hardware.gets(1 << (vector.number() - FIRST));
            page.register(ISR).store(0, SeqCst);
        }
    }
}

impl Delivery for Vcpu {
    type Notification = CpuId;

    fn vcpu(&self) -> &vcpu::Vcpu {
        &self.hardware
    }

    fn enter(
        &self,
        irqs_off: &IrqGuard<Sim>,
        cpu: CpuId,
        guest: &mut dyn FnMut(Entry),
    ) -> Result<(), Requests> {
        let masked = self.masks.load(Relaxed);
        let (in_guest, vmrun) = self.avic.enter(irqs_off, cpu, |page| self.inject(page))?;
        guest(match vmrun {
            Vmrun::WithAvic => Entry { posted: true, intercepts_priority: false },
            Vmrun::WithoutAvic { intercept_cr8 } => Entry {
                posted: false,
                intercepts_priority: intercept_cr8 && self.flaw != Flaw::NoIntercept,
            },
        });
        // The fold: the guest's CR8 was in the VMCB.
        if masked && !self.masks.load(Relaxed) {
            self.avic.page().register(TPR).store(0, SeqCst);
        }
        in_guest.exited();
        Ok(())
    }

    fn block(&self, sleep: &mut dyn FnMut(&dyn Fn() -> bool)) {
        if let Ok(sleeping) = self.avic.block() {
            sleep(&|| sleeping.asleep());
        }
    }

    fn load(&self, cpu: CpuId) {
        self.avic.load(HostApicId::x2apic(cpu.0).expect("a small number"));
    }

    fn put(&self, _cpu: CpuId, _preempted: bool) {
        self.avic.put();
    }

    fn serve(&self, _requests: Requests) {
        self.avic.inhibit(self.inhibited.load(SeqCst));
    }

    fn notify(&self, cpu: CpuId) {
        self.hardware.ring(cpu);
    }

    fn told(&self) {
        self.evaluate();
    }

    fn runs(&self, entry: Entry) -> bool {
        if entry.posted {
            self.evaluate();
        }
        if !self.masks.load(Relaxed) {
            return false;
        }
        assert!(!entry.posted, "what is masked is injected by software in these programs");
        if self.hardware.is_kicked() {
            return true;
        }
        self.masks.store(false, Relaxed);
        entry.intercepts_priority
    }
}
