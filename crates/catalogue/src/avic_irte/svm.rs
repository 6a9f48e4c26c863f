//! KVM's side, in our own words: where a vCPU runs, which IRTEs are posted to it, and who keeps the
//! two in step.

use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::Sim;
use doorbell_explore::sim::{Model, note, remark};
use doorbell_hardware::avic::{AvicCpu, BackingPage, Gate, Memory};
use doorbell_hardware::iommu_amd::{Entry, Iommu, Irte};
use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitType};

use super::irq::IrqDesc;

static IR_LIST: LockClass = LockClass::new("ir_list_lock", WaitType::Spin);

/// The guest's vector of the device's interrupt.
pub(super) const VECTOR: u8 = 5;

/// When load and put write the physical-ID entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryWrite {
    /// With the list's lock held.
    Locked,
    /// Before they take the lock and walk the list.
    Before,
    /// After they have walked the list and dropped the lock.
    After,
}

/// When a put looks whether the halt has done its work already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PutLooks {
    /// Before it takes the list's lock: what the code does.
    BeforeLock,
    /// With that lock held: a planted fault.
    UnderLock,
}

/// A vCPU.
pub(super) struct Vcpu {
    /// The number of the vCPU: that of its backing page, and the tag of its log entries.
    number: u32,
    pub page: BackingPage,
    /// AVIC is on: the guest is entered with it, and IRTEs are in guest mode.
    active: <Sim as Platform>::AtomicBool,
    put_looks: PutLooks,
    entry_write: EntryWrite,
    /// The physical-ID entry. What it says of log entries is KVM's own, beside the table that
    /// hardware reads.
    entry: <Sim as Platform>::AtomicU32,
    /// The IRTEs that are posted to it.
    ir_list: Lock<Sim, Vec<Rc<Entry>>>,
    /// The vCPU sleeps in the host until it has an interrupt.
    blocking: <Sim as Platform>::AtomicBool,
    wake_up: Model<bool>,
}

const STOPPED: u32 = 0x100;
const STOPPED_LOG: u32 = 0x101;

fn encode(gate: Gate) -> u32 {
    match gate {
        Gate::Running(cpu) => cpu,
        Gate::Stopped { log: false } => STOPPED,
        Gate::Stopped { log: true } => STOPPED_LOG,
    }
}

fn decode(word: u32) -> Gate {
    match word {
        STOPPED => Gate::Stopped { log: false },
        STOPPED_LOG => Gate::Stopped { log: true },
        cpu => Gate::Running(cpu),
    }
}

/// What an IRTE says that posts to that vCPU.
pub(super) fn irte_of(vcpu: u32, gate: Gate) -> Irte {
    Irte::guest(vcpu, vcpu, VECTOR).with(gate)
}

impl Vcpu {
    pub(super) fn new(
        memory: &Rc<Memory>,
        number: u32,
        gate: Gate,
        listed: Vec<Rc<Entry>>,
        entry_write: EntryWrite,
    ) -> Self {
        Vcpu {
            number,
            page: BackingPage::new(memory, number as usize),
            active: Atomic::new(true),
            put_looks: PutLooks::BeforeLock,
            entry_write,
            entry: Atomic::new(encode(gate)),
            ir_list: Lock::new(&IR_LIST, listed),
            blocking: <Sim as Platform>::AtomicBool::new(false).named("halted"),
            wake_up: Model::new("wake-up of a vCPU", false),
        }
    }

    /// Returns the vCPU with puts that look there.
    pub(super) fn put_looks(self, put_looks: PutLooks) -> Self {
        Vcpu { put_looks, ..self }
    }

    /// Takes note that the vCPU begins to run on a CPU.
    pub(super) fn load(&self, cpu: u32) {
        self.set_gate(Gate::Running(cpu));
    }

    /// Takes note that the vCPU leaves its CPU. Where it was halted, the halt has done so already.
    pub(super) fn put(&self) {
        let stopped = Gate::Stopped { log: false };
        let runs = || matches!(self.gate(), Gate::Running(_));
        match self.put_looks {
            PutLooks::BeforeLock if runs() => self.set_gate(stopped),
            PutLooks::BeforeLock => {}
            PutLooks::UnderLock => {
                let list = self.ir_list.lock_irqsave();
                if runs() {
                    self.write_entry(stopped);
                    list.iter().for_each(|entry| entry.set_gate(stopped));
                }
            }
        }
    }

    /// Halts the vCPU: from here on an interrupt has to wake it.
    pub(super) fn halt(&self) {
        self.blocking.store(true, SeqCst);
        self.set_gate(Gate::Stopped { log: true });
    }

    /// Takes note that the vCPU is awake again, on a CPU.
    pub(super) fn unhalt(&self, cpu: u32) {
        self.blocking.store(false, SeqCst);
        self.load(cpu);
    }

    /// Whether it is halted: then the scheduler's hooks leave it alone.
    pub(super) fn is_halted(&self) -> bool {
        self.blocking.load(SeqCst)
    }

    fn gate(&self) -> Gate {
        let gate = decode(self.entry.load(SeqCst));
        note(|| format!("reads entry of vCPU {}: {gate}", self.number));
        gate
    }

    fn write_entry(&self, gate: Gate) {
        self.entry.store(encode(gate), SeqCst);
        note(|| format!("writes entry of vCPU {}: {gate}", self.number));
    }

