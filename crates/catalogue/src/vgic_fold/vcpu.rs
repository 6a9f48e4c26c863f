//! vCPU0: it fills its list register, runs its guest, folds, and cleans its list up.
//!
//! Interrupts are off all the while. That makes the code before the guest one read section of RCU
//! and the code after it another; the guest itself is none, so a grace period may end meanwhile.

use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable, note, remark};
use doorbell_platform::ReadDomain;

use super::irq::{Id, Vcpu};
use super::kvm::{Kvm, Mode};
use super::scope::{Cursor, Gic, Guest, Locking, Notifies, Stops};

const ME: Vcpu = 0;

/// The contents of a list register.
#[derive(Clone, Copy)]
struct ListRegister {
    id: Id,
    pending: bool,
    active: bool,
}

/// The part of a vCPU that nobody else looks at.
pub(super) struct VcpuState {
    /// There is one.
    lr: Option<ListRegister>,
    /// How many interrupts the guest has ended that are in no list register.
    eoi_count: u32,
    /// The last interrupt that went into a list register: those behind it on the list did not.
    last_lr_irq: Option<Id>,
    /// The guest has still to end the interrupt that is active.
    handles: bool,
    guest: Model<()>,
}

/// Things to do when a fold is over.
#[derive(Default)]
struct After {
    acked: u32,
    deleted: bool,
}

impl VcpuState {
    /// Creates a vCPU whose guest handles the interrupt that is active, or nothing.
    pub(super) fn new(handles: bool) -> VcpuState {
        VcpuState {
            lr: None,
            eoi_count: 0,
            last_lr_irq: None,
            handles,
            guest: Model::new("guest", ()),
        }
    }
}

impl Kvm {
    /// Runs the guest once. Returns whether a walk was skipped that would have had something to
    /// end.
    pub(super) fn run(&self, vcpu: &mut VcpuState) -> bool {
        let mut skipped = false;
        loop {
            if self.scope.stops != Stops::Nobody {
                self.stays_outside();
            }
            local_irq_disable();
            let section = self.rcu.read();
            self.flush(vcpu);
            let enters = self.scope.stops == Stops::Nobody || self.enters();
            if enters {
                drop(section);
                self.run_guest(vcpu);
                let section = self.rcu.read();
                skipped |= self.sync(vcpu, self.scope.stops == Stops::SaysOutsideEarly);
                drop(section);
                break;
            }
            // The guest has ended nothing, so it may be said before the fold.
            skipped |= self.sync(vcpu, true);
            drop(section);
            local_irq_enable();
        }
        local_irq_enable();
        skipped
    }

    /// Takes a request to leave the guest, and waits until it may enter again.
    fn stays_outside(&self) {
        let asked = self.pause.change(|pause| std::mem::take(&mut pause.asked));
        note(|| {
            if asked { "takes the request" } else { "nobody asks it to stay outside" }.to_owned()
        });
        if asked {
            self.pause.wait(|pause| !pause.paused, |_| ());
            note(|| "may go on".to_owned());
        }
    }

    /// Says that it is in the guest, and then looks whether it may be.
    fn enters(&self) -> bool {
        self.mode.change(|mode| *mode = Mode::InGuest);
        note(|| "says that it is in its guest".to_owned());
        let asked = self.pause.observe(|pause| pause.asked);
        note(|| if asked { "is asked to leave" } else { "may enter" }.to_owned());
        !asked
    }

    /// Says that the guest is left.
    fn outside(&self) {
        self.mode.change(|mode| *mode = Mode::Outside);
        note(|| "says that it is outside of its guest".to_owned());
    }

    /// Folds and prunes, and says before that or after that the guest is left. Returns what
    /// [`fold`](Kvm::fold) does.
    fn sync(&self, vcpu: &mut VcpuState, early: bool) -> bool {
        let says = self.scope.stops != Stops::Nobody;
        if says && early {
            self.outside();
        }
        let skipped = self.fold(vcpu);
        self.prune(ME);
        if says && !early {
            self.outside();
        }
        skipped
    }

