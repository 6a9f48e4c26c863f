extern crate std;
use std::vec::Vec;

use doorbell_platform::Std;

use super::*;

const OPEN: u16 = MSIX_ENABLE;
const MASKED: u16 = MSIX_ENABLE | MSIX_FUNCTION_MASK;
const CONTROL: u64 = 12;

fn table(entries: u16) -> Msix<Std> {
    Msix::new(entries).unwrap()
}

#[derive(Debug, PartialEq)]
enum Did {
    Delivered(u16),
    Routed(u16, MsiMessage),
}

/// What a host does about a write.
fn act(mut written: MsixWritten<'_, Std>, did: &mut Vec<Did>) {
    loop {
        match written {
            MsixWritten::Nothing => return,
            MsixWritten::Deliver(entry) => return did.push(Did::Delivered(entry)),
            MsixWritten::Route(route) => {
                did.push(Did::Routed(route.entry(), route.message()));
                written = route.routed();
            }
        }
    }
}

fn write(msix: &Msix<Std>, entry: u16, at: u64, value: u64, bytes: usize) -> Vec<Did> {
    let mut did = Vec::new();
    act(msix.write_table(u64::from(entry) * 16 + at, bytes, value), &mut did);
    did
}

fn control(msix: &Msix<Std>, value: u16) -> Vec<Did> {
    let mut did = Vec::new();
    msix.write_control(value).each(|written| act(written, &mut did));
    did
}

fn mask(msix: &Msix<Std>, entry: u16, mask: bool) -> Vec<Did> {
    write(msix, entry, CONTROL, mask.into(), 4)
}

fn message(number: u16) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000, data: 0x30 + u32::from(number) }
}

/// A table that is open but for `entry`, whose message is `message(entry)`, and is routed.
fn routed(entries: u16, entry: u16) -> Msix<Std> {
    let msix = table(entries);
    assert_eq!(control(&msix, OPEN), []);
    assert_eq!(write(&msix, entry, 0, message(entry).address, 8), []);
    assert_eq!(
        write(&msix, entry, 8, message(entry).data.into(), 8),
        [Did::Routed(entry, message(entry))]
    );
    assert_eq!(mask(&msix, entry, true), []);
    msix
}

#[test]
fn after_a_reset_all_is_masked_and_not_enabled_6_8_2() {
    let msix = table(3);
    assert_eq!(msix.control(), 2);
    assert_eq!(
        (0..3).map(|entry| msix.read_table(entry * 16 + CONTROL, 4)).collect::<Vec<_>>(),
        [1; 3]
    );
    assert_eq!(msix.signal(2), Ok(MsixSignalled::Pending));
    assert_eq!(msix.read_pending(0, 8), 1 << 2);
    msix.reset();
    assert_eq!(msix.read_pending(0, 8), 0);
}

#[test]
fn an_unmasked_entry_delivers_and_a_masked_one_keeps_and_delivers_once_when_it_is_unmasked() {
    let msix = routed(40, 33);
    assert_eq!(mask(&msix, 33, false), []);
    assert_eq!(msix.signal(33), Ok(MsixSignalled::Deliver));
    assert_eq!(mask(&msix, 33, true), []);
    assert_eq!(msix.signal(33), Ok(MsixSignalled::Pending));
    assert_eq!(msix.signal(33), Ok(MsixSignalled::Pending));
    assert_eq!(msix.read_pending(4, 4), 1 << 1);
    assert_eq!(mask(&msix, 33, false), [Did::Delivered(33)]);
    assert_eq!(msix.read_pending(0, 8), 0);
    assert_eq!(mask(&msix, 33, true), []);
    assert_eq!(mask(&msix, 33, false), []);
}

#[test]
fn the_function_mask_masks_all_and_keeps_what_each_entry_has_6_8_2_3() {
    let msix = routed(70, 65);
    assert_eq!(mask(&msix, 65, false), []);
    assert_eq!(control(&msix, MASKED), []);
    assert_eq!(msix.control(), MASKED | 69);
    assert_eq!(msix.read_table(65 * 16 + CONTROL, 4), 0);
    assert_eq!(
        (msix.signal(65), msix.signal(64)),
        (Ok(MsixSignalled::Pending), Ok(MsixSignalled::Pending))
    );
    assert_eq!(msix.read_pending(8, 1), 3);
    // Entry 64 is masked by itself as well.
    assert_eq!(control(&msix, OPEN), [Did::Delivered(65)]);
    assert_eq!(msix.read_pending(8, 8), 1);
    assert_eq!(control(&msix, OPEN), []);
    // Not enabled is as good as masked.
    assert_eq!(control(&msix, 0), []);
    assert_eq!(msix.signal(65), Ok(MsixSignalled::Pending));
}

