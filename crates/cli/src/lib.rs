//! The `doorbell` command as a library: [`run`] does what a command line says, with a given
//! [`engine::Engine`] and given outputs, and returns the exit status. The program itself adds only
//! the terminal and Ctrl-C.

pub mod args;
mod bench;
pub mod cases;
mod check;
pub mod engine;
mod explain;
mod list;
mod progress;
mod record;
mod select;
mod selftest;
mod words;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use args::{Bench, Cli, Command};
use engine::{Engine, Settings};
use thiserror::Error;

/// All is as it must be.
pub const OK: u8 = 0;
/// A verdict, or the search, is not what it must be.
pub const DIFFERS: u8 = 1;
/// The command line makes no sense, or input or output failed.
pub const USAGE: u8 = 2;
/// Interrupted: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// The reader of stdout is gone: 128 and the number of SIGPIPE, as shells have it.
pub const READER_GONE: u8 = 141;

/// Where output goes, and what is known about it.
pub struct Terminal<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Complaints.
    pub err: &'a mut dyn Write,
    /// The columns of `out`, if it is a terminal.
    pub width: Option<usize>,
    /// Whether `out` may be coloured.
    pub colour: bool,
    /// Whether stderr is a terminal, on which progress is shown.
    pub progress: bool,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

impl Terminal<'_> {
    /// The text in red, green, …, where colour is wanted.
    fn ink(&self, text: &str, code: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Why a command could not be carried out.
#[derive(Debug, Error)]
enum Fault {
    #[error("{0}")]
    Usage(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

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

/// The settings for one variant, without a listener for progress.
fn settings(search: &args::Search, stop: &Arc<AtomicBool>) -> Settings<'static> {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    Settings {
        jobs: search.jobs.map_or_else(cores, usize::from),
        bound: search.bound,
        budget: search.budget,
        progress: None,
        stop: Arc::clone(stop),
    }
}
