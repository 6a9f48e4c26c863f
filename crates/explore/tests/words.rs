//! What a model says of its own steps.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};

use doorbell_explore::sim::{self, Model, note};
use doorbell_explore::trace::{FailureKind, Trace};
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, CpuId, Lock, LockClass, Platform, Vector, WaitType};

type Word = <Sim as Platform>::AtomicU32;

static A: LockClass = LockClass::new("a", WaitType::Spin);
static B: LockClass = LockClass::new("b", WaitType::Spin);

#[test]
fn a_model_tells_its_last_step_in_its_own_words() {
    let report = Explore::new("words").run(|m: &Machine| {
        let door = Arc::new(Model::new("door", false));
        let opens = Arc::clone(&door);
        m.task("porter", move || {
            opens.change(|open| *open = true);
            note(|| "opens the door".to_owned());
            opens.observe(|_| ());
        });
        m.at_quiescence("the door is shut", move || {
            note(|| "not a step of the run".to_owned());
            if door.observe(|open| *open) { Err("it is open".to_owned()) } else { Ok(()) }
        });
    });
    let lines = &report.assert_found(FailureKind::Quiescence).trace.lines;
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["opens the door", "looks at door"]);
}

/// The texts of the lines of a failing program, and the places of the steps.
fn told(
    kind: FailureKind,
    program: impl Fn(&Machine) + Send + Sync,
) -> (Vec<(String, String)>, Trace) {
    let trace = Explore::new("words").run(program).assert_found(kind).trace.clone();
    let lines = trace.lines.iter().map(|line| (line.text.clone(), line.site.clone())).collect();
    (lines, trace)
}

#[test]
fn an_ipi_says_what_is_sent_and_where_it_arrives_at_the_lines_of_the_program() {
    let (installed, sent) = (line!() + 2, line!() + 3);
    let (lines, _) = told(FailureKind::Invariant, |m| {
        m.ipi_handler(CpuId(1), Vector(0x30), "kick", || sim::fail("it has come"));
        m.task_on(CpuId(0), "sender", || Sim::send_ipi(CpuId(1), Vector(0x30)));
    });
    let at = |line: u32| format!("crates/explore/tests/words.rs:{line}");
    let of = |text: &str| {
        let found = lines.iter().find(|line| line.0 == text);
        found.unwrap_or_else(|| panic!("{text} in {lines:?}")).1.clone()
    };
    assert_eq!(of("sends 0x30 to CPU1"), at(sent));
    assert_eq!(of("0x30 arrives at CPU1"), at(installed));
}

#[test]
fn a_wake_up_says_whom_it_wakes() {
    let (lines, _) = told(FailureKind::Invariant, |m| {
        let (sleeper, ready) = (Arc::new(OnceLock::new()), Arc::new(Word::new(0).named("ready")));
        let (me, is_ready) = (Arc::clone(&sleeper), Arc::clone(&ready));
        m.task("c1", move || {
            let _ = me.set(Sim::current_task());
            is_ready.store(1, SeqCst);
            Sim::park();
            sim::fail("it is awake");
        });
        m.task("p1", move || {
            if ready.load(SeqCst) == 1 {
                Sim::wake(sleeper.get().expect("it is ready"));
            }
        });
    });
    let texts: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
    assert_eq!(texts, ["writes ready: 1", "reads ready: 1", "wakes c1", "was woken"]);
    let (_, trace) = told(FailureKind::Deadlock, |m| {
        m.task("c1", Sim::park);
    });
    let why = "c1 (CPU0) waits for the wake-up of c1, which nobody is left to bring about.";
    assert_eq!(trace.why, why);
}

#[test]
fn a_wait_in_a_loop_names_the_word_its_value_and_who_could_write_it() {
    let why = |holds: bool| {
        let (_, trace) = told(FailureKind::Deadlock, move |m| {
            let lock = Arc::new(Lock::<Sim, ()>::new(&A, ()));
            let flag = Arc::new(Word::new(3).named("flag"));
            let (lock2, flag2) = (Arc::clone(&lock), Arc::clone(&flag));
            m.task("spins", move || {
                let _held = holds.then(|| lock.lock());
                while flag.load(SeqCst) != 1 {
                    Sim::cpu_relax();
                }
            });
            m.task("sets", move || {
                if holds {
                    drop(lock2.lock());
                    flag2.store(1, SeqCst);
                } else {
                    flag2.store(7, SeqCst);
                }
            });
        });
        trace.why
    };
    let says = why(true);
    let part = "spins (CPU0) holds lock a, and waits for a write to flag (3), which it reads in a loop: sets waits itself";
    assert!(says.contains(part), "{says}");
    let says = why(false);
    let part = "a write to flag (7), which it reads in a loop: sets has ended, and nobody is left to write it";
    assert!(says.contains(part), "{says}");
}

#[test]
fn each_member_of_a_deadlock_is_the_subject_of_what_it_holds_and_of_what_it_waits_for() {
    let (_, trace) = told(FailureKind::Deadlock, |m| {
        let locks = [&A, &B].map(|class| Arc::new(Lock::<Sim, ()>::new(class, ())));
        for (name, first) in [("one", 0), ("two", 1)] {
            let (outer, inner) = (Arc::clone(&locks[first]), Arc::clone(&locks[1 - first]));
            m.task(name, move || {
                let _held = outer.lock();
                drop(inner.lock());
            });
        }
    });
    let why = "one (CPU0) holds lock a, and waits for lock b, held by two; two (CPU1) holds lock b, and waits for lock a, held by one.";
    assert_eq!(trace.why, why);
    let on: Vec<&[usize]> = trace.waits.iter().map(|wait| &*wait.on).collect();
    assert_eq!(on, [[1], [0]]);
    assert_eq!(trace.waits[0].holds, ["lock a"]);
}

#[test]
fn who_may_sleep_and_must_not_is_the_subject_of_what_it_holds() {
    let (_, trace) = told(FailureKind::SleepInAtomic, |m| {
        let spin = Lock::<Sim, ()>::new(&A, ());
        m.task("task", move || {
            let _held = spin.lock();
            Sim::park();
        });
    });
    assert_eq!(trace.why, "task may sleep until it gets the wake-up of task, and it holds lock a");
}

#[test]
fn an_invariant_that_does_not_hold_is_quoted() {
    let (_, trace) = told(FailureKind::Quiescence, |m| {
        m.at_quiescence("nothing is lost", || Err("one is".to_owned()));
    });
    assert_eq!(
        trace.why,
        "When nothing more can happen, \"nothing is lost\" does not hold: one is."
    );
}
