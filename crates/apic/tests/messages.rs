//! Random messages to random sets of APICs, against matching rules that are written down in another
//! way. `DOORBELL_CASES` says how many, instead of 10,000.

#[path = "messages/rule.rs"]
mod rule;

use doorbell_apic::{
    ApicTable, Delivery, DestinationIds, Eoi, InterruptMessage, LogicalIds, MsiMessage,
    NotPostable, Registers, TriggerMode, Who, postable,
};
use proptest::prelude::*;
use rule::reaches;

fn registers() -> impl Strategy<Value = Registers> {
    let id = prop_oneof![4 => 0..6u8, 1 => any::<u8>()];
    let logical = prop_oneof![2 => (0..8u8).prop_map(|bit| 1 << bit), 1 => any::<u8>()];
    let format = prop_oneof![Just(LogicalIds::Flat), Just(LogicalIds::Cluster)];
    prop_oneof![
        4 => (id, logical, format).prop_map(|(id, logical, format)| Registers::XApic { id, logical, format }),
        4 => prop_oneof![3 => 0..40u32, 1 => any::<u32>()].prop_map(|id| Registers::X2Apic { id }),
        1 => Just(Registers::Disabled),
    ]
}

fn ids() -> impl Strategy<Value = DestinationIds> {
    prop_oneof![
        Just(DestinationIds::Eight),
        Just(DestinationIds::Fifteen),
        Just(DestinationIds::ThirtyTwo)
    ]
}

fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_reaches_who_it_is_for_and_is_posted_if_that_is_one(
        apics in prop::collection::vec(registers(), 0..6),
        destination in prop_oneof![3 => 0..6u32, 2 => any::<u32>(), 1 => Just(0xff), 1 => Just(u32::MAX), 1 => 0..256u32],
        low in any::<u32>(),
        data in any::<u32>(),
        ids in ids(),
        intercepted in any::<bool>(),
    ) {
        let address = 0xfee0_0000 | u64::from(low & 0xf_ffff);
        let mut message = InterruptMessage::decode(MsiMessage::new(address, data), ids).unwrap();
        prop_assert_eq!(InterruptMessage::decode(MsiMessage::new(address ^ 0x10_0000, data), ids).is_err(), true);
        // Interrupt remapping can say more than a message can.
        message.destination = destination;
        let table = ApicTable::new(apics.iter().copied().zip(0..));
        let wanted: Vec<usize> = (0..apics.len()).filter(|index| reaches(&apics[*index], &message)).collect();
        let found: Vec<usize> = table.targets(message.destination, message.mode).copied().collect();
        prop_assert_eq!(&found, &wanted);
        let who = table.who(message.destination, message.mode);
        prop_assert_eq!(who, match &wanted[..] {
            [] => Who::Nobody,
            [_] => Who::One(&wanted[0]),
            _ => Who::Several,
        });

        let eoi = if intercepted { Eoi::Intercepted } else { Eoi::NotIntercepted };
        let fixed = matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority);
        let edge_like = match message.trigger {
            TriggerMode::Edge => true,
            TriggerMode::Level { asserted } => asserted && intercepted,
        };
        let can = fixed && message.vector >= 16 && edge_like && wanted.len() == 1;
        match postable(&message, &table, eoi) {
            Ok(posted) => {
                prop_assert!(can);
                prop_assert_eq!((*posted.target, posted.vector.number()), (wanted[0], data as u8));
            }
            Err(reason) => {
                prop_assert!(!can);
                match reason {
                    NotPostable::Mode(mode) => prop_assert_eq!(mode, message.delivery),
                    NotPostable::IllegalVector(vector) => prop_assert!(vector < 16),
                    NotPostable::LevelWithoutEoi => prop_assert_eq!(data & 0xc000, 0xc000),
                    NotPostable::Deasserted => prop_assert_eq!(data & 0xc000, 0x8000),
                    NotPostable::Nobody => prop_assert!(wanted.is_empty()),
                    NotPostable::Several => prop_assert!(wanted.len() > 1),
                }
            }
        }
    }
}
