//! Command lines of any words, with an engine that says what it was told to: refused with a reason,
//! or done with a status that the help names, and JSON where JSON was asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use doorbell_cli::args::{Cli, Command, TableFormat, TraceFormat};
use doorbell_cli::{DIFFERS, INTERRUPTED, OK, Terminal, USAGE};

#[path = "../../crates/cli/tests/fake/mod.rs"]
mod fake;

use fake::Fake;

/// What a byte above 0x7f stands for: bytes alone would hardly make one of these.
const WORDS: [&str; 37] = [
    "check",
    "explain",
    "list",
    "replay",
    "bench",
    "explore",
    "selftest",
    "irqfd-resampler",
    "irqfd-resampler/as-reported",
    "irqfd-resampler/shipped",
    "irq-inversion/shipped",
    "db1-irqfd-resampler-as-reported-7f3a",
    "--format",
    "json",
    "table",
    "text",
    "svg",
    "--jobs",
    "--bound",
    "--budget",
    "--full",
    "--programs",
    "--seed",
    "--first",
    "--colour",
    "--color=always",
    "never",
    "--help",
    "--version",
    "--",
    "-h",
    "-V",
    "--verbose",
    "--width",
    "completions",
    "fish",
    "man",
];

/// Does what the command line says: words of the table, and between them others, which zeros end.
pub fn run(bytes: &[u8]) {
    let mut words = vec!["doorbell".to_owned()];
    for part in bytes.chunk_by(|a, b| a & 0x80 == 0 && b & 0x80 == 0) {
        if let [known @ 0x80..=0xff] = part {
            words.push(WORDS[usize::from(*known) % WORDS.len()].to_owned());
        } else {
            words.extend(String::from_utf8_lossy(part).split('\0').map(str::to_owned));
        }
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => {
            return assert!(!error.to_string().is_empty() && [0, 2].contains(&error.exit_code()));
        }
    };
    if matches!(cli.command, Some(Command::Report(_) | Command::Man { dir: Some(_) })) {
        // They write files, wherever the words say.
        return;
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        width: Some(bytes.len()),
        interactive: bytes.len() % 3 == 1,
        colour: bytes.len() % 2 == 1,
        progress: false,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let status = doorbell_cli::run(&cli, &Fake::new(), &mut terminal);
    assert!([OK, DIFFERS, USAGE, INTERRUPTED].contains(&status), "{words:?}: {status}");
    let (out, err) =
        (String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"));
    assert_eq!(
        status == USAGE,
        err.starts_with("doorbell: ") && out.is_empty() && status != DIFFERS,
        "{words:?}: {err}"
    );
    let json = match &cli.command {
        Some(Command::Check(check)) => check.format == TableFormat::Json,
        Some(Command::List(list)) => list.format == TableFormat::Json,
        Some(Command::Explain(explain)) => explain.format == TraceFormat::Json,
        Some(Command::Replay(replay)) => replay.format == TraceFormat::Json,
        _ => false,
    };
    if json {
        let parse =
            |line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line");
        assert!(out.lines().map(parse).all(|row| row.is_object()), "{words:?}: {out}");
    }
}
