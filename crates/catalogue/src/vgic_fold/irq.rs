//! Interrupts, and the lists that they are on.
//!
//! A list is intrusive: each interrupt on it has a `next` pointer, which is a word of its own,
//! since a fold may read it while somebody else changes the list. The pointers back, and those of
//! the head, are followed under the list's lock only; what they say is the vector that the lock
//! protects.

use std::cell::Cell;
use std::sync::Arc;

use doorbell_explore::Sim;
use doorbell_explore::sim::{Ghost, Model, fail, note, remark};
use doorbell_platform::{Lock, LockClass, Platform, ReadDomain, WaitType};

static IRQ_LOCK: LockClass = LockClass::new("irq_lock", WaitType::Spin);

/// A virtual CPU, by number.
pub(super) type Vcpu = usize;

/// An interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Id {
    /// An LPI, which can be unmapped and freed.
    Lpi,
    /// An SPI of an edge that is pending at vCPU0.
    Pending,
    /// An SPI of a level that the guest of vCPU0 is handling, and which a resampling irqfd wants to
    /// hear of.
    Active,
    /// An SPI that comes to vCPU0 meanwhile.
    Other,
}

impl Id {
    const ALL: [Id; 4] = [Id::Lpi, Id::Pending, Id::Active, Id::Other];

    /// Returns what traces call it.
    pub(super) fn name(self) -> &'static str {
        ["LPI 8192", "SPI 32", "SPI 33", "SPI 34"][self as usize]
    }
}

/// What a `next` pointer leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// To the next interrupt on the list.
    Irq(Id),
    /// To the head of a list: this was the last one.
    Head(Vcpu),
    /// To no memory at all: the interrupt was removed.
    Poison,
}

impl Link {
    fn told(self) -> String {
        match self {
            Link::Irq(id) => id.name().to_owned(),
            Link::Head(vcpu) => format!("the head of vCPU{vcpu}'s list"),
            Link::Poison => "poison".to_owned(),
        }
    }
}

/// The function with which an interrupt is taken off a list when LPIs are disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Removal {
    /// `list_del`: the pointer is poisoned.
    Poisons,
    /// `list_del_rcu`: the pointer stays.
    KeepsNext,
}

/// The order in which an interrupt is put at the tail of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Insertion {
    /// The order of the code: its own pointer is written first.
    InOrder,
    /// The pointer to it first, as others may see it where stores can change places.
    Reordered,
    /// The same, and without `irq_lock`: a planted fault.
    Unlocked,
}

/// The part of an interrupt that `irq_lock` protects.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub pending: bool,
    pub active: bool,
    pub target: Vcpu,
}

/// An interrupt's memory.
pub(super) struct Irq {
    pub id: Id,
    state: Lock<Sim, State>,
    /// The vCPU on whose list it is. Written under that list's lock and `irq_lock`, and read under
    /// one of them, so it needs no visible step.
    vcpu: Cell<Option<Vcpu>>,
    next: Model<Link>,
    /// None for what lives as long as the VM.
    lpi: Option<Lpi>,
}

/// The references of an LPI, and its memory, which is freed a grace period after the last of them.
struct Lpi {
    references: Model<u32>,
    memory: Arc<Ghost>,
}

