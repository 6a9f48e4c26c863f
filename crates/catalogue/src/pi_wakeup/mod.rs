//! Seed 001: a lock validator's false alarm about the lists of sleeping vCPUs, and what its cure
//! must not hide.
//!
//! A vCPU that halts while a device is assigned to it goes on a list of the CPU that it leaves, so
//! that the handler of that CPU's wake-up vector finds it. Three paths take the lock of a list:
//!
//! | path | under | on which CPU's list | then |
//! |---|---|---|---|
//! | handler | nothing, interrupts off | its own | wakes: the task's `pi_lock`, then a run queue's lock |
//! | sched-out | the run queue's lock, interrupts off | its own | nothing: a leaf |
//! | sched-in | nothing, interrupts off | the one that the vCPU *left* | nothing: a leaf |
//!
//! The validator puts the first two together: wake-up lock → `pi_lock` → `rq lock` → wake-up lock.
//! For the deadlock, the handler would have to hold the lock of a list that sched-out waits for
//! under the run queue's lock. Sched-out waits for the list of its own CPU only, and keeps
//! interrupts off there, so that CPU's handler, the only one that takes that lock and then
//! something else, is not running. That is the document's argument, and the reason that the search
//! gives.
//!
//! Compared with the document, step by step (`doorbell explain pi-wakeup/…`):
//!
//! 1. The chain of the report, `pi_lock → rq lock → wake-up lock → pi_lock`, comes out of
//!    `without-annotations`, each order with its path: the handler has the first and the third,
//!    sched-out the second. Also the shorter `rq lock → wake-up lock → rq lock`, since the wake-up
//!    takes the run queue's lock with the list's still held.
//! 2. "Mutually exclusive" is `exclusive on one CPU`; with lists of two CPUs in use, there is a
//!    second reason that the document leaves unsaid: one CPU's handler and another CPU's sched-out
//!    take different locks.
//! 3. The document's diagram of why sched-in is *not* exclusive with sched-out is the trace of
//!    `contention-with-sched-out`: vCPU 0 sleeps, vCPU 1 comes and sleeps in its turn on CPU 0,
//!    while vCPU 0 is loaded on CPU 1 and waits for the lock of the list of CPU 0.
//!    `contention-with-handler` shows the other half of the comment in the patch. Neither is a
//!    deadlock: sched-in holds nothing that either waits for.
//! 4. With handler 0, sched-out 1, sched-in both, nothing is reported; sched-in's order of the two
//!    names, wake-up lock → wake-up lock/1, closes no cycle. The planted faults show that both
//!    names of sched-in are needed. What the document does not say: a handler that took another
//!    CPU's lock would really deadlock, and the subclasses would hide it
//!    (`handler-walks-all-lists`). The annotation holds only as long as handlers keep to their own
//!    CPU's list.
//! 5. In a preemptible kernel, the hook of sched-out is called wherever a vCPU is on its way to
//!    sleep, as the document says in brackets: the same verdicts, for the same reasons
//!    (`preemptible*`).
//! 6. Two more things that the code of the document does without a word are needed, too: interrupts
//!    are off in sched-in (`sched-in-irqs-on`), and sched-out notifies its own CPU of what was
//!    posted before it changed the vector (`sched-out-forgets-outstanding`).
//!
//! The rendering takes the scheduler's shape from the explorer
//! ([`Scheduler`](doorbell_explore::sim::Scheduler)): a woken vCPU goes to the CPU of who wakes it,
//! and unless the kernel is preemptible, a vCPU leaves its CPU only to sleep.
//!
//! The document's locks and their subclasses are the rendering's, and its lock validator's. What is
//! shipped has neither: the three paths share no lock, so there is no order to be questioned.
//!
//! | statement | variants |
//! |---|---|
//! | the chain that is reported, and its two CPUs | `without-annotations`: the validator asks the same |
//! | the handler wakes under its list's lock | in all |
//! | sched-out takes its list's lock under the run queue's | in all |
//! | always from the point where a vCPU goes to sleep, also if it is preempted there | `preemptible*` |
//! | the two exclude each other, so no deadlock | `without-annotations`, `without-annotations-two-lists`: unreachable |
//! | since interrupts are off in all of sched-out, which is asserted | against `sched-out-irqs-on`, `preemptible-irqs-on` |
//! | a subclass rather than no validation: the rest stays on | `subclasses`; what it sees: `sched-in-wakes`, `sched-in-under-task-lock` |
//! | handler 0, sched-out 1, sched-in both | `subclasses`; with one name: `sched-in-wakes-as-handler`, `sched-in-under-task-lock-as-sched-out` |
//! | sched-in and sched-out do not exclude each other: the diagram | `contention-with-sched-out`, `sched-in-sched-out` |
//! | sched-in takes the former CPU's lock, in task context | in all; `contention-with-handler` |
//! | the handler never takes another CPU's lock (unsaid) | against `handler-walks-all-lists` |
//! | who suggested, reviewed, and is to say it in the log | none: of people |

