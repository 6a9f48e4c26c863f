//! Read sections, grace periods and their callbacks.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Ghost, GracePeriods, Pool};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, CpuId, Mutex, Platform, ReadDomain};

use crate::{MUTEX, Word, explore, word};

/// Looks at an object that `pointer` points to as long as it is not 0.
fn reader<D: ReadDomain>(m: &Machine, domain: &Arc<D>, pointer: &Arc<Word>, object: &Arc<Ghost>) {
    let (read, reads, object) = (Arc::clone(domain), Arc::clone(pointer), Arc::clone(object));
    m.task("reader", move || {
        let _section = read.read();
        if reads.load(SeqCst) == 1 {
            object.access();
        }
    });
}

/// A reader of a domain looks at an object that a writer frees after a grace period.
fn reader_and_writer<D: ReadDomain>(m: &Machine, waits: bool) {
    let domain = Arc::new(D::new("domain"));
    let pointer = word(1);
    let ghost = Arc::new(Ghost::new("object"));
    reader(m, &domain, &pointer, &ghost);
    m.task("writer", move || {
        pointer.store(0, SeqCst);
        if waits {
            domain.synchronize();
        }
        ghost.free();
    });
}

#[test]
fn a_grace_period_waits_for_the_readers_that_began_before_it() {
    type Rcu = <Sim as Platform>::Rcu;
    type Srcu = <Sim as Platform>::Srcu;
    explore(|m| reader_and_writer::<Rcu>(m, true)).assert_exhausted();
    explore(|m| reader_and_writer::<Srcu>(m, true)).assert_exhausted();
    explore(|m| reader_and_writer::<Srcu>(m, false)).assert_found(FailureKind::UseAfterFree);
    let on_pool = explore(|m| {
        let pool = Pool::new(m, "pool", 1);
        m.grace_periods(GracePeriods::OnPool(pool));
        reader_and_writer::<Srcu>(m, true);
    });
    on_pool.assert_exhausted();
}

#[test]
fn callbacks_run_after_a_grace_period_and_barriers_wait_for_them() {
    for on_pool in [false, true] {
        let report = explore(move |m| {
            if on_pool {
                let pool = Pool::new(m, "pool", 1);
                m.grace_periods(GracePeriods::OnPool(pool));
            }
            let domain = Arc::new(<Sim as Platform>::Srcu::new("domain"));
            let pointer = word(1);
            let ghost = Arc::new(Ghost::new("object"));
            reader(m, &domain, &pointer, &ghost);
            m.task("writer", move || {
                pointer.store(0, SeqCst);
                let object = Arc::clone(&ghost);
                domain.call(Box::new(move || object.free()));
                domain.barrier();
                assert!(ghost.is_freed());
            });
        });
        report.assert_exhausted();
    }
}

#[test]
fn sleeping_in_an_rcu_section_is_an_error_and_in_an_srcu_section_is_not() {
    fn sleeper<D: ReadDomain>(m: &Machine) {
        let domain = D::new("domain");
        let mutex = Mutex::<Sim, ()>::new(&MUTEX, ());
        m.task("reader", move || {
            let _section = domain.read();
            drop(mutex.lock());
        });
    }
    explore(sleeper::<<Sim as Platform>::Rcu>).assert_found(FailureKind::SleepInAtomic);
    explore(sleeper::<<Sim as Platform>::Srcu>).assert_exhausted();
}

#[test]
fn a_domain_that_is_made_first_leaves_its_cpu_to_the_task_that_is_pinned_there() {
    explore(|m| {
        let domain = Arc::new(<Sim as Platform>::Rcu::new("domain"));
        let called = word(0);
        let (calls, stays) = (Arc::clone(&called), Arc::clone(&domain));
        m.task_on(CpuId(0), "task", move || {
            assert_eq!(Sim::current_cpu(), CpuId(0));
            domain.call(Box::new(move || calls.store(1, SeqCst)));
        });
        m.at_quiescence("the callback has run", move || {
            let _ = &stays;
            (called.load(SeqCst) == 1).then_some(()).ok_or("it has not".into())
        });
    })
    .assert_exhausted();
}
