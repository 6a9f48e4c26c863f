//! An MSI-X table: the device signals, vCPUs of the guest write.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{Model, fail};
use doorbell_explore::{Machine, Sim};
use doorbell_host::msi::spec::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
use doorbell_host::msi::{Msix, MsixSignalled, MsixWritten};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    use Write::*;
    vec![
        Program::new("a device signals twice, and its entry stays masked", |m| {
            let all = World::new(&[Mask(0)]);
            all.device(m, &[0, 0]);
            all.kept(m, 1);
        }),
        Program::new("two entries that stay masked are signalled at once", |m| {
            let all = World::new(&[Mask(0), Mask(1)]);
            all.device(m, &[0]);
            all.device(m, &[1]);
            all.kept(m, 3);
        }),
        Program::new("an entry is signalled and unmasked, and the function stays masked", |m| {
            let all = World::new(&[Mask(0), MaskAll]);
            all.device(m, &[0]);
            all.guest(m, &[Unmask(0)]);
            all.kept(m, 1);
        }),
        Program::new("a device signals twice, and the guest masks and unmasks", |m| {
            let all = World::new(&[]);
            all.device(m, &[0, 0]);
            all.guest(m, &[Mask(0), Unmask(0)]);
            all.delivered(m, 1..=2);
        }),
        Program::new("two devices signal, and the guest unmasks", |m| {
            let all = World::new(&[Mask(0)]);
            all.device(m, &[0]);
            all.device(m, &[0]);
            all.guest(m, &[Unmask(0)]);
            all.delivered(m, 1..=2);
        }),
        Program::new("an entry is signalled, while the guest unmasks that and another one", |m| {
            let all = World::new(&[Mask(0), Mask(1)]);
            all.signal(1);
            all.device(m, &[0]);
            all.guest(m, &[Unmask(0)]);
            all.guest(m, &[Unmask(1)]);
            all.delivered(m, 2..=2);
        }),
        Program::new(
            "an entry is signalled, while the guest unmasks the function and the entry",
            |m| {
                let all = World::new(&[Mask(0), MaskAll]);
                all.device(m, &[0]);
                all.guest(m, &[UnmaskAll]);
                all.guest(m, &[Unmask(0)]);
                all.delivered(m, 1..=1);
            },
        ),
        Program::new("an entry is signalled, while two mask and unmask the function", |m| {
            let all = World::new(&[]);
            all.device(m, &[0]);
            all.guest(m, &[MaskAll, UnmaskAll]);
            all.guest(m, &[MaskAll, UnmaskAll]);
            all.delivered(m, 1..=1);
        }),
        Program::new("an entry is signalled twice, while its message changes", |m| {
            let all = World::new(&[]);
            all.device(m, &[0, 0]);
            all.guest(m, &[Mask(0), Data(0, 0x51), Unmask(0)]);
            all.delivered(m, 1..=2);
        }),
        Program::new("an entry is signalled, while two change its message", |m| {
            let all = World::new(&[Mask(0)]);
            all.device(m, &[0]);
            all.guest(m, &[Mask(0), Data(0, 0x51), Unmask(0)]);
            all.guest(m, &[Mask(0), Data(0, 0x52), Unmask(0)]);
            all.delivered(m, 1..=1);
        }),
        Program::new(
            "an entry is signalled, while its message changes and the function is unmasked",
            |m| {
                let all = World::new(&[MaskAll]);
                all.device(m, &[0]);
                all.guest(m, &[Data(0, 0x51), UnmaskAll]);
                all.guest(m, &[Mask(0), Unmask(0)]);
                all.delivered(m, 1..=1);
            },
        ),
        Program::new(
            "an entry is signalled, while its message has changed and it is unmasked",
            |m| {
                let all = World::new(&[Mask(0), Data(0, 0x51)]);
                all.device(m, &[0]);
                all.guest(m, &[Unmask(0)]);
                all.delivered(m, 1..=1);
                all.by(m, 0x51);
            },
        ),
        Program::new(
            "an entry is signalled, while its message has changed and the function is unmasked",
            |m| {
                let all = World::new(&[MaskAll, Data(0, 0x51)]);
                all.device(m, &[0]);
                all.guest(m, &[UnmaskAll]);
                all.delivered(m, 1..=1);
                all.by(m, 0x51);
            },
        ),
        Program::new(
            "an entry's message changes again while its route is being changed",
            changes_again,
        ),
        Program::new(
            "an entry's message changes back while its route is being changed",
            changes_back,
        ),
        Program::new("an entry is unmasked with another message, and masked", |m| {
            let all = World::new(&[Mask(0), Data(0, 0x51)]);
            all.guest(m, &[Unmask(0)]);
            all.guest(m, &[Mask(0)]);
            all.shut_if_masked(m);
        }),
        Program::new("an entry is masked and unmasked, and the function is masked", |m| {
            let all = World::new(&[]);
            all.guest(m, &[Mask(0), Unmask(0)]);
            all.guest(m, &[MaskAll]);
            all.shut_if_masked(m);
        }),
        Program::new("the function is unmasked and masked", |m| {
            let all = World::new(&[MaskAll]);
            all.guest(m, &[UnmaskAll]);
            all.guest(m, &[MaskAll]);
            all.shut_if_masked(m);
        }),
    ]
}

