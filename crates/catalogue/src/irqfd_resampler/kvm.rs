//! The reported code, in our own words: how KVM keeps irqfds that resample, as far as locks and grace periods go.
//!
//! A resampler is what the irqfds of one GSI have in common. It is on the VM's list of resamplers and has one ack
//! notifier; both are walked in read sections of `irq_srcu`, so whoever changes one of them waits for a grace period
//! before it is done. The question is what is held, and what is occupied, during that wait.

use doorbell_explore::Sim;
use doorbell_explore::sim::{Model, remark};
use doorbell_platform::{LockClass, Mutex, Platform, ReadDomain, WaitType};

static RESAMPLER_LOCK: LockClass = LockClass::new("resampler_lock", WaitType::Sleep);
static IRQ_LOCK: LockClass = LockClass::new("irq_lock", WaitType::Sleep);

/// Where grace periods are awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// With `resampler_lock` held.
    Inside,
    /// After it was released; "was I the last one?" is decided before.
    Outside,
}

/// An irqfd, by number.
pub(super) type Irqfd = u32;

/// The part of a VM that irqfds which resample share. There is one GSI.
pub(super) struct Kvm {
    wait: Wait,
    resampler_lock: Mutex<Sim, Option<Resampler>>,
    /// Protects the list of ack notifiers; here, how many there are.
    irq_lock: Mutex<Sim, u32>,
    irq_srcu: <Sim as Platform>::Srcu,
    /// The interrupt line of the GSI, as the irqfds drive it.
    pub line: Model<bool>,
}

/// What the irqfds of the GSI have in common.
struct Resampler {
    irqfds: Vec<Irqfd>,
}

impl Kvm {
    /// A VM with these irqfds assigned.
    pub(super) fn new(wait: Wait, irqfds: Vec<Irqfd>) -> Kvm {
        Kvm {
            wait,
            resampler_lock: Mutex::new(&RESAMPLER_LOCK, Some(Resampler { irqfds })),
            irq_lock: Mutex::new(&IRQ_LOCK, 1),
            irq_srcu: <Sim as Platform>::Srcu::new("irq_srcu"),
            line: Model::new("interrupt line", false),
        }
    }

    /// Assigns an irqfd.
    pub(super) fn assign(&self, irqfd: Irqfd) {
        let mut resampler = self.resampler_lock.lock();
        remark(|| format!("irqfd {irqfd} joins {} resampler", if resampler.is_some() { "the" } else { "a new" }));
        match &mut *resampler {
            Some(resampler) => resampler.irqfds.push(irqfd),
            None => {
                *resampler = Some(Resampler { irqfds: vec![irqfd] });
                // Registering needs no grace period.
                *self.irq_lock.lock() += 1;
            }
        }
        if self.wait == Wait::Outside {
            drop(resampler);
            self.irq_srcu.synchronize_expedited();
        } else {
            self.irq_srcu.synchronize_expedited();
            drop(resampler);
        }
    }

    /// Takes an irqfd off its resampler: a worker's job, when the irqfd was deassigned or its eventfd was closed.
    pub(super) fn shutdown(&self, irqfd: Irqfd) {
        let mut resampler = self.resampler_lock.lock();
        let last = match &mut *resampler {
            Some(shared) => {
                shared.irqfds.retain(|&other| other != irqfd);
                shared.irqfds.is_empty()
            }
            None => false,
        };
        remark(|| format!("irqfd {irqfd} leaves{}", if last { ", the last one" } else { "" }));
        if last {
            *resampler = None;
        }
        if self.wait == Wait::Outside {
            drop(resampler);
            self.leave(last);
        } else {
            self.leave(last);
            drop(resampler);
        }
    }

    fn leave(&self, last: bool) {
        if last {
            self.unregister_ack_notifier();
            // Nobody is left who would lower it.
            self.line.change(|level| *level = false);
            remark(|| "low".to_owned());
        } else {
            self.irq_srcu.synchronize_expedited();
        }
    }

    fn unregister_ack_notifier(&self) {
        *self.irq_lock.lock() -= 1;
        self.irq_srcu.synchronize_expedited();
    }

    /// A device signals an irqfd that is assigned.
    pub(super) fn inject(&self) {
        let _section = self.irq_srcu.read();
        self.line.change(|level| *level = true);
        remark(|| "high".to_owned());
    }

    /// How many irqfds, and how many ack notifiers, are left.
    pub(super) fn left(&self) -> (usize, u32) {
        let irqfds = self.resampler_lock.lock().as_ref().map_or(0, |resampler| resampler.irqfds.len());
        (irqfds, *self.irq_lock.lock())
    }
}