impl Irq {
    /// Takes `irq_lock`.
    #[track_caller]
    pub(super) fn lock(&self) -> impl std::ops::DerefMut<Target = State> + '_ {
        self.state.lock()
    }

    /// Touches its memory, without a lock that keeps it on a list. Whoever walks without one reads
    /// the pointer of each interrupt, so there it is seen that one was freed.
    #[track_caller]
    fn touch(&self) {
        if let Some(lpi) = &self.lpi {
            lpi.memory.access();
        }
    }

    /// Returns on whose list it is, for who holds `irq_lock`.
    pub(super) fn on(&self) -> Option<Vcpu> {
        self.vcpu.get()
    }

    /// Returns whether it is on that list, of which the caller holds the lock. It may have been
    /// found anywhere.
    #[track_caller]
    pub(super) fn is_on(&self, vcpu: Vcpu) -> bool {
        self.touch();
        let is_on = self.vcpu.get() == Some(vcpu);
        remark(|| format!("it is {} vCPU{vcpu}'s list", if is_on { "on" } else { "not on" }));
        is_on
    }

    fn put_on(&self, vcpu: Option<Vcpu>) {
        let before = self.vcpu.replace(vcpu);
        remark(|| match vcpu.or(before) {
            Some(list) => {
                format!("{} vCPU{list}'s list", if vcpu.is_some() { "on" } else { "off" })
            }
            None => "on no list".to_owned(),
        });
    }

    /// Reads the `next` pointer.
    #[track_caller]
    pub(super) fn next(&self) -> Link {
        self.touch();
        let next = self.next.observe(|next| *next);
        note(|| format!("{}: next is {}", self.id.name(), next.told()));
        next
    }

    #[track_caller]
    fn set_next(&self, link: Link) {
        self.next.change(|next| *next = link);
        note(|| format!("{}: next := {}", self.id.name(), link.told()));
    }

    /// Takes a reference, for who has one, or has found it on a list that it holds the lock of.
    #[track_caller]
    pub(super) fn get(&self) {
        if !self.try_get() {
            fail(format!("takes a reference to {}, which has none left", self.id.name()));
        }
    }

    /// Takes a reference unless the last one was dropped, as a look-up by number does. In its read
    /// section, the memory is still there.
    #[track_caller]
    pub(super) fn try_get(&self) -> bool {
        let Some(lpi) = &self.lpi else { return true };
        let mut left = 0;
        lpi.references.change_if(|references| {
            left = *references;
            *references += u32::from(left > 0);
            left > 0
        });
        note(|| match left {
            0 => format!("{} is not found any more", self.id.name()),
            _ => format!("{}: {left} → {} references", self.id.name(), left + 1),
        });
        left > 0
    }

    /// Drops a reference. Returns whether it was the last one: then it has to be released.
    #[must_use]
    #[track_caller]
    pub(super) fn put(&self) -> bool {
        let Some(lpi) = &self.lpi else { return false };
        let left = lpi.references.change(|references| {
            *references -= 1;
            *references
        });
        note(|| format!("{}: {} → {left} references", self.id.name(), left + 1));
        left == 0
    }

    /// Has it freed after a grace period. In the kernel this takes the lock of the table of LPIs,
    /// so a list's lock has to be dropped before.
    #[track_caller]
    pub(super) fn release(&self, rcu: &<Sim as Platform>::Rcu) {
        let memory = Arc::clone(&self.lpi.as_ref().expect("only LPIs are released").memory);
        rcu.call(Box::new(move || memory.free()));
    }

    /// Returns whether the guest has still to end it.
    pub(super) fn is_active(&self) -> bool {
        self.state.lock().active
    }
}

/// The interrupts of the VM.
pub(super) struct Irqs([Irq; 4]);

impl Irqs {
    /// Creates the interrupts: active or pending if they are on one of these lists, one for each
    /// vCPU.
    pub(super) fn new(lists: &[Vec<Id>; 2]) -> Irqs {
        Irqs(Id::ALL.map(|id| {
            let vcpu = lists.iter().position(|list| list.contains(&id));
            let next = vcpu.map_or(Link::Poison, |vcpu| {
                let mut after = lists[vcpu].iter().skip_while(|other| **other != id).skip(1);
                after.next().map_or(Link::Head(vcpu), |after| Link::Irq(*after))
            });
            let listed = vcpu.is_some();
            Irq {
                id,
                state: Lock::new(
                    &IRQ_LOCK,
                    State {
                        pending: listed && id != Id::Active,
                        active: listed && id == Id::Active,
                        target: 0,
                    },
                ),
                vcpu: Cell::new(vcpu),
                next: Model::new("next", next),
                lpi: (id == Id::Lpi).then(|| Lpi {
                    // That of the mapping, and that of the list.
                    references: Model::new("references", 1 + u32::from(listed)),
                    memory: Arc::new(Ghost::new(id.name())),
                }),
            }
        }))
    }

    /// Returns that interrupt.
    pub(super) fn at(&self, id: Id) -> &Irq {
        &self.0[id as usize]
    }

    /// Takes an interrupt off a list. The caller holds both their locks.
    #[track_caller]
    pub(super) fn unlink(&self, list: &mut Vec<Id>, vcpu: Vcpu, id: Id, removal: Removal) {
        let at = list.iter().position(|other| *other == id).expect("it is on that list");
        let after = list.get(at + 1).map_or(Link::Head(vcpu), |after| Link::Irq(*after));
        if at > 0 {
            self.at(list[at - 1]).set_next(after);
        }
        list.remove(at);
        if removal == Removal::Poisons {
            self.at(id).set_next(Link::Poison);
        }
        self.at(id).put_on(None);
    }

    /// Puts an interrupt at the tail of a list. The caller holds both their locks.
    #[track_caller]
    pub(super) fn link(&self, list: &mut Vec<Id>, vcpu: Vcpu, id: Id, insertion: Insertion) {
        let own = || self.at(id).set_next(Link::Head(vcpu));
        if insertion == Insertion::InOrder {
            own();
        }
        if let Some(last) = list.last() {
            self.at(*last).set_next(Link::Irq(id));
        }
        if insertion != Insertion::InOrder {
            own();
        }
        list.push(id);
        self.at(id).put_on(Some(vcpu));
    }

    /// Puts a list in that order, which names the same interrupts. The caller holds its lock.
    #[track_caller]
    pub(super) fn relink(&self, list: &mut Vec<Id>, vcpu: Vcpu, order: Vec<Id>) {
        for (at, id) in order.iter().enumerate() {
            self.at(*id)
                .set_next(order.get(at + 1).map_or(Link::Head(vcpu), |after| Link::Irq(*after)));
        }
        *list = order;
    }
}
