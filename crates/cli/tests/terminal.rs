//! The first screen, what fits into a terminal, and what shells and people look up.

mod fake;
mod said;

use std::fs;
use std::path::{Path, PathBuf};

use doorbell_cli::{DIFFERS, INTERRUPTED, OK};
use fake::Fake;
use said::{doorbell, json, on_terminal};

#[test]
fn a_terminal_gets_a_line_a_case() {
    let said = on_terminal(80, &Fake::new(), "");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(said.status, OK);
    assert_eq!(
        lines[..3],
        [
            "   case             as stated  found  exhausted  executions       time",
            "✓  irqfd-resampler     2 of 2      1          1      25,740      14 ms",
            "✓  irq-inversion       1 of 1      0          1      12,870       7 ms",
        ]
    );
    assert!(lines[3].contains("all as stated"), "{}", said.out);
    let wide = on_terminal(120, &Fake::new(), "");
    assert!(wide.out.contains("14 ms  a grace period under a mutex, on"), "{}", wide.out);
    let full = on_terminal(90, &Fake::new(), "check --full");
    assert!(full.out.contains("bounded") && full.out.contains("3 of 3"), "{}", full.out);
}

#[test]
fn what_is_not_as_stated_stands_below_its_case_and_is_named_in_the_end() {
    let engine = Fake::broken_at("irqfd-resampler/shipped");
    let said = on_terminal(100, &engine, "check");
    assert_eq!(said.status, DIFFERS);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[1].starts_with("✗  irqfd-resampler     1 of 2"), "{}", said.out);
    assert_eq!(lines[2], "   ✗ shipped");
    assert!(lines[3].starts_with("✓  irq-inversion"), "{}", said.out);
    assert!(said.out.contains("✗ irqfd-resampler/shipped must be exhausted"), "{}", said.out);
}

#[test]
fn a_case_that_was_interrupted_is_shown_as_far_as_it_came() {
    let engine = Fake::interrupted_at("irqfd-resampler/shipped");
    let said = on_terminal(100, &engine, "check");
    assert_eq!(said.status, INTERRUPTED);
    assert!(said.out.contains("\n-  irqfd-resampler     1 of 2"), "{}", said.out);
    assert!(!said.out.contains("irq-inversion"), "{}", said.out);
    let engine = Fake::interrupted_at("irqfd-resampler/as-reported");
    let said = on_terminal(100, &engine, "check");
    assert!(said.out.contains("\n-  irqfd-resampler     1 of 2"), "{}", said.out);
}

#[test]
fn a_terminal_gets_a_line_a_variant_of_one_case_or_if_it_asks() {
    for line in ["check irqfd-resampler", "check --verbose irqfd-resampler", "check -v"] {
        let said = on_terminal(160, &Fake::new(), line);
        let rows = said.out.lines().filter(|line| line.starts_with('✓'));
        assert_eq!(rows.count(), if line == "check -v" { 3 } else { 2 }, "{}", said.out);
        assert!(said.out.contains("plain pool, W = 2, N = 2"), "{}", said.out);
    }
}

#[test]
fn whatever_a_terminal_gets_fits_it_and_says_all_that_a_wide_one_gets() {
    let lines = ["", "check -v", "check --full -v", "check --full", "list", "list -v"];
    for (width, line) in [40, 60, 80, 100, 120].into_iter().flat_map(|w| lines.map(|l| (w, l))) {
        let said = on_terminal(width, &Fake::new(), line);
        for row in said.out.lines() {
            assert!(row.chars().count() <= width, "{line} in {width} columns: {row}");
        }
        for case in ["irqfd-resampler", "irq-inversion"] {
            assert!(said.out.contains(case), "{line} in {width} columns: {}", said.out);
        }
        if line.starts_with("check") && line.ends_with("-v") {
            let words: Vec<&str> = said.out.split_whitespace().collect();
            let said = words.join(" ");
            assert!(said.contains("plain pool, W = 2, N = 2"), "{line} in {width}: {said}");
            assert!(said.contains("12,870"), "{line} in {width}: {said}");
        }
    }
}

