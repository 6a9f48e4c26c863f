//! Has everything printed anew that tests compare with what they find.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;

use crate::build::project;
use crate::trouble::Trouble;

/// What is printed: its name, and the package and tests that print it where `DOORBELL_REPRINT` is
/// set; those of the library where none is named.
struct Printed {
    name: &'static str,
    package: &'static str,
    tests: &'static [&'static str],
}

const PRINTED: &[Printed] = &[
    Printed { name: "races", package: "doorbell-catalogue", tests: &["docs"] },
    Printed { name: "locks", package: "doorbell-catalogue", tests: &["locks"] },
    Printed { name: "vectors", package: "doorbell-catalogue", tests: &["removal"] },
    Printed { name: "post", package: "doorbell-post", tests: &["explored"] },
    Printed { name: "apic", package: "doorbell-apic", tests: &["explored", "avic_explored"] },
    Printed { name: "gic", package: "doorbell-gic", tests: &["explored"] },
    Printed { name: "host", package: "doorbell-host", tests: &["explored"] },
    Printed { name: "irqfd", package: "doorbell-irqfd", tests: &["removal"] },
    Printed { name: "traces", package: "doorbell-explore", tests: &[] },
    Printed { name: "platform", package: "doorbell-explore", tests: &["building_blocks"] },
];

#[derive(Args)]
#[command(after_help = "\
What there is:
  races                                 the tables of variants in docs/races
  traces                                the samples of traces in crates/explore/src/render/golden
  locks                                 the tables of locks in ARCHITECTURE.md
  vectors post apic gic host irqfd platform
                                        the removal tables in docs/removal

All of them take some minutes. Read the difference before you commit it. What a bench has measured \
is pinned by `cargo xtask vm-bench --pin`, which needs QEMU.

  cargo xtask bless              everything
  cargo xtask bless gic races    these two")]
pub struct Options {
    /// What is printed; everything if nothing is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PRINTED.iter().map(|printed| printed.name)))]
    names: Vec<String>,
}

/// Has the tests print, and names the files that have changed. Returns whether no test has failed.
///
/// # Errors
/// Says which file cannot be read, or that cargo does not run.
pub fn run(options: &Options) -> Result<bool, Trouble> {
    let before = documents(&project())?;
    let asked = |printed: &&Printed| {
        options.names.is_empty() || options.names.iter().any(|name| name == printed.name)
    };
    let asked: Vec<_> = PRINTED.iter().filter(asked).collect();
    let mut failed = Vec::new();
    for (at, printed) in asked.iter().enumerate() {
        let begun = Instant::now();
        eprint!("[{}/{}] {} ... ", at + 1, asked.len(), printed.name);
        let output = command(printed)
            .current_dir(project())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cargo does not run: {error}"))?;
        let verdict = if output.status.success() { "printed" } else { "failed" };
        eprintln!("{verdict}, {} s", begun.elapsed().as_secs());
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            failed.push(printed.name);
        }
    }
    let changed = changed(&before, &documents(&project())?);
    for path in &changed {
        println!("{}", path.display());
    }
    println!(
        "{} changed",
        if changed.is_empty() { "nothing has".into() } else { files(changed.len()) }
    );
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn files(count: usize) -> String {
    if count == 1 { "1 file has".into() } else { format!("{count} files have") }
}

fn command(printed: &Printed) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--no-fail-fast", "--package", printed.package]);
    if printed.tests.is_empty() {
        cargo.arg("--lib");
    }
    for test in printed.tests {
        cargo.args(["--test", test]);
    }
    cargo.env("DOORBELL_REPRINT", "1");
    cargo
}

/// The files that tests print into: ARCHITECTURE.md, and all below docs and of the samples.
fn documents(root: &Path) -> Result<BTreeMap<PathBuf, String>, String> {
    let mut texts = BTreeMap::new();
    let mut left: Vec<_> = ["ARCHITECTURE.md", "docs", "crates/explore/src/render/golden"]
        .iter()
        .map(|path| root.join(path))
        .collect();
    while let Some(path) = left.pop() {
        let at = |error| format!("{}: {error}", path.display());
        if path.is_dir() {
            for entry in fs::read_dir(&path).map_err(at)? {
                left.push(entry.map_err(at)?.path());
            }
        } else {
            let text = fs::read_to_string(&path).map_err(at)?;
            texts.insert(path.strip_prefix(root).unwrap_or(&path).to_path_buf(), text);
        }
    }
    Ok(texts)
}

/// The files that are not what they were, in their order.
fn changed(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let all = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All sources below a directory.
    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn each_test_that_prints_into_a_document_is_asked_to() {
        let mut printing = BTreeSet::new();
        for entry in fs::read_dir(project().join("crates")).expect("it is there") {
            let krate = entry.expect("it can be read").path();
            let package = krate.file_name().expect("a name").to_string_lossy().into_owned();
            let mut found = Vec::new();
            sources(&krate, &mut found);
            for path in found {
                let text = fs::read_to_string(&path).expect("a source");
                let below = path.strip_prefix(&krate).expect("it lies there");
                let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
                let test = match &*parts[0] {
                    "tests" => parts[1].trim_end_matches(".rs"),
                    _ if below.ends_with("tests.rs") => "",
                    _ => continue,
                };
                // A test of the printing itself has documents of its own.
                let own = text.contains("CARGO_TARGET_TMPDIR");
                if !own && (text.contains("Printed {") || text.contains("DOORBELL_REPRINT")) {
                    printing.insert(format!("doorbell-{package} {test}"));
                }
            }
        }
        let asked = |printed: &Printed| {
            let tests = if printed.tests.is_empty() { &[""] } else { printed.tests };
            let package = printed.package;
            tests.iter().map(move |test| format!("{package} {test}")).collect::<Vec<_>>()
        };
        assert_eq!(PRINTED.iter().flat_map(asked).collect::<BTreeSet<_>>(), printing);
    }

    #[test]
    fn what_differs_comes_or_goes_has_changed() {
        let texts = |texts: &[(&str, &str)]| -> BTreeMap<PathBuf, String> {
            texts.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
        };
        let before = texts(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(changed(&before, &before), [] as [PathBuf; 0]);
        let after = texts(&[("a", "1"), ("b", "3"), ("d", "4")]);
        assert_eq!(changed(&before, &after), ["b", "c", "d"].map(PathBuf::from));
    }
}
