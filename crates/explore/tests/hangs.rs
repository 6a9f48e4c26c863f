//! Explored code that hangs is named by the watchdog, and its process ends. Each mistake is made in
//! a child process: this test binary, told by an environment variable to make it.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use doorbell_explore::{Explore, Machine, Sim, sim};
use doorbell_platform::{Atomic, AtomicInt, Lock, LockClass, Platform, Std, WaitType};

type Word = <Sim as Platform>::AtomicU64;

static NATIVE: LockClass = LockClass::new("native", WaitType::Spin);

/// Says which mistake the process is to make.
const MISTAKE: &str = "DOORBELL_MISTAKE";

/// Two tasks, each of which holds what `hold` gives it over a step.
fn held_over_a_step<T: 'static>(m: &Machine, shared: T, hold: fn(&T, &Word)) {
    let shared = Arc::new((shared, Word::new(0)));
    for name in ["one", "two"] {
        let shared = Arc::clone(&shared);
        m.task(name, move || hold(&shared.0, &shared.1));
    }
}

fn std_mutex(m: &Machine) {
    held_over_a_step(m, std::sync::Mutex::new(()), |mutex, word| {
        word.load(SeqCst);
        let _held = mutex.lock();
        word.fetch_add(1, SeqCst);
    });
}

fn native_lock(m: &Machine) {
    held_over_a_step(m, Lock::<Std, ()>::new(&NATIVE, ()), |lock, word| {
        word.load(SeqCst);
        let _held = lock.lock();
        word.fetch_add(1, SeqCst);
    });
}

fn channel(m: &Machine) {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let word = Arc::new(Word::new(0));
    let other = Arc::clone(&word);
    m.task("receiver", move || {
        word.fetch_add(1, SeqCst);
        let _ = receive.recv();
    });
    m.task("sender", move || {
        other.fetch_add(1, SeqCst);
        let _ = send.send(());
    });
}

/// Goes round, and takes no step.
fn round() {
    let steps = std::sync::atomic::AtomicU64::new(0);
    while steps.fetch_add(1, Relaxed) != u64::MAX {}
}

fn no_step(m: &Machine) {
    let word = Word::new(0);
    m.task("spinner", move || {
        word.store(1, SeqCst);
        round();
    });
}

fn no_step_at_all(m: &Machine) {
    m.hardware("device", round);
}

fn in_a_handler(m: &Machine) {
    let handler =
        m.handler(doorbell_platform::CpuId(0), doorbell_platform::Vector(0x20), "tick", round);
    m.hardware("timer", move || handler.raise());
}

fn set_up(_: &Machine) {
    Word::new(0).store(1, SeqCst);
    round();
}

fn condition(m: &Machine) {
    m.task("task", || ());
    m.at_quiescence("all is well", || {
        round();
        Ok(())
    });
}