    fn set_gate(&self, gate: Gate) {
        if self.entry_write == EntryWrite::Before {
            self.write_entry(gate);
        }
        let list = self.ir_list.lock_irqsave();
        if self.entry_write == EntryWrite::Locked {
            self.write_entry(gate);
        }
        for entry in list.iter() {
            entry.set_gate(gate);
        }
        if list.is_empty() {
            remark(|| "its list is empty".to_owned());
        }
        drop(list);
        if self.entry_write == EntryWrite::After {
            self.write_entry(gate);
        }
    }

    /// Halts until an interrupt is there, and goes on on `cpu`; `false` if the run ends first.
    pub(super) fn halt_until_interrupt(&self, cpu: u32) -> bool {
        self.halt();
        self.wake_up.change(|woken| *woken = false);
        while self.page.pending() == 0 {
            if self.wake_up.serve(|woken| *woken, |woken| *woken = false).is_err() {
                return false;
            }
        }
        self.unhalt(cpu);
        true
    }

    /// Wakes it if it is halted.
    pub(super) fn wake(&self) {
        self.wake_up.change(|woken| *woken = true);
    }

    /// Notifies it of what is pending, wherever it is. Unless it runs or sleeps, it will look by
    /// itself.
    pub(super) fn notify(&self, cpus: &[AvicCpu]) {
        match self.gate() {
            Gate::Running(cpu) => cpus[cpu as usize].doorbell(),
            Gate::Stopped { .. } => self.wake(),
        }
    }

    /// An interrupt by software.
    pub(super) fn inject(&self, cpus: &[AvicCpu]) {
        self.page.post(VECTOR);
        self.notify(cpus);
    }

    /// Takes an IRTE off its list.
    pub(super) fn unlist(&self, entry: &Rc<Entry>) {
        let mut list = self.ir_list.lock_irqsave();
        list.retain(|other| !Rc::ptr_eq(other, entry));
        remark(|| format!("off the list of vCPU {}", self.number));
    }

    /// Takes an IRTE off its list and, in the same breath, has it name the host.
    pub(super) fn unbind(&self, entry: &Rc<Entry>) {
        let mut list = self.ir_list.lock_irqsave();
        list.retain(|other| !Rc::ptr_eq(other, entry));
        remark(|| format!("off the list of vCPU {}", self.number));
        entry.write(Irte::HOST);
    }

    fn add(&self, list: &mut Vec<Rc<Entry>>, entry: &Rc<Entry>) {
        list.push(Rc::clone(entry));
        remark(|| format!("on the list of vCPU {}", self.number));
    }

    /// Looks at what was posted to it, after an IRTE that named it does not any more.
    pub(super) fn look_again(&self, iommu: &Iommu) {
        if self.page.pending() != 0 {
            self.notify(&iommu.cpus);
        }
    }

    /// Turns AVIC off: by the vCPU itself, outside of its guest. Its IRTEs name the host from then
    /// on.
    pub(super) fn turn_off(&self) {
        self.active.store(false, SeqCst);
        note(|| format!("AVIC of vCPU {} is off", self.number));
        let list = self.ir_list.lock_irqsave();
        self.write_entry(Gate::Stopped { log: false });
        list.iter().for_each(|entry| entry.write(Irte::HOST));
        if list.is_empty() {
            remark(|| "its list is empty".to_owned());
        }
    }

    /// Whether AVIC is on.
    pub(super) fn is_active(&self) -> bool {
        let active = self.active.load(SeqCst);
        note(|| format!("AVIC of vCPU {} is {}", self.number, if active { "on" } else { "off" }));
        active
    }

    /// What an IRTE is to say that is bound to it, by what was read of the mode and of its entry.
    fn irte(&self, active: bool, gate: Gate) -> Irte {
        if active { irte_of(self.number, gate) } else { Irte::HOST }
    }

    /// As reported: the list's lock is held around the whole of the binding but the look at the
    /// mode.
    pub(super) fn bind_under_lock(&self, desc: &IrqDesc, entry: &Rc<Entry>) {
        let active = self.is_active();
        let mut list = self.ir_list.lock_irqsave();
        let gate = self.gate();
        desc.set_vcpu_affinity(|| entry.write(self.irte(active, gate)));
        self.add(&mut list, entry);
    }

    /// As proposed: the metadata first, under the descriptor's lock; then, under the list's alone,
    /// the IRTE.
    pub(super) fn bind_leaf(&self, desc: &IrqDesc, entry: &Rc<Entry>) {
        // The metadata is memory of the host that nobody else looks at.
        desc.set_vcpu_affinity(|| ());
        let mut list = self.ir_list.lock_irqsave();
        let active = self.is_active();
        let gate = self.gate();
        entry.write(self.irte(active, gate));
        self.add(&mut list, entry);
    }

    /// Before the report: where the vCPU runs is looked up (or not), and the list is locked for the
    /// addition alone.
    pub(super) fn bind_unlocked(&self, desc: &IrqDesc, entry: &Rc<Entry>, looks: bool) {
        let active = self.is_active();
        let gate = if looks { self.gate() } else { Gate::Stopped { log: true } };
        desc.set_vcpu_affinity(|| entry.write(self.irte(active, gate)));
        self.add(&mut self.ir_list.lock_irqsave(), entry);
    }
}
