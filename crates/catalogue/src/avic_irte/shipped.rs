//! What `doorbell-apic` and `doorbell-host` do in the place of the code that document 000 is about:
//! IRTEs that say where their vCPU runs.
//!
//! The vCPU's own entry and its IRTEs are written under one lock, which is a leaf: the scheduler's
//! hooks take it under the run queue's, and nobody who holds it takes another one, wakes, or waits.
//! Who binds an IRTE programs it under that lock; who moves it from A to B takes A's, then B's,
//! never both. In between the interrupt goes to the host.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::Machine;
use doorbell_explore::sim::remark;
use doorbell_explore::trace::FailureKind;
use doorbell_platform::{Atomic, CpuId};
use doorbell_post::Requests;

use super::parties::Leaves;
use super::ring::{self, attached, interrupted};
use crate::case::{self, variant};
use crate::count::count;
use crate::{Expected, Variant};

mod machine;

use machine::{Irte, System};

const LOST: Expected = Expected::Found(FailureKind::Quiescence);

/// The ring of the report, then what an IRTE goes through.
pub(super) fn variants() -> Vec<Variant> {
    [ring(), entries()].into_iter().flatten().collect()
}

fn ring() -> Vec<Variant> {
    let variant = |name, why, scope: ring::Scope| {
        Variant::new(name, Expected::Exhausted, why, scope.to_string(), move |m| scope.program(m))
    };
    let preempted = ring::Scope { vcpu: Leaves::Preempted, notifier: false };
    vec![
        variant(
            "shipped-ring",
            "the thread is woken when the descriptor's lock is gone, and who binds holds no lock but the vCPU's leaf",
            preempted,
        ),
        variant(
            "shipped-ring-sleeps",
            "for whatever reason the vCPU leaves its CPU",
            ring::Scope { vcpu: Leaves::Sleeps, ..preempted },
        ),
        variant(
            "shipped-ring-notifier",
            "a notifier is called, and its worker woken, when the descriptor's lock is gone",
            ring::Scope { notifier: true, ..preempted },
        ),
        Variant::new(
            "shipped-ring-interrupted",
            Expected::Exhausted,
            "an interrupt handler, too, wakes the thread when the descriptor's lock is gone",
            "doorbell-host, 1 threaded interrupt, which comes once; 1 affinity write",
            interrupted,
        ),
        Variant::new(
            "shipped-ring-attached",
            Expected::Exhausted,
            "whoever attaches a thread wakes it, when the descriptor's lock is gone, for what came before",
            "doorbell-host, 1 interrupt, which comes twice and is given a thread; 1 affinity write",
            |m| attached(m, true),
        ),
        Variant::new(
            "shipped-ring-attached-not-woken",
            LOST,
            "what came before there was a thread has woken nobody, and waits for the next interrupt: a planted fault",
            "doorbell-host, 1 interrupt, which comes twice and is given a thread; 1 affinity write",
            |m| attached(m, false),
        ),
    ]
}

