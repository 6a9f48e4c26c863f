//! The parameters of the case.

use std::fmt;

use crate::count::count;
use doorbell_platform::CpuId;

/// Parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    /// CPUs that vCPUs may run on.
    pub cpus: u32,
    pub vcpus: usize,
    /// Whether each vCPU begins on a CPU of its own, and not all of them on CPU0.
    pub apart: bool,
    /// A device posts an interrupt for each of the last so many vCPUs.
    pub devices: usize,
    /// A task of the last CPU posts an interrupt for vCPU 0 and wakes it, onto its own CPU if that
    /// is one of vCPUs.
    pub sender: bool,
    /// A notification from before comes late to the last CPU, whose list is empty.
    pub late_notification: bool,
    pub preemption: Preemption,
    pub names: Names,
    pub fault: Option<Fault>,
    /// Ends the run as failed where sched-in finds the lock of a list held by that path.
    pub shows_contention: Option<Path>,
}

/// The subclasses by which the paths take the lock of a list. The handler has 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Names {
    pub sched_out: u8,
    /// Sched-in takes it by the first, and tells the validator of the second, too.
    pub sched_in: (u8, Option<u8>),
}

/// No subclasses.
pub(super) const PLAIN: Names = Names { sched_out: 0, sched_in: (0, None) };
/// What the document proposes.
pub(super) const BOTH: Names = Names { sched_out: 1, sched_in: (0, Some(1)) };
/// Sched-in has the handler's subclass only.
pub(super) const AS_HANDLER: Names = Names { sched_out: 1, sched_in: (0, None) };
/// Sched-in has sched-out's subclass only.
pub(super) const AS_SCHED_OUT: Names = Names { sched_out: 1, sched_in: (1, None) };

/// What is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Sched-in wakes the last vCPU while it holds the lock of the list that it leaves.
    WakesUnderIt,
    /// Sched-in takes that lock under the lock of its own task.
    UnderTaskLock,
    /// The handler looks through the lists of all CPUs.
    AllLists,
    /// Sched-in leaves interrupts on.
    IrqsOn,
    /// Sched-out turns them on.
    SchedOutIrqsOn,
    /// Sched-out does not care about a notification that came before.
    ForgetsOutstanding,
}

/// Whether a task is preempted by who is woken on its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preemption {
    Off,
    /// A wake-up of another vCPU preempts: no other task is woken.
    ByWakeUps,
    /// Also by a task that is no vCPU, which a timer wakes on CPU0.
    ByTimer,
}

/// The taker of the lock of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    Handler,
    SchedOut,
    SchedIn,
}

/// One vCPU, which sleeps where it is woken.
pub(super) const ONE: Scope = Scope {
    cpus: 1,
    vcpus: 1,
    apart: false,
    devices: 1,
    sender: true,
    late_notification: false,
    preemption: Preemption::Off,
    names: PLAIN,
    fault: None,
    shows_contention: None,
};

/// Two vCPUs: 0 migrates while 1 goes to sleep where 0 did.
pub(super) const TWO: Scope = Scope { cpus: 2, vcpus: 2, ..ONE };

impl Scope {
    /// Where a vCPU begins.
    pub(super) fn first_cpu(self, vcpu: usize) -> CpuId {
        CpuId(if self.apart { vcpu as u32 } else { 0 })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vcpus, cpus) = (count(self.vcpus, "vCPU"), count(self.cpus, "CPU"));
        let first = if self.apart { " of their own" } else { "" };
        write!(f, "{vcpus} on {cpus}{first}, {}", count(self.devices, "device"))?;
        if self.sender {
            write!(f, ", 1 sender")?;
        }
        if self.late_notification {
            write!(f, ", 1 late notification")?;
        }
        f.write_str(match self.preemption {
            Preemption::Off => "",
            Preemption::ByWakeUps => ", preemptible",
            Preemption::ByTimer => ", preemptible, 1 timer",
        })?;
        let Names { sched_out, sched_in: (first, second) } = self.names;
        let second = second.map(|second| format!("+{second}")).unwrap_or_default();
        write!(f, "; subclasses: handler 0, sched-out {sched_out}, sched-in {first}{second}")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Handler => "the handler",
            Path::SchedOut => "sched-out",
            Path::SchedIn => "sched-in",
        })
    }
}
