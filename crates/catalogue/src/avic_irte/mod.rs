//! Document 000: three parties, each with interrupts off, wait for each other in a ring.
//!
//! A file each: the interrupt core (`irq`), KVM's side (`svm`), the three parties and their machine
//! (`parties`), a vCPU that turns AVIC off (`mode`), an interrupt that moves from one vCPU to
//! another (`retarget`), and X08, for which the lock came to be held so far (`stale`). What
//! Doorbell does: the three parties (`ring`), and what an IRTE goes through (`shipped`).
//!
//! What `explain avic-irte/as-reported` shows, beside what was said in the thread:
//!
//! - Its three waits are the document's (a), (b) and (c), each on a CPU of its own: the wake-up
//!   under the descriptor's lock, the hook under the run queue's, the binding under the list's. Of
//!   the two hooks that (b) names, only the one that leaves the CPU is a party: the other runs when
//!   the run queue's lock is gone. lockdep draws two CPUs, one of which waits for a descriptor that
//!   the other does not hold; the third party, who writes the affinity, is missing there.
//! - The thread asks whether the report is benign. It is not, under three conditions that nobody
//!   there states: the thread that is woken belongs to the descriptor that is bound
//!   (`plain-handler`; for a device of VFIO that takes forced threading), its wake-up needs the run
//!   queue of the CPU that the vCPU leaves, and the vCPU is not halted (`as-reported-halts`), which
//!   rests on a look that the hook takes before it takes the lock (`as-reported-halts-looks-late`).
//! - "The only cost is latency" holds of the dropped wake-up (`no-wake-up-next-interrupt`), but the
//!   chain through an affinity notifier's work, of which it was said that it has been there for
//!   fifteen years, closes only if the notifier is of the descriptor that is bound
//!   (`no-wake-up-notifier-other-descriptor`), and if the worker belongs to the vCPU's CPU: a
//!   per-CPU workqueue wakes a worker of the writer's own (`no-wake-up-notifier-own-cpu`), unless
//!   the work still runs elsewhere. A wake-up that is put off until the lock is gone costs nothing,
//!   if all of them are (`wake-ups-delayed`, against `wake-up-delayed-notifier`).
//! - The leaf lock ends the ring and keeps what the lock was for (`avic-stale-irte/leaf-lock`). It
//!   is a leaf of this model: in Linux, the IOMMU's driver takes a lock of its own under it, and
//!   waits there until an invalidation has completed. Neither a scheduler nor a descriptor is
//!   behind that.
//! - Without a word, the proposal also cures another race: the mode is looked at under the lock
//!   (`mode-leaf-lock`), and not before it (`mode-as-reported`).
//! - What nobody mentions is lost before as after: while an interrupt moves from A to B, its IRTE
//!   points to A and is on nobody's list (`retarget-*`). For that, the device has to raise it
//!   meanwhile: a guest that masks an interrupt before it moves it is safe.
//!
//! | statement | variants |
//! |---|---|
//! | (a) a new affinity wakes a thread under `irq_desc` | `as-reported*`; on another descriptor: `plain-handler` |
//! | (b) the scheduler's hooks take `ir_list_lock` under the run queue's | `as-reported`, `as-reported-sleeps`; not `as-reported-halts` |
//! | (c), (d) KVM holds `ir_list_lock` where `irq_desc` is taken | `as-reported*` |
//! | is the report benign? | `as-reported`, with its conditions: `plain-handler`, `as-reported-halts` |
//! | no other lock would do for (c) | what it is for: `avic-stale-irte/looked-up-outside-lock`, `avic-stale-irte/fixed` |
//! | the locks of run queues and descriptors are internal, and no leaves | none: of interfaces |
//! | a thread is attached with a wake-up outside of `irq_desc` | `shipped-ring-attached` |
//! | drop the wake-up | `no-wake-up` |
//! | which costs nothing but latency | `no-wake-up-thread-follows`, `no-wake-up-next-interrupt` |
//! | the interrupt core may come to wake somebody else there | `no-wake-up-notifier*`; no matter to `leaf-lock-notifier` |
//! | bind the metadata first, and the IRTE under a leaf | `leaf-lock*`, `avic-stale-irte/leaf-lock` |
//! | which makes the driver's function weird | none: of taste |
//! | scheduling changes update IRTEs by themselves | `avic-stale-irte/*`, `retarget-leaf-lock-stays` |
//! | no vCPU is scheduled until its IRTE is written and listed | `avic-stale-irte/fixed`, against `avic-stale-irte/as-reported` |
//! | running: ring its CPU; not running: the next load says where | `avic-stale-irte/leaf-lock`, `avic-stale-irte/entry-*` |
//! | asleep: as its entry says, ask for a log entry | `shipped-sleep` |
//! | the mode is looked at under the lock (in the patch alone) | `mode-as-reported`, `mode-leaf-lock` |
//! | a binding that fails is undone | `shipped-bind-fails`, `shipped-bind-fails-not-looked-at` |
//! | bound to no vCPU: back to the host | `retarget-unbind*`, `shipped-retarget*` |
//! | later: put the wake-up off until the lock is gone | `wake-up-delayed*`, `wake-ups-delayed`, `shipped-ring*` |

