//! An IOMMU with a cache, CPUs with a guest mode in which a doorbell is heard, and vCPUs that
//! interrupts are posted to.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Model, fail};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::copies;
use doorbell_hardware::entry_cache::EntryCache;
use doorbell_host::irte::amd::{AmdIrte, HostMode};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, Invalidate, Posting, RemapTable, RescanRequired,
};
use doorbell_platform::{Atomic, CpuId, Platform};
use doorbell_post::{Bit, Layout, Mirror, Mode, Residency, ResidencyCopies};

pub type Word = <Sim as Platform>::AtomicU128;
pub type Memory = Arc<[Word]>;

/// Memory of the simulated machine, which the IOMMU and the table share.
pub struct Shared(pub Memory);

impl doorbell_host::IrteMemory<Sim> for Shared {
    fn entries(&self) -> &[Word] {
        &self.0
    }
}

pub type Interrupt = AmdInterrupt<Sim, Shared>;
pub type Bound = AmdBinding<Sim, Shared, Vcpu>;

pub const HERE: CpuId = CpuId(0);
pub const THERE: CpuId = CpuId(1);
/// Where those run who are no vCPU.
pub const OTHERS: CpuId = CpuId(2);

pub fn host(destination: u32) -> HostMode {
    HostMode { destination, logical: false, vector: 0x31, kind: 0 }
}

/// The vCPU's own entry: nobody looks at it before the end.
pub struct Own;

impl Mirror for Own {
    fn reflect(&self, _: Residency) {}
}

pub type Vcpu = copies::Vcpu<Own, Interrupt>;

impl AvicTarget<Sim, Shared> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &ResidencyCopies<Sim, Own, Interrupt> {
        &self.copies
    }
}

pub fn posting(vcpu: &Vcpu) -> Posting {
    Posting { backing_page: vcpu.page, vector: 0, tag: vcpu.page as u32 }
}

/// Whether the IOMMU has used the entry before.
#[derive(Clone, Copy, PartialEq)]
pub enum Cache {
    Stale,
    Empty,
}

/// One device with one interrupt, its entry, and two vCPUs.
pub struct Machines {
    unit: EntryCache<AmdIrte>,
    memory: Memory,
    pub vcpus: [Arc<Vcpu>; 2],
    /// To which vCPU the handler of the host injects. Changed before the entry is.
    pub route: Model<usize>,
    pub binding: Model<Option<Bound>>,
    pub interrupt: Arc<Interrupt>,
}

impl Machines {
    pub fn new() -> Rc<Self> {
        let memory: Memory = Arc::new([Word::new(0)]);
        let entry = RemapTable::new(Shared(Arc::clone(&memory)))
            .expect("its words are lock-free")
            .allocate()
            .expect("there is one");
        let cpus = copies::cpus();
        let binding = Bound::new(AmdInterrupt::new(entry, host(7)));
        Rc::new(Machines {
            unit: EntryCache::new("IOMMU"),
            memory,
            vcpus: [5, 6].map(|page| Vcpu::new(page, Own, &cpus)),
            route: Model::new("route", 0),
            interrupt: Arc::clone(binding.interrupt()),
            binding: Model::new("binding", Some(binding)),
        })
    }

    /// Binds before anybody runs.
    pub fn bound(&self, cache: Cache) {
        let token = self.with_binding(|binding| bind(binding, &self.vcpus[0]));
        token.by(|_| ());
        if cache == Cache::Stale {
            let read = self.interrupt.load();
            self.unit.keep(read);
        }
    }

    pub fn entry(&self) -> AmdIrte {
        AmdIrte::from_bits(self.memory[0].load(SeqCst))
    }

    /// Changes the binding for its owner. The binding is out of the model meanwhile, because to
    /// change it takes steps.
    pub fn with_binding<R>(&self, f: impl FnOnce(&mut Bound) -> R) -> R {
        let mut binding = self.binding.change(Option::take).expect("one task at a time uses it");
        let result = f(&mut binding);
        self.binding.change(|back| *back = Some(binding));
        result
    }

    /// Waits until the IOMMU has forgotten what it has read, and no interrupt is under way that has
    /// used it.
    pub fn invalidate<T>(&self, token: Invalidate<T>) -> T {
        token.by(|_| self.unit.invalidate())
    }

    pub fn looks_again(&self, token: Invalidate<RescanRequired<Vcpu>>) {
        self.invalidate(token).0.look();
    }

    /// An interrupt of the device. What the IOMMU may cache is read in one step. Then it sets the
    /// bit, and after that it reads anew what is not cached (48882, section 2.2.5.3): where the
    /// vCPU is, and whether to write an entry of the log.
    pub fn msi(&self) {
        let used = self.unit.comes().unwrap_or_else(|| self.entry());
        let Some(guest) = used.as_guest() else {
            self.unit.done();
            if used.as_host().is_none() {
                fail("an interrupt meets an entry that is neither in host nor in guest mode");
            }
            // The host's handler.
            let vcpu = &self.vcpus[self.route.observe(|route| *route)];
            return vcpu.act(vcpu.post.post(Bit::new(0).expect("there is one")));
        };
        self.of_page(guest.backing_page)
            .post
            .layout()
            .publish(Bit::new(guest.vector.into()).expect("a small one"));
        // In host mode the other fields mean something else: it may do anything, such as nothing.
        let now = self.entry().as_guest();
        if let Some(Residency::Running { apic_id }) = now.map(|now| now.residency) {
            self.vcpus[0].ring(apic_id);
        }
        self.unit.done();
        if let Some(now) = now.filter(|now| now.residency == Residency::Away { log: true }) {
            // The handler of the log.
            self.of_page(now.tag.into()).look();
        }
    }

    fn of_page(&self, page: u64) -> &Vcpu {
        self.vcpus.iter().find(|vcpu| vcpu.page == page).expect("the page of a vCPU")
    }

    pub fn device(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.hardware("device", move || this.msi());
    }

    /// One of the vCPUs has got what the device has posted, or is going to look; and the entry says
    /// where its vCPU is.
    pub fn nothing_lost(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.at_quiescence("what was posted has arrived", move || {
            let arrived = this.vcpus.iter().any(|vcpu| vcpu.got() != 0);
            // Who has not begun to run, or waits for a CPU, looks before it enters.
            let looks = this.vcpus.iter().any(|vcpu| {
                let in_host = matches!(
                    vcpu.post.run_state().mode(),
                    Mode::Host | Mode::Kicked | Mode::Preempted
                );
                vcpu.post.layout().any() && in_host
            });
            (arrived || looks).then_some(()).ok_or_else(|| "it has not".into())
        });
    }

    pub fn says_where_it_is(self: &Rc<Self>, m: &Machine, bound_to: Option<usize>) {
        let this = Rc::clone(self);
        m.at_quiescence("the entry says where its vCPU is", move || {
            let (entry, expected) = (this.entry().as_guest(), bound_to.map(|at| &this.vcpus[at]));
            let right = entry.map(|guest| (guest.backing_page, guest.residency))
                == expected.map(|vcpu| (vcpu.page, vcpu.copies.residency()));
            let on_lists = this.vcpus.iter().map(|vcpu| vcpu.copies.len()).sum::<usize>();
            (right && on_lists == usize::from(bound_to.is_some()))
                .then_some(())
                .ok_or_else(|| format!("{entry:?}"))
        });
    }
}

pub fn bind(binding: &mut Bound, vcpu: &Arc<Vcpu>) -> Invalidate<()> {
    binding.bind(Arc::clone(vcpu), posting(vcpu)).expect("it is bound to none")
}