    /// Fills the list register.
    fn flush(&self, vcpu: &mut VcpuState) {
        let mut list = self.ap_list[ME].lock();
        let mut deliverable = Vec::new();
        for id in list.iter() {
            let irq = self.irq(*id);
            let state = irq.lock();
            if Self::oracle(irq, &state) == Some(ME) {
                deliverable.push((*id, state.active));
            }
        }
        let overflows = deliverable.len() > 1;
        // What is pending comes first. Here all that is on the list can be delivered.
        if overflows && !deliverable.is_sorted_by_key(|(_, active)| *active) {
            deliverable.sort_by_key(|(_, active)| *active);
            self.irqs.relink(&mut list, ME, deliverable.iter().map(|(id, _)| *id).collect());
        }
        let Some((id, _)) = deliverable.first().copied() else { return };
        let irq = self.irq(id);
        {
            let mut state = irq.lock();
            remark(|| format!("{} goes into the list register", id.name()));
            vcpu.lr = Some(ListRegister { id, pending: state.pending, active: state.active });
            // What is left of an edge is in the list register.
            state.pending = false;
        }
        vcpu.last_lr_irq = match self.scope.cursor {
            Cursor::OnlyOnOverflow if !overflows => None,
            Cursor::Unpinned => Some(id),
            Cursor::OnlyOnOverflow | Cursor::Pinned => {
                irq.get();
                Some(id)
            }
        };
    }

    /// Has the guest take what is in the list register, end it, and then end what it was at before.
    fn run_guest(&self, vcpu: &mut VcpuState) {
        vcpu.guest.change(|()| ());
        let taken = vcpu.lr.map(|lr| lr.id);
        if let Some(lr) = &mut vcpu.lr {
            (lr.pending, lr.active) = (false, false);
        }
        let ends = if std::mem::take(&mut vcpu.handles) { Some(Id::Active) } else { None };
        let outside = ends.is_some_and(|id| taken != Some(id));
        let too_many = outside && self.scope.guest == Guest::EndsOneTooMany;
        vcpu.eoi_count = u32::from(outside) + u32::from(too_many);
        note(|| {
            let ends = ends.filter(|id| taken != Some(*id));
            let all: Vec<&str> = taken.into_iter().chain(ends).map(Id::name).collect();
            let and = if too_many { " and one too many" } else { "" };
            format!("the guest ends {}{and}: EOIcount {}", all.join(", "), vcpu.eoi_count)
        });
    }

    /// Takes over what the guest has done. Returns whether the walk was skipped, and there was
    /// something to end.
    fn fold(&self, vcpu: &mut VcpuState) -> bool {
        let cursor = vcpu.last_lr_irq.take();
        let mut after = After::default();
        let lock = (self.scope.locking == Locking::Locked).then(|| self.ap_list[ME].lock());
        if let Some(lr) = vcpu.lr.take() {
            self.fold_lr(lr, &mut after);
        }
        let eoi_count = std::mem::take(&mut vcpu.eoi_count);
        let mut skipped = false;
        if let Some(cursor) = cursor {
            skipped = self.scope.checks && !self.irq(cursor).is_on(ME);
            if !skipped {
                self.walk(cursor, eoi_count, &mut after);
            }
            if self.scope.cursor != Cursor::Unpinned {
                after.deleted |= self.irq(cursor).put();
            }
        }
        drop(lock);
        if after.deleted {
            self.irq(Id::Lpi).release(&self.rcu);
        }
        (0..after.acked).for_each(|_| self.acked());
        skipped && eoi_count > 0
    }

    /// Ends as many active interrupts as the guest has ended outside of the list register, in the
    /// order of the list.
    fn walk(&self, cursor: Id, mut left: u32, after: &mut After) {
        let mut link = self.irq(cursor).next();
        // That there is nothing left to end is seen after the pointer was read, and before it is
        // followed.
        while left > 0
            && let Some(id) = self.follow(link, ME)
        {
            let irq = self.irq(id);
            let active = {
                let state = irq.lock();
                Self::oracle(irq, &state) == Some(ME) && state.active
            };
            if active {
                self.fold_lr(ListRegister { id, pending: false, active: false }, after);
                left -= 1;
            }
            link = irq.next();
        }
    }

    /// Folds a list register, or what the walk makes look like one.
    fn fold_lr(&self, lr: ListRegister, after: &mut After) {
        let irq = self.irq(lr.id);
        // An LPI may have been unmapped meanwhile.
        if !irq.try_get() {
            return;
        }
        // A level is ended, and somebody wants to know.
        let tells = lr.id == Id::Active && !lr.pending && !lr.active;
        if tells && self.scope.gic == Gic::V2 {
            self.tell(after);
        }
        let deactivated = {
            let mut state = irq.lock();
            let before = std::mem::replace(&mut state.active, lr.active && lr.id != Id::Lpi);
            state.pending |= lr.pending;
            before && !state.active
        };
        if tells && deactivated && self.scope.gic == Gic::V3 {
            self.tell(after);
        }
        after.deleted |= irq.put();
    }

    /// Tells the irqfd that its interrupt was ended, or notes that it has to be told.
    fn tell(&self, after: &mut After) {
        match self.scope.notifies {
            Notifies::Within => self.acked(),
            Notifies::After => after.acked += 1,
        }
    }
}
