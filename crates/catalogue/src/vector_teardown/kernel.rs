//! The host's side, as far as the case goes: the vector tables, a descriptor, and how an interrupt
//! is requested, freed and taken.
//!
//! An entry of a vector table is written under the vector lock by whoever requests and frees, and
//! read without it by the CPU whose table it is. As reported, that CPU also writes it without the
//! lock.
//!
//! The descriptor's own lock is not here: what is done under it is one step, or is in an order in
//! which nobody could tell that it is more than one. An interrupt that finds the descriptor without
//! an action is kept, and sent again when there is one: what gets lost is lost at the vector table.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::Sim;
use doorbell_explore::sim::{Ghost, Model, fail, note, remark};
use doorbell_platform::{CpuId, Lock, LockClass, Platform, ReadDomain, Vector, WaitType};

use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::Device;

static VECTOR_LOCK: LockClass = LockClass::new("vector_lock", WaitType::Spin);

/// What a vector table says of a vector. There is one descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// Nobody's.
    Unused,
    /// The vector was somebody's, and one more interrupt may come.
    Shutdown,
    /// The descriptor's.
    Installed,
}

/// What the interrupt entry does about a vector that is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryCode {
    /// The handler writes without the lock, by what it has read without it.
    Unlocked,
    /// The handler looks again under the vector lock, and goes by that.
    Reevaluates,
    /// The same, but it says of what it has not handled that it has, so that nobody ends it: a
    /// planted fault.
    ReevaluatesWrongly,
}

/// When a descriptor that was given back is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DescFreed {
    /// After a grace period.
    AfterGrace,
    /// At once: a planted fault.
    AtOnce,
}

/// What a driver has the core call.
pub(super) type Action = Rc<dyn Fn()>;

struct Desc {
    /// None while it is free.
    action: Option<Action>,
    in_progress: bool,
    /// An interrupt came while there was no action.
    kept: bool,
}

/// The parts of the kernel that one interrupt uses, whose vector is always the same.
pub(super) struct Kernel {
    code: EntryCode,
    apics: Rc<Lapics>,
    device: Arc<Device>,
    /// Where its interrupts go.
    to: Message,
    /// What the target's table says of the vector.
    entry: Model<Entry>,
    vector_lock: Lock<Sim, ()>,
    desc: Model<Desc>,
    /// The descriptor's memory.
    memory: Ghost,
    /// Interrupt entries are read sections of it.
    rcu: <Sim as Platform>::Rcu,
    /// The overwrite is what is looked for, as of this moment.
    guarded: Cell<bool>,
}

impl Kernel {
    /// A kernel in which the interrupt was requested with that action.
    pub(super) fn new(
        code: EntryCode,
        apics: &Rc<Lapics>,
        device: &Arc<Device>,
        to: Message,
        action: Action,
    ) -> Rc<Self> {
        Rc::new(Kernel {
            code,
            apics: Rc::clone(apics),
            device: Arc::clone(device),
            to,
            entry: Model::new("vector_irq", Entry::Installed),
            vector_lock: Lock::new(&VECTOR_LOCK, ()),
            desc: Model::new(
                "irq_desc",
                Desc { action: Some(action), in_progress: false, kept: false },
            ),
            memory: Ghost::new("irq_desc"),
            rcu: <Sim as Platform>::Rcu::new("rcu"),
            guarded: Cell::new(false),
        })
    }

    /// From now on it is a failure to overwrite an entry that is installed.
    pub(super) fn guard(&self) {
        self.guarded.set(true);
    }

    fn vector(&self) -> Vector {
        self.to.vector
    }

    fn write(&self, entry: Entry) {
        let before = self.entry.change(|now| std::mem::replace(now, entry));
        note(|| format!("vector_irq: {before:?} → {entry:?}"));
        if self.guarded.get() && before == Entry::Installed && entry == Entry::Unused {
            fail(format!(
                "the interrupt entry overwrites the descriptor that is installed for {}",
                self.to
            ));
        }
    }

