//! How many executions exhaust programs that wait in loops or exchange words, and that it is no
//! more than there are inequivalent ones.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Explore, Machine, Report, Schedules, Sim};
use doorbell_platform::{
    Acquire, Atomic, AtomicInt, Lock, LockClass, Platform, RawLock, SeqWords, TicketLock, WaitType,
};

static A: LockClass = LockClass::new("A", WaitType::Spin);

type Word = <Sim as Platform>::AtomicU64;

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("waits").run(program)
}

/// Insists on that number of executions, no two of them equivalent, and all there are.
fn exhausts(executions: u64, program: impl Fn(&Machine) + Send + Sync) {
    let report = Explore::new("waits").count_traces().run(&program);
    report.assert_exhausted();
    assert_eq!(report.executions, executions, "executions ({} cut)", report.cut);
    assert_eq!(report.traces, Some(executions), "two of them are equivalent");
    let all = Explore::new("waits")
        .count_traces()
        .schedules(Schedules::All)
        .max_executions(100_000)
        .run(&program);
    if all.limit.is_none() {
        assert_eq!(
            all.traces,
            Some(executions),
            "{} executions without the reduction",
            all.executions
        );
    }
}

fn word(value: u64) -> Arc<Word> {
    Arc::new(Word::new(value))
}

fn await_one(word: &Word) {
    while word.load(SeqCst) != 1 {
        Sim::cpu_relax();
    }
}

#[test]
fn an_exchange_that_fails_only_reads() {
    let counts = |sum: &Word| {
        let add = |seen| sum.compare_exchange(seen, seen + 1, SeqCst, SeqCst);
        while add(sum.load(SeqCst)).is_err() {}
    };
    exhausts(60, each(3, 0, counts));
    exhausts(4, |m| {
        let x = word(0);
        let (loads, exchanges, stores) = (Arc::clone(&x), Arc::clone(&x), x);
        m.task("loads", move || {
            loads.load(SeqCst);
        });
        m.task("fails", move || {
            let _ = exchanges.compare_exchange(7, 8, SeqCst, SeqCst);
        });
        m.task("stores", move || stores.store(1, SeqCst));
    });
}

/// As many tasks as `tasks`, each of which does `f` to one word that holds `first`.
fn each(tasks: usize, first: u64, f: fn(&Word)) -> impl Fn(&Machine) + Send + Sync {
    move |m| {
        let word = word(first);
        for _ in 0..tasks {
            let word = Arc::clone(&word);
            m.task("task", move || f(&word));
        }
    }
}

#[test]
fn posts_of_a_bit_that_is_set_do_not_depend_on_each_other() {
    let posts = |pending: &Word| {
        pending.fetch_or(4, SeqCst);
    };
    exhausts(1, each(3, 4, posts));
    // Of two that set it, one is the first.
    exhausts(2, each(2, 0, posts));
    // A store writes, also what is there.
    exhausts(2, each(2, 4, |pending| pending.store(4, SeqCst)));
}

#[test]
fn awaits_of_one_write_each_come_before_or_after_the_first_look() {
    for (awaits, executions) in [(1, 2), (2, 4), (3, 8)] {
        exhausts(executions, move |m| {
            let flag = word(0);
            for _ in 0..awaits {
                let flag = Arc::clone(&flag);
                m.task("waits", move || await_one(&flag));
            }
            m.task("sets", move || flag.store(1, SeqCst));
        });
    }
}

#[test]
fn polls_of_one_write_succeed_at_once_or_later_or_give_up() {
    for looks in [2, 17, 1_000] {
        for (polls, executions) in [(1, 3), (2, 9), (3, 27)] {
            exhausts(executions, move |m| {
                let flag = word(0);
                for _ in 0..polls {
                    let flag = Arc::clone(&flag);
                    m.task("polls", move || {
                        for _ in 0..looks {
                            if flag.load(SeqCst) == 1 {
                                break;
                            }
                            Sim::cpu_relax();
                        }
                    });
                }
                m.task("sets", move || flag.store(1, SeqCst));
            });
        }
    }
}

#[test]
fn an_await_under_a_lock_is_one_of_the_orders_of_the_lock() {
    exhausts(3, |m| {
        let (lock, flag) = (Arc::new(Lock::<Sim, ()>::new(&A, ())), word(0));
        let (others, sets) = (Arc::clone(&lock), Arc::clone(&flag));
        m.task("waits", move || {
            let _held = lock.lock();
            await_one(&flag);
        });
        m.task("sets", move || {
            sets.store(1, SeqCst);
            drop(others.lock());
        });
    });
}

#[test]
fn a_reader_of_a_sequence_counter_and_two_tasks_with_a_ticket_lock() {
    exhausts(13, |m| {
        let words = Arc::new(SeqWords::<Sim, 1>::new([0]));
        let (lock, reads) = (Lock::<Sim, ()>::new(&A, ()), Arc::clone(&words));
        m.task("writes", move || words.write(&lock.lock(), [1]));
        m.task("reads", move || {
            reads.read();
        });
    });
    let report = explore(|m| {
        let lock = Arc::new(TicketLock::<Sim>::INIT);
        for name in ["one", "two"] {
            let lock = Arc::clone(&lock);
            m.task(name, move || {
                lock.lock(Acquire::of(&A));
                // SAFETY: the line above has taken it.
                unsafe { lock.unlock() };
            });
        }
    });
    report.assert_exhausted();
    assert_eq!(report.executions, 10);
}

#[test]
fn two_tasks_exclude_each_other_by_petersons_algorithm() {
    let peterson = |m: &Machine| {
        let (wants, turn) = ([word(0), word(0)], word(0));
        for me in 0..2u64 {
            let (mine, other) =
                (Arc::clone(&wants[me as usize]), Arc::clone(&wants[1 - me as usize]));
            let turn = Arc::clone(&turn);
            m.task("task", move || {
                mine.store(1, SeqCst);
                turn.store(1 - me, SeqCst);
                while other.load(SeqCst) == 1 && turn.load(SeqCst) == 1 - me {
                    Sim::cpu_relax();
                }
                mine.store(0, SeqCst);
            });
        }
    };
    exhausts(24, peterson);
}

#[test]
fn no_two_executions_are_equivalent() {
    let report = Explore::new("locks").count_traces().run(|m: &Machine| {
        let (a, b, sum) = (
            Arc::new(Lock::<Sim, ()>::new(&A, ())),
            Arc::new(Lock::<Sim, ()>::new(&A, ())),
            word(0),
        );
        for name in ["one", "two", "three"] {
            let (a, b, sum) = (Arc::clone(&a), Arc::clone(&b), Arc::clone(&sum));
            m.task(name, move || {
                drop(a.lock());
                sum.fetch_add(1, SeqCst);
                drop(b.try_lock());
            });
        }
    });
    report.assert_exhausted();
    assert_eq!(report.traces, Some(report.executions));
}
