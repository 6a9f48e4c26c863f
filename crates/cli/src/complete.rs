//! `doorbell completions` and `doorbell man`.

use std::fs;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::engine::Engine;
use crate::outcome::{Fault, OK, Terminal};

/// The commands that take the names of cases and variants.
const WITH_CASES: [&str; 3] = ["check", "list", "report"];

/// Prints what makes a shell complete the command line. Bash, zsh and fish know the cases and
/// variants of this build.
pub(crate) fn completions(
    shell: Shell,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut with_names(engine), "doorbell", &mut script);
    terminal.out.write_all(&script)?;
    if shell == Shell::Fish {
        // What generates the script leaves out the values of arguments that are no options.
        let [both, variants] = names(engine).map(|names| names.join(" "));
        for (command, names) in
            WITH_CASES.map(|command| (command, &both)).into_iter().chain([("explain", &variants)])
        {
            let seen = format!("__fish_doorbell_using_subcommand {command}");
            writeln!(terminal.out, "complete -c doorbell -n \"{seen}\" -f -a \"{names}\"")?;
        }
    }
    Ok(OK)
}

/// Returns the names of cases and variants, and those of variants alone.
fn names(engine: &dyn Engine) -> [Vec<String>; 2] {
    let mut cases = Vec::new();
    let mut variants = Vec::new();
    for case in engine.cases() {
        cases.push(case.name.clone());
        variants.extend(case.variants.iter().map(|v| format!("{}/{}", case.name, v.name)));
    }
    [[cases, variants.clone()].concat(), variants]
}

/// The command line, with the names that each argument may have.
fn with_names(engine: &dyn Engine) -> Command {
    let [both, variants] = names(engine);
    let takes = |command: Command, name: &str, names: &[String]| {
        let names = PossibleValuesParser::new(names.to_owned());
        command.mut_subcommand(name, |command| command.mut_arg("what", |a| a.value_parser(names)))
    };
    let mut command = Cli::command();
    for name in WITH_CASES {
        command = takes(command, name, &both);
    }
    takes(command, "explain", &variants)
}

/// Prints the man page, or writes one for each command into a directory.
pub(crate) fn man(dir: Option<&Path>, terminal: &mut Terminal<'_>) -> Result<u8, Fault> {
    let Some(dir) = dir else {
        clap_mangen::Man::new(Cli::command()).render(terminal.out)?;
        return Ok(OK);
    };
    let refused = |error| Fault::Usage(format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(refused)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(refused)?;
    Ok(OK)
}