    fn read(&self) -> Entry {
        let entry = self.entry.observe(|entry| *entry);
        note(|| format!("vector_irq is {entry:?}"));
        entry
    }

    /// What the target CPU does when it is given the vector.
    pub(super) fn interrupt(&self, vector: Vector) {
        let section = self.rcu.read();
        // Another vector is one that a broken device has put together: nobody's.
        let installed = vector == self.vector() && self.finds_descriptor();
        if installed {
            self.handle();
        }
        drop(section);
        if installed || self.code != EntryCode::ReevaluatesWrongly {
            self.apics.eoi();
        }
    }

    fn finds_descriptor(&self) -> bool {
        match (self.read(), self.code) {
            (Entry::Installed, _) => true,
            (Entry::Shutdown, EntryCode::Unlocked) => {
                self.write(Entry::Unused);
                false
            }
            // Reported as an interrupt that nobody handles.
            (Entry::Unused, EntryCode::Unlocked) => false,
            (_, EntryCode::Reevaluates | EntryCode::ReevaluatesWrongly) => {
                let guard = self.vector_lock.lock();
                let entry = self.read();
                if entry == Entry::Shutdown {
                    self.write(Entry::Unused);
                }
                drop(guard);
                entry == Entry::Installed
            }
        }
    }

    fn handle(&self) {
        self.memory.access();
        let action = self.desc.change(|desc| {
            desc.in_progress = desc.action.is_some();
            desc.kept = desc.action.is_none();
            desc.action.clone()
        });
        note(|| {
            if action.is_some() { "handler in progress" } else { "no action: kept" }.to_owned()
        });
        let Some(action) = action else { return };
        action();
        self.desc.change(|desc| desc.in_progress = false);
        note(|| "handler done".to_owned());
    }

    /// `free_irq`.
    pub(super) fn free(&self) {
        self.desc.change(|desc| desc.action = None);
        note(|| "frees: no action".to_owned());
        self.device.mask(true);
        // Knows of handlers that run, not of vectors that wait in an IRR.
        self.desc.wait(|desc| !desc.in_progress, |_| ());
        note(|| "synchronizes: none runs".to_owned());
        self.device.write_message(Message { cpu: CpuId(0), vector: Vector(0) });
        let guard = self.vector_lock.lock_irqsave();
        self.write(Entry::Shutdown);
        drop(guard);
    }

    /// `request_irq`: the vector that was free last is given out first.
    pub(super) fn request(&self, action: Action) {
        // Nobody finds the descriptor before it is installed.
        let kept = self.desc.change(|desc| {
            desc.action = Some(action);
            std::mem::take(&mut desc.kept)
        });
        note(|| "requests: new action".to_owned());
        let guard = self.vector_lock.lock_irqsave();
        self.write(Entry::Installed);
        drop(guard);
        self.device.write_message(self.to);
        self.device.mask(false);
        if kept {
            self.apics.arrive(self.to);
        }
    }

    /// The descriptor, whose interrupt is free, is given back.
    pub(super) fn give_back(&self, freed: DescFreed) {
        if freed == DescFreed::AfterGrace {
            self.rcu.synchronize();
        }
        self.memory.free();
    }

    /// The proposed repair: after a request, whatever the entry says is made to be the descriptor.
    /// With `guards`, it is a failure to overwrite that afterwards.
    pub(super) fn repair(&self, guards: bool) {
        let guard = self.vector_lock.lock_irqsave();
        if self.read() == Entry::Installed {
            remark(|| "nothing to repair".to_owned());
        } else {
            self.write(Entry::Installed);
            remark(|| "repaired".to_owned());
        }
        // Part of the step that was the last to use the entry.
        self.guarded.set(self.guarded.get() || guards);
        drop(guard);
    }

    /// What the table says, for conditions of quiescence.
    pub(super) fn is_installed(&self) -> bool {
        self.entry.observe(|entry| *entry) == Entry::Installed
    }
}