#[test]
fn what_goes_into_a_pipe_is_never_wrapped_nor_cut() {
    let rows = |line| doorbell(&Fake::new(), line).out;
    assert_eq!(rows("check").lines().filter(|line| line.ends_with("W = 2, N = 2")).count(), 3);
    assert_eq!(rows("list").lines().filter(|line| line.contains('/')).count(), 4);
}

#[test]
fn list_on_a_terminal_is_a_line_a_case_and_a_case_that_is_named_has_its_variants() {
    let said = on_terminal(120, &Fake::new(), "list");
    assert!(
        said.out.starts_with("irqfd-resampler    3 variants  a grace period under a mutex"),
        "{}",
        said.out
    );
    assert!(!said.out.contains("as-reported"), "{}", said.out);
    let said = on_terminal(120, &Fake::new(), "list irqfd-resampler");
    assert!(said.out.contains("  as-reported  found deadlock  both workers wait"), "{}", said.out);
    assert!(said.out.contains("  from seeds/002"), "{}", said.out);
}

#[test]
fn shells_complete_the_variants_of_this_build() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = doorbell(&Fake::new(), &format!("completions {shell}"));
        assert_eq!(said.status, OK);
        for name in ["replay", "budget"] {
            assert!(said.out.contains(name), "{shell} does not know {name}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let said = doorbell(&Fake::new(), &format!("completions {shell}"));
        for name in ["irqfd-resampler/as-reported", "irq-inversion/shipped"] {
            assert!(said.out.contains(name), "{shell} does not know {name}");
        }
    }
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let said = doorbell(&Fake::new(), "man");
    assert!(said.status == OK && said.out.contains(".TH doorbell 1"), "{}", said.out);
    let dir = scratch("man");
    let said = doorbell(&Fake::new(), &format!("man {}", dir.display()));
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (OK, "", ""));
    let page = fs::read_to_string(dir.join("doorbell-check.1")).expect("a page");
    assert!(page.contains("resampler/shipped"), "it has the examples: {page}");
    for command in ["explain", "list", "replay", "bench", "selftest", "report", "completions"] {
        assert!(dir.join(format!("doorbell-{command}.1")).exists(), "{command}");
    }
}

/// An empty directory of a test's own.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("terminal").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// `docs/json.md` has a table for each kind of object, below a heading that names the command.
#[test]
fn the_documentation_of_json_has_every_field_and_no_other() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/json.md");
    let page = fs::read_to_string(page).expect("docs/json.md");
    let documented = |heading: &str| -> Vec<String> {
        let section = page.split("\n## ").find(|part| part.starts_with(heading)).expect(heading);
        let fields = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        fields.map(|(name, _)| name.to_owned()).collect()
    };
    let found = json(&doorbell(&Fake::new(), "check irqfd-resampler --format json"));
    let token = found[0]["token"].as_str().expect("a token");
    for (heading, line) in [
        ("`check", "check irqfd-resampler --format json"),
        ("`explain", "explain irqfd-resampler/as-reported --format json"),
        ("`list", "list --format json"),
        ("`replay", &format!("replay {token} --format json")),
        ("`bench", "bench explore --format json"),
    ] {
        for row in json(&doorbell(&Fake::new(), line)) {
            assert_eq!(row["schema"], 1, "{line}");
            let mut has: Vec<_> = row.as_object().expect("an object").keys().cloned().collect();
            let mut says = documented(heading);
            has.sort();
            says.sort();
            assert_eq!(has, says, "{line}");
        }
    }
}

#[test]
fn explain_without_a_failing_run_says_what_there_is_a_picture_of() {
    let said = doorbell(&Fake::new(), "explain irqfd-resampler/shipped --format svg");
    assert_eq!((said.status, said.out.as_str()), (DIFFERS, ""));
    assert!(
        said.err.contains("There is a picture of irqfd-resampler/as-reported."),
        "{}",
        said.err
    );
    let said = doorbell(&Fake::new(), "explain irq-inversion --format svg");
    assert!(said.err.contains("No variant of irq-inversion has a failing run."), "{}", said.err);
}