mod kvm;
mod program;
mod scope;
mod shipped;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::validate::ReasonKind;

use crate::case;
use crate::{Case, Expected, Inversions, Variant};
use scope::{AS_HANDLER, AS_SCHED_OUT, BOTH, Fault, ONE, Path, Preemption, Scope, TWO};

fn variant(
    name: &'static str,
    expected: Expected,
    inversions: Inversions,
    why: &'static str,
    scope: Scope,
) -> Variant {
    case::variant(name, expected, why, scope).inversions(inversions)
}

/// The report, and what the search says to it.
fn reported() -> Vec<Variant> {
    let exclusive = vec![ReasonKind::ExclusiveOnCpu];
    let or_elsewhere = vec![ReasonKind::DifferentInstances, ReasonKind::ExclusiveOnCpu];
    let apart = Scope { apart: true, devices: 2, sender: false, ..TWO };
    vec![
        variant(
            "without-annotations",
            Expected::Exhausted,
            Inversions::Unreachable(exclusive.clone()),
            "who waits for a list's lock under the run queue's has interrupts off on the one CPU whose handler could hold it",
            ONE,
        ),
        variant(
            "without-annotations-two-lists",
            Expected::Exhausted,
            Inversions::Unreachable(or_elsewhere),
            "the handler of another CPU holds another list's lock",
            apart,
        ),
        variant(
            "sched-in-sched-out",
            Expected::Exhausted,
            Inversions::Unreachable(exclusive),
            "sched-in waits for another CPU's list, but holds nothing meanwhile that anybody waits for",
            TWO,
        ),
    ]
}

/// Sched-in meets both others, which is why it has to have both names.
fn contention() -> Vec<Variant> {
    let show = |name, why, path| {
        let scope = Scope { shows_contention: Some(path), ..TWO };
        let text = format!("{scope}; ends when sched-in finds {path} at the lock");
        Variant::new(name, Expected::Found(FailureKind::Witness), why, text, move |m| {
            scope.program(m)
        })
    };
    vec![
        show(
            "contention-with-sched-out",
            "vCPU 0 runs on CPU1 and leaves the list of CPU0, which vCPU 1 goes on at that moment",
            Path::SchedOut,
        ),
        show(
            "contention-with-handler",
            "vCPU 0 runs on CPU1 and leaves the list of CPU0, which the handler looks through at that moment",
            Path::Handler,
        ),
    ]
}

/// In a preemptible kernel a vCPU may leave its CPU before it calls the scheduler itself: on its
/// way to sleep, by the same hook.
fn preemptible() -> Vec<Variant> {
    let one = Scope { preemption: Preemption::ByTimer, ..ONE };
    let two = Scope { preemption: Preemption::ByWakeUps, ..TWO };
    let exclusive = Inversions::Unreachable(vec![ReasonKind::ExclusiveOnCpu]);
    vec![
        variant(
            "preemptible",
            Expected::Exhausted,
            exclusive.clone(),
            "whoever calls the hook of sched-out, it holds the run queue's lock, and interrupts are off",
            one,
        )
        .full_only(),
        variant(
            "preemptible-subclasses",
            Expected::Exhausted,
            Inversions::Silent,
            "and the names of the three paths are what they are",
            Scope { names: BOTH, ..one },
        )
        .full_only(),
        variant(
            "preemptible-sched-in-sched-out",
            Expected::Exhausted,
            exclusive,
            "nor does it matter to sched-in why another vCPU leaves",
            two,
        )
        .full_only(),
        variant(
            "preemptible-sched-in-sched-out-subclasses",
            Expected::Exhausted,
            Inversions::Silent,
            "with the names, nothing is reported there, either",
            Scope { names: BOTH, ..two },
        )
        .full_only(),
        variant(
            "preemptible-sched-in-sched-out-irqs-on",
            Expected::Found(FailureKind::SelfDeadlock),
            Inversions::Reachable,
            "what it rests on is that interrupts are off in the hook: a planted fault",
            Scope { names: BOTH, fault: Some(Fault::SchedOutIrqsOn), ..two },
        ),
        variant(
            "preemptible-irqs-on",
            Expected::Found(FailureKind::SelfDeadlock),
            Inversions::Reachable,
            "and so it does where a timer preempts",
            Scope { fault: Some(Fault::SchedOutIrqsOn), ..one },
        ),
    ]
}

