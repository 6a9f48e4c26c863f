//! A plain MSI capability: the device signals, vCPUs of the guest write. The host locks the
//! configuration space for each write, and acts on what comes back when it is locked no more.

use std::rc::Rc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{Model, fail};
use doorbell_explore::{Machine, Sim};
use doorbell_host::msi::{
    MsiCapability, MsiFeatures, MsiSource, MsixSignalled, MsixWritten, Rewrites,
};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    use Write::*;
    vec![
        Program::new("a device signals, and the plain message stays masked", |m| {
            let all = World::new(Rewrites::AtOnce, &[Mask(1)]);
            all.device(m, 1);
            all.kept(m);
        }),
        Program::new("a message is rewritten at once, while its device signals twice", |m| {
            let all = World::new(Rewrites::AtOnce, &[]);
            all.device(m, 2);
            all.guest(m, &[Data(0x51)]);
            all.delivered(m, 1..=2, 0x51);
        }),
        Program::new("MSI is disabled and enabled, while its device signals twice", |m| {
            let all = World::new(Rewrites::AtOnce, &[]);
            all.device(m, 2);
            all.guest(m, &[Enable(0), Enable(1)]);
            all.delivered(m, 1..=2, 0x41);
        }),
        Program::new("one vCPU rewrites a message, another masks and unmasks", |m| {
            let all = World::new(Rewrites::AtOnce, &[]);
            all.device(m, 1);
            all.guest(m, &[Data(0x51)]);
            all.guest(m, &[Mask(1), Mask(0)]);
            all.delivered(m, 1..=1, 0x51);
        }),
        Program::new("two vCPUs rewrite a message, while its device signals", |m| {
            let all = World::new(Rewrites::AtOnce, &[Data(0x51)]);
            all.device(m, 1);
            all.guest(m, &[Data(0x52), Data(0x51)]);
            all.guest(m, &[Data(0x51)]);
            all.delivered(m, 1..=1, 0x51);
        }),
        Program::new("a message is rewritten in use and unmasked, while its device signals", |m| {
            let all = World::new(Rewrites::WhenUnmasked, &[]);
            all.device(m, 2);
            all.guest(m, &[Data(0x51), Mask(1), Mask(0)]);
            all.delivered(m, 1..=2, 0x51);
        }),
    ]
}

/// What the guest writes.
#[derive(Clone, Copy, Debug)]
enum Write {
    Enable(u32),
    Data(u32),
    Mask(u32),
}

struct World {
    /// Out of the model while somebody writes, which takes steps.
    capability: Model<Option<MsiCapability<Sim>>>,
    device: MsiSource<Sim>,
    /// The data of the route.
    route: Model<u32>,
    /// How many change it.
    routing: Model<u32>,
    /// The data of what was delivered.
    delivered: Model<Vec<u32>>,
}

impl World {
    /// A capability that is enabled, with a route for 0x41, and then written.
    fn new(rewrites: Rewrites, writes: &[Write]) -> Rc<Self> {
        let features = MsiFeatures { messages: 1, wide: false, maskable: true, rewrites };
        let (capability, device) = MsiCapability::new(features).expect("one is a power of two");
        let world = Rc::new(World {
            capability: Model::new("configuration space", Some(capability)),
            device,
            route: Model::new("route", 0),
            routing: Model::new("host", 0),
            delivered: Model::new("guest", Vec::new()),
        });
        let first = [Write::Data(0x41), Write::Enable(1)];
        first.iter().chain(writes).for_each(|write| world.write(*write));
        world
    }

    fn write(&self, write: Write) {
        let (offset, value) = match write {
            Write::Enable(enable) => (2, enable),
            Write::Data(data) => (8, data),
            Write::Mask(mask) => (12, mask),
        };
        let taken = self.capability.take(Option::is_some, Option::take);
        let mut capability = taken.expect("it is there");
        let written = capability.write(offset, 2, value);
        self.capability.change(|back| *back = Some(capability));
        written.each(|mut written| {
            while let MsixWritten::Route(route) = written {
                self.routing.change(|routing| *routing += 1);
                self.route.change(|data| *data = route.message().data);
                if self.routing.change(std::mem::take) != 1 {
                    fail("two change the route: the host does not know which is the later one");
                }
                written = route.routed();
            }
            if let MsixWritten::Deliver(_) = written {
                self.deliver();
            }
        });
    }

    fn deliver(&self) {
        let data = self.route.observe(|data| *data);
        self.delivered.change(|all| all.push(data));
    }

    fn signal(&self) {
        if self.device.signal(0) == Ok(MsixSignalled::Deliver) {
            self.deliver();
        }
    }

    fn device(self: &Rc<Self>, m: &Machine, times: u32) {
        let this = Rc::clone(self);
        m.hardware("device", move || (0..times).for_each(|_| this.signal()));
    }

    fn guest(self: &Rc<Self>, m: &Machine, writes: &'static [Write]) {
        let this = Rc::clone(self);
        m.task(format!("{writes:?}"), move || writes.iter().for_each(|write| this.write(*write)));
    }

    /// Checks that nothing was delivered, and that it is pending.
    fn kept(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.at_quiescence("what is masked is pending", move || {
            let pending = this.capability.observe(|all| all.as_ref().map(|msi| msi.read(16, 1)));
            let found = (this.delivered.observe(Vec::len), pending);
            (found == (0, Some(1))).then_some(()).ok_or_else(|| format!("{found:?}"))
        });
    }

    /// Checks that so many interrupts were delivered, each by a message that the guest has written,
    /// that none is pending, and that the next one goes by its last message.
    fn delivered(self: &Rc<Self>, m: &Machine, number: std::ops::RangeInclusive<usize>, last: u32) {
        let this = Rc::clone(self);
        m.at_quiescence("what was signalled was delivered, and the last message is in force", {
            move || {
                let delivered = this.delivered.observe(Vec::clone);
                let known = delivered.iter().all(|data| [0x41, 0x51, 0x52].contains(data));
                this.signal();
                let next = this.delivered.observe(Vec::clone).split_off(delivered.len());
                let right = number.contains(&delivered.len()) && known && next == [last];
                right.then_some(()).ok_or_else(|| format!("{delivered:x?}, then {next:x?}"))
            }
        });
    }
}
