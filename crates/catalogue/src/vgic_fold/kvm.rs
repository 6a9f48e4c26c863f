//! The reported code, in our own words: how KVM queues interrupts for a vCPU, and what others do to
//! its list.

use doorbell_explore::Sim;
use doorbell_explore::sim::{Model, fail, note, remark};
use doorbell_platform::{Lock, LockClass, Mutex, Platform, ReadDomain, Subclass, WaitType};

use super::irq::{Id, Insertion, Irq, Irqs, Link, Removal, State, Vcpu};
use super::scope::{Eventfd, Scope, Stops};

static AP_LIST_LOCK: LockClass = LockClass::new("ap_list_lock", WaitType::Spin);
static EVENTFD: LockClass = LockClass::new("eventfd.wqh", WaitType::Spin);
static EVENTFD_SLEEPS: LockClass = LockClass::new("eventfd.wqh (PREEMPT_RT)", WaitType::Sleep);

/// The mode of a vCPU, as it tells others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Outside,
    InGuest,
}

/// A request to a vCPU to stay out of its guest.
#[derive(Default)]
pub(super) struct Pause {
    /// The request is pending. The vCPU that has seen it clears it.
    pub asked: bool,
    /// The vCPU waits until this is over.
    pub paused: bool,
}

/// The lock of the eventfd that a resampling irqfd signals, around the number of times that it was.
enum Heard {
    Spins(Lock<Sim, u32>),
    Sleeps(Mutex<Sim, u32>),
}

/// A VM with two vCPUs.
pub(super) struct Kvm {
    pub scope: Scope,
    pub irqs: Irqs,
    /// The interrupts that are pending or active, for each vCPU.
    pub ap_list: [Lock<Sim, Vec<Id>>; 2],
    pub rcu: <Sim as Platform>::Rcu,
    /// The mode of vCPU0.
    pub mode: Model<Mode>,
    /// The request to vCPU0.
    pub pause: Model<Pause>,
    heard: Heard,
}

impl Kvm {
    /// Creates a VM in which vCPU0 has interrupts on its list.
    pub(super) fn new(scope: Scope) -> Kvm {
        let lists = scope.lists();
        Kvm {
            scope,
            irqs: Irqs::new(&lists),
            ap_list: lists.map(|list| Lock::new(&AP_LIST_LOCK, list)),
            rcu: <Sim as Platform>::Rcu::new("rcu"),
            mode: Model::new("mode", Mode::Outside),
            pause: Model::new("pause", Pause::default()),
            heard: match scope.eventfd {
                Eventfd::Sleeps => Heard::Sleeps(Mutex::new(&EVENTFD_SLEEPS, 0)),
                Eventfd::Quiet | Eventfd::Injects => Heard::Spins(Lock::new(&EVENTFD, 0)),
            },
        }
    }

    /// Returns that interrupt.
    pub(super) fn irq(&self, id: Id) -> &Irq {
        self.irqs.at(id)
    }

    /// Returns the vCPU that an interrupt is for now, if any. The caller holds `irq_lock`.
    pub(super) fn oracle(irq: &Irq, state: &State) -> Option<Vcpu> {
        match (state.active, state.pending) {
            (true, _) => irq.on().or(Some(state.target)),
            (false, true) => Some(state.target),
            (false, false) => None,
        }
    }

    /// Makes an interrupt pending, and puts it on its target's list.
    pub(super) fn inject(&self, id: Id) {
        let irq = self.irq(id);
        let to = {
            let mut state = irq.lock();
            state.pending = true;
            if irq.on().is_some() {
                return;
            }
            state.target
        };
        let mut list = self.ap_list[to].lock_irqsave();
        let state = irq.lock();
        if irq.on().is_none() {
            irq.get();
            let _held = self.while_inserted(state);
            self.irqs.link(&mut list, to, id, self.scope.insertion);
        }
    }

    /// Keeps `irq_lock` for an insertion, but for the planted fault.
    fn while_inserted<T>(&self, irq_lock: T) -> Option<T> {
        (self.scope.insertion != Insertion::Unlocked).then_some(irq_lock)
    }

    /// Disables the LPIs of vCPU0, whose `GICR_CTLR.EnableLPIs` the guest clears on another vCPU.
    pub(super) fn disable_lpis(&self) {
        let lpi = self.irq(Id::Lpi);
        let mut deleted = false;
        {
            let mut list = self.ap_list[0].lock_irqsave();
            remark(|| "disables the LPIs of vCPU0".to_owned());
            if list.contains(&Id::Lpi) {
                let _state = lpi.lock();
                self.irqs.unlink(&mut list, 0, Id::Lpi, self.scope.removal);
                deleted = lpi.put();
            }
        }
        if deleted {
            lpi.release(&self.rcu);
        }
    }