#[test]
fn a_message_that_changes_while_it_is_masked_is_routed_before_the_entry_opens() {
    let msix = routed(2, 1);
    assert_eq!(write(&msix, 1, 8, 0x77, 4), []);
    assert_eq!(msix.signal(1), Ok(MsixSignalled::Pending));
    let MsixWritten::Route(route) = msix.write_table(16 + CONTROL, 4, 0) else {
        panic!("the message has changed")
    };
    assert_eq!((route.entry(), route.message()), (1, MsiMessage { data: 0x77, ..message(1) }));
    assert_eq!(msix.signal(1), Ok(MsixSignalled::Pending), "the route is not there yet");
    assert!(matches!(route.routed(), MsixWritten::Deliver(1)));
    assert_eq!(msix.signal(1), Ok(MsixSignalled::Deliver));
    // What is written again but is the same costs no route.
    assert_eq!(mask(&msix, 1, true), []);
    assert_eq!(write(&msix, 1, 8, 0x78, 4), []);
    assert_eq!(write(&msix, 1, 8, 0x77, 4), []);
    assert_eq!(mask(&msix, 1, false), []);
}

#[test]
fn a_message_that_changes_under_the_function_mask_is_routed_when_that_goes() {
    let msix = routed(2, 1);
    assert_eq!(mask(&msix, 1, false), []);
    assert_eq!(control(&msix, MASKED), []);
    assert_eq!(write(&msix, 1, 8, 0x77, 4), []);
    assert_eq!(msix.signal(1), Ok(MsixSignalled::Pending));
    let changed = MsiMessage { data: 0x77, ..message(1) };
    assert_eq!(control(&msix, OPEN), [Did::Routed(1, changed), Did::Delivered(1)]);
}

#[test]
fn a_message_that_changes_while_it_is_not_masked_takes_effect_when_it_is_next_unmasked() {
    let msix = routed(1, 0);
    assert_eq!(mask(&msix, 0, false), []);
    assert_eq!(write(&msix, 0, 8, 0x77, 4), []);
    assert_eq!(msix.read_table(8, 4), 0x77);
    assert_eq!(msix.signal(0), Ok(MsixSignalled::Deliver));
    assert_eq!(mask(&msix, 0, true), []);
    assert_eq!(mask(&msix, 0, false), [Did::Routed(0, MsiMessage { data: 0x77, ..message(0) })]);
}

#[test]
fn one_at_a_time_changes_a_route_and_looks_again_afterwards() {
    let msix = routed(1, 0);
    assert_eq!(write(&msix, 0, 8, 0x77, 4), []);
    let MsixWritten::Route(first) = msix.write_table(CONTROL, 4, 0) else {
        panic!("the message has changed")
    };
    assert_eq!(mask(&msix, 0, true), []);
    // Data and vector control in one write.
    assert_eq!(write(&msix, 0, 8, 0x78, 8), [], "another changes the route already");
    assert_eq!(msix.signal(0), Ok(MsixSignalled::Pending));
    let MsixWritten::Route(second) = first.routed() else {
        panic!("the message has changed again")
    };
    assert_eq!(second.message().data, 0x78);
    assert!(matches!(second.routed(), MsixWritten::Deliver(0)));
}

#[test]
fn an_entry_whose_route_cannot_be_had_stays_shut_until_it_is_unmasked_again() {
    let msix = routed(1, 0);
    assert_eq!(write(&msix, 0, 8, 0x77, 4), []);
    let route = msix.write_table(CONTROL, 4, 0);
    assert_eq!(msix.signal(0), Ok(MsixSignalled::Pending));
    drop(route);
    assert_eq!(msix.signal(0), Ok(MsixSignalled::Pending));
    assert_eq!(mask(&msix, 0, true), []);
    // Also by the former message: it is not known how far the host has come.
    assert_eq!(write(&msix, 0, 8, message(0).data.into(), 4), []);
    assert_eq!(mask(&msix, 0, false), [Did::Routed(0, message(0)), Did::Delivered(0)]);
}

#[test]
fn nothing_opens_before_what_enabling_returns_is_acted_upon() {
    let msix = routed(1, 0);
    assert_eq!(mask(&msix, 0, false), []);
    assert_eq!(control(&msix, MASKED), []);
    drop(msix.write_control(OPEN));
    assert_eq!(msix.signal(0), Ok(MsixSignalled::Pending));
    assert_eq!(mask(&msix, 0, true), []);
    assert_eq!(mask(&msix, 0, false), [], "who opens the function sees to it");
    assert_eq!(control(&msix, OPEN), [Did::Delivered(0)]);
}

