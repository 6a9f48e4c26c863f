extern crate std;
use std::vec::Vec;

use doorbell_platform::Std;

use super::*;

const FEATURES: MsiFeatures =
    MsiFeatures { messages: 4, wide: true, maskable: true, rewrites: Rewrites::AtOnce };

/// A function, and the host that routes and delivers.
struct World {
    capability: MsiCapability<Std>,
    device: MsiSource<Std>,
    routes: [Option<MsiMessage>; 32],
    /// What was delivered, by which message.
    delivered: Vec<(u16, MsiMessage)>,
    routed: usize,
}

impl World {
    fn new(features: MsiFeatures) -> Self {
        let (capability, device) = MsiCapability::new(features).unwrap();
        World { capability, device, routes: [None; 32], delivered: Vec::new(), routed: 0 }
    }

    fn write(&mut self, offset: u64, bytes: usize, value: u32) {
        let written = self.capability.write(offset, bytes, value);
        self.act(written);
    }

    fn act(&mut self, written: MsiWritten<Std>) {
        let mut delivered = Vec::new();
        written.each(|mut written| {
            while let MsixWritten::Route(route) = written {
                self.routes[usize::from(route.entry())] = Some(route.message());
                self.routed += 1;
                written = route.routed();
            }
            if let MsixWritten::Deliver(entry) = written {
                delivered.push((entry, self.routes[usize::from(entry)].expect("it was routed")));
            }
        });
        self.delivered.extend(delivered);
    }

    fn signal(&mut self, number: u16) {
        if self.device.signal(number) == Ok(MsixSignalled::Deliver) {
            let route = self.routes[usize::from(number)].expect("an open one was routed");
            self.delivered.push((number, route));
        }
    }
}

#[test]
fn the_registers_are_where_the_specification_has_them() {
    let mut world = World::new(FEATURES);
    assert_eq!(world.capability.len(), 24);
    assert_eq!(world.capability.read(0, 4), 0x0184 << 16, "four, 64 bits, masks (6.8.1.3)");
    world.write(4, 4, 0xfee0_1003);
    world.write(8, 4, 1);
    world.write(12, 4, 0xffff_0041);
    world.write(16, 4, u32::MAX);
    world.write(20, 4, u32::MAX);
    let read = [4, 8, 12, 16, 20].map(|at| world.capability.read(at, 4));
    assert_eq!(read, [0xfee0_1000, 1, 0x41, 0b1111, 0]);
    world.write(2, 2, 0xffff);
    assert_eq!(world.capability.read(2, 2), 0x1f5, "what there is does not change");
    assert_eq!(world.capability.read(3, 2), 1, "across two registers, the address's lowest is 0");
    assert_eq!(world.capability.read(u64::MAX - 1, 4), 0);

    let narrow = MsiFeatures { wide: false, maskable: false, ..FEATURES };
    let mut world = World::new(narrow);
    assert_eq!((world.capability.len(), world.capability.read(0, 4)), (10, 4 << 16));
    world.write(8, 4, 0x1_0042);
    world.write(12, 4, 0xf);
    assert_eq!((world.capability.read(8, 4), world.capability.read(12, 4)), (0x42, 0));
}

#[test]
fn a_number_of_messages_that_is_no_power_of_two_up_to_32_is_refused() {
    for messages in [0, 3, 33, 64, u16::MAX] {
        let features = MsiFeatures { messages, ..FEATURES };
        assert_eq!(MsiCapability::<Std>::new(features).err(), Some(MessageCount(messages)));
    }
    let all = MsiFeatures { messages: 32, ..FEATURES };
    let mut world = World::new(all);
    world.write(2, 2, 0x51);
    (0..33).for_each(|number| world.signal(number));
    assert_eq!(world.delivered.len(), 32);
    assert_eq!(world.device.signal(32), Err(NoEntry(32)));
}

/// Section 6.8.3.4: the function changes the low bits that number the messages.
#[test]
fn each_message_has_its_number_in_the_low_bits_and_shares_those_that_are_not_enabled() {
    let mut world = World::new(FEATURES);
    world.write(12, 2, 0x43);
    world.write(2, 2, 1 << 4 | 1);
    (0..4).for_each(|number| world.signal(number));
    let data: Vec<_> = world.delivered.iter().map(|(_, message)| message.data).collect();
    assert_eq!(data, [0x42, 0x43, 0x42, 0x43]);
    world.write(16, 1, 0b10);
    (0..4).for_each(|number| world.signal(number));
    assert_eq!(world.delivered.len(), 6);
    assert_eq!(world.capability.read(20, 4), 0b10, "both that share the message, as one");
    world.write(16, 1, 0);
    assert_eq!(world.delivered[6..].iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(world.capability.read(20, 4), 0);
}

#[test]
fn what_is_signalled_while_msi_is_off_is_delivered_once_it_is_on() {
    let mut world = World::new(FEATURES);
    world.signal(0);
    world.write(12, 2, 0x40);
    assert_eq!(world.delivered, []);
    world.write(2, 1, 1);
    assert_eq!(world.delivered.len(), 1);
    world.write(2, 1, 0);
    world.signal(0);
    world.capability.reset();
    world.write(2, 1, 1);
    assert_eq!(world.delivered.len(), 1, "a reset leaves nothing pending");
}

#[test]
fn a_message_that_is_rewritten_while_it_is_in_use_takes_effect_at_once_or_when_it_is_unmasked() {
    for (rewrites, at_once) in [(Rewrites::AtOnce, 0x51), (Rewrites::WhenUnmasked, 0x41)] {
        let mut world = World::new(MsiFeatures { messages: 1, rewrites, ..FEATURES });
        world.write(12, 2, 0x41);
        world.write(2, 1, 1);
        world.write(12, 2, 0x51);
        world.signal(0);
        assert_eq!(world.capability.read(12, 2), 0x51, "it reads what it has written");
        world.write(16, 1, 1);
        world.write(16, 1, 0);
        world.signal(0);
        let data: Vec<_> = world.delivered.iter().map(|(_, message)| message.data).collect();
        assert_eq!(data, [at_once, 0x51]);
        assert_eq!(world.routed, 2, "no route is made that is there");
    }
}

#[test]
fn what_is_saved_goes_on_elsewhere() {
    let mut world = World::new(FEATURES);
    world.write(4, 4, 0xfee0_1000);
    world.write(12, 2, 0x60);
    world.write(16, 1, 0b100);
    world.write(2, 1, 2 << 4 | 1);
    world.signal(2);
    let state = world.capability.save();
    assert_eq!((state.mask, state.pending), (0b100, 0b100));
    assert_eq!(world.capability.save(), state, "it is taken from nobody");
    let mut there = World::new(FEATURES);
    let restored = there.capability.restore(state);
    there.act(restored);
    assert_eq!(there.capability.save(), state);
    there.write(16, 1, 0);
    assert_eq!(there.delivered, [(2, MsiMessage { address: 0xfee0_1000, data: 0x62 })]);

    let mut hostile = World::new(MsiFeatures { messages: 1, wide: false, ..FEATURES });
    let all = MsiState {
        control: u16::MAX,
        message: MsiMessage { address: u64::MAX, data: u32::MAX },
        mask: u32::MAX,
        pending: u32::MAX,
    };
    let restored = hostile.capability.restore(all);
    hostile.act(restored);
    let message = MsiMessage { address: 0xffff_fffc, data: 0xffff };
    assert_eq!(
        hostile.capability.save(),
        MsiState { control: 0x171, message, mask: 1, pending: 1 }
    );
}
