//! Real threads in explored code. They have a process of their own: whichever exploration runs
//! meanwhile is told of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, Platform};

type Word = <Sim as Platform>::AtomicU64;

/// A context that starts a real thread, which uses a word of the machine.
fn starts_a_thread(m: &Machine, then: fn(std::thread::JoinHandle<()>)) {
    let word = Arc::new(Word::new(0));
    m.task("task", move || {
        let thread = std::thread::Builder::new().name("real".to_owned());
        then(thread.spawn(move || word.store(1, SeqCst)).expect("a thread starts"));
    });
}

#[test]
fn a_real_thread_that_uses_the_machine_is_named_in_the_report_whether_or_not_its_panic_is_passed_on()
 {
    let about = "The thread \"real\", which is a real one and no context, used a simulated object meanwhile: contexts are \
                 started by `Machine::task` or `doorbell_explore::spawn`, not by `std::thread`.";
    let report = Explore::new("strays")
        .run(|m| starts_a_thread(m, |thread| thread.join().expect("it ends well")));
    let why = &report.assert_found(FailureKind::Panic).trace.why;
    assert!(why.starts_with("task panicked at ") && why.ends_with(about), "{why}");

    let report = Explore::new("strays").run(|m| starts_a_thread(m, |thread| drop(thread.join())));
    assert_eq!(report.assert_found(FailureKind::Panic).trace.why, about);

    // What comes after is not to be blamed.
    let report = Explore::new("strays").run(|m: &Machine| {
        m.task("task", || ());
    });
    report.assert_exhausted();
}
