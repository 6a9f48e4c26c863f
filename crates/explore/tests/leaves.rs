//! What a context must not do while it holds a leaf, and what it may.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{
    GracePeriods, Managed, ManagedPool, Placement, Pool, Scheduler, SimCompletion, SimSrcu,
    SimWaitQueue, yield_now,
};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim, spawn};
use doorbell_platform::{
    Atomic, Completion, CpuId, Lock, LockClass, Mutex, Platform, RcuCell, ReadDomain, Subclass,
    Vector, WaitQueue, WaitType, Work, WorkQueue,
};

static LEAF: LockClass = LockClass::new("leaf", WaitType::Spin).leaf();
static SLEEPING: LockClass = LockClass::new("sleeping leaf", WaitType::Sleep).leaf();
static OTHER: LockClass = LockClass::new("other", WaitType::Spin);
static OTHER_SLEEPS: LockClass = LockClass::new("other mutex", WaitType::Sleep);

type Word = <Sim as Platform>::AtomicU64;
type Rcu = <Sim as Platform>::Rcu;

/// What a task does; what it needs is set up before.
type Does = Box<dyn FnOnce()>;

/// One that does `what` under a spin lock, or, as `sleeps` says, a mutex.
fn under(m: &Machine, sleeps: bool, what: Does) {
    let (spin, mutex) = (Lock::<Sim, ()>::new(&LEAF, ()), Mutex::<Sim, ()>::new(&SLEEPING, ()));
    m.task_on(CpuId(0), "holder", move || {
        if sleeps {
            let _held = mutex.lock();
            what();
        } else {
            let _held = spin.lock();
            what();
        }
    });
}

/// Expects that `what`, which is told as `said`, fails under both kinds of leaves.
#[track_caller]
fn found(said: &str, what: impl Fn(&Machine) -> Does + Send + Sync + Copy + 'static) {
    for sleeps in [false, true] {
        let report = Explore::new(said).run(move |m: &Machine| under(m, sleeps, what(m)));
        let failure = report.assert_found(FailureKind::UnderLeaf);
        let why = &failure.trace.why;
        let name = if sleeps { "mutex sleeping leaf" } else { "lock leaf" };
        assert!(why.contains(&format!("holder {said}")), "{why}");
        assert!(why.contains(&format!("while it holds {name}")), "{why}");
        // Where it was done (a guard that is dropped has no line of its own), and where the leaf
        // was taken.
        let lines = why.matches("leaves.rs:").count() + why.matches("platform/src/rcu.rs:").count();
        assert_eq!(lines, 2, "{why}");
    }
}

/// [`found`], and that `what` is nothing to complain of when the leaf is gone.
#[track_caller]
fn forbidden(said: &str, what: impl Fn(&Machine) -> Does + Send + Sync + Copy + 'static) {
    found(said, what);
    let report = Explore::new(said).run(move |m: &Machine| {
        let what = what(m);
        let leaf = Lock::<Sim, ()>::new(&LEAF, ());
        m.task_on(CpuId(0), "holder", move || {
            drop(leaf.lock());
            what();
        });
    });
    report.assert_exhausted();
}

#[test]
fn under_a_leaf_no_spin_lock_is_taken() {
    forbidden("takes lock other", |_| {
        let other = Lock::<Sim, ()>::new(&OTHER, ());
        Box::new(move || drop(other.lock()))
    });
    forbidden("takes lock other", |_| {
        let other = Lock::<Sim, ()>::new(&OTHER, ());
        Box::new(move || drop(other.lock_irqsave()))
    });
}

#[test]
fn under_a_leaf_no_sleeping_lock_is_taken() {
    forbidden("takes mutex other mutex", |_| {
        let other = Mutex::<Sim, ()>::new(&OTHER_SLEEPS, ());
        Box::new(move || drop(other.lock()))
    });
}

#[test]
fn under_a_leaf_to_try_a_lock_is_to_take_it() {
    forbidden("takes lock other", |_| {
        let other = Lock::<Sim, ()>::new(&OTHER, ());
        Box::new(move || drop(other.try_lock()))
    });
}

#[test]
fn under_a_leaf_another_of_its_class_is_not_taken() {
    forbidden("takes lock leaf", |_| {
        let other = Lock::<Sim, ()>::new(&LEAF, ());
        Box::new(move || drop(other.lock_nested(Subclass::new(1))))
    });
}

#[test]
fn under_a_leaf_what_is_annotated_counts_as_taken() {
    forbidden("takes other", |_| {
        Box::new(|| {
            Sim::annotate_acquire(&OTHER, Subclass::DEFAULT);
            Sim::annotate_release(&OTHER, Subclass::DEFAULT);
        })
    });
}

