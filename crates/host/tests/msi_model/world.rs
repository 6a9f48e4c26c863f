//! Any accesses of a guest and interrupts of a device, on one thread, against a plain model of an
//! MSI capability: its bytes, and which of them can be written. Shared with the fuzz target.

use doorbell_host::msi::{
    MsiCapability, MsiFeatures, MsiMessage, MsiSource, MsiWritten, MsixSignalled, MsixWritten,
    NoEntry, Rewrites,
};
use doorbell_platform::Std;

/// An operation: what it is, and two numbers, whatever they are.
pub type Op = (u8, u64, u64);

/// What was delivered: the number of the interrupt, and by which message.
type Delivered = (u16, MsiMessage);

/// Runs operations on a capability of that kind, and compares.
pub fn run(kind: u8, ops: &[Op]) {
    let features = MsiFeatures {
        messages: 1 << (kind % 6),
        wide: kind & 0x10 != 0,
        maskable: kind & 0x20 != 0,
        rewrites: if kind & 0x40 != 0 { Rewrites::AtOnce } else { Rewrites::WhenUnmasked },
    };
    let mut world = World::new(features);
    let mut model = Model::new(features);
    for &(what, first, second) in ops {
        let offset = match what >> 4 {
            // Mostly what there is.
            0..=13 => first % 26,
            _ => first,
        };
        match what % 8 {
            0..=2 => {
                let number = (first % 40) as u16;
                assert_eq!(world.signal(number), number < features.messages);
                model.signal(number);
            }
            3 => {
                world = world.moved();
                model.is_moved();
            }
            4 if second.is_multiple_of(4) => {
                world.capability.reset();
                model = Model { delivered: model.delivered, ..Model::new(features) };
            }
            _ => {
                let bytes = (what >> 3 & 7) as usize;
                let written = world.capability.write(offset, bytes, second as u32);
                world.act(written);
                model.write(offset, bytes, second as u32);
            }
        }
        assert_eq!(world.delivered, model.delivered);
        for offset in (0..28).chain([offset]) {
            assert_eq!(world.capability.read(offset, 3), model.read(offset, 3), "at {offset}");
        }
    }
}

/// The capability, and the host that routes and delivers.
struct World {
    features: MsiFeatures,
    capability: MsiCapability<Std>,
    device: MsiSource<Std>,
    routes: [Option<MsiMessage>; 32],
    delivered: Vec<Delivered>,
}

impl World {
    fn new(features: MsiFeatures) -> Self {
        let (capability, device) = MsiCapability::new(features).expect("a power of two");
        World { features, capability, device, routes: [None; 32], delivered: Vec::new() }
    }

    fn act(&mut self, written: MsiWritten<Std>) {
        written.each(|mut written| {
            while let MsixWritten::Route(route) = written {
                self.routes[usize::from(route.entry())] = Some(route.message());
                written = route.routed();
            }
            if let MsixWritten::Deliver(number) = written {
                let message = self.routes[usize::from(number)].expect("an open one was routed");
                self.delivered.push((number, message));
            }
        });
    }

    /// Returns whether there is such an interrupt.
    fn signal(&mut self, number: u16) -> bool {
        match self.device.signal(number) {
            Err(NoEntry(of)) => {
                assert_eq!(of, number);
                false
            }
            Ok(MsixSignalled::Pending) => true,
            Ok(MsixSignalled::Deliver) => {
                let message = self.routes[usize::from(number)].expect("an open one was routed");
                self.delivered.push((number, message));
                true
            }
        }
    }

    /// Saves the capability, and goes on with what was restored elsewhere.
    fn moved(self) -> Self {
        let mut there = World { delivered: self.delivered, ..World::new(self.features) };
        let restored = there.capability.restore(self.capability.save());
        there.act(restored);
        there
    }
}

/// The capability as PCI Local Bus 3.0, section 6.8.1, has it, one thing after the other.
struct Model {
    features: MsiFeatures,
    bytes: [u8; 24],
    /// The message of each interrupt that is in use, or was last.
    in_use: [MsiMessage; 32],
    pending: [bool; 32],
    delivered: Vec<Delivered>,
}

