//! `doorbell selftest`: the search against brute force.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Selftest;
use crate::engine::{Engine, Programs, stopped};
use crate::outcome::{DIFFERS, Fault, INTERRUPTED, OK, Terminal};
use crate::words::{count, time};

pub(crate) fn run(
    args: &Selftest,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let bar =
        if terminal.progress { ProgressBar::new(args.programs) } else { ProgressBar::hidden() };
    let style = "{bar:30} {human_pos} of {human_len} programs, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let begin = Instant::now();
    let programs = Programs { count: args.programs, seed: args.seed, first: args.first };
    let result = engine.selftest(programs, &terminal.stop, &|done| bar.set_position(done));
    bar.finish_and_clear();
    match result {
        Ok(summary) => {
            let interrupted = stopped(&terminal.stop) && summary.programs < args.programs;
            let head = if interrupted { "interrupted: " } else { "" };
            writeln!(
                terminal.out,
                "{head}{} of {} random programs from seed {} in {}: the search ({} executions) and brute force ({}) agree on all",
                count(summary.programs),
                count(args.programs),
                args.seed,
                time(begin.elapsed()),
                count(summary.executions),
                count(summary.brute_force),
            )?;
            Ok(if interrupted { INTERRUPTED } else { OK })
        }
        Err(difference) => {
            writeln!(terminal.out, "the search and brute force differ:\n{difference}")?;
            Ok(DIFFERS)
        }
    }
}
