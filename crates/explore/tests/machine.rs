//! What the simulated machine does, and what it calls an error.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Ghost, GracePeriods, Model, Pool, SimCompletion, Timer, local_irq_enable};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Schedules, Sim, spawn};
use doorbell_platform::{
    Atomic, AtomicInt, Completion, CpuId, Lock, LockClass, Mutex, Platform, ReadDomain, SeqWords, Vector, WaitQueue,
    WaitType, Work, WorkQueue,
};

type Word = <Sim as Platform>::AtomicU64;

static SPIN: LockClass = LockClass::new("spin", WaitType::Spin);
static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

const TIMER: Vector = Vector(0x20);
const IPI: Vector = Vector(0x30);

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("machine").run(program)
}

fn word(value: u64) -> Arc<Word> {
    Arc::new(Word::new(value))
}

/// Expects a word to hold a value in the end.
fn ends_with(m: &Machine, word: &Arc<Word>, value: u64) {
    let word = Arc::clone(word);
    m.at_quiescence("the word has its value", move || match word.load(SeqCst) {
        found if found == value => Ok(()),
        found => Err(format!("it is {found}, not {value}")),
    });
}

#[test]
fn a_mutex_taken_in_a_handler_sleeps_in_atomic_context() {
    let report = explore(|m| {
        let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
        let handler = m.handler(CpuId(0), TIMER, "tick", move || drop(mutex.lock()));
        m.hardware("timer", move || handler.raise());
    });
    report.assert_found(FailureKind::SleepInAtomic);
}

#[test]
fn a_mutex_taken_under_a_spin_lock_or_with_interrupts_or_preemption_off_sleeps_in_atomic_context() {
    let take: [fn(&Mutex<Sim, ()>); 3] = [
        |mutex| {
            let spin = Lock::<Sim, ()>::new(&SPIN, ());
            let _spin = spin.lock();
            drop(mutex.lock());
        },
        |mutex| {
            let irqs = Sim::irq_save();
            drop(mutex.lock());
            Sim::irq_restore(irqs);
        },
        |mutex| {
            Sim::preempt_disable();
            drop(mutex.lock());
            Sim::preempt_enable();
        },
    ];
    for take in take {
        let report = explore(move |m| {
            let mutex = Mutex::new(&MUTEX, ());
            m.task("task", move || take(&mutex));
        });
        report.assert_found(FailureKind::SleepInAtomic);
    }
}

#[test]
fn interrupts_restored_out_of_order_break_a_lock_rule() {
    let report = explore(|m| {
        m.task("task", || {
            let outer = Sim::irq_save();
            let _inner = Sim::irq_save();
            Sim::irq_restore(outer);
        });
    });
    let failure = report.assert_found(FailureKind::LockRule);
    assert!(failure.trace.why.contains("out of order"), "{}", failure.trace.why);
}

#[test]
fn a_task_that_ends_holding_a_lock_breaks_a_lock_rule() {
    let report = explore(|m| {
        let spin = Lock::<Sim, ()>::new(&SPIN, ());
        m.task("task", move || {
            std::mem::forget(spin.lock());
        });
    });
    report.assert_found(FailureKind::LockRule);
}

#[test]
fn a_lock_that_must_be_held_and_is_not_breaks_a_lock_rule() {
    let report = explore(|m| {
        let spin = Lock::<Sim, ()>::new(&SPIN, ());
        m.task("task", move || {
            let guard = spin.lock();
            spin.assert_held();
            drop(guard);
            spin.assert_held();
        });
    });
    report.assert_found(FailureKind::LockRule);
}

#[test]
fn a_freed_object_that_is_touched_is_an_error() {
    let report = explore(|m| {
        let ghost = Arc::new(Ghost::new("object"));
        let other = Arc::clone(&ghost);
        m.task("user", move || ghost.access());
        m.task("owner", move || other.free());
    });
    report.assert_found(FailureKind::UseAfterFree);
}

#[test]
fn one_reference_dropped_twice_is_an_error() {
    let report = explore(|m| {
        let ghost = Arc::new(Ghost::new("object"));
        for name in ["one", "two"] {
            let ghost = Arc::clone(&ghost);
            m.task(name, move || {
                ghost.put();
            });
        }
    });
    report.assert_found(FailureKind::RefUnderflow);
}

