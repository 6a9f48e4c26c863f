//! The reported code, in our own words: how KVM keeps irqfds that resample, as far as locks, grace
//! periods and memory go.
//!
//! A resampler is what the irqfds of one GSI have in common. It has one ack notifier, which is on a
//! list of the VM, and a list of its irqfds; an acknowledgement walks both in a read section of
//! `irq_srcu`, so whoever takes something off one of them waits for a grace period before it is
//! freed. The question is what is held, and what is occupied, during that wait.

use std::sync::Arc;

use doorbell_explore::Sim;
use doorbell_explore::sim::{Ghost, Model, note, remark};
use doorbell_platform::{LockClass, Mutex, Platform, ReadDomain, WaitType};

use super::list::List;

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

/// A grace period that the code waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Grace {
    /// After an irqfd was put on its resampler's list, before it goes live.
    Joins,
    /// After one was taken off that is not the last, before it is freed.
    Leaves,
    /// After the ack notifier was taken off its list, before the resampler is freed.
    Unregisters,
}

/// What an acknowledgement does first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AckOrder {
    /// The line is lowered, and then the irqfds are told: what the code does.
    LowersFirst,
    /// The other way round: a planted fault.
    TellsFirst,
}

/// An irqfd, by number.
pub(super) type Irqfd = u32;

/// How the code behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Behaviour {
    pub wait: Wait,
    /// Left out: a planted fault.
    pub skipped: Option<Grace>,
    pub ack: AckOrder,
}

/// The part of a VM that irqfds which resample share. There is one GSI.
pub(super) struct Kvm {
    behaviour: Behaviour,
    /// Protects which resampler there is, and its list.
    resampler_lock: Mutex<Sim, Option<Arc<Resampler>>>,
    /// Protects the list of ack notifiers, each of which is part of a resampler.
    irq_lock: Mutex<Sim, ()>,
    notifiers: List<Arc<Resampler>>,
    irq_srcu: <Sim as Platform>::Srcu,
    /// The interrupt line of the GSI.
    pub line: Model<Line>,
}

/// An interrupt line, and who waits to hear of it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Line {
    /// As the irqfds drive it.
    pub high: bool,
    /// The irqfd whose device was not told that its interrupt was acknowledged.
    pub owed: Option<Irqfd>,
}

/// What the irqfds of the GSI have in common.
struct Resampler {
    irqfds: List<Arc<Assigned>>,
    memory: Ghost,
}

/// An irqfd's memory.
struct Assigned {
    number: Irqfd,
    memory: Ghost,
}

impl Assigned {
    fn new(number: Irqfd) -> Arc<Assigned> {
        let name = ["irqfd 0", "irqfd 1", "irqfd 2", "irqfd 3"][number as usize];
        Arc::new(Assigned { number, memory: Ghost::new(name) })
    }
}

impl Resampler {
    fn new(irqfds: impl IntoIterator<Item = Irqfd>) -> Arc<Resampler> {
        let irqfds = List::new("irqfds of a resampler", irqfds.into_iter().map(Assigned::new));
        Arc::new(Resampler { irqfds, memory: Ghost::new("the resampler") })
    }
}

impl Kvm {
    /// Returns a VM with these irqfds assigned.
    pub(super) fn new(behaviour: Behaviour, irqfds: Vec<Irqfd>) -> Kvm {
        let resampler = (!irqfds.is_empty()).then(|| Resampler::new(irqfds));
        Kvm {
            behaviour,
            notifiers: List::new("ack notifiers", resampler.clone()),
            resampler_lock: Mutex::new(&RESAMPLER_LOCK, resampler),
            irq_lock: Mutex::new(&IRQ_LOCK, ()),
            irq_srcu: <Sim as Platform>::Srcu::new("irq_srcu"),
            line: Model::new("interrupt line", Line::default()),
        }
    }

    fn synchronize(&self, grace: Grace) {
        if self.behaviour.skipped != Some(grace) {
            self.irq_srcu.synchronize_expedited();
        }
    }

