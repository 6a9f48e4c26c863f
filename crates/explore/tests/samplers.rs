//! Random schedules find what they are for, whatever they are drawn from.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Schedules, Sim};
use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitQueue, WaitType};

type Word = <Sim as Platform>::AtomicU64;

static QUEUE: LockClass = LockClass::new("queue", WaitType::Spin);

/// A waiter that looks at the flag, then sleeps without being known to the waker in between.
fn looks_then_sleeps(m: &Machine) {
    let flag = Arc::new(Word::new(0));
    let queue = Arc::new(<Sim as Platform>::WaitQueue::new("queue"));
    let (sets, wakes) = (Arc::clone(&flag), Arc::clone(&queue));
    m.task("waiter", move || {
        if flag.load(SeqCst) == 0 {
            let mut woken = false;
            queue.wait_until(|| std::mem::replace(&mut woken, true));
        }
    });
    m.task("waker", move || {
        sets.store(1, SeqCst);
        wakes.wake_all();
    });
}

/// The waiter decides to sleep in one section of a lock and registers in the next.
fn registers_too_late(m: &Machine) {
    struct State {
        ready: bool,
        waiter: Option<<Sim as Platform>::Task>,
    }
    let state = Arc::new(Lock::<Sim, State>::new(&QUEUE, State { ready: false, waiter: None }));
    let other = Arc::clone(&state);
    m.task("waiter", move || {
        let ready = state.lock().ready;
        if !ready {
            state.lock().waiter = Some(Sim::current_task());
            Sim::park();
        }
    });
    m.task("waker", move || {
        let waiter = {
            let mut state = other.lock();
            state.ready = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            Sim::wake(&waiter);
        }
    });
}

/// Fails only if the second task runs as a whole between two certain steps of the first, among many
/// others.
fn one_preemption(m: &Machine) {
    let words: Arc<[Word; 2]> = Arc::new(std::array::from_fn(|_| Word::new(0)));
    let other = Arc::clone(&words);
    m.task("long", move || {
        for step in 0..20 {
            words[0].store(step, SeqCst);
        }
        assert_eq!(words[1].load(SeqCst), 0);
    });
    m.task("short", move || {
        if other[0].load(SeqCst) == 7 {
            other[1].store(1, SeqCst);
        }
    });
}

fn samplers(seed: u64) -> [Schedules; 2] {
    [Schedules::Uniform { seed }, Schedules::Priorities { seed }]
}

#[test]
fn each_sampler_finds_lost_wake_ups_within_a_thousand_schedules_for_each_of_25_seeds() {
    for seed in 0..25 {
        for schedules in samplers(seed) {
            for program in [looks_then_sleeps, registers_too_late] {
                let explore =
                    Explore::new("lost wake-up").schedules(schedules).max_executions(1_000);
                explore.run(program).assert_found(FailureKind::Deadlock);
            }
        }
    }
}

#[test]
fn priorities_find_a_failure_that_needs_one_preemption_among_many_places() {
    for seed in 0..25 {
        let explore =
            Explore::new("one").schedules(Schedules::Priorities { seed }).max_executions(1_000);
        let report = explore.run(one_preemption);
        let failure = report.assert_found(FailureKind::Panic);
        assert!(failure.trace.minimal);
    }
}

#[test]
fn a_sampled_failure_replays_from_its_token() {
    for schedules in samplers(3) {
        let explore = Explore::new("sampled").schedules(schedules).max_executions(1_000);
        let report = explore.run(registers_too_late);
        let failure = report.assert_found(FailureKind::Deadlock);
        let again = explore.replay(&failure.token, registers_too_late).expect("the same program");
        assert_eq!(again.trace.lines, failure.trace.lines);
    }
}

/// Fails only if two tasks take turns without a fault, so often. With a third, that one must not
/// come before the end.
fn turns(m: &Machine, turns: u64, third: bool) {
    let word = Arc::new(Word::new(0));
    for task in 0..2 {
        let word = Arc::clone(&word);
        m.task("task", move || {
            for turn in (task..turns).step_by(2) {
                word.compare_exchange(turn, turn + 1, SeqCst, SeqCst).ok();
            }
        });
    }
    if third {
        let word = Arc::clone(&word);
        m.task("third", move || {
            word.fetch_or(1 << 32, SeqCst);
        });
    }
    m.at_quiescence("the turns are out of order", move || {
        if word.load(SeqCst) as u32 == turns as u32 { Err("they are not".into()) } else { Ok(()) }
    });
}

/// How many schedules it takes on average, over many seeds.
fn schedules_needed(
    schedules: impl Fn(u64) -> Schedules,
    program: impl Fn(&Machine) + Send + Sync + Copy,
) -> u64 {
    const SEEDS: u64 = 40;
    let needed = |seed| {
        let explore = Explore::new("needed")
            .schedules(schedules(seed))
            .minimise(false)
            .max_executions(100_000);
        let report = explore.run(program);
        report.assert_found(FailureKind::Quiescence);
        report.executions
    };
    (0..SEEDS).map(needed).sum::<u64>() / SEEDS
}

#[test]
fn priorities_find_deep_failures_about_as_fast_as_shallow_ones() {
    for count in [2, 4, 6, 8, 10] {
        let needed = schedules_needed(
            |seed| Schedules::Priorities { seed },
            move |m| turns(m, count, false),
        );
        assert!(needed <= 60, "{count} turns take {needed} schedules");
    }
}

#[test]
fn priorities_find_what_needs_one_of_three_tasks_to_stay_behind() {
    let program = |m: &Machine| turns(m, 4, true);
    let uniform = schedules_needed(|seed| Schedules::Uniform { seed }, program);
    let priorities = schedules_needed(|seed| Schedules::Priorities { seed }, program);
    assert!(priorities <= 8 * uniform, "{priorities} schedules, {uniform} uniform ones");
}
