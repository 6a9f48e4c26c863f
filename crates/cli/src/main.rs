//! The `doorbell` program. See [`doorbell_cli`] for what it does.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use doorbell_cli::args::{Cli, Colour};
use doorbell_cli::engine::Engine;
use doorbell_cli::{INTERRUPTED, Terminal, cases};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, complaints to stderr; if nobody reads them, so be it.
            let _ = error.print();
            if error.use_stderr() {
                advise();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(doorbell_cli::USAGE));
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let handler = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            // The second time: whoever presses it twice does not want to wait for the end of a run.
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    if let Err(error) = handler {
        eprintln!("doorbell: Ctrl-C will end this without a summary: {error}");
    }

    // Not locked: a thread of the search that panics must be able to say so.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let on_terminal = stdout.is_terminal();
    let progress = stderr.is_terminal();
    let colour = match cli.colour {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => on_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    };
    // A terminal that does not say how wide it is has the width that programs have always assumed.
    let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    let mut terminal = Terminal {
        out: &mut stdout,
        err: &mut stderr,
        width: cli.width.or_else(columns).map(usize::from).or(on_terminal.then_some(width)),
        interactive: on_terminal,
        colour,
        progress,
        stop,
    };
    ExitCode::from(doorbell_cli::run(&cli, &cases::built_in(), &mut terminal))
}

/// The columns that the environment asks for.
fn columns() -> Option<u16> {
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|&columns| columns > 0)
}

/// `doorbell --full` and `doorbell some-case` lack the word `check`: says so.
fn advise() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let first = given.first().map(String::as_str).unwrap_or_default();
    let case = first.split('/').next();
    let meant = first.starts_with('-')
        || cases::built_in().cases().iter().any(|c| Some(c.name.as_str()) == case);
    let with = [&["doorbell".to_owned(), "check".to_owned()], given.as_slice()].concat();
    if meant && Cli::try_parse_from(&with).is_ok() {
        eprintln!("\nPerhaps `{}`?", with.join(" "));
    }
}