/// A vCPU has unmasked an entry whose message is 0x51, and changes its route. Others wait for that
/// it has begun.
fn begins_to_route(m: &Machine, all: &Rc<World>) -> Rc<Model<bool>> {
    let unmasked = Rc::new(Model::new("unmasked", false));
    let (this, says) = (Rc::clone(all), Rc::clone(&unmasked));
    m.task("unmasks", move || {
        let written = this.msix.write_table(12, 4, 0);
        says.change(|unmasked| *unmasked = true);
        this.act(written);
    });
    unmasked
}

/// The second change is in order, too: the entry is masked again first.
fn changes_again(m: &Machine) {
    let all = World::new(&[Write::Mask(0), Write::Data(0, 0x51)]);
    let unmasked = begins_to_route(m, &all);
    let second = Rc::clone(&all);
    m.task("changes it again", move || {
        unmasked.wait(|unmasked| *unmasked, |_| ());
        [Write::Mask(0), Write::Data(0, 0x52), Write::Unmask(0)]
            .into_iter()
            .for_each(|write| second.write(write));
    });
    m.at_quiescence("the entry is open, by its last message", move || {
        let (route, open) = (
            all.routes.observe(|routes| routes[0]),
            all.msix.signal(0) == Ok(MsixSignalled::Deliver),
        );
        (route == 0x52 && open).then_some(()).ok_or_else(|| format!("{route:x}, open: {open}"))
    });
}

/// Changes the entry back to what is routed, or was: until the route is there, nothing goes by the
/// other one.
fn changes_back(m: &Machine) {
    let all = World::new(&[Write::Mask(0), Write::Data(0, 0x51)]);
    let unmasked = begins_to_route(m, &all);
    let done = Rc::new(Model::new("changed back", false));
    let (second, says) = (Rc::clone(&all), Rc::clone(&done));
    m.task("changes it back", move || {
        unmasked.wait(|unmasked| *unmasked, |_| ());
        [Write::MaskAll, Write::Data(0, 0x41), Write::UnmaskAll]
            .into_iter()
            .for_each(|write| second.write(write));
        says.change(|done| *done = true);
    });
    let device = Rc::clone(&all);
    m.hardware("device", move || {
        done.wait(|done| *done, |_| ());
        device.signal(0);
    });
    all.delivered(m, 1..=1);
    all.by(m, 0x41);
}

/// What the guest writes.
#[derive(Clone, Copy, Debug)]
pub enum Write {
    Mask(u16),
    Unmask(u16),
    Data(u16, u32),
    MaskAll,
    UnmaskAll,
}

const ENTRIES: u16 = 2;

/// A table, and the host that routes and delivers.
pub struct World {
    pub msix: Arc<Msix<Sim>>,
    /// The data of each entry's route.
    routes: Model<[u32; ENTRIES as usize]>,
    /// How many change them.
    routing: Model<[u32; ENTRIES as usize]>,
    /// The data of what was delivered.
    delivered: Model<Vec<u32>>,
}

impl World {
    /// A table that is open but for `masked`, with a route for each entry.
    pub fn new(masked: &[Write]) -> Rc<Self> {
        let world = Rc::new(World {
            msix: Arc::new(Msix::new(ENTRIES).expect("a small one")),
            routes: Model::new("routes", [0; ENTRIES as usize]),
            routing: Model::new("host", [0; ENTRIES as usize]),
            delivered: Model::new("guest", Vec::new()),
        });
        world.write(Write::UnmaskAll);
        for entry in 0..ENTRIES {
            world.write(Write::Data(entry, 0x41));
            world.write(Write::Unmask(entry));
        }
        masked.iter().for_each(|write| world.write(*write));
        world
    }