#[test]
fn a_panic_is_found_with_its_text_and_the_locks_it_unwinds_through_do_not_suspend() {
    let report = explore(|m| {
        let spin = Arc::new(Lock::<Sim, u32>::new(&SPIN, 0));
        for name in ["one", "two"] {
            let spin = Arc::clone(&spin);
            m.task(name, move || {
                let mut count = spin.lock_irqsave();
                *count += 1;
                assert!(*count < 2, "the count is {count}", count = *count);
            });
        }
    });
    let failure = report.assert_found(FailureKind::Panic);
    assert!(failure.trace.why.contains("the count is 2"), "{}", failure.trace.why);
}

#[test]
fn a_condition_that_does_not_hold_in_the_end_is_found() {
    let report = explore(|m| {
        let word = word(0);
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(name, move || {
                let value = word.load(SeqCst);
                word.store(value + 1, SeqCst);
            });
        }
        ends_with(m, &word, 2);
    });
    let failure = report.assert_found(FailureKind::Quiescence);
    assert!(failure.trace.minimal);
    assert_eq!(failure.trace.preemptions, 1);
}

#[test]
fn a_program_that_depends_on_something_else_is_told_so() {
    use std::sync::atomic::AtomicU64;
    let runs = AtomicU64::new(0);
    let report = explore(|m| {
        let run = runs.fetch_add(1, SeqCst);
        let word = word(0);
        let other = Arc::clone(&word);
        m.task("one", move || {
            if run.is_multiple_of(2) {
                word.load(SeqCst);
            } else {
                word.store(1, SeqCst);
            }
            word.fetch_add(1, SeqCst);
        });
        m.task("two", move || {
            other.fetch_add(1, SeqCst);
        });
    });
    assert!(matches!(report.failure, Some(failure) if failure.kind == FailureKind::Nondeterministic));
}

#[test]
fn a_run_without_end_is_cut_at_the_limit() {
    let report = Explore::new("endless").max_steps(100).run(|m: &Machine| {
        let word = word(0);
        m.task("task", move || {
            loop {
                word.fetch_add(1, SeqCst);
            }
        });
    });
    report.assert_found(FailureKind::TooLong);
}

#[test]
fn a_retry_loop_waits_for_a_write_to_what_it_reads() {
    let report = explore(|m| {
        let flag = word(0);
        let other = Arc::clone(&flag);
        m.task("spins", move || {
            while flag.load(SeqCst) == 0 {
                Sim::cpu_relax();
            }
        });
        m.task("sets", move || other.store(1, SeqCst));
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 2, "the flag is set before the first look, or after it");
}

#[test]
fn a_retry_loop_for_a_write_that_never_comes_is_a_deadlock() {
    let report = explore(|m| {
        let flag = word(0);
        m.task("spins", move || {
            while flag.load(SeqCst) == 0 {
                Sim::cpu_relax();
            }
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.why.contains("nobody is left"), "{}", failure.trace.why);
}

#[test]
fn words_under_a_sequence_counter_are_never_torn() {
    let report = explore(|m| {
        let words = Arc::new(SeqWords::<Sim, 2>::new([0, 0]));
        let lock = Lock::<Sim, ()>::new(&SPIN, ());
        let writes = Arc::clone(&words);
        m.task("writer", move || {
            let guard = lock.lock_irqsave();
            writes.write(&guard, [1, 1]);
        });
        m.task("reader", move || {
            let [first, second] = words.read();
            assert_eq!(first, second);
        });
    });
    report.assert_exhausted();
}

#[test]
fn an_interrupt_comes_between_any_two_steps_and_the_task_stands_still() {
    let report = Explore::new("interrupt").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let (task, handler) = (Arc::clone(&word), Arc::clone(&word));
        let handler = m.handler(CpuId(0), TIMER, "tick", move || {
            let value = handler.load(SeqCst);
            handler.store(value + 10, SeqCst);
        });
        m.task_on(CpuId(0), "task", move || {
            let value = task.load(SeqCst);
            task.store(value + 1, SeqCst);
        });
        m.hardware("timer", move || handler.raise());
        m.outcome(move || word.load(SeqCst).to_string());
    });
    // Before, after, or between (the handler's write is lost); never the other way round.
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "11"]);
}

