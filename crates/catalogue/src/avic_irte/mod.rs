//! Document 000: three parties, each with interrupts off, wait for each other in a ring.
//!
//! A file each: the interrupt core (`irq`), KVM's side (`svm`), the three parties and their machine (`parties`), an
//! interrupt that moves from one vCPU to another (`retarget`), and X08, for which the lock came to be held so far
//! (`stale`).
//!
//! What `explain avic-irte/as-reported` shows, beside what was said in the thread:
//!
//! - Its three waits are the document's (a), (b) and (c), each on a CPU of its own: the wake-up under the descriptor's
//!   lock, the hook under the run queue's, the binding under the list's. Of the two hooks that (b) names, only the one that
//!   leaves the CPU is a party: the other runs when the run queue's lock is gone. lockdep draws two CPUs, one of which waits
//!   for a descriptor that the other does not hold; the third party, who writes the affinity, is missing there.
//! - The thread asks whether the report is benign. It is not, under three conditions that nobody there states: the thread
//!   that is woken belongs to the descriptor that is bound (`plain-handler`; for a device of VFIO that takes forced
//!   threading), its wake-up needs the run queue of the CPU that the vCPU leaves, and the vCPU is not halted
//!   (`as-reported-halts`).
//! - "The only cost is latency" holds of the dropped wake-up (`no-wake-up-next-interrupt`), but the chain through an affinity
//!   notifier's work, of which it was said that it has been there for fifteen years, closes only if the worker belongs to the
//!   vCPU's CPU: a per-CPU workqueue wakes a worker of the writer's own (`no-wake-up-notifier-own-cpu`), unless the work still
//!   runs elsewhere.
//! - The leaf lock ends the ring and keeps what the lock was for (`avic-stale-irte/leaf-lock`). What nobody mentions is lost
//!   before as after: while an interrupt moves from A to B, its IRTE points to A and is on nobody's list (`retarget-*`).
//!
//! There is no `shipped` variant yet: it comes with `doorbell-apic` and `doorbell-host`.

mod irq;
mod parties;
mod retarget;
mod ring;
mod shipped;
pub(crate) mod stale;
mod svm;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::validate::ReasonKind;
use doorbell_hardware::iommu_amd::Post;

use crate::{Case, Expected, Inversions, Variant};
use parties::{Bind, Leaves, Parties, REPORTED, ThreadMust, WorkerOn};
use retarget::{Goes, Order, Retarget};

const DEADLOCK: Expected = Expected::Found(FailureKind::Deadlock);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

fn ring(name: &'static str, expected: Expected, why: &'static str, parties: Parties) -> Variant {
    Variant::new(name, expected, why, parties.to_string(), move |m| parties.program(m))
}

fn moved(name: &'static str, expected: Expected, why: &'static str, retarget: Retarget) -> Variant {
    Variant::new(name, expected, why, retarget.to_string(), move |m| retarget.program(m))
}

fn reported() -> Vec<Variant> {
    vec![
        ring(
            "as-reported",
            DEADLOCK,
            "a wake-up under irq_desc waits for a run queue, whose holder waits for ir_list_lock, whose holder for irq_desc",
            REPORTED,
        ),
        ring(
            "as-reported-sleeps",
            DEADLOCK,
            "a vCPU that sleeps for another reason than HLT leaves its CPU by the same hook",
            Parties { vcpu: Leaves::Sleeps, ..REPORTED },
        ),
        ring(
            "as-reported-halts",
            Expected::Exhausted,
            "a halted vCPU has changed its IRTEs before it sleeps, so the hook has nothing to do under the run queue's lock",
            Parties { vcpu: Leaves::Halts, ..REPORTED },
        ),
        ring(
            "plain-handler",
            Expected::Exhausted,
            "the descriptor that is bound has no thread, and the one whose thread is woken is not bound",
            Parties { own_thread: false, ..REPORTED },
        )
        .inversions(Inversions::Unreachable(vec![ReasonKind::DifferentInstances])),
    ]
}