    pub fn write(&self, write: Write) {
        let (at, value) = match write {
            Write::Mask(entry) => (u64::from(entry) * 16 + 12, 1),
            Write::Unmask(entry) => (u64::from(entry) * 16 + 12, 0),
            Write::Data(entry, data) => (u64::from(entry) * 16 + 8, data),
            Write::MaskAll => {
                return self
                    .msix
                    .write_control(MSIX_ENABLE | MSIX_FUNCTION_MASK)
                    .each(|_| fail("nothing opens"));
            }
            Write::UnmaskAll => {
                return self.msix.write_control(MSIX_ENABLE).each(|written| self.act(written));
            }
        };
        self.act(self.msix.write_table(at, 4, value.into()));
    }

    fn act(&self, mut written: MsixWritten<'_, Sim>) {
        while let MsixWritten::Route(route) = written {
            let (entry, data) = (usize::from(route.entry()), route.message().data);
            self.routing.change(|routing| routing[entry] += 1);
            self.routes.change(|routes| routes[entry] = data);
            let alone = self.routing.change(|routing| std::mem::take(&mut routing[entry]) == 1);
            if !alone {
                fail(
                    "two change the route of an entry: the host does not know which is the later one",
                );
            }
            written = route.routed();
        }
        if let MsixWritten::Deliver(entry) = written {
            self.deliver(entry);
        }
    }

    pub fn deliver(&self, entry: u16) {
        let data = self.routes.observe(|routes| routes[usize::from(entry)]);
        self.delivered.change(|all| all.push(data));
    }

    pub fn signal(&self, entry: u16) {
        if self.msix.signal(entry) == Ok(MsixSignalled::Deliver) {
            self.deliver(entry);
        }
    }

    pub fn device(self: &Rc<Self>, m: &Machine, entries: &'static [u16]) {
        let this = Rc::clone(self);
        m.hardware("device", move || entries.iter().for_each(|entry| this.signal(*entry)));
    }

    pub fn guest(self: &Rc<Self>, m: &Machine, writes: &'static [Write]) {
        let this = Rc::clone(self);
        m.task(format!("{writes:?}"), move || writes.iter().for_each(|write| this.write(*write)));
    }

    /// How many were delivered.
    pub fn count(&self) -> usize {
        self.delivered.observe(Vec::len)
    }

    /// Nothing was delivered, and these bits are pending.
    fn kept(self: &Rc<Self>, m: &Machine, pending: u64) {
        let this = Rc::clone(self);
        m.at_quiescence("what is masked is pending", move || {
            let found = (this.delivered.observe(Vec::len), this.msix.read_pending(0, 8));
            (found == (0, pending)).then_some(()).ok_or_else(|| format!("{found:?}"))
        });
    }

    /// What was delivered went by this message.
    fn by(self: &Rc<Self>, m: &Machine, data: u32) {
        let this = Rc::clone(self);
        m.at_quiescence("the message is the one that the guest had unmasked", move || {
            let delivered = this.delivered.observe(Vec::clone);
            delivered
                .iter()
                .all(|by| *by == data)
                .then_some(())
                .ok_or_else(|| format!("{delivered:x?}"))
        });
    }

    /// What masks the entry is what the guest reads.
    fn shut_if_masked(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.at_quiescence("the entry is shut if and only if it is masked", move || {
            let masked =
                this.msix.read_table(12, 4) == 1 || this.msix.control() & MSIX_FUNCTION_MASK != 0;
            let kept = this.msix.signal(0) == Ok(MsixSignalled::Pending);
            (masked == kept).then_some(()).ok_or_else(|| format!("{masked}, {kept}"))
        });
    }

    /// Checks that `number` interrupts were delivered, each by a message that the guest has
    /// written, and that none is pending. The routes are what the table says, at the latest when an
    /// entry is unmasked again: two may have written it at once.
    pub fn delivered(self: &Rc<Self>, m: &Machine, number: std::ops::RangeInclusive<usize>) {
        let this = Rc::clone(self);
        m.at_quiescence(
            "what was signalled was delivered, by a route that the table has had",
            move || {
                let (delivered, pending) =
                    (this.delivered.observe(Vec::clone), this.msix.read_pending(0, 8));
                this.write(Write::Mask(0));
                this.write(Write::Unmask(0));
                let table: [u32; 2] = std::array::from_fn(|entry| {
                    this.msix.read_table(entry as u64 * 16 + 8, 4) as u32
                });
                let routes = this.routes.observe(|routes| *routes);
                let right = number.contains(&delivered.len()) && pending == 0 && table == routes;
                let right = right && delivered.iter().all(|data| [0x41, 0x51, 0x52].contains(data));
                right.then_some(()).ok_or_else(|| {
                    format!("{delivered:x?}, {pending} pending, {routes:x?} for {table:x?}")
                })
            },
        );
    }
}