#[test]
fn a_handler_that_enables_interrupts_can_be_interrupted_and_one_that_does_not_cannot() {
    for nests in [false, true] {
        let report = Explore::new("nested").collect_outcomes().run(move |m: &Machine| {
            let word = word(0);
            let (outer, inner) = (Arc::clone(&word), Arc::clone(&word));
            let outer = m.handler(CpuId(0), TIMER, "outer", move || {
                if nests {
                    local_irq_enable();
                }
                let value = outer.load(SeqCst);
                outer.store(value + 1, SeqCst);
            });
            let inner = m.handler(CpuId(0), IPI, "inner", move || {
                let value = inner.load(SeqCst);
                inner.store(value + 10, SeqCst);
            });
            m.hardware("timer", move || outer.raise());
            m.hardware("device", move || inner.raise());
            m.outcome(move || word.load(SeqCst).to_string());
        });
        let expected: &[&str] = if nests { &["1", "11"] } else { &["11"] };
        assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), expected, "nests: {nests}");
    }
}

#[test]
fn two_interrupts_in_flight_are_handled_once_or_twice() {
    let report = Explore::new("coalesce").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let handler = Arc::clone(&word);
        m.ipi_handler(CpuId(0), IPI, "handler", move || {
            handler.fetch_add(1, SeqCst);
        });
        m.task_on(CpuId(1), "sender", || {
            Sim::send_ipi(CpuId(0), IPI);
            Sim::send_ipi(CpuId(0), IPI);
        });
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_timer_expires_as_often_as_the_scope_allows() {
    let report = Explore::new("timer").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let handler = Arc::clone(&word);
        let handler = m.handler(CpuId(0), TIMER, "tick", move || {
            handler.fetch_add(1, SeqCst);
        });
        let timer = Timer::new(m, "timer", 1, move || handler.raise());
        m.task_on(CpuId(0), "task", move || {
            timer.arm();
            timer.arm();
        });
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_timeout_strikes_only_where_the_scope_allows_it() {
    for timeouts in [0, 1] {
        let report = Explore::new("timeout").collect_outcomes().run(move |m: &Machine| {
            m.timeouts(timeouts);
            let done = Arc::new(SimCompletion::new("done"));
            let completes = Arc::clone(&done);
            let word = word(0);
            let outcome = Arc::clone(&word);
            m.task("waits", move || word.store(1 + u64::from(done.wait_timeout()), SeqCst));
            m.task("completes", move || completes.complete_all());
            m.outcome(move || outcome.load(SeqCst).to_string());
        });
        let expected: &[&str] = if timeouts == 0 { &["2"] } else { &["1", "2"] };
        assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_wait_queue_misses_no_change_that_is_followed_by_a_wake_up() {
    let report = explore(|m| {
        let flag = word(0);
        let queue = Arc::new(<Sim as Platform>::WaitQueue::new("queue"));
        let (sets, wakes) = (Arc::clone(&flag), Arc::clone(&queue));
        m.task("waits", move || queue.wait_until(|| flag.load(SeqCst) == 1));
        m.task("wakes", move || {
            sets.store(1, SeqCst);
            wakes.wake_all();
        });
    });
    report.assert_exhausted();
}

/// A reader of a domain looks at an object that a writer frees after a grace period.
fn reader_and_writer<D: ReadDomain>(m: &Machine, waits: bool) {
    let domain = Arc::new(D::new("domain"));
    let pointer = word(1);
    let ghost = Arc::new(Ghost::new("object"));
    let (read, reads, object) = (Arc::clone(&domain), Arc::clone(&pointer), Arc::clone(&ghost));
    m.task("reader", move || {
        let _section = read.read();
        if reads.load(SeqCst) == 1 {
            object.access();
        }
    });
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
            let (read, reads, object) = (Arc::clone(&domain), Arc::clone(&pointer), Arc::clone(&ghost));
            m.task("reader", move || {
                let _section = read.read();
                if reads.load(SeqCst) == 1 {
                    object.access();
                }
            });
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
fn work_is_done_once_for_each_time_that_it_is_queued_while_it_is_not_queued() {
    let report = Explore::new("work").collect_outcomes().run(|m: &Machine| {
        let pool = Pool::new(m, "pool", 2);
        let word = word(0);
        let counts = Arc::clone(&word);
        let work = pool.work("work", move || {
            counts.fetch_add(1, SeqCst);
        });
        for name in ["one", "two"] {
            let work = work.clone();
            m.task(name, move || {
                work.queue();
            });
        }
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn flushed_work_has_run_and_cancelled_work_does_not_run_any_more() {
    let report = explore(|m| {
        let pool = Pool::new(m, "pool", 1);
        let word = word(0);
        let counts = Arc::clone(&word);
        let work = pool.work("work", move || {
            counts.fetch_add(1, SeqCst);
        });
        m.task("task", move || {
            work.queue();
            work.flush();
            assert_eq!(word.load(SeqCst), 1);
            work.queue();
            let cancelled = work.cancel();
            let runs = word.load(SeqCst);
            assert_eq!(runs, if cancelled { 1 } else { 2 });
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_worker_that_waits_for_work_of_its_own_pool_exhausts_it() {
    let report = explore(|m| {
        let pool = Pool::new(m, "pool", 1);
        let inner = pool.work("inner", || ());
        let outer = pool.work("outer", move || {
            inner.queue();
            inner.flush();
        });
        m.task("task", move || {
            outer.queue();
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.why.contains("pool/0"), "{}", failure.trace.why);
}

#[test]
fn a_stuck_set_ends_the_run_though_others_could_go_on() {
    let report = explore(|m| {
        let locks: Arc<[Mutex<Sim, ()>; 2]> = Arc::new(std::array::from_fn(|_| Mutex::new(&MUTEX, ())));
        for seat in 0..2 {
            let locks = Arc::clone(&locks);
            m.task("stuck", move || {
                let _first = locks[seat].lock();
                let _second = locks[1 - seat].lock();
            });
        }
        let word = word(0);
        m.task("goes on", move || {
            for _ in 0..1000 {
                word.fetch_add(1, SeqCst);
            }
        });
    });
    let failure = report.assert_found(FailureKind::Deadlock);
    assert!(failure.trace.lines.len() < 10, "{} lines", failure.trace.lines.len());
}

#[test]
fn a_join_comes_after_everything_that_the_task_did() {
    let report = explore(|m| {
        let word = word(0);
        m.task("parent", move || {
            let child = Arc::clone(&word);
            let task = spawn("child", move || child.store(1, SeqCst));
            task.join();
            assert_eq!(word.load(SeqCst), 1);
        });
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 1);
}

#[test]
fn a_modelled_object_is_used_in_single_steps() {
    let report = explore(|m| {
        let queue = Arc::new(Model::new("queue", Vec::new()));
        let takes = Arc::clone(&queue);
        m.task("producer", move || {
            for item in 0..3 {
                queue.change(|queue| queue.push(item));
            }
        });
        m.task("consumer", move || {
            for item in 0..3 {
                assert_eq!(takes.take(|queue| !queue.is_empty(), |queue| queue.remove(0)), item);
            }
        });
    });
    report.assert_exhausted();
}

fn careless(m: &Machine) {
    let word = word(0);
    for name in ["one", "two"] {
        let word = Arc::clone(&word);
        m.task(name, move || {
            let value = word.load(SeqCst);
            word.store(value + 1, SeqCst);
        });
    }
    ends_with(m, &word, 2);
}

#[test]
fn a_token_replays_the_same_trace_a_thousand_times_and_is_refused_elsewhere() {
    use doorbell_explore::ReplayError;
    let explore = Explore::new("careless");
    let report = explore.run(careless);
    let failure = report.assert_found(FailureKind::Quiescence);
    assert!(failure.token.len() <= 80);
    for _ in 0..1000 {
        let mut again = explore.replay(&failure.token, careless).expect("the same program");
        again.trace.minimal = failure.trace.minimal;
        assert_eq!(again.trace, failure.trace);
    }
    let elsewhere = Explore::new("other").replay(&failure.token, careless);
    assert_eq!(elsewhere.unwrap_err(), ReplayError::OtherProgram);
    let stale = explore.replay(&failure.token, |m: &Machine| {
        m.task("one", || ());
    });
    assert_eq!(stale.unwrap_err(), ReplayError::Stale);
    for broken in ["", "db1-", "db1-!!!!", "nonsense", "db1-AAAA"] {
        assert_eq!(explore.replay(broken, careless).unwrap_err(), ReplayError::Malformed, "{broken:?}");
    }
}

#[test]
fn every_way_to_search_finds_a_lost_update() {
    for schedules in
        [Schedules::Reduced, Schedules::All, Schedules::Uniform { seed: 1 }, Schedules::Priorities { seed: 1 }]
    {
        for jobs in [1, 2] {
            let report = Explore::new("careless").schedules(schedules).jobs(jobs).max_executions(1000).run(careless);
            report.assert_found(FailureKind::Quiescence);
        }
    }
}

#[test]
fn a_search_that_ends_early_says_so() {
    let report = Explore::new("early").max_executions(10).run(|m: &Machine| {
        let word = word(0);
        for name in ["one", "two"] {
            let word = Arc::clone(&word);
            m.task(name, move || {
                for _ in 0..8 {
                    word.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(report.verdict, doorbell_explore::Verdict::BoundReached);
    assert_eq!(report.executions, 10);
}
