//! Any accesses of a guest and interrupts of a device, on one thread, against a plain model of an
//! MSI-X table. Shared with the fuzz target.

use doorbell_host::msi::{MsiMessage, Msix, MsixSignalled, MsixWritten, NoEntry, Reroute};
use doorbell_platform::Std;

/// An operation: what it is, and two numbers, whatever they are.
pub type Op = (u8, u64, u64);

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// Runs operations on a table, and compares.
pub fn run(size: u8, ops: &[Op]) {
    let entries = [1, 2, 3, 33, 70][usize::from(size) % 5];
    let msix = Msix::new(entries).expect("1 to 2048");
    let mut world = World::new(&msix, entries);
    for op in ops {
        world.run(*op);
        world.check();
    }
    world.end();
}

#[derive(Clone, Default)]
struct Entry {
    message: MsiMessage,
    masked: bool,
    pending: bool,
    routed: Option<MsiMessage>,
    /// The entry's route is being changed.
    routing: bool,
    open: bool,
    signalled: u64,
    delivered: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Effect {
    Deliver(u16),
    Route(u16),
}

/// What is done about a route.
#[derive(Clone, Copy, PartialEq)]
enum Routes {
    AtOnce,
    Later,
    Never,
}

struct World<'a> {
    msix: &'a Msix<Std>,
    entries: Vec<Entry>,
    control: u16,
    /// The function is masked, or not enabled, or nobody has acted on what opening it has returned.
    shut: bool,
    held: Vec<Reroute<'a, Std>>,
    routes: Routes,
}

impl<'a> World<'a> {
    fn new(msix: &'a Msix<Std>, entries: u16) -> Self {
        let entry = Entry { masked: true, ..Entry::default() };
        let entries = vec![entry; entries.into()];
        World { msix, entries, control: 0, shut: true, held: Vec::new(), routes: Routes::AtOnce }
    }

    fn run(&mut self, (what, a, b): Op) {
        let size = self.entries.len() as u64 * 16;
        // Most offsets are inside or a little beyond, most are aligned, and most values have few
        // bits.
        let offset = match what >> 6 {
            0 => a,
            1 => a % (size + 16),
            _ => a % (size + 16) / 4 * 4,
        };
        let bytes = [4, 8, 4, 8, 4, 2, 1, 4, 8, 4, 8, 4, 3, 5, 0, 99][(a >> 60) as usize];
        let value = if b >> 63 == 0 { b & 0x0000_0001_0000_0003 } else { b };
        self.routes =
            [Routes::AtOnce, Routes::Later, Routes::Never, Routes::AtOnce][(a >> 58 & 3) as usize];
        match what & 15 {
            0..=3 => self.signal((b % (size / 16 + 1)) as u16),
            4..=9 => self.write(offset, bytes, value),
            10 | 11 => self.write_control(
                [ENABLE, ENABLE | FUNCTION_MASK, ENABLE, b as u16][(a & 3) as usize],
                false,
            ),
            12 => self.write_control(b as u16, true),
            13 if !self.held.is_empty() => {
                let route = self.held.swap_remove(b as usize % self.held.len());
                self.routed(route);
            }
            14 => {
                let (offset, bytes) = (offset % (size + 16), bytes.min(8));
                assert_eq!(
                    self.msix.read_table(offset, bytes),
                    self.read(offset, bytes, Self::table_byte)
                );
                assert_eq!(
                    self.msix.read_pending(offset, bytes),
                    self.read(offset, bytes, Self::pending_byte)
                );
            }
            15 if a.is_multiple_of(8) => self.reset(),
            _ => {
                assert!(self.msix.read_table(a, bytes) <= u64::MAX >> (64 - 8 * bytes.clamp(1, 8)))
            }
        }
    }

    fn signal(&mut self, number: u16) {
        let found = self.msix.signal(number);
        let shut = self.shut;
        let Some(entry) = self.entries.get_mut(usize::from(number)) else {
            return assert_eq!(found, Err(NoEntry(number)));
        };
        entry.signalled += 1;
        if entry.open && !shut {
            entry.delivered += 1;
            assert_eq!(found, Ok(MsixSignalled::Deliver));
        } else {
            entry.pending = true;
            assert_eq!(found, Ok(MsixSignalled::Pending));
        }
    }

    fn write(&mut self, offset: u64, bytes: usize, value: u64) {
        let written = self.msix.write_table(offset, bytes, value);
        let defined = (bytes == 4 || bytes == 8) && offset.is_multiple_of(bytes as u64);
        let number = usize::try_from(offset / 16)
            .ok()
            .filter(|number| *number < self.entries.len() && defined);
        let mut expected = Vec::new();
        if let Some(number) = number {
            let entry = &mut self.entries[number];
            let before = entry.masked;
            for at in 0..bytes as u64 / 4 {
                let dword = value >> (32 * at) & 0xffff_ffff;
                match offset % 16 / 4 + at {
                    0 => entry.message.address = entry.message.address & !0xffff_ffff | dword & !3,
                    1 => entry.message.address = entry.message.address & 0xffff_ffff | dword << 32,
                    2 => entry.message.data = dword as u32,
                    _ => entry.masked = dword & 1 != 0,
                }
            }
            if entry.masked != before {
                if entry.masked {
                    entry.open = false;
                } else {
                    self.open(number, &mut expected);
                }
            }
        }
        let mut found = Vec::new();
        self.act(written, &mut found, &mut expected);
        assert_eq!(found, expected);
    }

