//! Progress on a terminal, of an exploration that takes long and was not asked for any.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::run::explore::Explore;
use crate::run::report::Progress;

/// How long an exploration takes before anything is shown,
const PATIENCE: Duration = Duration::from_secs(2);
/// and between two times.
const PERIOD: Duration = Duration::from_millis(500);

/// A line that shows how far an exploration is, and is wiped out when that is over.
pub(crate) struct Shown {
    /// When it was written last, in milliseconds since the start; 0 if it was not.
    last: AtomicU64,
}

impl Shown {
    /// Has `explore` show its progress, if nobody has asked for it otherwise and somebody looks on.
    pub(crate) fn on(explore: &mut Explore) -> Option<Arc<Shown>> {
        if explore.progress.is_some() || !std::io::stderr().is_terminal() {
            return None;
        }
        let shown = Arc::new(Shown { last: AtomicU64::new(0) });
        let (line, name) = (Arc::clone(&shown), explore.name.clone());
        explore.progress = Some(Arc::new(move |progress| {
            if line.is_due(progress.elapsed) {
                // Not by `eprint`, which the test harness keeps until the test has failed.
                let _ = write!(std::io::stderr(), "\r\x1b[2K{}", text(&name, &progress));
            }
        }));
        Some(shown)
    }

    fn is_due(&self, elapsed: Duration) -> bool {
        let now = elapsed.as_millis() as u64;
        let last = self.last.load(Relaxed);
        let due = elapsed >= PATIENCE && now >= last + PERIOD.as_millis() as u64;
        if due {
            self.last.store(now, Relaxed);
        }
        due
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.last.load(Relaxed) > 0 {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

/// What is shown of an exploration of that name.
fn text(name: &str, progress: &Progress) -> String {
    format!(
        "exploring {name}: {} executions, about {:.0} % of what is known, {} s",
        progress.executions,
        progress.share * 100.0,
        progress.elapsed.as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_after_two_seconds_and_then_twice_in_a_second() {
        let shown = Shown { last: AtomicU64::new(0) };
        let due = |millis| shown.is_due(Duration::from_millis(millis));
        assert_eq!([1_999, 2_000, 2_499, 2_500, 2_600].map(due), [false, true, false, true, false]);
        // Nothing is to be wiped out on the terminal of this test.
        shown.last.store(0, Relaxed);
    }

    #[test]
    fn a_line_says_how_far_the_exploration_is() {
        let progress = Progress {
            executions: 12_345,
            cut: 0,
            steps: 0,
            share: 0.25,
            elapsed: Duration::from_secs(7),
        };
        let expected = "exploring queue: 12345 executions, about 25 % of what is known, 7 s";
        assert_eq!(text("queue", &progress), expected);
    }
}