/// The document's way out.
fn subclasses() -> Vec<Variant> {
    let largest = Scope { names: BOTH, devices: 2, ..TWO };
    vec![
        variant(
            "subclasses",
            Expected::Exhausted,
            Inversions::Silent,
            "the handler's orders are of subclass 0, sched-out's of subclass 1; sched-in, which has both, adds the order of the \
             two, which closes no cycle",
            Scope { names: BOTH, ..TWO },
        ),
        variant(
            "subclasses-two-devices",
            Expected::Exhausted,
            Inversions::Silent,
            "also if both vCPUs are posted to",
            largest,
        )
        .full_only(),
    ]
}

/// What the annotation must not hide, and what it does hide.
fn faults() -> Vec<Variant> {
    let deadlock = Expected::Found(FailureKind::Deadlock);
    let wakes = Scope { fault: Some(Fault::WakesUnderIt), ..TWO };
    let under = Scope { fault: Some(Fault::UnderTaskLock), ..TWO };
    let all = Scope {
        fault: Some(Fault::AllLists),
        late_notification: true,
        sender: false,
        devices: 2,
        ..TWO
    };
    vec![
        variant(
            "sched-in-wakes-as-handler",
            deadlock,
            Inversions::Silent,
            "sched-in wakes a task under the lock that sched-out waits for; as subclass 0 it looks like the handler, who may",
            Scope { names: AS_HANDLER, ..wakes },
        ),
        variant(
            "sched-in-wakes",
            deadlock,
            Inversions::Reachable,
            "the same, but sched-in names sched-out's subclass too, so the validator sees the cycle",
            Scope { names: BOTH, ..wakes },
        ),
        variant(
            "sched-in-under-task-lock-as-sched-out",
            deadlock,
            Inversions::Silent,
            "sched-in waits under the task's lock, for which the handler waits; as subclass 1 it looks like sched-out, who may",
            Scope { names: AS_SCHED_OUT, ..under },
        ),
        variant(
            "sched-in-under-task-lock",
            deadlock,
            Inversions::Reachable,
            "the same, but sched-in names the handler's subclass too, so the validator sees the cycle",
            Scope { names: BOTH, ..under },
        ),
        variant(
            "handler-walks-all-lists",
            deadlock,
            Inversions::Silent,
            "a handler that takes another CPU's lock is not exclusive with sched-out there, and the subclasses say it is",
            Scope { names: BOTH, ..all },
        ),
        variant(
            "sched-in-irqs-on",
            Expected::Found(FailureKind::SelfDeadlock),
            Inversions::Reachable,
            "the handler interrupts a sched-in that leaves the list of its own CPU, and waits for the lock that it holds",
            Scope { names: BOTH, fault: Some(Fault::IrqsOn), ..ONE },
        ),
        variant(
            "sched-out-irqs-on",
            Expected::Found(FailureKind::SelfDeadlock),
            Inversions::Reachable,
            "the handler interrupts a sched-out on its own CPU, and waits for the lock that it holds",
            Scope { names: BOTH, fault: Some(Fault::SchedOutIrqsOn), sender: false, ..ONE },
        ),
        variant(
            "sched-out-forgets-outstanding",
            deadlock,
            Inversions::Silent,
            "what was posted after the last look was notified to a CPU in no guest: without a notification of its own, \
             sched-out puts a vCPU to sleep that nobody will wake",
            Scope { names: BOTH, fault: Some(Fault::ForgetsOutstanding), sender: false, ..ONE },
        ),
    ]
}

/// The case.
pub(crate) fn case() -> Case {
    let variants =
        [reported(), contention(), preemptible(), subclasses(), faults(), shipped::variants()]
            .into_iter()
            .flatten()
            .collect();
    Case::new(
        "pi-wakeup",
        "an interrupt handler, sched-out and sched-in take the lock of a list of sleeping vCPUs",
        "document 001: subclasses for the lock of KVM's posted-interrupt wake-up lists",
        variants,
    )
}
