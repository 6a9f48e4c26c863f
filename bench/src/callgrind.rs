//! Counts instructions, so that the result is the same each time.

use std::env;
use std::process::Command;

/// Instructions per round inside of the functions of `module`, when this program is run with the
/// arguments `run` and `operation` under callgrind. The functions must not be generic nor inlined.
/// `None` without valgrind.
///
/// # Panics
/// If the program fails, or calls none of them.
pub fn instructions(module: &str, operation: &[&str], rounds: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={module}::*"))
        .arg(env::current_exe().ok()?)
        .arg("run")
        .args(operation)
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let collected = report
        .lines()
        .find_map(|line| line.split("Collected :").nth(1))
        .expect("callgrind's summary");
    let total: u64 = collected.trim().parse().expect("a number of instructions");
    assert!(total > 0, "callgrind has not recognised the functions");
    Some(total / rounds)
}

/// An operation of a benchmark: its name, how many rounds of it are run, and how many instructions
/// a round may take.
pub struct Operation {
    /// What `run` gets.
    pub name: &'static str,
    /// Over which the instructions are divided.
    pub rounds: u64,
    /// At most.
    pub limit: u64,
}

/// The `main` of a benchmark that counts the instructions of some operations: prints a table of
/// them. `run` does one of them, and is what runs under callgrind; see [`instructions`].
///
/// # Panics
/// If one takes more instructions than it may.
pub fn table(
    module: &str,
    operations: impl IntoIterator<Item = Operation>,
    run: impl FnOnce(&str),
) {
    let args: Vec<String> = env::args().collect();
    if let [_, command, operation] = &args[..]
        && command == "run"
    {
        return run(operation);
    }
    if cfg!(debug_assertions) {
        return println!("only an optimised build says anything");
    }
    println!("{:46}{:>13}{:>10}", "", "instructions", "at most");
    let mut dearer = Vec::new();
    for Operation { name, rounds, limit } in operations {
        let Some(taken) = instructions(module, &[name], rounds) else {
            return println!("valgrind is not installed");
        };
        println!("{name:46}{taken:>13}{limit:>10}");
        if taken > limit {
            dearer.push(name);
        }
    }
    assert!(dearer.is_empty(), "more instructions than it may take: {dearer:?}");
}
