//! APICs whose registers change and messages to them, with any bits, by way of the map: what is
//! taken apart says what was put in, and reaches whom a plain rule says.

use std::cell::RefCell;
use std::sync::Arc;

use doorbell_apic::{
    ApicMap, ApicTable, Delivery, DestinationIds, DestinationMode, Eoi, InterruptMessage,
    LogicalIds, MsiMessage, NotPostable, Registers, TriggerMode, Who, postable,
};
use doorbell_platform::{Platform, ReadDomain, Std};

use crate::bytes::Bytes;

#[path = "../../crates/apic/tests/messages/rule.rs"]
mod rule;

const APICS: u8 = 6;

/// Changes registers and sends messages as the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let apics = RefCell::new(vec![Registers::Disabled; APICS.into()]);
    let look = || ApicTable::new(apics.borrow().iter().copied().zip(0..));
    let rcu = Arc::new(<Std as Platform>::Rcu::new("messages"));
    let map = ApicMap::<Std, usize>::new(&rcu, look());
    while !bytes.is_empty() {
        let what = bytes.u8();
        if what & 1 == 0 {
            let apic = usize::from(bytes.below(APICS));
            apics.borrow_mut()[apic] = registers(what >> 1, &mut bytes);
            map.changed(look);
            continue;
        }
        let ids = match what >> 1 & 3 {
            0 | 1 => DestinationIds::Eight,
            2 => DestinationIds::Fifteen,
            _ => DestinationIds::ThirtyTwo,
        };
        let address = match what >> 3 & 3 {
            0 => bytes.u64(),
            1 => 0xfee0_0000 | u64::from(id(&mut bytes)) << 12 | u64::from(bytes.u8()) << 2,
            2 => u64::from(bytes.u32()) << 32 | 0xfee0_0000 | u64::from(bytes.u16()) << 4,
            _ => u64::from(bytes.u32()) << 40 | 0xfee0_0000 | u64::from(bytes.u8()) << 12,
        };
        let data = bytes.u32();
        let Ok(message) = InterruptMessage::decode(MsiMessage::new(address, data), ids) else {
            let upper =
                if ids == DestinationIds::ThirtyTwo { address & 0xff_ffff_ffff } else { address };
            assert!(!(0xfee0_0000..0xfef0_0000).contains(&upper), "{address:#x} is one");
            continue;
        };
        assert_eq!(address & meaningful(ids), put_together(&message, ids), "{message:?}");
        assert_eq!(
            data & 0x87ff | if data & 0x8000 == 0 { 0 } else { data & 0x4000 },
            data_of(&message, data)
        );
        reach(&map.read(), &apics.borrow(), message, what & 0x80 != 0);
    }
    rcu.barrier();
}

/// An id that others often have, too, or the one that means all.
fn id(bytes: &mut Bytes<'_>) -> u8 {
    match bytes.u8() {
        any @ 0..0xc0 => any % 4,
        0xc0..0xe0 => 0xff,
        any => any,
    }
}

fn registers(kind: u8, bytes: &mut Bytes<'_>) -> Registers {
    match kind & 7 {
        0 => Registers::Disabled,
        1..=4 => Registers::XApic {
            id: id(bytes),
            logical: bytes.u8(),
            format: if kind & 1 == 0 { LogicalIds::Flat } else { LogicalIds::Cluster },
        },
        5 | 6 => Registers::X2Apic { id: id(bytes).into() },
        _ => Registers::X2Apic { id: bytes.u32() },
    }
}

/// The bits of an address that say something.
fn meaningful(ids: DestinationIds) -> u64 {
    match ids {
        DestinationIds::Eight => 0xffff_ffff_ffff_f00c,
        DestinationIds::Fifteen => 0xffff_ffff_ffff_ffec,
        DestinationIds::ThirtyTwo => 0xffff_ffff_ffff_f00c,
    }
}

fn put_together(message: &InterruptMessage, ids: DestinationIds) -> u64 {
    let id = u64::from(message.destination);
    let upper = match ids {
        DestinationIds::Eight => 0,
        DestinationIds::Fifteen => id >> 8 << 5,
        DestinationIds::ThirtyTwo => id >> 8 << 40,
    };
    let logical = message.mode == DestinationMode::Logical;
    0xfee0_0000
        | upper
        | (id & 0xff) << 12
        | u64::from(message.redirection_hint) << 3
        | u64::from(logical) << 2
}

/// The data that says the same. Two modes mean nothing, so one of them is as it was.
fn data_of(message: &InterruptMessage, data: u32) -> u32 {
    let mode = match message.delivery {
        Delivery::Fixed => 0,
        Delivery::LowestPriority => 1,
        Delivery::Smi => 2,
        Delivery::Nmi => 4,
        Delivery::Init => 5,
        Delivery::ExtInt => 7,
        Delivery::Reserved => {
            assert!([3, 6].contains(&(data >> 8 & 7)));
            data >> 8 & 7
        }
    };
    let trigger = match message.trigger {
        TriggerMode::Edge => 0,
        TriggerMode::Level { asserted } => 0x8000 | u32::from(asserted) << 14,
    };
    trigger | mode << 8 | u32::from(message.vector)
}

fn reach(
    table: &ApicTable<usize>,
    apics: &[Registers],
    message: InterruptMessage,
    intercepted: bool,
) {
    let wanted: Vec<usize> =
        (0..apics.len()).filter(|apic| rule::reaches(&apics[*apic], &message)).collect();
    let found: Vec<usize> = table.targets(message.destination, message.mode).copied().collect();
    assert_eq!(found, wanted, "{message:?}, {apics:?}");
    assert_eq!(
        table.who(message.destination, message.mode),
        match &wanted[..] {
            [] => Who::Nobody,
            [one] => Who::One(one),
            _ => Who::Several,
        }
    );
    let eoi = if intercepted { Eoi::Intercepted } else { Eoi::NotIntercepted };
    match postable(&message, table, eoi) {
        Ok(posted) => {
            assert_eq!(([*posted.target], posted.vector.number()), ([wanted[0]], message.vector))
        }
        Err(NotPostable::Nobody) => assert!(wanted.is_empty()),
        Err(NotPostable::Several) => assert!(wanted.len() > 1),
        Err(NotPostable::IllegalVector(vector)) => assert!(vector == message.vector && vector < 16),
        Err(NotPostable::Mode(mode)) => assert_eq!(mode, message.delivery),
        Err(NotPostable::LevelWithoutEoi) => {
            assert!(message.trigger == TriggerMode::Level { asserted: true } && !intercepted)
        }
        Err(NotPostable::Deasserted) => {
            assert_eq!(message.trigger, TriggerMode::Level { asserted: false })
        }
    }
}