    fn write_control(&mut self, value: u16, ignored: bool) {
        let opened = self.msix.write_control(value);
        self.control = value & (ENABLE | FUNCTION_MASK);
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        if self.control != ENABLE {
            self.shut = true;
        } else if self.shut && !ignored {
            self.shut = false;
            for entry in &mut self.entries {
                entry.open = !entry.masked && !entry.routing && entry.routed == Some(entry.message);
            }
            for number in 0..self.entries.len() {
                self.open(number, &mut expected);
            }
        }
        if ignored {
            return drop(opened);
        }
        let mut written = Vec::new();
        opened.each(|next| written.push(next));
        for next in written {
            self.act(next, &mut found, &mut expected);
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    /// As the model has it.
    fn open(&mut self, number: usize, expected: &mut Vec<Effect>) {
        let entry = &mut self.entries[number];
        if self.shut || entry.masked || entry.routing {
            return;
        }
        if entry.routed != Some(entry.message) {
            entry.routing = true;
            return expected.push(Effect::Route(number as u16));
        }
        entry.open = true;
        if std::mem::take(&mut entry.pending) {
            expected.push(Effect::Deliver(number as u16));
        }
    }

    /// What the table asks for is done.
    fn act(
        &mut self,
        written: MsixWritten<'a, Std>,
        found: &mut Vec<Effect>,
        expected: &mut Vec<Effect>,
    ) {
        match written {
            MsixWritten::Nothing => {}
            MsixWritten::Deliver(number) => {
                found.push(Effect::Deliver(number));
                self.entries[usize::from(number)].delivered += 1;
            }
            MsixWritten::Route(route) => {
                found.push(Effect::Route(route.entry()));
                assert_eq!(route.message(), self.entries[usize::from(route.entry())].message);
                match self.routes {
                    Routes::Later => self.held.push(route),
                    Routes::Never => {
                        let entry = &mut self.entries[usize::from(route.entry())];
                        (entry.routing, entry.routed) = (false, None);
                        drop(route);
                    }
                    Routes::AtOnce => {
                        let next = self.end_routing(route, expected);
                        self.act(next, found, expected);
                    }
                }
            }
        }
    }

    fn end_routing(
        &mut self,
        route: Reroute<'a, Std>,
        expected: &mut Vec<Effect>,
    ) -> MsixWritten<'a, Std> {
        let number = usize::from(route.entry());
        self.entries[number].routed = Some(route.message());
        self.entries[number].routing = false;
        self.open(number, expected);
        route.routed()
    }

    fn routed(&mut self, route: Reroute<'a, Std>) {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let next = self.end_routing(route, &mut expected);
        self.act(next, &mut found, &mut expected);
        assert_eq!(found, expected);
    }

    fn reset(&mut self) {
        self.msix.reset();
        (self.control, self.shut) = (0, true);
        for entry in &mut self.entries {
            let Entry { routed, routing, .. } = *entry;
            *entry = Entry { masked: true, routed, routing, ..Entry::default() };
        }
    }

    fn table_byte(&self, at: u64) -> u8 {
        let Some(entry) = self.entries.get(at as usize / 16) else { return 0 };
        let control = u32::from(entry.masked);
        let bytes = [
            entry.message.address.to_le_bytes(),
            (u64::from(control) << 32 | u64::from(entry.message.data)).to_le_bytes(),
        ];
        bytes[at as usize % 16 / 8][at as usize % 8]
    }

    fn pending_byte(&self, at: u64) -> u8 {
        (0..8).fold(0, |byte, bit| {
            let pending =
                self.entries.get(at as usize * 8 + bit).is_some_and(|entry| entry.pending);
            byte | u8::from(pending) << bit
        })
    }

    fn read(&self, offset: u64, bytes: usize, byte: impl Fn(&Self, u64) -> u8) -> u64 {
        (0..bytes as u64).fold(0, |read, at| read | u64::from(byte(self, offset + at)) << (8 * at))
    }

    fn check(&self) {
        assert_eq!(self.msix.control(), self.control | (self.entries.len() as u16 - 1));
        for at in 0..self.entries.len() as u64 * 2 {
            assert_eq!(self.msix.read_table(at * 8, 8), self.read(at * 8, 8, Self::table_byte));
        }
        for at in 0..self.entries.len() as u64 / 64 + 1 {
            assert_eq!(self.msix.read_pending(at * 8, 8), self.read(at * 8, 8, Self::pending_byte));
        }
    }

    /// Everything is unmasked in the end: what was signalled since the last reset was delivered, as
    /// often at most.
    fn end(mut self) {
        self.routes = Routes::AtOnce;
        while let Some(route) = self.held.pop() {
            self.routed(route);
        }
        self.write_control(ENABLE, false);
        for number in 0..self.entries.len() as u64 {
            self.write(number * 16 + 12, 4, 1);
            self.write(number * 16 + 12, 4, 0);
        }
        self.check();
        for entry in &self.entries {
            assert!(entry.open && !entry.pending && entry.routed == Some(entry.message));
            assert!(
                entry.delivered <= entry.signalled
                    && (entry.delivered > 0) == (entry.signalled > 0)
            );
        }
    }
}
