//! What traces say: names, remarks, columns, and the program's own sentences.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::{FailureKind, Trace};
use doorbell_explore::{Explore, Machine, Sim, render, sim};
use doorbell_platform::{Atomic, AtomicInt, Platform, RcuCell, ReadDomain};

type Word = <Sim as Platform>::AtomicU32;
type Flag = <Sim as Platform>::AtomicBool;
type Rcu = <Sim as Platform>::Rcu;

/// The trace of a program that fails.
#[track_caller]
fn found(kind: FailureKind, program: impl Fn(&Machine) + Send + Sync) -> Trace {
    Explore::new("traces").run(program).assert_found(kind).trace.clone()
}

fn texts(trace: &Trace) -> Vec<&str> {
    trace.lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn a_named_word_is_called_by_its_name_and_others_by_the_line_that_made_them() {
    let line = line!() + 3;
    let trace = found(FailureKind::Invariant, move |m| {
        let pending = Arc::new(Flag::new(false).named("pending"));
        let nameless = Arc::new(Word::new(0));
        m.task("task", move || {
            pending.store(true, SeqCst);
            pending.load(SeqCst);
            let _ = pending.compare_exchange(false, true, SeqCst, SeqCst);
            nameless.fetch_add(1, SeqCst);
            sim::fail("enough");
        });
    });
    let unnamed = format!("0 → 1, word of traces.rs:{line}");
    let named =
        ["writes pending: true", "reads pending: true", "pending: true, not false, so no exchange"];
    assert_eq!(texts(&trace), [&named[..], &[&unnamed]].concat());
}

#[test]
fn words_of_one_name_are_numbered() {
    let trace = found(FailureKind::Invariant, |m| {
        let ids: Vec<Word> = (0..2).map(|id| Word::new(id).named("id")).collect();
        m.task("task", move || {
            for id in &ids {
                id.load(SeqCst);
            }
            sim::fail("enough");
        });
    });
    assert_eq!(texts(&trace), ["reads id#0: 0", "reads id#1: 1"]);
}

#[test]
fn a_remark_stands_at_the_step_that_the_context_did_last() {
    let trace = found(FailureKind::Invariant, |m| {
        let line = Arc::new(sim::Model::new("line", false));
        let other = line.clone();
        m.task("device", move || {
            sim::remark(|| "there is no step yet".to_owned());
            line.change(|level| *level = true);
            sim::remark(|| "high".to_owned());
        });
        m.task("guest", move || {
            if other.observe(|level| *level) {
                sim::remark(|| "sees it".to_owned());
                sim::fail("the guest sees the line");
            }
        });
    });
    assert_eq!(texts(&trace), ["changes line: high", "looks at line: sees it"]);
}

#[test]
fn a_remark_is_not_made_where_no_trace_is_written() {
    let report = Explore::new("traces").run(|m: &Machine| {
        let word = Word::new(0);
        m.task("task", move || {
            word.load(SeqCst);
            sim::remark(|| unreachable!("the search writes no trace"));
        });
    });
    report.assert_exhausted();
}

#[test]
fn callbacks_of_a_grace_period_have_a_column_of_their_own() {
    let trace = found(FailureKind::Invariant, |m| {
        let rcu = Arc::new(Rcu::new("rcu"));
        let cell = Arc::new(RcuCell::<Sim, _, _>::new(&rcu, Box::new(0)).named("cell"));
        let freed = Arc::new(Flag::new(false).named("freed"));
        m.task("writer", move || {
            drop(cell.replace(Box::new(1)));
            let done = freed.clone();
            rcu.call(Box::new(move || {
                done.store(true, SeqCst);
                sim::fail("it is called back");
            }));
        });
    });
    let columns: Vec<&str> = trace.columns.iter().map(|column| column.title.as_str()).collect();
    assert_eq!(columns, ["CPU1", "rcu callbacks"]);
    assert!(texts(&trace).contains(&"updates cell"), "{:?}", texts(&trace));
    let last: Vec<_> =
        trace.lines.iter().filter(|line| line.column == 1).map(|line| line.text.as_str()).collect();
    assert_eq!(last[last.len() - 2..], ["begins a callback", "writes freed: true"]);
    assert_eq!(trace.why, "rcu callbacks: it is called back");
}

#[test]
fn a_sentence_of_the_program_is_a_violated_invariant_and_no_panic() {
    let trace = found(FailureKind::Invariant, |m| {
        let word = Arc::new(Word::new(0).named("word"));
        let mine = word.clone();
        m.task("one", move || {
            mine.fetch_add(1, SeqCst);
        });
        m.task("two", move || {
            let seen = word.load(SeqCst);
            if seen > 0 {
                sim::fail(format_args!("the word is {seen} already"));
                word.store(7, SeqCst);
                unreachable!("the run is over at the next step");
            }
        });
    });
    assert_eq!(trace.why, "two: the word is 1 already");
    assert_eq!(texts(&trace).last(), Some(&"reads word: 1"));
    let text = render::text(&trace, &Default::default());
    assert!(text.starts_with("violated invariant, "), "{text}");
}

#[test]
fn conditions_of_quiescence_and_the_set_up_can_fail_with_a_sentence_too() {
    let trace = found(FailureKind::Invariant, |m| {
        m.task("task", || Sim::cpu_relax());
        m.at_quiescence("nothing", || {
            sim::fail("something is left");
            Ok(())
        });
    });
    assert_eq!(trace.why, "something is left");
    let trace = found(FailureKind::Invariant, |m| {
        m.task("task", || ());
        sim::fail("nothing can be set up");
    });
    assert_eq!(trace.why, "nothing can be set up");
}

#[test]
#[should_panic(expected = "there is no machine")]
fn outside_of_explorations_a_sentence_is_a_panic() {
    sim::fail("there is no machine");
}
