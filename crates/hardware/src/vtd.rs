//! An IOMMU that posts interrupts (VT-d), and the descriptors that it posts to: one of the cases'
//! own, and the shipped one.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::Sim;
use doorbell_explore::sim::{Model, both, note};
use doorbell_platform::{Atomic, CpuId, Platform, Vector};
use doorbell_post::{Pending, PiControl, PiGate, Post};

/// The notification vector of a vCPU that sleeps: an ordinary interrupt of the host.
pub const WAKEUP: Vector = Vector(0xf1);

/// A posted-interrupt descriptor. To the hardware it is one cache line: whoever posts changes the
/// requests and the control bits in one step. What software does to it in several instructions is
/// several calls.
pub struct Descriptor {
    name: &'static str,
    line: Model<Posted>,
}

doorbell_platform::opaque_debug!([] Descriptor; name);

/// What a [`Descriptor`] holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The posted-interrupt requests, a bit for each of the first vectors.
    pub pir: u8,
    /// Outstanding notification: it was sent, and nobody has looked at the requests since.
    pub on: bool,
    /// Suppress notification.
    pub sn: bool,
    /// The vector of the notification.
    pub nv: Vector,
    /// The CPU that gets it.
    pub ndst: CpuId,
}

doorbell_platform::opaque_debug!([] Posted; pir, on, sn, nv, ndst);

impl Descriptor {
    /// Creates a descriptor with nothing posted; notifications of `nv` go to `ndst`.
    #[track_caller]
    pub fn new(name: &'static str, nv: Vector, ndst: CpuId) -> Descriptor {
        Descriptor {
            name,
            line: Model::new(name, Posted { pir: 0, on: false, sn: false, nv, ndst }),
        }
    }

    /// Reads it.
    #[track_caller]
    pub fn observe<R>(&self, f: impl FnOnce(&Posted) -> R) -> R {
        let (seen, result) = self.line.observe(|posted| (*posted, f(posted)));
        note(|| format!("sees {seen}, {}", self.name));
        result
    }

    /// Changes it.
    #[track_caller]
    pub fn change<R>(&self, f: impl FnOnce(&mut Posted) -> R) -> R {
        let (before, after, result) = self.line.change(|posted| {
            let before = *posted;
            let result = f(posted);
            (before, *posted, result)
        });
        note(|| format!("{}, {}", before.to(&after), self.name));
        result
    }
}

/// A notification that has to be sent.
#[must_use = "the hardware sends it"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification {
    /// The notification's vector in the host.
    pub vector: Vector,
    /// Where it goes.
    pub cpu: CpuId,
}

impl Posted {
    /// Posts by a request of an IOMMU, which is not urgent.
    pub fn post(&mut self, vector: u8) -> Option<Notification> {
        self.pir |= 1 << vector;
        if self.on || self.sn {
            return None;
        }
        self.on = true;
        Some(self.notification())
    }

    /// Where a notification goes now.
    fn notification(&self) -> Notification {
        Notification { vector: self.nv, cpu: self.ndst }
    }

    /// What is different afterwards, for traces.
    fn to(&self, after: &Posted) -> String {
        let mut changes = Vec::new();
        let mut change = |name: &str, before: String, after: String| {
            if before != after {
                changes.push(format!("{name} {before} → {after}"));
            }
        };
        change("PIR", format!("{:#b}", self.pir), format!("{:#b}", after.pir));
        change("ON", u8::from(self.on).to_string(), u8::from(after.on).to_string());
        change("SN", u8::from(self.sn).to_string(), u8::from(after.sn).to_string());
        change("NV", format!("{:#x}", self.nv.0), format!("{:#x}", after.nv.0));
        change("NDST", self.ndst.to_string(), after.ndst.to_string());
        if changes.is_empty() { format!("keeps {self}") } else { changes.join(", ") }
    }
}

impl fmt::Display for Posted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Posted { pir, on, sn, nv, .. } = *self;
        write!(f, "PIR {pir:#b} ON {} SN {} NV {:#x}", u8::from(on), u8::from(sn), nv.0)
    }
}

impl Notification {
    /// Sends it: one step more, in which it becomes pending at its CPU.
    #[track_caller]
    pub fn send(self) {
        Sim::send_ipi(self.cpu, self.vector);
    }
}

/// Posts the interrupt of a device, which comes to the IOMMU.
#[track_caller]
pub fn post(descriptor: &Descriptor, vector: u8) {
    if let Some(notification) = descriptor.change(|posted| posted.post(vector)) {
        notification.send();
    }
}

/// Posts as [`post`] does, to a descriptor of `doorbell-post` (VT-d specification, section 5.2.3):
/// one atomic step on the bit, ON and SN, for a vector below 64 that is not urgent; then the
/// notification.
#[track_caller]
pub fn post_to<const WORDS: usize>(
    descriptor: &Post<Sim, Pending<Sim, WORDS>, PiGate<Sim>>,
    vector: usize,
) {
    if let Some(notification) = publish(descriptor, vector) {
        notification.send();
    }
}

/// Takes the step of [`post_to`], without the notification.
#[track_caller]
pub fn publish<const WORDS: usize>(
    descriptor: &Post<Sim, Pending<Sim, WORDS>, PiGate<Sim>>,
    vector: usize,
) -> Option<Notification> {
    let announces = |word: PiControl| !word.outstanding() && !word.suppressed();
    let (_, before) =
        both(&descriptor.layout().words()[0], descriptor.gate().word(), |pir, control| {
            let word = PiControl::from_bits(control);
            (pir | 1 << vector, word.with_outstanding(word.outstanding() || announces(word)).bits())
        });
    let word = PiControl::from_bits(before);
    announces(word)
        .then(|| Notification { vector: word.vector(), cpu: CpuId(word.destination().bits()) })
}

/// Does what a CPU in guest mode does first when its notification comes: nobody has been told any
/// more.
#[track_caller]
pub fn taken(gate: &PiGate<Sim>) {
    gate.word().fetch_and(!1, SeqCst);
}