    /// Assigns an irqfd.
    pub(super) fn assign(&self, irqfd: Irqfd) {
        let assigned = Assigned::new(irqfd);
        let mut resampler = self.resampler_lock.lock();
        remark(|| {
            format!(
                "irqfd {irqfd} joins {} resampler",
                if resampler.is_some() { "the" } else { "a new" }
            )
        });
        let joined = resampler.get_or_insert_with(|| {
            let new = Resampler::new([]);
            let _registers = self.irq_lock.lock();
            // Registering needs no grace period.
            self.notifiers.add(Arc::clone(&new));
            new
        });
        joined.irqfds.add(assigned);
        if self.behaviour.wait == Wait::Outside {
            drop(resampler);
            self.synchronize(Grace::Joins);
        } else {
            self.synchronize(Grace::Joins);
            drop(resampler);
        }
    }

    /// Takes an irqfd off its resampler and frees it: a worker's job, when the irqfd was deassigned
    /// or its eventfd was closed.
    pub(super) fn shutdown(&self, irqfd: Irqfd) {
        let mut resampler = self.resampler_lock.lock();
        let Some(left) = resampler.clone() else { return };
        let (leaves, last) = left.irqfds.remove(|other| other.number == irqfd);
        note(|| {
            let last = if last { ", the last one" } else { "" };
            format!("irqfd {irqfd} leaves the resampler{last}")
        });
        if last {
            *resampler = None;
        }
        if self.behaviour.wait == Wait::Outside {
            drop(resampler);
            self.leave(last.then_some(&left));
        } else {
            self.leave(last.then_some(&left));
            drop(resampler);
        }
        if let Some(leaves) = leaves {
            leaves.memory.free();
        }
    }

    /// Ends what an irqfd had to do with its resampler, which is given if it was the last one.
    fn leave(&self, last: Option<&Arc<Resampler>>) {
        let Some(resampler) = last else { return self.synchronize(Grace::Leaves) };
        self.unregister_ack_notifier(resampler);
        // Nobody is left who would lower it.
        self.line.change(|line| line.high = false);
        note(|| "the line is low".to_owned());
        resampler.memory.free();
    }

    fn unregister_ack_notifier(&self, resampler: &Arc<Resampler>) {
        let registered = self.irq_lock.lock();
        self.notifiers.remove(|other| Arc::ptr_eq(other, resampler));
        drop(registered);
        self.synchronize(Grace::Unregisters);
    }

    /// Raises the line, as a device does that signals an irqfd which is assigned.
    pub(super) fn inject(&self, irqfd: Irqfd) {
        let _section = self.irq_srcu.read();
        self.line.change(|line| *line = Line { high: true, owed: Some(irqfd) });
        note(|| format!("irqfd {irqfd} raises the line"));
    }

    /// Acknowledges the interrupt, as the guest does: the line is lowered, and who may have raised
    /// it is told.
    pub(super) fn ack(&self) {
        let _section = self.irq_srcu.read();
        self.notifiers.walk(|resampler| {
            resampler.memory.access();
            if self.behaviour.ack == AckOrder::TellsFirst {
                self.tell(resampler);
            }
            self.line.change(|line| line.high = false);
            note(|| "the line is low".to_owned());
            if self.behaviour.ack == AckOrder::LowersFirst {
                self.tell(resampler);
            }
        });
    }

    fn tell(&self, resampler: &Resampler) {
        resampler.irqfds.walk(|irqfd| {
            irqfd.memory.access();
            self.line.change(|line| line.owed = line.owed.filter(|owed| *owed != irqfd.number));
            note(|| format!("tells irqfd {}", irqfd.number));
        });
    }

    /// Returns how many irqfds, and how many ack notifiers, are left.
    pub(super) fn left(&self) -> (usize, usize) {
        let resampler = self.resampler_lock.lock();
        (resampler.as_ref().map_or(0, |resampler| resampler.irqfds.len()), self.notifiers.len())
    }
}
