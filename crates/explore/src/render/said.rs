//! What the machine has written down, as people say it: names of locks, numbers, and what a step
//! that is stuck waits for.

use super::words::{clean, find_word};
use crate::trace::{Line, Trace, Wait};

/// Returns the trace in the words of a page.
pub(super) fn said(trace: &Trace) -> Trace {
    let names = Names::of(trace);
    let mut said = trace.clone();
    for line in &mut said.lines {
        if let Some(wait) = trace.waits.iter().find(|wait| is_of(wait, line)) {
            line.text = waits_for(wait);
        }
        if !line.told {
            line.text = in_hex(&line.text);
        }
        names.shorten(&mut line.text);
        line.holds.iter_mut().for_each(|lock| names.shorten(lock));
    }
    for wait in &mut said.waits {
        names.shorten(&mut wait.what);
        wait.holds.iter_mut().for_each(|lock| names.shorten(lock));
    }
    names.shorten(&mut said.why);
    said
}

/// Returns whether the sentence of the trace says more than its waits do, one after the other.
pub(super) fn says_more(trace: &Trace) -> bool {
    trace.waits.is_empty() || !trace.waits.iter().all(|wait| trace.why.contains(&wait.says()))
}

/// Whether the line is the stuck step of that wait, and does not say for what it waits.
fn is_of(wait: &Wait, line: &Line) -> bool {
    line.stuck && line.context == wait.who && !line.text.starts_with("waits for ")
}

/// For what, without the reason: that stands in the list of waits.
fn waits_for(wait: &Wait) -> String {
    let what = wait.what.split_once(", ").map_or(&*wait.what, |(what, _)| what);
    format!("waits for {what}")
}

/// The names of locks that say themselves what they are: `lock rq lock` is `rq lock`.
struct Names {
    long: Vec<String>,
}

const SPIN: &str = "lock ";

impl Names {
    fn of(trace: &Trace) -> Names {
        let mut long: Vec<String> = Vec::new();
        let held = trace.lines.iter().flat_map(|line| &line.holds);
        for name in held.chain(trace.waits.iter().flat_map(|wait| &wait.holds)) {
            if Names::is_said_twice(name) && !long.contains(name) {
                long.push(name.clone());
            }
        }
        Names { long }
    }

    /// Whether the name of the class, without the number of the lock, ends in the word.
    fn is_said_twice(name: &str) -> bool {
        let class = name.strip_prefix(SPIN).map(|class| class.split('#').next().unwrap_or(class));
        class.is_some_and(|class| class.ends_with(SPIN.trim()))
    }

    fn shorten(&self, text: &mut String) {
        for name in &self.long {
            while let Some(at) = find_word(text, name) {
                text.replace_range(at..at + SPIN.len(), "");
            }
        }
    }
}

/// The values of words that are no counts, in hexadecimal, since addresses and entries of tables
/// are read so. What is wider than 64 bits is parted there.
fn in_hex(text: &str) -> String {
    /// Counts of a run are smaller.
    const DIGITS: usize = 6;
    let is_value = |text: &str| {
        let text = clean(text);
        text.starts_with("reads ") || text.starts_with("writes ") || text.contains(" → ")
    };
    if !is_value(text) {
        return text.to_owned();
    }
    let hex = |word: &str| {
        let digits = word.trim_end_matches([',', ':']);
        let value: u128 = match digits.parse() {
            Ok(value) if digits.len() >= DIGITS => value,
            _ => return word.to_owned(),
        };
        let (high, low) = (value >> 64, value as u64);
        let tail = &word[digits.len()..];
        if high == 0 { format!("{low:#x}{tail}") } else { format!("{high:#x}_{low:016x}{tail}") }
    };
    text.split(' ').map(hex).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_lock_whose_name_ends_in_lock_is_not_called_a_lock_once_more() {
        let mut trace = samples::handler();
        for line in &mut trace.lines {
            line.holds = vec!["lock rq lock#1".to_owned(), "lock ring".to_owned()];
        }
        trace.lines[1].text = "takes lock rq lock#1".to_owned();
        trace.lines[2].text =
            "takes lock rq lock#10: and lock ring, under lock rq lock#1".to_owned();
        trace.waits[0].what = "lock rq lock#1, held by reader".to_owned();
        trace.why = "irq waits for lock rq lock#1".to_owned();
        let said = said(&trace);
        assert_eq!(said.lines[1].text, "takes rq lock#1");
        assert_eq!(said.lines[2].text, "takes lock rq lock#10: and lock ring, under rq lock#1");
        assert_eq!(said.lines[1].holds, ["rq lock#1", "lock ring"]);
        assert_eq!(said.waits[0].what, "rq lock#1, held by reader");
        assert_eq!(said.why, "irq waits for rq lock#1");
    }

    #[test]
    fn a_stuck_step_says_for_what_it_waits() {
        let said = said(&samples::handler());
        assert_eq!(said.lines[5].text, "waits for its CPU");
        assert_eq!(said.lines[6].text, "waits for ring#0");
    }

    #[test]
    fn values_are_in_hexadecimal_and_counts_and_the_programs_own_words_are_not() {
        let hex = |text: &str| in_hex(text);
        assert_eq!(hex("reads cached route#1: 4276092928"), "reads cached route#1: 0xfee00000");
        let wide = "writes IRTE: 903890459611768029185";
        assert_eq!(hex(wide), "writes IRTE: 0x31_0000000000000001");
        assert_eq!(hex("word: 4276092928 → 65, of x.rs:1"), "word: 0xfee00000 → 65, of x.rs:1");
        assert_eq!(
            hex("waits no longer: looks 1000000 times more"),
            "waits no longer: looks 1000000 times more"
        );
        let mut trace = samples::handler();
        trace.lines[1].text = "reads 4276092928".to_owned();
        trace.lines[1].told = true;
        assert_eq!(said(&trace).lines[1].text, "reads 4276092928");
    }

    #[test]
    fn a_sentence_that_only_says_the_waits_again_says_no_more() {
        let mut trace = samples::three_party();
        assert!(says_more(&trace), "it says them in another way");
        trace.why = trace.waits.iter().map(|w| format!("{} {}; ", w.who, w.says())).collect();
        assert!(!says_more(&trace));
        trace.waits.clear();
        assert!(says_more(&trace), "nobody else says it");
    }
}