fn no_wake_up() -> Vec<Variant> {
    let dropped = Parties { wake_up: false, ..REPORTED };
    let notified = |on| Parties { notifier: Some(on), ..dropped };
    vec![
        ring(
            "no-wake-up",
            Expected::Exhausted,
            "nothing is woken under irq_desc, so nobody waits for a run queue there",
            dropped,
        ),
        ring(
            "no-wake-up-thread-follows",
            LOST,
            "a thread that is not woken keeps its former affinity for as long as the interrupt does not come",
            Parties { thread: ThreadMust::Follow, ..dropped },
        ),
        ring(
            "no-wake-up-next-interrupt",
            Expected::Exhausted,
            "the next interrupt wakes the thread, which then moves itself: what is lost is time",
            Parties { thread: ThreadMust::FollowByNextInterrupt, ..dropped },
        ),
        ring(
            "no-wake-up-notifier",
            DEADLOCK,
            "an affinity notifier's work wakes a worker under irq_desc: the same ring, if the worker's CPU is the vCPU's",
            notified(WorkerOn::VcpusCpu),
        ),
        ring(
            "no-wake-up-notifier-own-cpu",
            Expected::Exhausted,
            "a worker of the writer's own CPU is on a run queue that no vCPU leaves while the writer has interrupts off",
            notified(WorkerOn::WritersCpu),
        )
        .inversions(Inversions::Unreachable(vec![ReasonKind::DifferentInstances])),
    ]
}

fn leaf_lock() -> Vec<Variant> {
    vec![
        ring(
            "leaf-lock",
            Expected::Exhausted,
            "whoever holds ir_list_lock waits for nobody",
            Parties { bind: Bind::Leaf, ..REPORTED },
        ),
        ring(
            "leaf-lock-sleeps",
            Expected::Exhausted,
            "whoever holds ir_list_lock waits for nobody",
            Parties { bind: Bind::Leaf, vcpu: Leaves::Sleeps, ..REPORTED },
        ),
    ]
}

/// What becomes of an interrupt that is moved from one vCPU to another.
fn retarget() -> Vec<Variant> {
    let leaf = Retarget { order: Order::UnlistThenBindLeaf, a: Goes::ToAnotherCpu, post: Post::AtOnce };
    let halts = Retarget { a: Goes::Halts, ..leaf };
    let unbind = |waits, looks| Order::Unbind { waits, looks };
    let unbound = Retarget { order: unbind(false, false), ..leaf };
    let split = |order| Retarget { order, post: Post::GateAfterBit, ..leaf };
    vec![
        moved(
            "retarget-as-reported",
            LOST,
            "off A's list the IRTE still points to A, and A goes to another CPU without a word to it",
            Retarget { order: Order::UnlistThenBind, ..leaf },
        ),
        moved(
            "retarget-leaf-lock",
            LOST,
            "the leaf lock leaves that window as it is: the IRTE points to A and is on nobody's list",
            leaf,
        ),
        moved(
            "retarget-leaf-lock-halts",
            LOST,
            "A halts in that window, the IRTE says that it runs, and nobody wakes it",
            halts,
        ),
        moved(
            "retarget-leaf-lock-stays",
            Expected::Exhausted,
            "while A stays where it is, what the IRTE says of it stays true",
            Retarget { a: Goes::Nowhere, ..leaf },
        ),
        moved(
            "retarget-bind-first",
            LOST,
            "on both lists, the IRTE points to B and is told where A runs",
            Retarget { order: Order::BindLeafThenUnlist, ..leaf },
        ),
        moved(
            "retarget-unbind",
            Expected::Exhausted,
            "off A's list and to the host in one critical section: there is no moment at which the IRTE points to A unlisted",
            unbound,
        ),
        moved(
            "retarget-unbind-halts",
            Expected::Exhausted,
            "nor if A halts meanwhile",
            Retarget { order: unbound.order, ..halts },
        ),
        moved(
            "retarget-unbind-split-post",
            LOST,
            "an IOMMU that posts in several steps has found A's page, and then an IRTE that says nothing of A",
            split(unbind(false, false)),
        ),
        moved(
            "retarget-unbind-not-awaited",
            LOST,
            "a look at A that does not wait for the posts under way comes too early",
            split(unbind(false, true)),
        ),
        moved("retarget-unbind-not-looked", LOST, "to have waited tells A nothing", split(unbind(true, false))),
        moved(
            "retarget-unbind-awaited",
            Expected::Exhausted,
            "unbound, the posts under way awaited, A looked at again: nothing is lost, however the IOMMU posts",
            split(unbind(true, true)),
        ),
        moved(
            "retarget-unbind-awaited-halts",
            Expected::Exhausted,
            "nor if A halts meanwhile",
            Retarget { a: Goes::Halts, ..split(unbind(true, true)) },
        ),
    ]
}

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "avic-irte",
        "an IRQ thread is woken under its descriptor's lock, and a scheduler's hook takes a lock that is held around it",
        "document 000: AVIC, IRTEs, and a wake-up under the lock of an interrupt descriptor",
        [reported(), no_wake_up(), leaf_lock(), retarget(), shipped::variants()].into_iter().flatten().collect(),
    )
}

