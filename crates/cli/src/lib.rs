//! The `doorbell` command as a library: [`run`] does what a command line says, with a given
//! [`engine::Engine`] and given outputs, and returns the exit status. The program itself adds only
//! the terminal and Ctrl-C.

pub mod args;
mod bench;
mod by_case;
pub mod cases;
mod check;
mod complete;
pub mod engine;
mod explain;
mod list;
mod outcome;
mod progress;
mod record;
mod report;
mod rows;
mod select;
mod selected;
mod selftest;
mod table;
mod tally;
mod words;

use std::io;

use args::{Bench, Cli, Command};
use engine::Engine;
use outcome::Fault;

pub use outcome::{DIFFERS, INTERRUPTED, OK, READER_GONE, Terminal, USAGE};

/// Does what the command line says, and returns the exit status.
pub fn run(cli: &Cli, engine: &dyn Engine, terminal: &mut Terminal<'_>) -> u8 {
    let default = args::Check::default();
    let done = match &cli.command {
        None => check::run(&default, engine, terminal),
        Some(Command::Check(check)) => check::run(check, engine, terminal),
        Some(Command::Explain(explain)) => explain::run(explain, engine, terminal),
        Some(Command::List(list)) => list::run(list, engine, terminal),
        Some(Command::Replay(replay)) => explain::replay(replay, engine, terminal),
        Some(Command::Bench(Bench::Explore { format })) => {
            bench::explore(*format, engine, terminal)
        }
        Some(Command::Selftest(selftest)) => selftest::run(selftest, engine, terminal),
        Some(Command::Report(report)) => report::run(report, engine, terminal),
        Some(Command::Completions { shell }) => complete::completions(*shell, engine, terminal),
        Some(Command::Man { dir }) => complete::man(dir.as_deref(), terminal),
    };
    let done = done.and_then(|status| Ok(terminal.out.flush().map(|()| status)?));
    match done {
        Ok(status) => status,
        Err(Fault::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => READER_GONE,
        Err(Fault::Json(e)) if e.io_error_kind() == Some(io::ErrorKind::BrokenPipe) => READER_GONE,
        Err(fault) => {
            // There is nowhere left to complain to if this fails.
            let _ = writeln!(terminal.err, "doorbell: {fault}");
            USAGE
        }
    }
}