#[test]
fn a_leaf_that_is_annotated_is_a_leaf() {
    let report = Explore::new("annotated").run(|m: &Machine| {
        let other = Lock::<Sim, ()>::new(&OTHER, ());
        m.task("holder", move || {
            Sim::annotate_acquire(&LEAF, Subclass::DEFAULT);
            drop(other.lock());
            Sim::annotate_release(&LEAF, Subclass::DEFAULT);
        });
    });
    report.assert_found(FailureKind::UnderLeaf);
}

#[test]
fn under_a_leaf_nobody_is_woken() {
    forbidden("wakes holder", |_| Box::new(|| Sim::wake(&Sim::current_task())));
}

#[test]
fn under_a_leaf_nothing_is_completed_and_no_queue_is_woken() {
    forbidden("completes done", |_| {
        let done = SimCompletion::new("done");
        Box::new(move || done.complete_all())
    });
    forbidden("wakes who waits for queue", |_| {
        let queue = SimWaitQueue::new("queue");
        Box::new(move || queue.wake_all())
    });
}

#[test]
fn under_a_leaf_no_task_of_a_scheduler_is_woken() {
    let report = Explore::new("scheduled").run(|m: &Machine| {
        let scheduler = Scheduler::new(m, 1, Placement::Previous, true, ());
        let sleeper = scheduler.task(m, CpuId(0), "sleeper", Sim::park);
        let leaf = Lock::<Sim, ()>::new(&LEAF, ());
        m.task_on(CpuId(1), "holder", move || {
            let _held = leaf.lock();
            scheduler.wake(sleeper);
        });
    });
    assert!(report.assert_found(FailureKind::UnderLeaf).trace.why.contains("holder wakes sleeper"));
}

#[test]
fn under_a_leaf_no_ipi_is_sent_and_no_interrupt_raised() {
    forbidden("sends an IPI to CPU1", |m| {
        m.handler(CpuId(1), Vector(0x41), "kick", || ());
        Box::new(|| Sim::send_ipi(CpuId(1), Vector(0x41)))
    });
    forbidden("raises the interrupt of kick", |m| {
        let handler = m.handler(CpuId(1), Vector(0x41), "kick", || ());
        Box::new(move || handler.raise())
    });
}

#[test]
fn under_a_leaf_nobody_sleeps() {
    found("sleeps", |_| Box::new(|| Sim::park()));
    forbidden("waits for done", |_| {
        let done = SimCompletion::new("done");
        done.complete_all();
        Box::new(move || done.wait())
    });
    forbidden("waits for the end of other", |m| {
        let other = m.task_on(CpuId(1), "other", || ());
        Box::new(move || other.join())
    });
}

#[test]
fn under_a_leaf_no_cpu_is_given_up() {
    let report = Explore::new("yields").run(|m: &Machine| {
        let scheduler = Scheduler::new(m, 1, Placement::Previous, true, ());
        let leaf = Mutex::<Sim, ()>::new(&SLEEPING, ());
        scheduler.task(m, CpuId(0), "holder", move || {
            let _held = leaf.lock();
            yield_now();
        });
    });
    assert!(
        report.assert_found(FailureKind::UnderLeaf).trace.why.contains("holder gives up its CPU")
    );
}

/// Everything that asks or waits for a grace period.
#[track_caller]
fn grace_periods<D: ReadDomain>() {
    forbidden("waits for a grace period of domain", |_| {
        let domain = D::new("domain");
        Box::new(move || domain.synchronize())
    });
    forbidden("waits for a grace period of domain", |_| {
        let domain = D::new("domain");
        Box::new(move || domain.synchronize_expedited())
    });
    forbidden("asks for a grace period of domain", |_| {
        let domain = D::new("domain");
        Box::new(move || domain.call(Box::new(|| ())))
    });
    forbidden("waits for callbacks of domain", |_| {
        let domain = D::new("domain");
        Box::new(move || domain.barrier())
    });
    forbidden("asks for a grace period of domain", |_| {
        let domain = Arc::new(D::new("domain"));
        let cell = RcuCell::<Sim, D, u32>::new(&domain, Box::new(1));
        Box::new(move || cell.replace(Box::new(2)).reclaim_later())
    });
}

#[test]
fn under_a_leaf_no_grace_period_is_asked_or_waited_for() {
    grace_periods::<Rcu>();
}

#[test]
fn under_a_leaf_no_grace_period_of_srcu_is_asked_or_waited_for() {
    grace_periods::<SimSrcu>();
}

#[test]
fn under_a_leaf_no_read_section_ends() {
    forbidden("ends a read section of rcu", |_| {
        let domain = Rcu::new("rcu");
        Box::new(move || drop(domain.read()))
    });
    forbidden("ends a read section of srcu", |_| {
        let domain = SimSrcu::new("srcu");
        Box::new(move || drop(domain.read()))
    });
}

