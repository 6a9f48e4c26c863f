//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const EXIT: &str = "\
Exit status:
  0    all verdicts are what they must be
  1    a verdict is not what it must be (or `selftest` found a difference)
  2    the command line makes no sense, or input or output failed
  130  interrupted with Ctrl-C; what was known until then is printed
  141  the reader of the output has gone away";

/// Interrupt delivery for hypervisors, explored interleaving by interleaving.
///
/// Doorbell's catalogue holds documented races of interrupt delivery: each as it was reported, with
/// the ways out that were proposed, and as Doorbell's own code does it. `doorbell check` runs them
/// all on simulated CPUs under every interleaving that matters, and compares what it finds with
/// what it must find.
#[derive(Parser, Debug)]
#[command(name = "doorbell", version, max_term_width = 100, disable_help_subcommand = true, after_long_help = EXIT)]
pub struct Cli {
    /// When to colour.
    #[arg(long, alias = "color", global = true, value_name = "WHEN", default_value = "auto")]
    pub colour: Colour,

    /// How many columns there are to fit into. If nothing is said: COLUMNS, or else the columns of
    /// the terminal; without a terminal lines are as long as they get.
    #[arg(long, global = true, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(1..))]
    pub width: Option<u16>,

    /// What to do; `check` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Explore cases and compare their verdicts with what they must be.
    #[command(after_long_help = CHECK)]
    Check(Check),
    /// Show the failing run of a variant, a column per CPU, and why it fails.
    #[command(after_long_help = EXPLAIN)]
    Explain(Explain),
    /// List the cases, their variants, and what each must get.
    #[command(after_long_help = LIST)]
    List(List),
    /// Run a failing run again, from its token.
    #[command(after_long_help = REPLAY)]
    Replay(Replay),
    /// Measure.
    #[command(subcommand, after_long_help = BENCH)]
    Bench(Bench),
    /// Compare the search with brute force on random programs.
    #[command(after_long_help = SELFTEST)]
    Selftest(Selftest),
    /// Run variants, and write one HTML page that shows them, each failing run as a picture.
    #[command(after_long_help = REPORT)]
    Report(Report),
    /// Print what makes a shell complete commands, options, cases and variants.
    #[command(after_long_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page, or write those of all commands.
    #[command(after_long_help = MAN)]
    Man {
        /// A directory to write doorbell.1, doorbell-check.1 and so on into. The main page goes to
        /// stdout if nothing is said.
        dir: Option<PathBuf>,
    },
}

const CHECK: &str = "\
A verdict is one of
  found          a run fails, or is the witness of what may happen; `doorbell explain` shows it
  exhausted      all interleavings within the stated scope were run, and none fails
  bound-reached  the search stopped at --bound or --budget, and none failed until then

Examples:
  doorbell check                                everything, in default scopes
  doorbell check --verbose                      a line a variant, not a line a case
  doorbell check irqfd-resampler                all variants of one case
  doorbell check irqfd-resampler/shipped --full one variant, with its large scope
  doorbell check --format json --budget 10      a line of JSON per variant, 10 s for each at most
  doorbell check --bound 2                      only runs with at most 2 preemptions";

const EXPLAIN: &str = "\
Reading the text:
  ┃  interrupts are off on that CPU      »  the switch to this context was a preemption
  A  a lock is held there (see the key)  ✖  the context never gets further

Examples:
  doorbell explain irqfd-resampler                            lists the variants of the case
  doorbell explain irqfd-resampler/plain-reported
  doorbell explain irqfd-resampler/plain-reported --width 200 --all-steps
  doorbell explain irqfd-resampler/plain-reported --format svg > deadlock.svg
  doorbell explain irqfd-resampler/plain-reported --format json | jq .trace.why";

const LIST: &str = "\
Examples:
  doorbell list
  doorbell list --verbose
  doorbell list irqfd-resampler
  doorbell list --format json | jq -r .variant";

const REPLAY: &str = "\
`check --format json` and `explain` print the token of a failing run. It stands for one schedule of one variant, and gives the same trace \
every time. A token that was made from other sources is refused.

Example:
  doorbell replay \"$(doorbell check irqfd-resampler/plain-reported --format json | jq -r .token)\"";

const REPORT: &str = "\
The page needs no network and no other file. It can be searched (press /), and a failing run is gone \
through step by step with the arrow keys. Lines of the sources stand beside the steps, if they are \
found below --sources.

Examples:
  doorbell report target/report && xdg-open target/report/index.html
  doorbell report /tmp/report irqfd-resampler pi-wakeup
  doorbell report /tmp/report --full";

