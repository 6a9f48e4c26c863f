//! A line on stderr about long work, only where stderr is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Progress;
use crate::words::{count, rate, time};

/// Work that takes no longer than this says nothing.
const LONG: Duration = Duration::from_millis(400);

/// The line about some searches, one after the other; it goes away when this is dropped.
pub(crate) struct Meter {
    bar: ProgressBar,
    begin: Instant,
    of: usize,
    begun: usize,
    what: String,
}

impl Meter {
    /// Returns one for as many searches.
    pub(crate) fn new(of: usize, terminal: bool) -> Meter {
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Meter { bar, begin: Instant::now(), of, begun: 0, what: String::new() }
    }

    /// Says which search begins.
    pub(crate) fn begin(&mut self, what: &str) {
        self.begun += 1;
        self.what = match self.of {
            1 => what.to_owned(),
            of => format!("{}/{of}  {what}", self.begun),
        };
        self.message(&self.what);
    }

    /// Shows how far that search is.
    pub(crate) fn show(&self, progress: Progress) {
        if progress.elapsed >= LONG {
            self.message(&format!("{}  {}", self.what, line(progress)));
        }
    }

    fn message(&self, text: &str) {
        if self.begin.elapsed() >= LONG {
            self.bar.set_message(text.to_owned());
            self.bar.tick();
        }
    }

    /// Has something printed, which the line makes way for.
    pub(crate) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        // What was never drawn has nothing to make way.
        if self.begin.elapsed() < LONG { print() } else { self.bar.suspend(print) }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Short enough for 80 columns, with shares and times that are estimates: `12,345 executions, 1.10
/// M/s, ~42 % done, ~3.1 s left`.
fn line(progress: Progress) -> String {
    let Progress { executions, share, elapsed } = progress;
    let mut line = format!("{} executions, {}", count(executions), rate(executions, elapsed));
    let share = share.clamp(0.0, 1.0);
    if share.is_nan() || share < 0.001 {
        line.push_str(", < 0.1 % done");
    } else {
        let digits = usize::from(share < 0.1);
        line.push_str(&format!(", ~{:.digits$} % done", share * 100.0));
        let left = elapsed.as_secs_f64() * (1.0 - share) / share;
        line.push_str(&format!(", ~{} left", time(Duration::from_secs_f64(left))));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_the_rate_the_share_and_the_time_left() {
        let at = |executions, share, seconds| {
            line(Progress { executions, share, elapsed: Duration::from_secs(seconds) })
        };
        assert_eq!(
            at(2_000_000, 0.25, 2),
            "2,000,000 executions, 1.00 M/s, ~25 % done, ~6.0 s left"
        );
        assert_eq!(at(500, 0.0, 1), "500 executions, 500/s, < 0.1 % done");
        assert_eq!(at(500, 0.05, 1), "500 executions, 500/s, ~5.0 % done, ~19.0 s left");
        assert_eq!(at(500, f64::NAN, 1), "500 executions, 500/s, < 0.1 % done");
    }
}
