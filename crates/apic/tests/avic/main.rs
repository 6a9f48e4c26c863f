//! AVIC as the host and a hostile guest see it, on `std`.

mod cost;
mod hostile;
mod model;
mod tables;
mod vcpu;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::avic::spec::{HostApicId, PageAddress};
use doorbell_apic::avic::{Avic, AvicVcpu, BackingPage, Kind, PhysicalTable};
use doorbell_platform::{Atomic, Platform};
use doorbell_post::{Mirror, Requests, Residency};

/// A host on any platform.
struct Host<P>(std::marker::PhantomData<P>);

impl<P: Platform> Avic for Host<P> {
    type Platform = P;
    type Page = Box<BackingPage<P>>;
    type Physical = Box<[P::AtomicU64]>;
    type Logical = Box<[P::AtomicU32]>;
    type Irte = Irte;
}

/// What an IRTE says: nothing, or what was written.
#[derive(Default)]
struct Irte(AtomicU64);

const RUN: u64 = 1 << 32;
const LOG: u64 = 1 << 33;
const GUEST_MODE: u64 = 1 << 34;

fn gate(residency: Residency) -> u64 {
    match residency {
        Residency::Running { apic_id } => RUN | u64::from(apic_id),
        Residency::Away { log } => u64::from(log) * LOG,
    }
}

impl Irte {
    fn says(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Mirror for Irte {
    fn reflect(&self, residency: Residency) {
        self.0.store(GUEST_MODE | gate(residency), SeqCst);
    }
}

fn words<A: Atomic>(count: usize) -> Box<[A]> {
    (0..count).map(|_| A::ZERO).collect()
}

fn table<P: Platform>() -> Arc<PhysicalTable<Host<P>>> {
    PhysicalTable::new(Kind::X2Avic, words(512)).expect("one page")
}

fn address(number: u64) -> PageAddress {
    PageAddress::new(number << 12).expect("an address of a page")
}

fn cpu(number: u32) -> HostApicId {
    HostApicId::x2apic(number).expect("a small number")
}

fn vcpu<P: Platform>(table: &Arc<PhysicalTable<Host<P>>>, id: u32) -> AvicVcpu<Host<P>> {
    AvicVcpu::new(table, id, Box::default(), address(u64::from(id) + 1), Requests(0))
        .expect("its ID is free")
}

fn bind<P: Platform>(vcpu: &AvicVcpu<Host<P>>, irte: &Arc<Irte>) {
    let program = |irte: &Irte, residency| {
        irte.reflect(residency);
        Ok::<_, ()>(())
    };
    vcpu.copies().add(Arc::clone(irte), program).expect("it can be programmed");
}

fn unbind<P: Platform>(vcpu: &AvicVcpu<Host<P>>, irte: &Arc<Irte>) {
    vcpu.copies().remove(irte, |irte| irte.0.store(0, SeqCst)).expect("it is bound");
}