#[test]
fn undefined_accesses_do_nothing_and_read_what_is_there() {
    let msix = table(2);
    for bytes in [0, 1, 2, 3, 5, 7, 9, 16] {
        assert_eq!(write(&msix, 0, 0, u64::MAX, bytes), []);
    }
    for (at, bytes) in
        [(1, 4), (2, 4), (4, 8), (12, 8), (32, 4), (32, 8), (u64::MAX - 7, 8), (u64::MAX - 3, 4)]
    {
        assert_eq!(write(&msix, 0, at, u64::MAX, bytes), []);
    }
    assert_eq!(msix.read_table(0, 8), 0);
    // Reserved bits are not kept.
    assert_eq!(write(&msix, 0, 0, 0x8765_4321_fee1_2347, 8), []);
    assert_eq!(write(&msix, 0, 8, 0xffff_ffff_1122_3344, 8), []);
    assert_eq!(
        (msix.read_table(0, 8), msix.read_table(8, 8)),
        (0x8765_4321_fee1_2344, 0x0000_0001_1122_3344)
    );
    assert_eq!(
        (msix.read_table(3, 2), msix.read_table(6, 4), msix.read_table(13, 8)),
        (0x21fe, 0x3344_8765, 0)
    );
    assert_eq!(
        (msix.read_table(28, 8), msix.read_table(0, 0), msix.read_table(0, 99)),
        (1, 0, 0x8765_4321_fee1_2344)
    );
    assert_eq!(
        (msix.read_table(u64::MAX, 8), msix.read_pending(u64::MAX, 8), msix.read_pending(8, 8)),
        (0, 0, 0)
    );
    assert_eq!(control(&msix, 0x07ff), []);
    assert_eq!(msix.control(), 1);
}

#[test]
fn what_is_not_there_is_a_typed_error() {
    assert_eq!(Msix::<Std>::new(0).err(), Some(TableSize(0)));
    assert_eq!(Msix::<Std>::new(2049).err(), Some(TableSize(2049)));
    let msix = table(2048);
    assert_eq!(msix.control(), 2047);
    assert_eq!(
        (msix.signal(2047), msix.signal(2048)),
        (Ok(MsixSignalled::Pending), Err(NoEntry(2048)))
    );
    assert_eq!(msix.read_pending(255, 1), 0x80);
    assert_eq!(table(1).signal(31), Err(NoEntry(31)));
}

#[test]
fn a_table_that_is_saved_and_restored_delivers_what_was_pending_by_the_routes_it_asks_for() {
    let msix = routed(70, 65);
    assert_eq!(msix.signal(65), Ok(MsixSignalled::Pending));
    assert_eq!(write(&msix, 3, 0, message(3).address, 8), []);
    assert_eq!(write(&msix, 3, 8, message(3).data.into(), 4), []);
    assert_eq!(control(&msix, MASKED), []);
    let state = msix.save();
    assert_eq!(msix.save(), state, "reading takes nothing");
    assert_eq!((state.control, &state.pending[..]), (MASKED | 69, &[0, 2][..]));
    let restored = Msix::<Std>::restore(&state).unwrap();
    assert_eq!(restored.control(), 69, "the host enables it");
    assert_eq!(restored.read_pending(8, 8), 2);
    assert_eq!(control(&restored, state.control), []);
    assert_eq!(restored.save(), state);
    for msix in [&msix, &restored] {
        assert_eq!(control(msix, OPEN), []);
    }
    // The one that has gone on has the route, the restored one asks for it.
    assert_eq!(mask(&msix, 65, false), [Did::Delivered(65)]);
    assert_eq!(mask(&restored, 65, false), [Did::Routed(65, message(65)), Did::Delivered(65)]);
    let routes = [Did::Routed(3, message(3))];
    assert_eq!(mask(&restored, 3, false), routes);
}

#[test]
fn a_state_that_is_no_tables_is_refused_and_bits_of_entries_that_there_are_not_are_left_out() {
    let mut state = table(3).save();
    state.pending = std::vec![u64::MAX; 2];
    assert_eq!(Msix::<Std>::restore(&state).unwrap().save().pending, [0b111]);
    state.entries.clear();
    assert_eq!(Msix::<Std>::restore(&state).err(), Some(TableSize(0)));
    state.entries = std::vec![(MsiMessage::default(), true); 70_000];
    assert_eq!(Msix::<Std>::restore(&state).err(), Some(TableSize(u16::MAX)));
}