    /// Disables the LPIs of vCPU0 with vCPU0 out of its guest.
    pub(super) fn stop_and_disable_lpis(&self) {
        self.pause.change(|pause| (pause.asked, pause.paused) = (true, true));
        note(|| "asks vCPU0 to leave its guest".to_owned());
        // A kick would only have the guest exit, as it does here anyway.
        self.mode.wait(|mode| *mode == Mode::Outside, |_| ());
        note(|| "vCPU0 is outside of its guest".to_owned());
        self.disable_lpis();
        self.pause.change(|pause| {
            pause.paused = false;
            pause.asked &= self.scope.stops != Stops::TakenBack;
        });
        note(|| "lets vCPU0 go on".to_owned());
    }

    /// Unmaps the LPI, as the guest asks by `DISCARD`. It stays on a list that it is on.
    pub(super) fn discard(&self) {
        let lpi = self.irq(Id::Lpi);
        let last = lpi.put();
        remark(|| "the mapping's is dropped".to_owned());
        if last {
            lpi.release(&self.rcu);
        }
    }

    /// Signals the LPI, which the guest has sent to that vCPU and enabled there.
    pub(super) fn signal(&self, vcpu: Vcpu) {
        self.irq(Id::Lpi).lock().target = vcpu;
        remark(|| format!("LPI 8192 goes to vCPU{vcpu}"));
        self.inject(Id::Lpi);
    }

    /// Cleans up the list of the vCPU that calls it, after its fold: what is neither pending nor
    /// active goes, and what is another vCPU's is handed over. Nobody calls it for another vCPU's
    /// list.
    pub(super) fn prune(&self, me: Vcpu) {
        let (mut moves, mut deleted) = (Vec::new(), Vec::new());
        {
            let mut list = self.ap_list[me].lock_irqsave();
            for id in list.clone() {
                let irq = self.irq(id);
                let state = irq.lock();
                match Self::oracle(irq, &state) {
                    Some(to) if to == me => {}
                    Some(to) => {
                        if self.scope.migration.holds {
                            irq.get();
                        }
                        moves.push((id, to));
                    }
                    None => {
                        self.irqs.unlink(&mut list, me, id, Removal::Poisons);
                        if irq.put() {
                            deleted.push(id);
                        }
                    }
                }
            }
        }
        deleted.into_iter().for_each(|id| self.irq(id).release(&self.rcu));
        // Two lists' locks are taken in the order of the vCPUs, so the own one cannot be kept.
        for (id, to) in moves {
            let mut low = self.ap_list[me.min(to)].lock_irqsave();
            let mut high = self.ap_list[me.max(to)].lock_nested(Subclass::new(1));
            let (from, into) =
                if me < to { (&mut *low, &mut *high) } else { (&mut *high, &mut *low) };
            let irq = self.irq(id);
            let state = irq.lock();
            let ours = irq.is_on(me);
            if Self::oracle(irq, &state) == Some(to) && (ours || !self.scope.migration.checks) {
                if !ours {
                    fail(format!(
                        "takes {} off the list of vCPU{me}, which it is not on",
                        id.name()
                    ));
                    return;
                }
                self.irqs.unlink(from, me, id, Removal::Poisons);
                let _held = self.while_inserted(state);
                self.irqs.link(into, to, id, self.scope.insertion);
            } else {
                drop(state);
            }
            drop((low, high));
            if self.scope.migration.holds && irq.put() {
                irq.release(&self.rcu);
            }
        }
    }

    /// Tells the irqfd whose level this is that the guest has ended its interrupt. The eventfd that
    /// it signals calls whoever listens to it, under a lock of its own: another irqfd, for one,
    /// which injects.
    pub(super) fn acked(&self) {
        match &self.heard {
            Heard::Spins(heard) => {
                let mut heard = heard.lock_irqsave();
                remark(|| "the irqfd hears that SPI 33 was ended".to_owned());
                *heard += 1;
                if self.scope.eventfd == Eventfd::Injects {
                    self.inject(Id::Other);
                }
            }
            Heard::Sleeps(heard) => *heard.lock() += 1,
        }
    }

    /// Returns how often the irqfd was told.
    pub(super) fn heard(&self) -> u32 {
        match &self.heard {
            Heard::Spins(heard) => *heard.lock(),
            Heard::Sleeps(heard) => *heard.lock(),
        }
    }

    /// Follows a pointer in a walk along that vCPU's list. `None` at its end, and where the pointer
    /// leads to no interrupt: that is the end of the run, too.
    pub(super) fn follow(&self, link: Link, me: Vcpu) -> Option<Id> {
        match link {
            Link::Irq(id) => Some(id),
            Link::Head(vcpu) if vcpu == me => None,
            Link::Head(vcpu) => {
                fail(format!("takes the head of vCPU{vcpu}'s list for an interrupt"));
                None
            }
            Link::Poison => {
                fail("follows a poisoned pointer");
                None
            }
        }
    }
}
