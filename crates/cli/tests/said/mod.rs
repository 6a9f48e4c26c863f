//! Runs a command line with an engine that says what it was told to, and takes down what is printed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use doorbell_cli::args::Cli;
use doorbell_cli::{Terminal, run};
use serde_json::Value;

use crate::fake::Fake;

/// What a command has come to.
pub struct Said {
    /// The exit status.
    pub status: u8,
    /// What went to stdout.
    pub out: String,
    /// What went to stderr.
    pub err: String,
}

/// What goes into a pipe.
pub fn doorbell(engine: &Fake, line: &str) -> Said {
    in_columns(None, engine, line)
}

/// What goes into a pipe, where somebody has said how many columns there are.
#[allow(dead_code, reason = "not every user of this module is narrow")]
pub fn in_columns(width: Option<usize>, engine: &Fake, line: &str) -> Said {
    printed(width, false, engine, line)
}

/// What somebody sees who sits at a terminal.
#[allow(dead_code, reason = "not every user of this module has a terminal")]
pub fn on_terminal(width: usize, engine: &Fake, line: &str) -> Said {
    printed(Some(width), true, engine, line)
}

fn printed(width: Option<usize>, interactive: bool, engine: &Fake, line: &str) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let cli = Cli::try_parse_from(format!("doorbell {line}").split_whitespace())
        .expect("a good command line");
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        width,
        interactive,
        colour: false,
        progress: false,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let status = run(&cli, engine, &mut terminal);
    let utf8 = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { status, out: utf8(out), err: utf8(err) }
}

/// The objects that were printed, one a line.
#[allow(dead_code, reason = "not every user of this module reads JSON")]
pub fn json(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}