const COMPLETIONS: &str = "\
Bash, zsh and fish also complete the names of the cases and variants of this build.

Examples:
  doorbell completions bash > ~/.local/share/bash-completion/completions/doorbell
  doorbell completions zsh > \"${fpath[1]}/_doorbell\"
  doorbell completions fish > ~/.config/fish/completions/doorbell.fish";

const MAN: &str = "\
Examples:
  doorbell man | man -l -
  doorbell man ~/.local/share/man/man1";

const BENCH: &str = "\
Examples:
  doorbell bench explore
  doorbell bench explore --format json";

const SELFTEST: &str = "\
Each program runs under the search and under brute force, and what can come out must be the same: memory, every value read, who is blocked \
where, and the edges that the lock validator sees. A difference is printed with what makes it happen again.

Examples:
  doorbell selftest --programs 100000
  doorbell selftest --programs 1 --seed 4711 --first 42    one program again";

/// `doorbell check`
#[derive(Args, Debug, Default)]
pub struct Check {
    /// What to run: a case, or one variant of it. All cases if nothing is said.
    #[arg(value_name = "CASE[/VARIANT]")]
    pub what: Vec<String>,
    /// How to print: a table for people, or one JSON object a line.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: TableFormat,
    /// Print a line a variant, also on a terminal, which gets a line a case unless it is about one
    /// case only.
    #[arg(long, short)]
    pub verbose: bool,
    /// How the search is run.
    #[command(flatten)]
    pub search: Search,
}

/// How a search is run.
#[derive(Args, Debug, Default)]
pub struct Search {
    /// Threads to search with. All cores if nothing is said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Run only interleavings with at most K preemptions. All of them if nothing is said.
    #[arg(long, value_name = "K")]
    pub bound: Option<u32>,
    /// Give each variant at most that long (fractions are fine).
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub budget: Option<Duration>,
    /// Also run the large variants and scopes.
    #[arg(long)]
    pub full: bool,
}

/// How to print rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum TableFormat {
    /// For people.
    #[default]
    Table,
    /// One object a line.
    Json,
}

/// How to print a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TraceFormat {
    /// For a terminal.
    Text,
    /// One object: what `check` says, and the trace.
    Json,
    /// A picture.
    Svg,
}

/// `doorbell explain`
#[derive(Args, Debug)]
pub struct Explain {
    /// The variant, as CASE/VARIANT.
    #[arg(value_name = "CASE/VARIANT")]
    pub what: String,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TraceFormat,
    /// Show every step, also those that have little to do with the failure.
    #[arg(long)]
    pub all_steps: bool,
    /// How the search is run.
    #[command(flatten)]
    pub search: Search,
}

/// `doorbell list`
#[derive(Args, Debug)]
pub struct List {
    /// Cases to list. All of them if nothing is said.
    #[arg(value_name = "CASE[/VARIANT]")]
    pub what: Vec<String>,
    /// How to print: for people, or one JSON object per variant and line.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: TableFormat,
    /// List the variants of each case, also on a terminal, which gets a line a case unless one is
    /// named.
    #[arg(long, short)]
    pub verbose: bool,
}

/// `doorbell report`
#[derive(Args, Debug)]
pub struct Report {
    /// The directory to write index.html into; it is made if there is none.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// What to run: a case, or one variant of it. All cases if nothing is said.
    #[arg(value_name = "CASE[/VARIANT]")]
    pub what: Vec<String>,
    /// Where the sources are that the steps of a run name.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub sources: PathBuf,
    /// How the search is run.
    #[command(flatten)]
    pub search: Search,
}

/// `doorbell replay`
#[derive(Args, Debug)]
pub struct Replay {
    /// What `check --format json` or `explain` printed.
    #[arg(value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: String,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TraceFormat,
    /// Show every step, also those that have little to do with the failure.
    #[arg(long)]
    pub all_steps: bool,
}

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// How fast the explorer is, and how many executions it needs for programs whose least number
    /// is known.
    Explore {
        /// How to print.
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: TableFormat,
    },
}

/// `doorbell selftest`
#[derive(Args, Debug)]
pub struct Selftest {
    /// How many random programs.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub programs: u64,
    /// Where the random numbers begin; the same seed gives the same programs.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// The number of the first program of the seed.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub first: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if number > 0.0 && number <= 1e9 {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("not more than 0 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_budget_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1_500)));
        for wrong in ["0", "-1", "NaN", "inf", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