#[test]
fn under_a_leaf_no_read_section_ends_inside_of_another() {
    let report = Explore::new("nested").run(|m: &Machine| {
        let (domain, leaf) = (Rcu::new("rcu"), Lock::<Sim, ()>::new(&LEAF, ()));
        m.task("holder", move || {
            let _outer = domain.read();
            let _held = leaf.lock();
            drop(domain.read());
        });
    });
    report.assert_found(FailureKind::UnderLeaf);
}

#[test]
fn under_a_leaf_no_work_is_queued() {
    forbidden("queues \"work\"", |m| {
        let work = Pool::new(m, "pool", 1).work("work", || ());
        Box::new(move || {
            work.queue();
        })
    });
    forbidden("queues \"job\"", |m| {
        let pool = Pool::new(m, "pool", 1);
        Box::new(move || pool.spawn("job", Box::new(|| ())))
    });
    forbidden("queues \"job\"", |m| {
        let queue = ManagedPool::new(m, "pool", Managed::new(2)).queue(1);
        Box::new(move || queue.spawn("job", Box::new(|| ())))
    });
    forbidden("waits for work", |m| {
        let work = Pool::new(m, "pool", 1).work("work", || ());
        Box::new(move || work.flush())
    });
    forbidden("cancels \"work\"", |m| {
        let work = Pool::new(m, "pool", 1).work("work", || ());
        Box::new(move || {
            work.cancel();
        })
    });
}

#[test]
fn a_destructor_that_asserts_it_is_not_run_under_a_leaf() {
    struct Owned;
    impl Drop for Owned {
        #[track_caller]
        fn drop(&mut self) {
            Sim::assert_no_leaf("drops what is owned");
        }
    }
    let dropped = |under: bool| {
        Explore::new("dropped").run(move |m: &Machine| {
            let lock = Lock::<Sim, Option<Owned>>::new(&LEAF, Some(Owned));
            m.task("holder", move || {
                if under {
                    *lock.lock() = None;
                } else {
                    let owned = lock.lock().take();
                    drop(owned);
                }
            });
        })
    };
    let report = dropped(true);
    assert!(
        report
            .assert_found(FailureKind::UnderLeaf)
            .trace
            .why
            .contains("holder drops what is owned")
    );
    dropped(false).assert_exhausted();
}

#[test]
fn nothing_is_asserted_where_nothing_is_explored() {
    Sim::assert_no_leaf("does something");
}