mod irq;
mod mode;
mod parties;
mod retarget;
mod ring;
mod shipped;
pub(crate) mod stale;
mod svm;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::validate::ReasonKind;
use doorbell_hardware::iommu_amd::Post;

use crate::case::variant;
use crate::{Case, Expected, Inversions, Variant};
use irq::WakeUp;
use parties::{Bind, Leaves, Notified, REPORTED, Scope, ThreadMust, WorkerOn};
use retarget::{Goes, Order, Retarget};
use svm::PutLooks;

const DEADLOCK: Expected = Expected::Found(FailureKind::Deadlock);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

fn ring(name: &'static str, expected: Expected, why: &'static str, scope: Scope) -> Variant {
    variant(name, expected, why, scope)
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
            Scope { vcpu: Leaves::Sleeps, ..REPORTED },
        ),
        ring(
            "as-reported-halts",
            Expected::Exhausted,
            "a halted vCPU has changed its IRTEs before it sleeps, so the hook has nothing to do under the run queue's lock",
            Scope { vcpu: Leaves::Halts, ..REPORTED },
        ),
        ring(
            "as-reported-halts-looks-late",
            DEADLOCK,
            "a hook that takes the list's lock to see that the halt has done its work is as good for the ring as any: a \
             planted fault",
            Scope { vcpu: Leaves::Halts, put_looks: PutLooks::UnderLock, ..REPORTED },
        ),
        ring(
            "plain-handler",
            Expected::Exhausted,
            "the descriptor that is bound has no thread, and the one whose thread is woken is not bound",
            Scope { own: false, ..REPORTED },
        )
        .inversions(Inversions::Unreachable(vec![ReasonKind::DifferentInstances])),
    ]
}

fn no_wake_up() -> Vec<Variant> {
    let dropped = Scope { wake_up: WakeUp::Never, ..REPORTED };
    let notified = |worker| Scope {
        notifier: Some(Notified { worker, queues: WakeUp::UnderLock }),
        ..dropped
    };
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
            Scope { thread: ThreadMust::Follow, ..dropped },
        ),
        ring(
            "no-wake-up-next-interrupt",
            Expected::Exhausted,
            "the next interrupt wakes the thread, which then moves itself: what is lost is time",
            Scope { thread: ThreadMust::FollowByNextInterrupt, ..dropped },
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
        ring(
            "no-wake-up-notifier-other-descriptor",
            Expected::Exhausted,
            "the descriptor that is bound has no notifier, and the one whose notifier's worker is woken is not bound",
            Scope { own: false, ..notified(WorkerOn::VcpusCpu) },
        )
        .inversions(Inversions::Unreachable(vec![ReasonKind::DifferentInstances])),
    ]
}

/// The wake-up is put off until the descriptor's lock is gone: what was thought of later, and what
/// is shipped.
fn delayed() -> Vec<Variant> {
    let delayed = Scope { wake_up: WakeUp::AfterLock, ..REPORTED };
    let notified = |queues| Scope {
        notifier: Some(Notified { worker: WorkerOn::VcpusCpu, queues }),
        ..delayed
    };
    vec![
        ring(
            "wake-up-delayed",
            Expected::Exhausted,
            "whoever waits for a run queue holds irq_desc no more, and the thread follows the affinity without delay",
            Scope { thread: ThreadMust::Follow, ..delayed },
        ),
        ring(
            "wake-up-delayed-notifier",
            DEADLOCK,
            "the notifier's worker is woken under irq_desc still: the same ring",
            notified(WakeUp::UnderLock),
        ),
        ring(
            "wake-ups-delayed",
            Expected::Exhausted,
            "the notifier's work is queued when irq_desc is gone, too",
            Scope { thread: ThreadMust::Follow, ..notified(WakeUp::AfterLock) },
        ),
    ]
}

