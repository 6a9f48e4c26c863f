//! Every variant gets the verdict that it states, and what it tells of a failure can be read and
//! replayed.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use doorbell_catalogue::{Case, Expected, Inversions, RunOptions, Variant, cases, replay};
use doorbell_explore::{Explore, Failure, ReplayError, Report, Verdict, render};

/// One thread, so that the same failure is found each time.
fn run(variant: &Variant) -> Report {
    variant.run(&RunOptions { jobs: 1, ..RunOptions::default() })
}

fn default_variants() -> impl Iterator<Item = Variant> {
    cases().into_iter().flat_map(|case| case.variants).filter(|variant| !variant.full_only)
}

fn failures() -> impl Iterator<Item = (Variant, Failure)> {
    default_variants().filter(|variant| matches!(variant.expected, Expected::Found(_))).map(
        |variant| {
            let failure =
                run(&variant).failure.unwrap_or_else(|| panic!("{} finds nothing", variant.path()));
            (variant, failure)
        },
    )
}

fn some_failure() -> (Variant, Failure) {
    failures().next().expect("a case with a failure")
}

#[test]
fn every_variant_gets_the_verdict_that_it_states() {
    let mut wrong = Vec::new();
    for variant in default_variants() {
        let report = run(&variant);
        if !variant.agrees(&report) {
            let kind = report.failure.as_ref().map(|failure| failure.kind);
            let trace = report
                .failure
                .as_ref()
                .map(|failure| render::text(&failure.trace, &render::Options::default()));
            let (verdict, inversions) = (report.verdict, Inversions::of(&report));
            wrong.push(format!(
                "{variant:?}: {verdict:?} {kind:?}, {inversions:?}\n{}",
                trace.unwrap_or_default()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn several_threads_come_to_the_same_verdicts() {
    for variant in default_variants() {
        let report = variant.run(&RunOptions { jobs: 3, ..RunOptions::default() });
        assert!(
            variant.agrees(&report),
            "{variant:?}: {:?}, {:?}",
            report.verdict,
            Inversions::of(&report)
        );
    }
}

#[test]
fn every_counterexample_fits_a_page_and_says_why() {
    for (variant, failure) in failures() {
        let text = render::text(
            &failure.trace,
            &render::Options { max_lines: 30, ..render::Options::default() },
        );
        // What the program tells of its steps may take twice the lines.
        let story = failure.trace.lines.iter().any(|line| line.told);
        let most = if story { 60 } else { 30 };
        assert!(text.lines().count() <= most, "{}:\n{text}", variant.path());
        let cut = text.lines().find(|line| line.contains('…') && !line.contains("… "));
        assert_eq!(cut, None, "{}:\n{text}", variant.path());
        assert!(!failure.trace.why.is_empty(), "{}", variant.path());
        assert!(failure.trace.minimal || text.contains("minimal"), "{}:\n{text}", variant.path());
    }
}

/// Names the variant to a process that replays its counterexample.
const VARIANT: &str = "DOORBELL_REPLAYED_VARIANT";

#[test]
fn every_counterexample_is_the_same_in_a_thousand_replays() {
    // A replayed failure leaves its stacks behind: a process for each variant has room for a
    // thousand.
    let this = std::env::current_exe().expect("a test is a program");
    for variant in
        default_variants().filter(|variant| matches!(variant.expected, Expected::Found(_)))
    {
        let output = std::process::Command::new(&this)
            .args(["--exact", "one_counterexample_is_the_same_in_a_thousand_replays"])
            .env(VARIANT, variant.path())
            .output()
            .expect("a test can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{}:\n{text}",
            variant.path()
        );
    }
}

#[test]
fn one_counterexample_is_the_same_in_a_thousand_replays() {
    let path = std::env::var(VARIANT);
    let chosen = |variant: &Variant| {
        matches!(variant.expected, Expected::Found(_))
            && path.as_ref().is_ok_and(|path| *path == variant.path())
    };
    let variant = default_variants().find(chosen).unwrap_or_else(|| some_failure().0);
    let failure =
        run(&variant).failure.unwrap_or_else(|| panic!("{} finds nothing", variant.path()));
    assert!(failure.token.len() <= 80, "{}: {}", variant.path(), failure.token);
    let first = variant
        .replay(&failure.token)
        .unwrap_or_else(|error| panic!("{}: {error}", variant.path()));
    assert_eq!(
        (first.kind, &first.trace.lines),
        (failure.kind, &failure.trace.lines),
        "{}",
        variant.path()
    );
    assert_eq!((&first.trace.why, &first.trace.waits), (&failure.trace.why, &failure.trace.waits));
    for _ in 1..1000 {
        let again = variant.replay(&failure.token).expect("it was replayed before");
        assert_eq!(again.trace, first.trace, "{}", variant.path());
    }
}

#[test]
fn a_token_finds_its_variant() {
    for (variant, failure) in failures() {
        let found =
            replay(&failure.token).unwrap_or_else(|error| panic!("{}: {error}", variant.path()));
        assert_eq!(format!("{}/{}", found.case, found.variant), variant.path());
        assert_eq!(found.trace.lines, failure.trace.lines);
    }
}

#[test]
fn a_token_of_another_variant_is_refused() {
    let failures: Vec<(Variant, Failure)> = failures().collect();
    for (variant, _) in &failures {
        for (other, failure) in failures.iter().filter(|(other, _)| other.path() != variant.path())
        {
            let refused = variant.replay(&failure.token).map(|failure| failure.kind);
            assert_eq!(
                refused,
                Err(ReplayError::OtherProgram),
                "{} by {}",
                other.path(),
                variant.path()
            );
        }
    }
}

#[test]
fn a_token_of_other_sources_is_refused() {
    let (variant, failure) = some_failure();
    // As a variant of the same name in a build of other sources would make it.
    let other = Explore::new(variant.path()).source(1).run(|m| {
        m.at_quiescence("nothing", || Err("as always".to_owned()));
    });
    let other = other.failure.expect("it fails always").token;
    assert_ne!(other, failure.token);
    assert_eq!(replay(&other).map(|run| run.variant), Err(ReplayError::OtherProgram));
}

#[test]
fn what_is_no_token_is_refused() {
    for text in ["", "db1-", "db1-!!!!", "nonsense", "db1-AAAA", "db2-AAAAAAAAAAAA"] {
        assert_eq!(replay(text).map(|run| run.variant), Err(ReplayError::Malformed), "{text:?}");
    }
}

#[test]
fn a_token_that_was_damaged_is_refused_or_fails_in_the_same_variant() {
    let (variant, failure) = some_failure();
    for place in 4..failure.token.len() {
        let mut token = failure.token.clone().into_bytes();
        token[place] = if token[place] == b'A' { b'B' } else { b'A' };
        let token = String::from_utf8(token).expect("ASCII");
        if let Ok(run) = replay(&token) {
            assert_eq!(format!("{}/{}", run.case, run.variant), variant.path());
        }
    }
}

#[test]
fn names_fit_the_command_line_and_everything_says_why() {
    let fits =
        |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    for Case { name, summary, document, variants } in cases() {
        assert!(fits(name) && !name.is_empty(), "{name}");
        assert!(!summary.is_empty() && !document.is_empty() && !variants.is_empty(), "{name}");
        for variant in variants {
            assert!(fits(variant.name) && !variant.name.is_empty(), "{variant:?}");
            assert!(!variant.summary.is_empty() && !variant.scope.is_empty(), "{variant:?}");
            assert_eq!(variant.path(), format!("{name}/{}", variant.name));
        }
    }
}

#[test]
fn no_two_cases_have_the_same_name() {
    let mut names: Vec<&str> = cases().iter().map(|case| case.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_search_that_is_stopped_has_reached_a_bound() {
    let stop = Arc::new(AtomicBool::new(true));
    let large =
        cases().into_iter().flat_map(|case| case.variants).find(|variant| variant.full_only);
    let large = large.expect("a large variant");
    let calls = Cell::new(0);
    let count = |_| calls.set(calls.get() + 1);
    let options =
        RunOptions { jobs: 1, progress: Some(&count), stop: Some(stop), ..RunOptions::default() };
    let report = large.run(&options);
    assert_eq!(report.verdict, Verdict::BoundReached, "{large:?}");
}