fn entries() -> Vec<Variant> {
    let exhausted = Expected::Exhausted;
    vec![
        variant(
            "shipped",
            exhausted,
            "an IRTE is written under the lock that the hooks take, so none of them misses the other",
            Scope { vcpus: &[MOVES], devices: &[LATE], ..SCOPE },
        ),
        variant(
            "shipped-sleep",
            exhausted,
            "before a vCPU sleeps its IRTEs ask for log entries, then the mode says so, then it looks",
            Scope { vcpus: &[SLEEPS], devices: &[LATE], ..SCOPE },
        ),
        variant(
            "shipped-retarget",
            exhausted,
            "the IRTE is in one list at a time, and what was posted by the former one is looked at when it is invalidated",
            Scope { vcpus: &[STAYS, STAYS], devices: &[Device { to: Some(1), ..BOUND }], ..SCOPE },
        ),
        variant(
            "shipped-retarget-not-looked-at",
            LOST,
            "the IOMMU posts to A by what it has read, and rings the CPU that the entry names by then: B's",
            Scope { vcpus: &[STAYS, STAYS], devices: &[Device { to: Some(1), ..BOUND }], looks: false, ..SCOPE },
        ),
        variant(
            "shipped-retarget-moving",
            exhausted,
            "A goes to another CPU meanwhile: its IRTE is written by its hooks until it is off its list",
            Scope { vcpus: &[MOVES, STAYS], devices: &[Device { to: Some(1), ..BOUND }], ..SCOPE },
        ),
        variant(
            "shipped-inhibited",
            exhausted,
            "an inhibited vCPU is said not to run and asks for log entries, whose handler kicks it: IRTEs stay as they are",
            INHIBITED,
        ),
        variant(
            "shipped-inhibited-log-unread",
            LOST,
            "a log entry is all that says that something was posted to an inhibited vCPU: a planted fault",
            Scope { log_is_read: false, ..INHIBITED },
        ),
        variant(
            "shipped-inhibited-bind",
            exhausted,
            "what is bound meanwhile is bound by what the vCPU says of itself under the lock of its copies",
            INHIBITED_BIND,
        ),
        variant(
            "shipped-inhibited-retarget",
            exhausted,
            "what is moved meanwhile is looked at by the former vCPU, whichever way it runs",
            INHIBITED_RETARGET,
        )
        .full_only(),
        variant(
            "shipped-inhibition-ends",
            exhausted,
            "a vCPU is said to run before it enters with AVIC, which looks at what was posted until then",
            INHIBITION_ENDS,
        ),
        variant(
            "shipped-bind-fails",
            exhausted,
            "what is bound already is bound to nobody then: it arrives in the host, and the vCPU looks again",
            BIND_FAILS,
        ),
        variant(
            "shipped-bind-fails-not-looked-at",
            LOST,
            "what was posted before rings the CPU that the entry names by then: none",
            Scope { looks: false, ..BIND_FAILS },
        ),
        variant(
            "shipped-overflow",
            exhausted,
            "the log is restarted before everybody is looked at",
            Scope { vcpus: &[SLEEPS], devices: &[BOUND], log: 0, ..SCOPE },
        ),
        variant(
            "shipped-sleep-elsewhere",
            exhausted,
            "a vCPU that is woken on another CPU is said to run there before it enters the guest there",
            Scope { vcpus: &[Life { sleeps: true, moves: true }], devices: &[LATE], ..SCOPE },
        ),
        variant(
            "shipped-2-devices",
            exhausted,
            "each IRTE of a vCPU is written under the same lock",
            Scope { vcpus: &[MOVES], devices: &[LATE, BOUND], ..SCOPE },
        ),
        variant(
            "shipped-2-vcpus",
            exhausted,
            "two vCPUs change places while two devices post",
            Scope {
                vcpus: &[Life { sleeps: true, moves: true }; 2],
                devices: &[BOUND, Device { vcpu: 1, ..BOUND }],
                ..SCOPE
            },
        )
        .full_only(),
        variant(
            "shipped-2-posts",
            exhausted,
            "a device that posts again while the first is pending has nothing more to do, or rings again",
            Scope { vcpus: &[MOVES], devices: &[LATE], posts: 2, ..SCOPE },
        )
        .full_only(),
    ]
}

#[derive(Clone, Copy)]
struct Life {
    /// Once, if it has not got its interrupts yet.
    sleeps: bool,
    /// To the other CPU, after that.
    moves: bool,
}

const STAYS: Life = Life { sleeps: false, moves: false };
const SLEEPS: Life = Life { sleeps: true, ..STAYS };
const MOVES: Life = Life { moves: true, ..STAYS };

#[derive(Clone, Copy)]
struct Device {
    /// The vCPU that it is for.
    vcpu: usize,
    /// Bound at some moment, not from the beginning.
    late: bool,
    /// Moved at some moment.
    to: Option<usize>,
    /// Bound at some moment though it is bound already, which fails.
    again: bool,
}