/// The mistakes, who is named for each, and the line that the last step is at (in this file), if
/// there was one.
type Mistake = (&'static str, fn(&Machine), &'static str, Option<&'static str>);
const MISTAKES: [Mistake; 8] = [
    ("std mutex", std_mutex, "task two", Some("word.load(SeqCst);\n        let _held = mutex")),
    ("native lock", native_lock, "task two", Some("word.load(SeqCst);\n        let _held = lock")),
    (
        "channel",
        channel,
        "task receiver",
        Some("word.fetch_add(1, SeqCst);\n        let _ = receive"),
    ),
    ("no step", no_step, "task spinner", Some("word.store(1, SeqCst);\n        round")),
    ("no step at all", no_step_at_all, "hardware device", Some("m.hardware(\"device\"")),
    ("handler", in_a_handler, "handler tick", Some("m.handler(doorbell_platform")),
    ("set-up", set_up, "its set-up", Some("Word::new(0).store(1, SeqCst);\n    round")),
    ("condition", condition, "the condition that all is well", None),
];

/// Starts this binary to make a mistake.
fn child(mistake: &str) -> Child {
    let own = std::env::current_exe().expect("a test has a file");
    let mut child = Command::new(own);
    child.args(["--exact", "the_child_makes_its_mistake", "--nocapture"]).env(MISTAKE, mistake);
    child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child starts")
}

/// Returns the child's status, and what it says on stderr. A child that does not end is ended,
/// after so long that no machine is that slow.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let _ = stderr.read_to_string(&mut said);
        said
    });
    for _ in 0..1200 {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return (status.code(), reader.join().expect("it only reads"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
    (None, format!("it had to be ended; it said {:?}", reader.join()))
}

/// Where the test says that the last step is.
fn line_of(part: &str) -> String {
    let before = include_str!("hangs.rs").find(part).expect("it is in this file");
    let line = include_str!("hangs.rs")[..before].matches('\n').count() + 1;
    format!("crates/explore/tests/hangs.rs:{line}")
}

#[test]
fn the_child_makes_its_mistake() {
    let Ok(mistake) = std::env::var(MISTAKE) else { return };
    let explore = Explore::new(mistake.clone()).watchdog(Some(Duration::from_millis(500)));
    match mistake.as_str() {
        "slow" => slow(&explore),
        "told" => told(&explore),
        "nested" => nested(&explore),
        mistake => {
            let (_, program, ..) =
                MISTAKES.iter().find(|known| known.0 == mistake).expect("a known mistake");
            explore.run(program);
        }
    }
}

#[test]
fn whoever_hangs_is_named_with_its_last_step_and_the_process_ends() {
    let children: Vec<_> = MISTAKES.iter().map(|mistake| (mistake, child(mistake.0))).collect();
    for ((name, _, who, step), child) in children {
        let (status, said) = end(child);
        assert_eq!(status, Some(101), "{name}: {said}");
        assert!(
            said.contains(&format!(
                "the exploration {name:?} hangs: {who} has taken no visible step for"
            )),
            "{said}"
        );
        match step {
            Some(step) => assert!(
                said.contains(&format!(", since the one at {}. ", line_of(step))),
                "{name}: {said}"
            ),
            None => assert!(!said.contains("since the one"), "{name}: {said}"),
        }
    }
}

/// A program that takes several times the patience, with a step now and then.
fn slow(explore: &Explore) {
    println!("begins");
    let report = explore.run(|m: &Machine| {
        let word = Word::new(0);
        m.task("slow", move || {
            for _ in 0..40 {
                word.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
    report.assert_exhausted();
}

#[cfg(unix)]
#[test]
fn a_slow_program_that_takes_steps_does_not_hang_though_it_is_suspended_for_long() {
    let mut child = child("slow");
    let mut out = child.stdout.take().expect("it is piped");
    let mut begun = String::new();
    while !begun.contains("begins") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).expect("it says so"), 1, "it ended: {begun}");
        begun.push(char::from(byte[0]));
    }
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    };
    for _ in 0..3 {
        signal("-STOP");
        std::thread::sleep(Duration::from_millis(1_500));
        signal("-CONT");
    }
    assert_eq!(end(child).0, Some(0));
}

/// Says what hangs itself, and ends the process with another status.
fn told(explore: &Explore) {
    let explore = explore.clone().on_stall(|stall| {
        assert_eq!((stall.exploration.as_str(), stall.who.as_str()), ("told", "task spinner"));
        std::process::exit(
            if stall.site.as_deref() == Some(&line_of("word.store(1, SeqCst);\n        round")) {
                7
            } else {
                8
            },
        );
    });
    explore.run(no_step);
}

/// An exploration that takes several times the patience, in a context of another one.
fn nested(explore: &Explore) {
    let inner = explore.clone();
    let report = explore.run(move |m: &Machine| {
        let inner = inner.clone();
        m.task("outer", move || slow(&inner));
    });
    report.assert_exhausted();
}

#[test]
fn what_a_program_does_about_what_hangs_is_its_own() {
    assert_eq!(end(child("told")).0, Some(7));
}

#[test]
fn a_context_that_explores_something_else_meanwhile_does_not_hang() {
    let (status, said) = end(child("nested"));
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn without_patience_nothing_is_watched() {
    let told = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&told);
    let explore =
        Explore::new("patient").watchdog(None).on_stall(move |_| flag.store(true, Relaxed));
    let report = explore.run(|m: &Machine| {
        let model = sim::Model::new("model", ());
        m.task("task", move || {
            model.observe(|()| ());
            std::thread::sleep(Duration::from_millis(300));
        });
    });
    report.assert_exhausted();
    assert!(!told.load(Relaxed));
}
