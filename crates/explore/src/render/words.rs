//! Words: names of failures, clean strings, and fitting text into a width.

use crate::count::count_of;
use crate::trace::{FailureKind, Trace};

/// What went wrong, for people.
pub(super) fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Deadlock => "deadlock",
        FailureKind::SelfDeadlock => "self-deadlock",
        FailureKind::SleepInAtomic => "sleep in atomic context",
        FailureKind::UnderLeaf => "action under a leaf lock",
        FailureKind::DataRace => "data race",
        FailureKind::Leak => "leak",
        FailureKind::UseAfterFree => "use after free",
        FailureKind::RefUnderflow => "reference count below zero",
        FailureKind::Panic => "panic",
        FailureKind::Invariant => "violated invariant",
        FailureKind::Witness => "witness",
        FailureKind::LostWork => "lost work",
        FailureKind::LostInterrupt => "lost interrupt",
        FailureKind::Quiescence => "what must hold in the end does not",
        FailureKind::LockRule => "broken lock rule",
        FailureKind::Nondeterministic => "not deterministic",
        FailureKind::TooLong => "no end in sight",
        FailureKind::TooManyContexts => "too many contexts",
    }
}

/// What is known about the number of preemptions.
pub(super) fn minimality(trace: &Trace) -> String {
    match (trace.minimal, trace.preemptions) {
        (true, n) => format!("minimal in preemptions ({n})"),
        (false, 1) => "1 preemption; minimality was not established".to_owned(),
        (false, n) => format!("{n} preemptions; minimality was not established"),
    }
}

/// Returns `1 step`, or `2 steps`.
pub(super) fn steps(n: usize) -> String {
    count_of(n, "step")
}

/// On one line, without control characters: names and panic messages come from the code under test.
pub(super) fn clean(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How many characters wide.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// Breaks text at spaces into lines of at most `max` characters, and a longer word anywhere. There
/// is always a line.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(1);
    if width(text) <= max {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("never empty");
            let used = width(line);
            let room = max.saturating_sub(if used == 0 { 0 } else { used + 1 });
            if word.len() <= room || (used == 0 && word.len() <= max) {
                if used > 0 {
                    line.push(' ');
                }
                line.extend(&word);
                break;
            }
            if used == 0 {
                line.extend(word.drain(..max));
            }
            lines.push(String::new());
        }
    }
    lines
}

/// Where `name` occurs in `text` as a whole word, if it does.
pub(super) fn find_word(text: &str, name: &str) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '#';
    text.match_indices(name).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + name.len()..].chars();
        let next = after.next();
        // `worker-1` is no word in `worker-1-a`, but `rq#1-` at the end of a clause is.
        let hyphenated = next == Some('-') && after.next().is_some_and(part_of_word);
        !before.is_some_and(|c| part_of_word(c) || c == '-')
            && !next.is_some_and(part_of_word)
            && !hyphenated
    })
}