const BOUND: Device = Device { vcpu: 0, late: false, to: None, again: false };
const LATE: Device = Device { late: true, ..BOUND };

#[derive(Clone, Copy)]
struct Scope {
    vcpus: &'static [Life],
    devices: &'static [Device],
    /// How often each device posts.
    posts: usize,
    inhibition: Inhibition,
    /// How many entries the log has.
    log: usize,
    log_is_read: bool,
    /// What was posted by an IRTE's former values is looked at.
    looks: bool,
}

/// What becomes of AVIC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inhibition {
    /// AVIC is on.
    None,
    /// AVIC is inhibited at some moment.
    Begins,
    /// AVIC is inhibited at first, and not any more at some moment.
    Ends,
}

const SCOPE: Scope = Scope {
    vcpus: &[],
    devices: &[],
    posts: 1,
    inhibition: Inhibition::None,
    log: 4,
    log_is_read: true,
    looks: true,
};
const INHIBITED: Scope =
    Scope { vcpus: &[STAYS], devices: &[BOUND], inhibition: Inhibition::Begins, ..SCOPE };
const INHIBITED_BIND: Scope = Scope { devices: &[LATE], ..INHIBITED };
const INHIBITED_RETARGET: Scope =
    Scope { vcpus: &[STAYS, STAYS], devices: &[Device { to: Some(1), ..BOUND }], ..INHIBITED };
const INHIBITION_ENDS: Scope = Scope { inhibition: Inhibition::Ends, ..INHIBITED };
const BIND_FAILS: Scope =
    Scope { vcpus: &[STAYS], devices: &[Device { again: true, ..BOUND }], ..SCOPE };

