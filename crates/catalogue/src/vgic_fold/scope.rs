//! Parameters, and the machine that they stand for.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_platform::CpuId;

use super::irq::{Id, Insertion, Removal};
use super::kvm::Kvm;
use super::vcpu::VcpuState;

/// Parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    pub gic: Gic,
    pub list: Listed,
    pub guest: Guest,
    pub removal: Removal,
    pub insertion: Insertion,
    pub locking: Locking,
    pub cursor: Cursor,
    /// The walk is skipped if its first interrupt has left the list.
    pub checks: bool,
    pub notifies: Notifies,
    pub eventfd: Eventfd,
    pub stops: Stops,
    pub migration: Migration,
    /// The other vCPUs: what each of them does, one thing after the other.
    pub others: &'static [&'static [Does]],
    pub end: End,
}

/// The host's GIC, by which a fold has its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gic {
    /// The irqfd is told before the interrupt's state changes.
    V2,
    /// After, and only of what was active.
    V3,
}

/// The list of vCPU0 at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listed {
    /// The LPI, which goes into the list register, and the SPI that is active.
    LpiAndActive,
    /// An SPI that goes into the list register, the LPI, and the SPI that is active.
    LpiBetween,
    /// An SPI that goes into the list register, and the one that is active.
    Spis,
    /// The LPI alone: the list register is enough.
    LpiAlone,
}

/// The interrupts that the guest ends, beside that in its list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guest {
    /// What is active.
    EndsActive,
    /// And then another one, which is not: a mistake, after which a walk comes to the end of the
    /// list.
    EndsOneTooMany,
}

/// The fold's way with `ap_list_lock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Locking {
    Unlocked,
    Locked,
}

/// The way in which the interrupt is remembered at which the walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cursor {
    Unpinned,
    Pinned,
    /// Pinned, and there only if there is something behind it.
    OnlyOnOverflow,
}

/// The moment at which an irqfd is told that its interrupt was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notifies {
    /// Where the fold finds it.
    Within,
    /// When the fold is over and has let go of its lock.
    After,
}

/// The eventfd of the resampling irqfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Eventfd {
    /// Nobody listens who would inject.
    Quiet,
    /// An irqfd listens, and injects another interrupt at once.
    Injects,
    /// A lock of the eventfd that may sleep, as regular spin locks are with `PREEMPT_RT`.
    Sleeps,
}

/// The way in which vCPU0 is stopped before its LPIs are disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stops {
    Nobody,
    /// Stopped; they say that they have left the guest when they have folded.
    SaysOutsideLate,
    /// Stopped; they say so before they fold.
    SaysOutsideEarly,
    /// Stopped; the request is taken back with the pause, whether a vCPU has seen it or not.
    TakenBack,
}

/// What a prune does about an interrupt that it hands over: it drops all locks in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Migration {
    /// The walk looks once more whether the interrupt is on its list.
    pub checks: bool,
    /// The walk holds a reference.
    pub holds: bool,
}

/// An action of another vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Does {
    DisablesLpis,
    /// With vCPU0 out of its guest.
    StopsAndDisablesLpis,
    Discards,
    /// Enables LPIs again, and the device signals.
    SignalsHere,
    /// Moves the LPI to vCPU1, and the device signals.
    SignalsThere,
    /// Makes another SPI pending at vCPU0.
    Injects,
    /// Cleans vCPU1's list up, on which there is an SPI that is for vCPU0 now.
    Prunes,
}

/// The condition that must hold when all is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// What the guest has ended is not active, and its irqfd was told once.
    NothingLost,
    /// The same, unless the walk was skipped.
    NothingLostUnlessSkipped,
    /// Nothing: the question is which memory is touched.
    Anything,
}

/// The code as reported, on a GICv3 host, with nobody beside.
pub(super) const REPORTED: Scope = Scope {
    gic: Gic::V3,
    list: Listed::LpiAndActive,
    guest: Guest::EndsActive,
    removal: Removal::Poisons,
    insertion: Insertion::InOrder,
    locking: Locking::Unlocked,
    cursor: Cursor::Unpinned,
    checks: false,
    notifies: Notifies::Within,
    eventfd: Eventfd::Quiet,
    stops: Stops::Nobody,
    migration: Migration { checks: true, holds: false },
    others: &[],
    end: End::NothingLost,
};

