//! What a guest can bring about, with any bits: effects, never a panic, and no more steps than
//! there are vCPUs.

use doorbell_apic::GuestVector;
use doorbell_apic::avic::{
    Icr, IncompleteIpi, Kind, LogicalTable, Model, Shorthand, UnacceleratedAccess, Unemulated,
    access, incomplete_ipi,
};
use doorbell_platform::Std;
use proptest::prelude::*;

use crate::{Host, words};

fn targets(
    icr: Icr,
    kind: Kind,
    [sender, last]: [u32; 2],
    table: &LogicalTable<Host<Std>>,
    model: Model,
) -> Vec<u32> {
    let mut all = Vec::new();
    icr.targets(kind, sender, last, (kind == Kind::Avic).then_some((table, model)), |id| {
        all.push(id)
    });
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::model::cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_incomplete_ipi_has_an_effect(info1: u64, reason in prop_oneof![0..7u64, any::<u64>()], index: u32) {
        let info2 = reason << 32 | u64::from(index);
        match incomplete_ipi(info1, info2) {
            IncompleteIpi::Tell(icr) => prop_assert_eq!((icr, info2 >> 32), (Icr(info1), 1)),
            IncompleteIpi::IllegalVector(icr) => prop_assert_eq!((icr, info2 >> 32), (Icr(info1), 4)),
            IncompleteIpi::Emulate(icr, why) => {
                prop_assert_eq!(icr, Icr(info1));
                let expected = match (info2 >> 32) as u32 {
                    0 => Unemulated::Type,
                    2 => Unemulated::Target,
                    5 => Unemulated::NotAccelerated,
                    3 => Unemulated::BackingPage { index: (index & 0xfff) as u16 },
                    other => Unemulated::Unknown(other),
                };
                prop_assert_eq!(why, expected);
            }
        }
    }

    #[test]
    fn any_access_has_an_effect_and_reads_are_emulated(info1: u64, info2: u64, extended: bool) {
        let at = (info1 & 0xff0) as usize;
        match access(info1, info2, extended) {
            UnacceleratedAccess::Emulate { offset, write } => prop_assert_eq!((offset, u64::from(write)), (at, info1 >> 32 & 1)),
            UnacceleratedAccess::Eoi(vector) => {
                prop_assert_eq!((at, u64::from(vector.number())), (0xb0, info2 & 0xff));
                prop_assert!(info1 >> 32 & 1 == 1);
            }
            UnacceleratedAccess::Nothing => prop_assert!(at == 0xb0 && info2 & 0xff < 16),
            UnacceleratedAccess::Written(_) => prop_assert!(info1 >> 32 & 1 == 1 && at != 0xb0),
        }
    }

    #[test]
    fn any_ipi_is_for_vcpus_of_the_table_each_once(
        // Also to everybody, by whatever way.
        bits in prop_oneof![3 => any::<u64>(), 1 => 0xffff_ffff_0000_0000..=u64::MAX],
        narrow in any::<bool>(),
        flat in any::<bool>(),
        registers in prop::collection::vec((any::<u8>(), any::<u8>()), 0..16),
        (sender, last) in (prop_oneof![0..8u32, 0..512u32], prop_oneof![0..8u32, 0..512u32]),
    ) {
        let (kind, model) = (if narrow { Kind::Avic } else { Kind::X2Avic }, if flat { Model::Flat } else { Model::Cluster });
        let table = LogicalTable::new(words(1024));
        // Of any ID, and of one more than once: whatever the guest has written.
        let slots: Vec<_> = registers.iter()
            .filter_map(|(id, ldr)| Some((*id, *ldr, table.claim(model, u32::from(*ldr) << 24, *id).ok()?)))
            .collect();
        prop_assert!(slots.iter().all(|(id, ..)| *id != 255), "that means everybody");
        let icr = Icr(bits);
        let mut all = targets(icr, kind, [sender, last], &table, model);
        prop_assert!(all.iter().all(|id| *id <= last) && all.len() <= last as usize + 1);
        all.sort_unstable();
        prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(icr.vector().map(GuestVector::number), (bits as u8 >= 16).then_some(bits as u8));
        // By the registers of the vCPUs, one at a time.
        let destination = icr.destination(kind);
        let everybody = match kind {
            Kind::Avic => destination == 0xff,
            Kind::X2Avic => destination == u32::MAX,
        };
        let means = |id: u32| match icr.shorthand() {
            Shorthand::Itself => id == sender,
            Shorthand::All => true,
            Shorthand::Others => id != sender,
            Shorthand::None if everybody => true,
            Shorthand::None if !icr.logical() => id == destination,
            Shorthand::None if kind == Kind::X2Avic => destination >> 16 == id >> 4 && destination >> (id & 15) & 1 != 0,
            Shorthand::None => slots.iter().any(|(of, ldr, _)| {
                let destination = destination as u8;
                u32::from(*of) == id && match model {
                    Model::Flat => ldr & destination != 0,
                    Model::Cluster => ldr >> 4 == destination >> 4 && ldr & destination & 15 != 0,
                }
            }),
        };
        prop_assert_eq!(all, (0..=last).filter(|id| means(*id)).collect::<Vec<_>>());
    }
}
