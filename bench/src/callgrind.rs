//! Counts instructions, so that the result is the same each time.

use std::env;
use std::process::Command;

/// Instructions per round inside of the functions of `module`, when this program is run with the arguments `run` and
/// `operation` under callgrind. The functions must not be generic nor inlined. `None` without valgrind.
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
    let collected = report.lines().find_map(|line| line.split("Collected :").nth(1)).expect("callgrind's summary");
    let total: u64 = collected.trim().parse().expect("a number of instructions");
    assert!(total > 0, "callgrind has not recognised the functions");
    Some(total / rounds)
}
