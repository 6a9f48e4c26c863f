//! Exits of a guest with AVIC, with any bits, done to the end: who is meant is told, who writes its
//! logical ID gets it.

use doorbell_apic::avic::{
    Avic, BackingPage, Icr, IncompleteIpi, Kind, LogicalTable, Model, UnacceleratedAccess, access,
    incomplete_ipi,
};
use doorbell_platform::{Platform, Std};
use doorbell_post::{Mirror, Residency};

use crate::bytes::Bytes;

struct Host;
struct NoIrte;

impl Mirror for NoIrte {
    fn reflect(&self, _residency: Residency) {}
}

impl Avic for Host {
    type Platform = Std;
    type Page = Box<BackingPage<Std>>;
    type Physical = Box<[<Std as Platform>::AtomicU64]>;
    type Logical = Box<[<Std as Platform>::AtomicU32]>;
    type Irte = NoIrte;
}

/// Has a guest exit as the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    // Below what any physical ID table holds.
    let last = u32::from(bytes.u16()) % 4096;
    let table = LogicalTable::<Host>::new((0..1024).map(|_| Default::default()).collect());
    let page = BackingPage::<Std>::new();
    let mut slots = Vec::new();
    while !bytes.is_empty() {
        let (what, info1, info2) = (bytes.u8(), bytes.u64(), bytes.u64());
        let (kind, model) =
            if what & 1 == 0 { (Kind::Avic, Model::Flat) } else { (Kind::X2Avic, Model::Cluster) };
        let targets = |icr: Icr| {
            let mut count = 0;
            icr.targets(kind, u32::from(what), last, Some((&table, model)), |id| {
                assert!(id <= last);
                count += 1;
            });
            assert!(count <= last + 1);
        };
        if what & 2 == 0 {
            match incomplete_ipi(info1, info2) {
                IncompleteIpi::Tell(icr) | IncompleteIpi::Emulate(icr, _) => targets(icr),
                IncompleteIpi::IllegalVector(_) => {}
            }
            continue;
        }
        match access(info1, info2, what & 4 != 0) {
            UnacceleratedAccess::Written(_) => {
                let claimed = table.claim(model, info2 as u32, what);
                assert!(claimed.is_err() || what != 255);
                slots.extend(claimed);
            }
            UnacceleratedAccess::Eoi(vector) => page.accept(vector),
            UnacceleratedAccess::Emulate { offset, .. } => {
                assert!(offset < 4096 && offset % 16 == 0)
            }
            UnacceleratedAccess::Nothing => {}
        }
        page.deliverable();
    }
    slots.into_iter().for_each(|slot| table.release(slot));
}