#[test]
fn under_a_leaf_words_are_written_and_read_sections_begin() {
    let report = Explore::new("allowed").run(|m: &Machine| {
        let (rcu, srcu) = (Arc::new(Rcu::new("rcu")), SimSrcu::new("srcu"));
        let cell = RcuCell::<Sim, Rcu, u32>::new(&rcu, Box::new(1));
        let (leaf, word) = (Lock::<Sim, u32>::new(&LEAF, 0), Word::new(0));
        m.task("holder", move || {
            let (value, section, former);
            let mut held = leaf.lock_irqsave();
            *held += 1;
            word.store(1, SeqCst);
            value = cell.read();
            section = srcu.read();
            assert_eq!(*value, 1);
            former = cell.replace(Box::new(2));
            drop(held);
            drop((section, value));
            drop(former.synchronize());
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_handler_that_interrupts_the_holder_is_free() {
    let report = Explore::new("interrupted").run(|m: &Machine| {
        let leaf = Arc::new(Lock::<Sim, ()>::new(&LEAF, ()));
        let (other, done) = (Lock::<Sim, ()>::new(&OTHER, ()), SimCompletion::new("done"));
        let handler = m.handler(CpuId(0), Vector(0x41), "interrupt", move || {
            drop(other.lock());
            done.complete_all();
        });
        m.task_on(CpuId(0), "holder", move || drop(leaf.lock()));
        m.hardware("device", move || handler.raise());
    });
    report.assert_exhausted();
    assert!(report.executions >= 3, "before, under and after the lock: {}", report.executions);
}

#[test]
fn a_handler_that_holds_a_leaf_is_held_to_it() {
    let report = Explore::new("handler").run(|m: &Machine| {
        let (leaf, done) = (Lock::<Sim, ()>::new(&LEAF, ()), SimCompletion::new("done"));
        let handler = m.handler(CpuId(0), Vector(0x41), "interrupt", move || {
            let _held = leaf.lock();
            done.complete_all();
        });
        m.hardware("device", move || handler.raise());
    });
    report.assert_found(FailureKind::UnderLeaf);
}

#[test]
fn another_context_is_free_while_somebody_holds_a_leaf() {
    let report = Explore::new("another").run(|m: &Machine| {
        let (leaf, other) = (Lock::<Sim, ()>::new(&LEAF, ()), Lock::<Sim, ()>::new(&OTHER, ()));
        m.task_on(CpuId(0), "holder", move || drop(leaf.lock()));
        let done = Arc::new(SimCompletion::new("done"));
        let waits = Arc::clone(&done);
        m.task_on(CpuId(1), "other", move || {
            drop(other.lock());
            done.complete_all();
        });
        m.task_on(CpuId(2), "waits", move || waits.wait());
    });
    report.assert_exhausted();
}

#[test]
fn a_task_that_preempts_the_holder_is_free_and_so_is_the_switch_to_it() {
    let report = Explore::new("preempted").run(|m: &Machine| {
        let scheduler = Scheduler::new(m, 1, Placement::Previous, true, ());
        let (leaf, word) = (Mutex::<Sim, u32>::new(&SLEEPING, 0), Word::new(0));
        let done = Arc::new(SimCompletion::new("done"));
        let urgent = scheduler.service(m, CpuId(0), "urgent", move || done.complete_all());
        scheduler.task(m, CpuId(0), "holder", move || {
            let mut held = leaf.lock();
            *held += 1;
            word.store(1, SeqCst);
            *held += 1;
        });
        m.task_on(CpuId(1), "waker", move || scheduler.wake(urgent));
    });
    report.assert_exhausted();
    assert!(report.executions > 3, "{}", report.executions);
}

#[test]
fn after_it_was_preempted_the_holder_is_held_to_its_leaf() {
    let report = Explore::new("preempted, then wakes").run(|m: &Machine| {
        let scheduler = Scheduler::new(m, 1, Placement::Previous, true, ());
        let (leaf, done) = (Mutex::<Sim, ()>::new(&SLEEPING, ()), SimCompletion::new("done"));
        let ran = Arc::new(Word::new(0));
        let runs = Arc::clone(&ran);
        let urgent = scheduler.service(m, CpuId(0), "urgent", move || runs.store(1, SeqCst));
        scheduler.task(m, CpuId(0), "holder", move || {
            let before = ran.load(SeqCst);
            let _held = leaf.lock();
            // Only where it lost its CPU with the leaf held.
            if before == 0 && ran.load(SeqCst) == 1 {
                done.complete_all();
            }
        });
        m.task_on(CpuId(1), "waker", move || scheduler.wake(urgent));
    });
    report.assert_found(FailureKind::UnderLeaf);
}

#[test]
fn a_panic_under_a_leaf_is_told_as_itself() {
    let report = Explore::new("panics").run(|m: &Machine| {
        let (leaf, domain) = (Lock::<Sim, ()>::new(&LEAF, ()), Rcu::new("rcu"));
        m.task("holder", move || {
            let _held = leaf.lock();
            let _section = domain.read();
            panic!("as planned");
        });
    });
    assert!(report.assert_found(FailureKind::Panic).trace.why.contains("as planned"));
}

#[test]
fn a_lock_that_is_no_leaf_may_have_others_under_it() {
    let report = Explore::new("nested").run(|m: &Machine| {
        let (outer, leaf) = (Lock::<Sim, ()>::new(&OTHER, ()), Lock::<Sim, ()>::new(&LEAF, ()));
        let done = SimCompletion::new("done");
        m.task("holder", move || {
            let _outer = outer.lock();
            drop(leaf.lock());
            done.complete_all();
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_report_says_which_classes_were_taken() {
    let report = Explore::new("classes").run(|m: &Machine| {
        let (leaf, other) =
            (Lock::<Sim, ()>::new(&LEAF, ()), Mutex::<Sim, ()>::new(&OTHER_SLEEPS, ()));
        let never = Lock::<Sim, ()>::new(&OTHER, ());
        m.task("one", move || {
            drop(leaf.try_lock());
            drop(other.lock());
            let _never = &never;
        });
    });
    let names: Vec<_> = report.lock_classes().map(LockClass::name).collect();
    assert_eq!(names, ["leaf", "other mutex"]);
}

#[test]
fn where_grace_periods_need_workers_the_rule_is_the_same() {
    let report = Explore::new("on a pool").run(|m: &Machine| {
        m.grace_periods(GracePeriods::OnPool(Pool::new(m, "pool", 1)));
        let (domain, leaf) = (Rcu::new("rcu"), Lock::<Sim, ()>::new(&LEAF, ()));
        m.task("holder", move || {
            let _held = leaf.lock();
            domain.call(Box::new(|| ()));
        });
    });
    report.assert_found(FailureKind::UnderLeaf);
}

#[test]
fn a_task_that_is_spawned_while_a_leaf_is_held_holds_none() {
    let report = Explore::new("spawned").run(|m: &Machine| {
        let (leaf, other) =
            (Mutex::<Sim, ()>::new(&SLEEPING, ()), Lock::<Sim, ()>::new(&OTHER, ()));
        m.task("holder", move || {
            let _held = leaf.lock();
            spawn("child", move || drop(other.lock()));
        });
    });
    report.assert_exhausted();
}
