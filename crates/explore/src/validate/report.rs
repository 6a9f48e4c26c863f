//! The report: lockdep's, in ten lines.

use std::fmt::{self, Write};

use super::answer::Answer;
use super::question::Question;
use super::witness::{Site, Witness};
use super::{CtxKind, Node, Validator};
use crate::ids::{CtxId, ObjId};

impl Validator {
    /// Reports `question` and, if it is known, its answer, without a newline at the end. `name`
    /// names contexts.
    ///
    /// One line for the question, one for each party to the deadlock, one for the answer.
    pub fn describe(
        &self,
        question: &Question,
        answer: Option<&Answer>,
        name: &dyn Fn(CtxId) -> String,
    ) -> String {
        let mut text = question.to_string();
        let nodes = question.nodes();
        let (first, last) = (nodes[0], nodes[nodes.len() - 1]);
        let irq = matches!(question, Question::IrqInversion(_) | Question::IrqUsage(_));
        if irq {
            line(&mut text, None, first, self.taken_in_handler(first), name);
        }
        for (from, to) in question.orders() {
            line(&mut text, Some(from), to, self.witnesses(from, to), name);
        }
        if irq {
            line(&mut text, None, last, self.held_with_irqs_on(last), name);
        }
        match answer {
            None => {}
            Some(Answer::Reachable { token }) => {
                text += &format!("\n  REACHABLE: replay with {token}")
            }
            Some(Answer::Unreachable { reasons }) => {
                let reasons: Vec<_> = reasons.iter().map(|reason| reason.sentence(name)).collect();
                text += &format!("\n  UNREACHABLE within the scope. {}", reasons.join(" "));
            }
            Some(Answer::Unknown) => {
                text += "\n  UNKNOWN: not found as far as the search has come."
            }
        }
        text
    }
}

/// `to` taken, with `from` held: the first witness, and how many more there are.
fn line(
    text: &mut String,
    from: Option<Node>,
    to: Node,
    witnesses: &[Witness],
    name: &dyn Fn(CtxId) -> String,
) {
    let Some(first) = witnesses.first() else { return };
    let id = |lock: Option<ObjId>| lock.map(|lock| format!("#{}", lock.0)).unwrap_or_default();
    let outer = first.held.and_then(|(lock, _)| lock);
    let from = from.map(|from| format!("{from}{} → ", id(outer))).unwrap_or_default();
    let kind = if first.kind == CtxKind::Handler { "handler" } else { "task" };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n  {from}{to}{} in {kind} {}", id(first.taken), name(first.ctx));
    if let Some(cpu) = first.cpu {
        let _ = write!(text, " on {cpu}");
    }
    let _ = write!(
        text,
        " (irqs {}) at {}",
        if first.irqs_on { "on" } else { "off" },
        Place(first.site)
    );
    if let Some((_, site)) = first.held {
        let _ = write!(text, ", held since {}", Place(site));
    }
    let others =
        first.gates.iter().filter(|(lock, _)| Some(*lock) != outer && Some(*lock) != first.taken);
    let under: Vec<_> = others.map(|(lock, class)| format!("{class}#{}", lock.0)).collect();
    if !under.is_empty() {
        let _ = write!(text, ", under {}", under.join(", "));
    }
    if witnesses.len() > 1 {
        let _ = write!(text, " (and {} more)", witnesses.len() - 1);
    }
}

struct Place(Site);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.file(), self.0.line())
    }
}

/// What is known in a few lines: counts, broken rules, questions with their witnesses.
impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let questions = self.questions();
        writeln!(
            f,
            "lock validator: {} classes, {} orders, {} broken rules, {}{} questions",
            self.usages().count(),
            self.order_edges().count(),
            self.violations.len(),
            questions.len(),
            if self.has_more_questions() { "+" } else { "" },
        )?;
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        for question in questions {
            writeln!(f, "{}", self.describe(question, None, &|ctx| ctx.to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Display for super::Usage {
    /// Like lockdep's marks: the class, then `?` if it is both irq-safe and irq-unsafe, `-` or `+`
    /// if it is one of the two, `.` if neither.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.in_handler, self.irqs_on) {
            (true, true) => '?',
            (true, false) => '-',
            (false, true) => '+',
            (false, false) => '.',
        };
        write!(f, "{} {{{mark}}}", self.node)
    }
}