fn leaf_lock() -> Vec<Variant> {
    let leaf = Scope { bind: Bind::Leaf, ..REPORTED };
    let worker = Notified { worker: WorkerOn::VcpusCpu, queues: WakeUp::UnderLock };
    vec![
        ring(
            "leaf-lock",
            Expected::Exhausted,
            "whoever holds ir_list_lock waits for no lock of a scheduler or a descriptor",
            leaf,
        ),
        ring(
            "leaf-lock-sleeps",
            Expected::Exhausted,
            "whoever holds ir_list_lock waits for no lock of a scheduler or a descriptor",
            Scope { vcpu: Leaves::Sleeps, ..leaf },
        ),
        ring(
            "leaf-lock-halts",
            Expected::Exhausted,
            "nor does it matter which hook takes ir_list_lock, and for what",
            Scope { vcpu: Leaves::Halts, put_looks: PutLooks::UnderLock, ..leaf },
        ),
        ring(
            "leaf-lock-notifier",
            Expected::Exhausted,
            "nor whom a new affinity wakes under irq_desc",
            Scope { notifier: Some(worker), ..leaf },
        ),
    ]
}

/// What an IRTE says that is bound while its vCPU turns AVIC off.
fn mode() -> Vec<Variant> {
    let variant = |name, expected, why, bind| {
        Variant::new(name, expected, why, mode::SCOPE, move |m| mode::program(m, bind))
    };
    vec![
        variant(
            "mode-as-reported",
            LOST,
            "the mode is looked at before ir_list_lock is taken, and AVIC turned off, and the list walked, in between",
            Bind::UnderListLock,
        ),
        variant(
            "mode-leaf-lock",
            Expected::Exhausted,
            "the proposal looks at the mode under ir_list_lock: it sees AVIC off, or is on the list that is walked",
            Bind::Leaf,
        ),
    ]
}

/// What becomes of an interrupt that is moved from one vCPU to another.
fn retarget() -> Vec<Variant> {
    let leaf =
        Retarget { order: Order::UnlistThenBindLeaf, a: Goes::ToAnotherCpu, post: Post::AtOnce };
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
        moved(
            "retarget-unbind-not-looked",
            LOST,
            "to have waited tells A nothing",
            split(unbind(true, false)),
        ),
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
        [reported(), no_wake_up(), delayed(), leaf_lock(), mode(), retarget(), shipped::variants()]
            .into_iter()
            .flatten()
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use doorbell_explore::Report;
    use doorbell_explore::validate::{Answer, Question, Reason};

    use super::*;
    use crate::RunOptions;

    fn run(name: &str) -> Report {
        let variant = case()
            .variants
            .into_iter()
            .find(|variant| variant.name == name)
            .expect("a variant of this case");
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
        let (_, answer) = questions
            .iter()
            .find(|(question, _)| names_the_ring(question))
            .expect("the ring is asked for");
        assert_eq!(*answer, Answer::Reachable { token: failure.token.clone() });
        let waits: Vec<_> = failure
            .trace
            .waits
            .iter()
            .map(|wait| (wait.who.as_str(), wait.what.as_str()))
            .collect();
        for (who, what, held_by) in [
            ("affinity", "rq lock", "vCPU"),
            ("vCPU", "ir_list_lock", "bind"),
            ("bind", "irq_desc", "affinity"),
        ] {
            let named = |wait: &&(&str, &str)| {
                wait.0 == who && wait.1.contains(what) && wait.1.contains(held_by)
            };
            assert!(waits.iter().any(|wait| named(&wait)), "{who} waits for {what}: {waits:?}");
        }
        let places: std::collections::BTreeSet<_> =
            failure.trace.waits.iter().map(|wait| &wait.place).collect();
        assert_eq!(places.len(), 3, "each party has a CPU of its own");
    }

    #[test]
    fn the_ring_is_unreachable_because_the_instances_differ() {
        for name in
            ["plain-handler", "no-wake-up-notifier-own-cpu", "no-wake-up-notifier-other-descriptor"]
        {
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
