//! The vCPUs of `doorbell-apic` as targets of an IOMMU's interrupts: all that a host writes to join
//! the two.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::avic::spec::{HostApicId, PageAddress, register};
use doorbell_apic::avic::{Avic, AvicVcpu, BackingPage, Kind, PhysicalId, PhysicalTable};
use doorbell_host::irte::amd::HostMode;
use doorbell_host::{AmdBinding, AmdInterrupt, AvicTarget, Posting, RemapTable, RescanRequired};
use doorbell_platform::{Atomic, Platform, Std};
use doorbell_post::{Notice, Requests, Residency, ResidencyCopies};

type Memory = Box<[<Std as Platform>::AtomicU128]>;

struct Host;

impl Avic for Host {
    type Platform = Std;
    type Page = Arc<BackingPage<Std>>;
    type Physical = Arc<[<Std as Platform>::AtomicU64]>;
    type Logical = Arc<[<Std as Platform>::AtomicU32]>;
    type Irte = AmdInterrupt<Std, Memory>;
}

struct Vcpu(AvicVcpu<Host>);

impl AvicTarget<Std, Memory> for Vcpu {
    type Own = PhysicalId<Host>;
    fn copies(&self) -> &ResidencyCopies<Std, PhysicalId<Host>, AmdInterrupt<Std, Memory>> {
        self.0.copies()
    }
}

/// Vector 0x41, in the page's first word of vectors 0x40 to 0x5f.
const VECTOR: u8 = 0x41;
const IRR: usize = register::IRR + 0x20;

const HOST: HostMode = HostMode { destination: 9, logical: false, vector: 0x31, kind: 0 };

fn vcpus<const N: usize>() -> [Arc<Vcpu>; N] {
    let words: Arc<[_]> = (0..512).map(|_| Atomic::new(0)).collect();
    let ids = PhysicalTable::<Host>::new(Kind::Avic, words).unwrap();
    core::array::from_fn(|id| {
        let page = Arc::new(BackingPage::new());
        Arc::new(Vcpu(AvicVcpu::new(&ids, id as u32, page, address(id), Requests(0)).ok().unwrap()))
    })
}

fn address(id: usize) -> PageAddress {
    PageAddress::new(0x5000 + ((id as u64) << 12)).unwrap()
}

fn posting(id: usize) -> Posting {
    Posting { backing_page: address(id).bits() >> 12, vector: VECTOR, tag: 7 }
}

fn binding() -> AmdBinding<Std, Memory, Vcpu> {
    let memory: Memory = (0..1).map(|_| Atomic::new(0)).collect();
    AmdBinding::new(AmdInterrupt::new(RemapTable::new(memory).unwrap().allocate().unwrap(), HOST))
}

fn cpu(number: u32) -> HostApicId {
    HostApicId::x2apic(number).unwrap()
}

#[test]
fn an_entry_says_where_its_vcpu_is_also_while_it_sleeps_and_while_avic_is_inhibited() {
    let [vcpu] = vcpus();
    let mut binding = binding();
    binding.bind(Arc::clone(&vcpu), posting(0)).unwrap().by(|_| ());
    let interrupt = Arc::clone(binding.interrupt());
    let says = || interrupt.load().as_guest().map(|guest| guest.residency);

    assert_eq!(says(), Some(Residency::Away { log: false }));
    vcpu.0.load(cpu(3));
    assert_eq!(says(), Some(Residency::Running { apic_id: 3 }));
    vcpu.0.inhibit(true);
    assert_eq!(says(), Some(Residency::Away { log: true }));
    vcpu.0.inhibit(false);
    let sleeping = vcpu.0.block().ok().unwrap();
    assert_eq!(says(), Some(Residency::Away { log: true }));
    drop(sleeping);
    vcpu.0.put();
    assert_eq!((says(), vcpu.0.copies().len()), (Some(Residency::Away { log: false }), 1));

    let RescanRequired(former) = binding.unbind().unwrap().by(|_| ());
    assert_eq!((former.0.logged(), former.0.copies().len()), (Notice::Nothing, 0));
    assert_eq!(interrupt.load().as_host(), Some(HOST));
}

#[test]
fn what_was_posted_until_the_invalidation_wakes_the_former_vcpu_and_the_entry_goes_to_another() {
    let [from, to] = vcpus();
    let mut binding = binding();
    binding.bind(Arc::clone(&from), posting(0)).unwrap().by(|_| ());
    let sleeping = from.0.block().ok().unwrap();
    let invalidate = binding.unbind().unwrap();
    assert_eq!(binding.interrupt().load().as_host(), Some(HOST));
    // By what it has read of the entry, the IOMMU posts once more.
    from.0.page().register(IRR).fetch_or(1 << (VECTOR % 32), SeqCst);
    let RescanRequired(former) = invalidate.by(|_| ());
    assert_eq!(former.0.logged(), Notice::Wake);
    sleeping.wait();

    binding.bind(Arc::clone(&to), posting(1)).unwrap().by(|_| ());
    to.0.load(cpu(5));
    let guest = binding.interrupt().load().as_guest().unwrap();
    assert_eq!((guest.backing_page, guest.residency), (6, Residency::Running { apic_id: 5 }));
    assert_eq!((from.0.copies().len(), to.0.copies().len()), (0, 1));
}
