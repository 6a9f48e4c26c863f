//! X18: the pending bit of a vector and the kind of its EOI live in two bitmaps.
//!
//! A sender sets the pending bit in one bitmap, and in another whether the target has to end the
//! interrupt or that is done automatically. The target takes the pending bit between the two, and
//! delivers with the kind of EOI that an earlier interrupt has left. The kind that comes late hits
//! the next one.
//!
//! To write the kind first helps as long as a vector has one sender. A second sender writes its
//! kind between the two, and the interrupt of the first is delivered with it. One word that has
//! both is written in one step, and taken in one.

use std::fmt;
use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, fail, note, remark};
use doorbell_explore::trace::FailureKind;

use crate::case::{self, variant};
use crate::{Case, Expected};

/// The case.
pub(crate) fn case() -> Case {
    let torn = Expected::Found(FailureKind::Invariant);
    Case::new(
        "pending-attribute",
        "an interrupt is delivered with the attribute of another",
        "known-races X18: VirtualBox pull request 855 (2026)",
        vec![
            variant(
                "as-reported",
                torn,
                "what is seen pending may not have its kind yet, so that of an earlier interrupt is taken",
                Scope { words: Words::PendingFirst, ..ONE },
            ),
            variant(
                "kind-first",
                Expected::Exhausted,
                "with one sender, what is seen pending has its kind",
                Scope { words: Words::KindFirst, ..ONE },
            ),
            variant(
                "kind-first-two-senders",
                torn,
                "what one has made pending is delivered with the kind that another has written meanwhile",
                Scope { words: Words::KindFirst, senders: 2 },
            ),
            variant(
                "fixed",
                Expected::Exhausted,
                "one word has both, so whoever takes it takes what one sender has written",
                Scope { words: Words::One, ..ONE },
            ),
            variant(
                "fixed-two-senders",
                Expected::Exhausted,
                "nor are those of two mixed",
                Scope { words: Words::One, senders: 2 },
            ),
        ],
    )
}

/// How the pending bit and the kind of EOI are written.
#[derive(Clone, Copy, PartialEq)]
enum Words {
    PendingFirst,
    KindFirst,
    One,
}

/// What the target does when it has handled the interrupt.
#[derive(Clone, Copy, PartialEq)]
enum Eoi {
    /// Nothing: the vector is ended as it is delivered.
    Automatic,
    ByGuest,
}

impl fmt::Display for Eoi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Eoi::Automatic { "automatic EOI" } else { "EOI by the guest" })
    }
}

#[derive(Clone, Copy)]
struct Scope {
    words: Words,
    senders: usize,
}

const ONE: Scope = Scope { words: Words::PendingFirst, senders: 1 };

impl case::Scope for Scope {
    fn text(self) -> String {
        match self.senders {
            1 => "1 vCPU, 1 sender, 1 interrupt".to_owned(),
            senders => format!("1 vCPU, {senders} senders, 1 interrupt each"),
        }
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// What a vector has in the two bitmaps.
struct State {
    pending: bool,
    eoi: Eoi,
    /// The kinds that senders have sent since the vector was taken last, which no code reads.
    sent: Vec<Eoi>,
}

impl State {
    fn send(&mut self, eoi: Eoi) {
        self.pending = true;
        self.sent.push(eoi);
    }

    fn take(&mut self) -> Vec<Eoi> {
        self.pending = false;
        std::mem::take(&mut self.sent)
    }
}

fn send(vector: &Model<State>, words: Words, eoi: Eoi) {
    match words {
        Words::PendingFirst => {
            set_pending(vector, eoi);
            set_kind(vector, eoi);
        }
        Words::KindFirst => {
            set_kind(vector, eoi);
            set_pending(vector, eoi);
        }
        Words::One => {
            vector.change(|vector| {
                vector.eoi = eoi;
                vector.send(eoi);
            });
            note(|| format!("sets the pending bit and the kind: {eoi}"));
        }
    }
}

#[track_caller]
fn set_pending(vector: &Model<State>, eoi: Eoi) {
    vector.change(|vector| vector.send(eoi));
    note(|| "sets the pending bit".to_owned());
}

#[track_caller]
fn set_kind(vector: &Model<State>, eoi: Eoi) {
    vector.change(|vector| vector.eoi = eoi);
    note(|| format!("sets the kind: {eoi}"));
}

/// The target delivers whatever is pending, until nothing more is sent.
fn deliver(vector: &Model<State>, words: Words) {
    let pending = |vector: &State| vector.pending;
    while let Ok((sent, eoi)) = vector.serve(pending, |vector| (vector.take(), vector.eoi)) {
        note(|| "takes the pending bit".to_owned());
        let eoi = if words == Words::One {
            remark(|| format!("delivers with {eoi}"));
            eoi
        } else {
            let eoi = vector.observe(|vector| vector.eoi);
            note(|| format!("reads the kind, and delivers: {eoi}"));
            eoi
        };
        if !sent.contains(&eoi) {
            let sent: Vec<_> = sent.iter().map(Eoi::to_string).collect();
            fail(format!("delivered with {eoi}, and sent with {}", sent.join(" and ")));
        }
    }
}

fn program(m: &Machine, scope: Scope) {
    // An earlier interrupt has left its kind.
    let state = State { pending: false, eoi: Eoi::ByGuest, sent: Vec::new() };
    let vector = Rc::new(Model::new("vector", state));
    let target = Rc::clone(&vector);
    m.task("vCPU", move || deliver(&target, scope.words));
    for (sender, eoi) in [Eoi::Automatic, Eoi::ByGuest].into_iter().enumerate().take(scope.senders)
    {
        let vector = Rc::clone(&vector);
        m.task(format!("sender {sender}"), move || send(&vector, scope.words, eoi));
    }
    m.at_quiescence("what was sent is delivered", move || {
        if vector.observe(|vector| vector.pending) { Err("it is pending".into()) } else { Ok(()) }
    });
}
