//! vCPUs change their APIC ids at the same time: no change is lost, and each is in the table when
//! it was told of.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::{ApicMap, ApicTable, DestinationMode, Registers, Who};
use doorbell_explore::removal::Program;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, Platform, ReadDomain};

type Word = <Sim as Platform>::AtomicU32;

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    vec![Program::new("two change their APIC ids", |m| change(m, 2))]
}

fn change(m: &Machine, vcpus: usize) {
    let rcu = Arc::new(<Sim as Platform>::Rcu::new("APIC map"));
    let ids: Arc<Vec<Word>> = Arc::new((0..vcpus as u32).map(Word::new).collect());
    let look = move |ids: &[Word]| {
        ApicTable::new(
            (0..).zip(ids).map(|(vcpu, id)| (Registers::X2Apic { id: id.load(SeqCst) }, vcpu)),
        )
    };
    let map = Arc::new(ApicMap::<Sim, u32>::new(&rcu, look(&ids)));
    for vcpu in 0..vcpus {
        let (ids, map) = (Arc::clone(&ids), Arc::clone(&map));
        m.task(format!("vCPU {vcpu}"), move || {
            let id = 10 + vcpu as u32;
            ids[vcpu].store(id, SeqCst);
            map.changed(|| look(&ids));
            let table = map.read();
            assert_eq!(
                table.who(id, DestinationMode::Physical),
                Who::One(&(vcpu as u32)),
                "changed, and not in the map"
            );
        });
    }
}