impl Model {
    fn new(features: MsiFeatures) -> Self {
        let (in_use, pending) = ([MsiMessage::default(); 32], [false; 32]);
        let mut new = Model { features, bytes: [0; 24], in_use, pending, delivered: Vec::new() };
        new.bytes[2] = (features.messages.ilog2() << 1) as u8 | u8::from(features.wide) << 7;
        new.bytes[3] = features.maskable.into();
        new
    }

    /// Returns where the data are. The mask bits follow 4 bytes later, the pending bits 8.
    fn data(&self) -> usize {
        if self.features.wide { 12 } else { 8 }
    }

    /// Returns the bits of a byte that can be written.
    fn writable(&self, at: usize) -> u8 {
        let data = self.data();
        match at {
            2 => 0x71,
            4 => 0xfc,
            5.. if at <= data + 1 => 0xff,
            _ if self.features.maskable && (data + 4..data + 8).contains(&at) => {
                let bits = u64::from(u32::MAX) >> (32 - self.features.messages);
                (bits >> (8 * (at - data - 4))) as u8
            }
            _ => 0,
        }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|byte| self.bytes[at + byte]))
    }

    fn count(&self) -> u16 {
        let enabled = [1, 2, 4, 8, 16, 32, 32, 32][usize::from(self.bytes[2] >> 4 & 7)];
        enabled.min(self.features.messages)
    }

    fn is_masked(&self, number: u16) -> bool {
        let mask = if self.features.maskable { self.word(self.data() + 4) } else { 0 };
        mask >> (number % self.count()) & 1 != 0
    }

    fn is_open(&self, number: u16) -> bool {
        self.bytes[2] & 1 != 0 && !self.is_masked(number)
    }

    fn message(&self, number: u16) -> MsiMessage {
        let upper = if self.features.wide { u64::from(self.word(8)) << 32 } else { 0 };
        let count = self.count();
        let data = u16::from_le_bytes([self.bytes[self.data()], self.bytes[self.data() + 1]]);
        MsiMessage {
            address: upper | u64::from(self.word(4)),
            data: (data / count * count + number % count).into(),
        }
    }

    fn write(&mut self, offset: u64, bytes: usize, value: u32) {
        let was_open: Vec<_> = (0..32).map(|number| self.is_open(number)).collect();
        let before = self.bytes;
        for (at, byte) in value.to_le_bytes().into_iter().take(bytes).enumerate() {
            let Some(at) = offset.checked_add(at as u64).filter(|at| *at < 24) else { continue };
            let (at, writable) = (at as usize, self.writable(at as usize));
            self.bytes[at] = self.bytes[at] & !writable | byte & writable;
        }
        if self.bytes != before {
            self.opens(|number| was_open[usize::from(number)]);
        }
    }

    fn opens(&mut self, was_open: impl Fn(u16) -> bool) {
        for number in 0..self.features.messages {
            if !self.is_open(number) {
                continue;
            }
            let at = usize::from(number);
            if !was_open(number) || self.features.rewrites == Rewrites::AtOnce {
                self.in_use[at] = self.message(number);
            }
            if std::mem::take(&mut self.pending[at]) {
                self.delivered.push((number, self.in_use[at]));
            }
        }
    }

    fn is_moved(&mut self) {
        self.opens(|_| false);
    }

    fn signal(&mut self, number: u16) {
        if number >= self.features.messages {
            return;
        }
        match self.is_open(number) {
            true => self.delivered.push((number, self.in_use[usize::from(number)])),
            false => self.pending[usize::from(number)] = true,
        }
    }

    fn read(&self, offset: u64, bytes: usize) -> u32 {
        let mut all = self.bytes;
        if self.features.maskable {
            for number in (0..32u16).filter(|number| self.pending[usize::from(*number)]) {
                let shown = usize::from(number % self.count());
                all[self.data() + 8 + shown / 8] |= 1 << (shown % 8);
            }
        }
        (0..bytes)
            .map(|at| {
                let byte = offset.checked_add(at as u64).and_then(|at| all.get(at as usize));
                u32::from(byte.copied().unwrap_or(0)) << (8 * at)
            })
            .sum()
    }
}