impl Scope {
    /// Returns the list of each vCPU at first, sorted.
    pub(super) fn lists(&self) -> [Vec<Id>; 2] {
        let here = match self.list {
            Listed::LpiAndActive => vec![Id::Lpi, Id::Active],
            Listed::LpiBetween => vec![Id::Pending, Id::Lpi, Id::Active],
            Listed::Spis => vec![Id::Pending, Id::Active],
            Listed::LpiAlone => vec![Id::Lpi],
        };
        let prunes = self.others.iter().any(|does| does.contains(&Does::Prunes));
        [here, if prunes { vec![Id::Other] } else { vec![] }]
    }

    /// Sets the program up: vCPU0 runs its guest once, beside all the others.
    pub(super) fn program(self, m: &Machine) {
        let kvm = Rc::new(Kvm::new(self));
        let handles = self.list != Listed::LpiAlone;
        let skipped = Rc::new(Cell::new(false));
        let (runs, skips) = (Rc::clone(&kvm), Rc::clone(&skipped));
        m.task_on(CpuId(0), "vCPU0", move || skips.set(runs.run(&mut VcpuState::new(handles))));
        for (number, does) in (1..).zip(self.others) {
            let kvm = Rc::clone(&kvm);
            m.task_on(CpuId(number), format!("vCPU{number}"), move || {
                does.iter().for_each(|does| does.with(&kvm))
            });
        }
        if self.end == End::Anything {
            return;
        }
        m.at_quiescence(
            "what the guest has ended is not active, and its irqfd was told once",
            move || {
                let (active, heard) = (kvm.irq(Id::Active).is_active(), kvm.heard());
                if self.end == End::NothingLostUnlessSkipped && skipped.get()
                    || !active && heard == u32::from(handles)
                {
                    Ok(())
                } else if active {
                    Err("SPI 33 stays active, and nobody will end it again".to_owned())
                } else {
                    Err(format!("it was told {heard} times"))
                }
            },
        );
    }
}

impl Does {
    /// Does it.
    pub(super) fn with(self, kvm: &Kvm) {
        match self {
            Does::DisablesLpis => kvm.disable_lpis(),
            Does::StopsAndDisablesLpis => kvm.stop_and_disable_lpis(),
            Does::Discards => kvm.discard(),
            Does::SignalsHere => kvm.signal(0),
            Does::SignalsThere => kvm.signal(1),
            Does::Injects => kvm.inject(Id::Other),
            Does::Prunes => kvm.prune(1),
        }
    }

    pub(super) fn told(self) -> &'static str {
        match self {
            Does::DisablesLpis => "LPIs disabled",
            Does::StopsAndDisablesLpis => "vCPU0 stopped and LPIs disabled",
            Does::Discards => "DISCARD",
            Does::SignalsHere => "LPI signalled again",
            Does::SignalsThere => "LPI moved to vCPU1 and signalled",
            Does::Injects => "another SPI injected",
            Does::Prunes => "vCPU1 hands an SPI over",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            Listed::LpiAndActive => "an LPI in it, an SPI that is active behind",
            Listed::LpiBetween => "an SPI in it, an LPI and an SPI that is active behind",
            Listed::Spis => "an SPI in it, an SPI that is active behind",
            Listed::LpiAlone => "an LPI in it, nothing behind",
        };
        let gic = if self.gic == Gic::V2 { "GICv2" } else { "GICv3" };
        write!(f, "{gic}, 1 list register, {list}; vCPU0 runs once")?;
        for does in self.others {
            let told: Vec<&str> = does.iter().map(|does| does.told()).collect();
            write!(f, " ‖ {}", told.join(", then "))?;
        }
        if self.guest == Guest::EndsOneTooMany {
            write!(f, "; the guest ends one too many")?;
        }
        match self.eventfd {
            Eventfd::Quiet => Ok(()),
            Eventfd::Injects => write!(f, "; the resampler's eventfd injects"),
            Eventfd::Sleeps => write!(f, "; regular spin locks sleep"),
        }
    }
}
