//! The vCPUs of `doorbell-apic` as targets of an IOMMU's interrupts: all that a host writes to join the two.

use std::sync::Arc;

use doorbell_apic::avic::spec::{HostApicId, PageAddress};
use doorbell_apic::avic::{Avic, AvicVcpu, BackingPage, Kind, PhysicalId, PhysicalTable};
use doorbell_host::irte::amd::HostMode;
use doorbell_host::{AmdInterrupt, Binding, LookAgain, Posting, Table, Target};
use doorbell_platform::{Atomic, Platform, Std};
use doorbell_post::{Copies, Notice, Residency};

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

impl Target<Std, Memory> for Vcpu {
    type Own = PhysicalId<Host>;
    fn copies(&self) -> &Copies<Std, PhysicalId<Host>, AmdInterrupt<Std, Memory>> {
        self.0.copies()
    }
}

#[test]
fn an_entry_says_where_its_vcpu_is_also_while_it_sleeps_and_while_avic_is_inhibited() {
    let words: Arc<[_]> = (0..512).map(|_| Atomic::new(0)).collect();
    let ids = PhysicalTable::<Host>::new(Kind::Avic, words).unwrap();
    let (page, address) = (Arc::new(BackingPage::new()), PageAddress::new(0x5000).unwrap());
    let vcpu = Arc::new(Vcpu(AvicVcpu::new(&ids, 0, page, address).ok().unwrap()));

    let memory: Memory = (0..1).map(|_| Atomic::new(0)).collect();
    let host = HostMode { destination: 9, logical: false, vector: 0x31, kind: 0 };
    let mut binding = Binding::new(AmdInterrupt::new(Table::new(memory).allocate().unwrap(), host));
    let posting = Posting { backing_page: address.bits() >> 12, vector: 0x41, tag: 7 };
    binding.bind(Arc::clone(&vcpu), posting).unwrap().completed();
    let interrupt = Arc::clone(binding.interrupt());
    let says = || interrupt.load().as_guest().map(|guest| guest.residency);

    assert_eq!(says(), Some(Residency::Away { log: false }));
    vcpu.0.load(HostApicId::x2apic(3).unwrap());
    assert_eq!(says(), Some(Residency::Running { apic_id: 3 }));
    vcpu.0.inhibit(true);
    assert_eq!(says(), Some(Residency::Away { log: true }));
    vcpu.0.inhibit(false);
    let sleeping = vcpu.0.block().ok().unwrap();
    assert_eq!(says(), Some(Residency::Away { log: true }));
    drop(sleeping);
    vcpu.0.put();
    assert_eq!((says(), vcpu.0.bound()), (Some(Residency::Away { log: false }), 1));

    let LookAgain(former) = binding.unbind().unwrap().completed();
    assert_eq!((former.0.logged(), former.0.bound()), (Notice::Nothing, 0));
    assert_eq!(interrupt.load().as_host(), Some(host));
}