impl Scope {
    /// A third one, if there is no room for a vCPU that moves.
    fn cpus(self) -> usize {
        if self.vcpus.len() == 2 && self.vcpus.iter().filter(|life| life.moves).count() == 1 {
            3
        } else {
            2
        }
    }
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let mut parts = vec![
            format!(
                "doorbell-apic and -host, {} on {} CPUs",
                count(self.vcpus.len(), "vCPU"),
                self.cpus()
            ),
            format!(
                "{} with {} each",
                count(self.devices.len(), "device"),
                count(self.posts, "post")
            ),
        ];
        let lives = |which: fn(&Life) -> bool| self.vcpus.iter().filter(|life| which(life)).count();
        let devices =
            |which: fn(&Device) -> bool| self.devices.iter().filter(|device| which(device)).count();
        let events = [
            (lives(|life| life.sleeps), "block"),
            (lives(|life| life.moves), "migration"),
            (devices(|device| device.late), "bind"),
            (devices(|device| device.to.is_some()), "retarget"),
            (devices(|device| device.again), "bind that fails"),
            (usize::from(self.inhibition == Inhibition::Begins), "inhibition"),
            (usize::from(self.inhibition == Inhibition::Ends), "end of an inhibition"),
            (usize::from(self.log == 0), "overflow"),
        ];
        parts.extend(
            events
                .into_iter()
                .filter(|(times, _)| *times > 0)
                .map(|(times, what)| count(times, what)),
        );
        if !self.log_is_read {
            parts.push("nobody reads the log".to_owned());
        }
        parts.join(", ")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

fn program(m: &Machine, scope: Scope) {
    let system = System::new(scope.vcpus.len(), scope.cpus(), scope.log);
    for (number, life) in scope.vcpus.iter().enumerate() {
        let system = Arc::clone(&system);
        let wanted = wanted(scope, number);
        m.task(format!("vCPU {number}"), move || {
            let vcpu = &system.vcpus[number];
            let mut cpu = CpuId(number as u32);
            let other = if scope.cpus() == 3 { CpuId(2) } else { CpuId(1 - cpu.0) };
            vcpu.begin();
            vcpu.load(&system, cpu);
            if life.sleeps {
                vcpu.run(&system, cpu, false);
                while vcpu.got() & wanted != wanted {
                    let then = if life.moves { other } else { cpu };
                    vcpu.sleep(&system, cpu, then);
                    cpu = then;
                    vcpu.run(&system, cpu, false);
                }
                return vcpu.put(&system, cpu);
            }
            if life.moves {
                vcpu.put(&system, cpu);
                vcpu.load(&system, other);
                cpu = other;
            }
            while vcpu.run(&system, cpu, true) {}
        });
    }
    for (number, device) in (0..).zip(scope.devices) {
        let irte = Irte::new();
        if device.late {
            let (system, irte) = (Arc::clone(&system), Rc::clone(&irte));
            m.task("bind", move || system.bind(&irte, device.vcpu, number));
        } else {
            system.bind(&irte, device.vcpu, number);
        }
        let by_now = device.to.unwrap_or(device.vcpu);
        if let Some(to) = device.to {
            let (system, irte) = (Arc::clone(&system), Rc::clone(&irte));
            m.task("retarget", move || system.retarget(&irte, to, number, scope.looks));
        }
        if device.again {
            let (system, irte) = (Arc::clone(&system), Rc::clone(&irte));
            m.task("bind again", move || system.bind_again(&irte, number, scope.looks));
        }
        let posts = Arc::clone(&system);
        m.hardware(format!("device {number}"), move || {
            (0..scope.posts).for_each(|_| posts.msi(&irte, by_now, number))
        });
    }
    // Entries ask for it while a vCPU sleeps or is inhibited.
    let asked = scope.inhibition != Inhibition::None || scope.vcpus.iter().any(|life| life.sleeps);
    if asked && scope.log_is_read {
        let reads = Arc::clone(&system);
        m.task("GA log", move || reads.read_log());
    }
    if scope.inhibition != Inhibition::None {
        let begins = scope.inhibition == Inhibition::Begins;
        system.inhibited.store(!begins, SeqCst);
        if !begins {
            // It looks at the mode before it enters for the first time.
            let vcpu = &system.vcpus[0];
            system.act(vcpu, vcpu.avic.run_state().request(Requests(1)));
        }
        let system = Arc::clone(&system);
        m.task(if begins { "inhibit" } else { "end inhibition" }, move || {
            system.inhibited.store(begins, SeqCst);
            remark(|| format!("the inhibition {}", if begins { "begins" } else { "ends" }));
            let vcpu = &system.vcpus[0];
            system.act(vcpu, vcpu.avic.run_state().request(Requests(1)));
        });
    }
    m.at_quiescence("the guests have got what was posted", move || {
        let got = system.vcpus.iter().fold(0, |all, vcpu| all | vcpu.got());
        let all = (1 << scope.devices.len()) - 1;
        if scope.vcpus.iter().zip(&system.vcpus).any(|(life, vcpu)| !life.sleeps && vcpu.pending())
        {
            return Err("an interrupt is pending in a guest that runs".into());
        }
        if system.has_logged() {
            return Err("nobody reads the log".into());
        }
        if got == all { Ok(()) } else { Err(format!("they have got {got:#b}, of {all:#b}")) }
    });
}

/// What a vCPU is sure to get.
fn wanted(scope: Scope, vcpu: usize) -> u32 {
    let is_for = |device: &Device| device.vcpu == vcpu && device.to.is_none();
    (0..)
        .zip(scope.devices)
        .filter(|(_, device)| is_for(device))
        .map(|(number, _)| 1 << number)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunOptions;

    #[test]
    fn what_is_posted_to_an_inhibited_vcpu_is_lost_if_nobody_reads_the_log() {
        for scope in [INHIBITED, INHIBITED_BIND, INHIBITED_RETARGET, INHIBITION_ENDS] {
            let variant = variant("planted", LOST, "", Scope { log_is_read: false, ..scope });
            assert!(variant.agrees(&variant.run(&RunOptions::default())), "{}", variant.scope);
        }
    }
}