#[cfg(test)]
mod tests {
    use doorbell_explore::Report;
    use doorbell_explore::validate::{Answer, Question, Reason};

    use super::*;
    use crate::RunOptions;

    fn run(name: &str) -> Report {
        let variant = case().variants.into_iter().find(|variant| variant.name == name).expect("a variant of this case");
        variant.run(&RunOptions { jobs: 1, ..RunOptions::default() })
    }

    fn classes(question: &Question) -> Vec<String> {
        question.nodes().iter().map(|node| node.to_string()).collect()
    }

    const RING: [&str; 3] = ["ir_list_lock", "irq_desc", "rq lock"];

    fn names_the_ring(question: &Question) -> bool {
        let found = classes(question);
        matches!(question, Question::Inversion(_))
            && found.len() == 3
            && RING.iter().all(|name| found.contains(&name.to_string()))
    }

    #[test]
    fn the_reported_ring_is_what_the_validator_asks_for_and_its_trace_names_all_three_edges() {
        let report = run("as-reported");
        let failure = report.assert_found(FailureKind::Deadlock);
        let questions = report.lock_questions();
        let (_, answer) =
            questions.iter().find(|(question, _)| names_the_ring(question)).expect("the ring is asked for");
        assert_eq!(*answer, Answer::Reachable { token: failure.token.clone() });
        let waits: Vec<_> = failure.trace.waits.iter().map(|wait| (wait.who.as_str(), wait.what.as_str())).collect();
        for (who, what, held_by) in
            [("affinity", "rq lock", "vCPU"), ("vCPU", "ir_list_lock", "bind"), ("bind", "irq_desc", "affinity")]
        {
            let named = |wait: &&(&str, &str)| wait.0 == who && wait.1.contains(what) && wait.1.contains(held_by);
            assert!(waits.iter().any(|wait| named(&wait)), "{who} waits for {what}: {waits:?}");
        }
        let places: std::collections::BTreeSet<_> = failure.trace.waits.iter().map(|wait| &wait.place).collect();
        assert_eq!(places.len(), 3, "each party has a CPU of its own");
    }

    #[test]
    fn the_ring_is_unreachable_because_the_instances_differ() {
        for name in ["plain-handler", "no-wake-up-notifier-own-cpu"] {
            let report = run(name);
            report.assert_exhausted();
            let questions = report.lock_questions();
            let [(question, Answer::Unreachable { reasons })] = &questions[..] else {
                panic!("{}", report.lock_report())
            };
            assert!(names_the_ring(question), "{question}");
            assert_eq!(reasons[..], [Reason::DifferentInstances], "{}", report.lock_report());
        }
    }

    #[test]
    fn a_halted_vcpu_does_not_even_raise_the_question() {
        let report = run("as-reported-halts");
        assert!(report.lock_questions().is_empty(), "{}", report.lock_report());
    }
}
