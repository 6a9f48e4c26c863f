//! What the command says and returns, with an engine that says what it was told to.

mod fake;
mod said;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use doorbell_cli::args::Cli;
use doorbell_cli::{DIFFERS, INTERRUPTED, OK, READER_GONE, Terminal, USAGE, run};
use fake::Fake;
use said::{Said, doorbell, in_columns, json};
use serde_json::Value;

#[test]
fn all_verdicts_as_stated_is_status_0_and_a_row_per_variant() {
    let said = doorbell(&Fake::new(), "check");
    assert_eq!((said.status, said.err.as_str()), (OK, ""));
    assert_eq!(said.out.lines().filter(|l| l.starts_with('✓')).count(), 3);
    assert!(
        said.out.contains("all as stated (1 large variant left out; --full runs them)"),
        "{}",
        said.out
    );
    assert!(said.out.contains("12,870"), "{}", said.out);
}

#[test]
fn a_lock_order_that_is_questioned_where_none_must_be_is_status_1_and_named() {
    let said = doorbell(&Fake::new(), "check irq-inversion");
    assert!(said.status == OK && said.out.contains("exhausted, silent"), "{}", said.out);
    let said = doorbell(&Fake::questioned(), "check irq-inversion");
    assert_eq!(said.status, DIFFERS);
    let note = "must be exhausted, silent, and is exhausted, unreachable (different instances)";
    assert!(said.out.contains(note), "{}", said.out);
    let rows = json(&doorbell(&Fake::questioned(), "check irq-inversion --format json"));
    assert_eq!(rows[0]["expected_inversions"], "silent");
    assert_eq!(rows[0]["inversions"], "unreachable (different instances)");
    assert_eq!(rows[0]["agrees"], false);
}

#[test]
fn explain_says_what_the_lock_validator_says_where_the_variant_is_about_that() {
    let said = doorbell(&Fake::new(), "explain irq-inversion");
    assert!(said.out.contains("the lock validator questions no lock order"), "{}", said.out);
    let said = doorbell(&Fake::questioned(), "explain irq-inversion");
    assert!(
        said.status == DIFFERS && said.out.contains("a → b → a\n  UNREACHABLE"),
        "{}",
        said.out
    );
    assert!(said.err.contains("and is exhausted, unreachable"), "{}", said.err);
    let said = doorbell(&Fake::questioned(), "explain irqfd-resampler/shipped");
    assert!(
        said.status == DIFFERS && said.out.contains("a → b → a"),
        "nobody states it: {}",
        said.out
    );
    let said = doorbell(&Fake::questioned(), "explain irqfd-resampler/as-reported");
    assert!(said.status == OK && !said.out.contains("a → b → a"), "{}", said.out);
}

#[test]
fn no_subcommand_is_check() {
    let rows = |said: Said| said.out.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(doorbell(&Fake::new(), "")), rows(doorbell(&Fake::new(), "check")));
}

#[test]
fn a_verdict_that_is_not_as_stated_is_status_1_and_says_how_to_see_it() {
    let engine = Fake::broken_at("irqfd-resampler/shipped");
    let said = doorbell(&engine, "check");
    assert_eq!(said.status, DIFFERS);
    let note = "✗ irqfd-resampler/shipped must be exhausted, and is found lost-interrupt; see `doorbell replay db1-";
    assert!(said.out.contains(note), "{}", said.out);
    assert!(said.out.contains("2 as stated, 1 not as stated"), "{}", said.out);
}

#[test]
fn another_kind_of_failure_than_stated_is_a_difference() {
    let engine = Fake::broken_at("irqfd-resampler/as-reported");
    let said = doorbell(&engine, "check irqfd-resampler/as-reported --format json");
    assert_eq!(said.status, DIFFERS);
    assert_eq!(json(&said)[0]["kind"], "lost-interrupt");
    assert_eq!(json(&said)[0]["agrees"], false);
}

#[test]
fn a_search_that_ends_at_its_bound_has_not_shown_what_is_stated() {
    let said = doorbell(&Fake::new(), "check --bound 2 irqfd-resampler/shipped");
    assert_eq!(said.status, DIFFERS);
    assert!(
        said.out.contains("bound-reached (2)") && said.out.contains("1 undecided"),
        "{}",
        said.out
    );
    let why = "and the search ended before it could tell: runs with more than 2 preemptions were left out\n";
    assert!(said.out.contains(why), "{}", said.out);
}

#[test]
fn what_ended_a_search_early_stands_beside_the_verdict() {
    let said = doorbell(&Fake::new(), "check --budget 3 irqfd-resampler/shipped");
    assert!(said.out.contains("  bound-reached (budget)  "), "{}", said.out);
    let said = doorbell(&Fake::new(), "check --budget 3 irqfd-resampler/shipped --format json");
    assert_eq!(json(&said)[0]["limit"], "the budget of 3s was spent");
    let said = doorbell(&Fake::new(), "explain --budget 3 irqfd-resampler/shipped");
    assert!(
        said.out.contains("none failed. What ended the search: the budget of 3s was spent."),
        "{}",
        said.out
    );
}

#[test]
fn json_has_an_object_a_line_with_the_promised_fields() {
    let said = doorbell(&Fake::new(), "check --format json");
    assert_eq!((said.status, said.err.as_str()), (OK, ""));
    let rows = json(&said);
    assert_eq!(rows.len(), 3);
    let found = &rows[0];
    assert_eq!(found["case"], "irqfd-resampler");
    assert_eq!(found["variant"], "as-reported");
    assert_eq!(found["expected"], "found");
    assert_eq!(found["verdict"], "found");
    assert_eq!(found["kind"], "deadlock");
    assert_eq!(found["scope"], "plain pool, W = 2, N = 2");
    assert_eq!(found["executions"], 12_870);
    assert_eq!(found["bound"], Value::Null);
    assert_eq!(found["millis"], 7);
    assert!(found["token"].is_string());
    assert_eq!(rows[1]["verdict"], "exhausted");
    assert_eq!((&rows[1]["kind"], &rows[1]["token"]), (&Value::Null, &Value::Null));
}

#[test]
fn in_json_the_complaints_go_to_stderr() {
    let engine = Fake::broken_at("irqfd-resampler/shipped");
    let said = doorbell(&engine, "check --format json");
    assert_eq!(json(&said).len(), 3);
    assert!(said.err.contains("irqfd-resampler/shipped must be exhausted"), "{}", said.err);
}

#[test]
fn large_variants_run_with_full_or_when_they_are_named() {
    let variants = |line| json(&doorbell(&Fake::new(), line)).len();
    assert_eq!(variants("check irqfd-resampler --format json"), 2);
    assert_eq!(variants("check irqfd-resampler --full --format json"), 3);
    assert_eq!(variants("check irqfd-resampler/large --format json"), 1);
}

#[test]
fn a_variant_that_is_named_twice_runs_once() {
    let said =
        doorbell(&Fake::new(), "check irqfd-resampler irqfd-resampler/shipped --format json");
    assert_eq!(json(&said).len(), 2);
}

#[test]
fn an_interrupted_check_prints_what_is_known_and_is_status_130() {
    let engine = Fake::interrupted_at("irqfd-resampler/shipped");
    let said = doorbell(&engine, "check");
    assert_eq!(said.status, INTERRUPTED);
    assert!(
        said.out.contains("interrupted during irqfd-resampler/shipped; 1 of 3 variants done"),
        "{}",
        said.out
    );
    assert!(!said.out.contains("irq-inversion"), "what was not begun is not shown:\n{}", said.out);
    let rows = json(&doorbell(&engine, "check --format json"));
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["interrupted"], &rows[1]["interrupted"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
}

#[test]
fn a_failure_that_was_found_when_ctrl_c_came_still_counts() {
    let engine = Fake::interrupted_at("irqfd-resampler/as-reported");
    let said = doorbell(&engine, "check");
    assert_eq!(said.status, INTERRUPTED);
    assert!(
        said.out.contains("interrupted; 1 of 3 variants done") && said.out.contains("1 as stated"),
        "{}",
        said.out
    );
}

#[test]
fn an_unknown_name_is_status_2_and_suggests_what_is_near() {
    for (typed, hint) in [
        ("irqfd-resamplr", "did you mean `irqfd-resampler`?"),
        ("resampler/shipped", "did you mean `irqfd-resampler/shipped`?"),
        ("irqfd-resampler/as-reportd", "did you mean `irqfd-resampler/as-reported`?"),
        ("irqfd-resampler/zzz", "it has `as-reported`, `shipped`, `large`"),
        (
            "as-reported",
            "`as-reported` is a variant, not a case; did you mean `irqfd-resampler/as-reported`?",
        ),
        ("zzz", "`doorbell list` shows those that there are"),
        ("irqfd-resampler/", "has no variant ``"),
    ] {
        for command in ["check", "explain", "list"] {
            let said = doorbell(&Fake::new(), &format!("{command} {typed}"));
            assert_eq!((said.status, said.out.as_str()), (USAGE, ""), "{command} {typed}");
            assert!(said.err.contains(hint), "{command} {typed}: {}", said.err);
        }
    }
}

#[test]
fn explain_shows_the_trace_why_and_how_to_see_it_again() {
    let said = doorbell(&Fake::new(), "explain irqfd-resampler/as-reported");
    assert_eq!(said.status, OK);
    for part in [
        "CPU0  worker-0",
        "✖ waits for mutex resampler_lock",
        "irqfd_resampler.rs:82",
        "again: doorbell replay db1-",
    ] {
        assert!(said.out.contains(part), "{part} is missing in\n{}", said.out);
    }
    assert!(said.out.lines().count() <= 30);
}

#[test]
fn explain_draws_and_serialises() {
    let svg = doorbell(&Fake::new(), "explain irqfd-resampler/as-reported --format svg");
    assert!(svg.out.starts_with("<svg ") && svg.out.ends_with("</svg>\n"));
    let title = ">irqfd-resampler/as-reported (";
    assert!(svg.out.contains(title), "{}", svg.out);
    let replayed = doorbell(&Fake::new(), &format!("replay {} --format svg", token(&Fake::new())));
    assert!(replayed.out.contains(title), "{}", replayed.out);
    let said = doorbell(&Fake::new(), "explain irqfd-resampler/as-reported --format json");
    let object = &json(&said)[0];
    assert_eq!(object["trace"]["lines"][1]["stuck"], true);
    assert_eq!(object["kind"], "deadlock");
}

/// The token of a failing run.
fn token(engine: &Fake) -> String {
    let rows = json(&doorbell(engine, "check irqfd-resampler --format json"));
    rows[0]["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_page_fits_the_columns_that_there_are_and_lists_every_step_if_asked() {
    for width in [60, 80, 120] {
        let said = in_columns(Some(width), &Fake::new(), "explain irqfd-resampler/as-reported");
        let wide = said.out.lines().filter(|line| !line.starts_with("again: "));
        for line in wide {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        let said = in_columns(Some(width), &Fake::new(), "explain irqfd-resampler/shipped");
        assert!(said.out.lines().all(|line| line.chars().count() <= width), "{}", said.out);
    }
    let all = doorbell(&Fake::new(), "explain irqfd-resampler/as-reported --all-steps");
    assert!(all.status == OK && !all.out.contains("… "), "{}", all.out);
}

#[test]
fn one_is_singular() {
    let said = doorbell(&Fake::new(), "explain --bound 1 irqfd-resampler/shipped");
    assert!(said.out.contains(" executions within 1 preemption in "), "{}", said.out);
    assert!(said.out.contains("runs with more than 1 preemption were left out"), "{}", said.out);
}

#[test]
fn explain_says_so_where_nothing_fails() {
    let said = doorbell(&Fake::new(), "explain irqfd-resampler/shipped");
    assert_eq!(said.status, OK);
    assert!(
        said.out
            .contains("exhausted: 12,870 executions in 7 ms, and none failed. Scope: plain pool"),
        "{}",
        said.out
    );
    let said = doorbell(&Fake::new(), "explain irqfd-resampler/shipped --format svg");
    assert_eq!((said.status, said.out.as_str()), (DIFFERS, ""));
    assert!(said.err.contains("nothing to draw"));
}

#[test]
fn explain_wants_one_variant() {
    let said = doorbell(&Fake::new(), "explain irqfd-resampler");
    assert_eq!(said.status, USAGE);
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(
        lines[1..],
        [
            "  irqfd-resampler/as-reported  found deadlock",
            "  irqfd-resampler/shipped      exhausted",
            "  irqfd-resampler/large        bound-reached",
        ]
    );
    assert_eq!(
        doorbell(&Fake::new(), "explain irq-inversion").status,
        OK,
        "it has one variant only"
    );
}

#[test]
fn a_token_is_replayed_or_refused() {
    let engine = Fake::new();
    let said = doorbell(&engine, &format!("replay {}", token(&engine)));
    assert_eq!(said.status, OK);
    assert!(said.out.starts_with("irqfd-resampler/as-reported\ndeadlock"), "{}", said.out);
    let said = doorbell(&engine, "replay nonsense");
    assert_eq!((said.status, said.out.as_str()), (USAGE, ""));
    assert!(said.err.contains("the token is refused"));
}

#[test]
fn list_shows_every_variant_with_what_it_must_get_and_why() {
    let said = doorbell(&Fake::new(), "list");
    assert_eq!(said.status, OK);
    let row = "irqfd-resampler/as-reported  found deadlock     both workers wait";
    assert!(said.out.starts_with(row), "a record a line, and the first is a record: {}", said.out);
    assert_eq!(said.out.lines().count(), 4);
    assert!(said.out.contains("(only with --full)"));
    assert_eq!(json(&doorbell(&Fake::new(), "list --format json")).len(), 4);
    assert_eq!(json(&doorbell(&Fake::new(), "list irq-inversion --format json")).len(), 1);
}

#[test]
fn bench_and_selftest_report() {
    let said = doorbell(&Fake::new(), "bench explore --format json");
    assert_eq!(
        (said.status, &json(&said)[0]["executions_per_second"]),
        (OK, &Value::from(1_287_000.0))
    );
    let said = doorbell(&Fake::new(), "selftest --programs 1000");
    assert!(said.out.starts_with("1,000 of 1,000 random programs from seed 0"), "{}", said.out);
    let said = doorbell(&Fake::new(), "selftest --programs 1 --seed 13");
    assert_eq!(said.status, DIFFERS);
    assert!(said.out.contains("program 0 of seed 13"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = [
        "check",
        "check --format json",
        "explain irqfd-resampler/as-reported --format json",
        "list",
        "bench explore",
    ];
    for line in lines {
        let cli = Cli::try_parse_from(format!("doorbell {line}").split_whitespace())
            .expect("a good command line");
        let mut err = Vec::new();
        let mut terminal = Terminal {
            out: &mut Closed,
            err: &mut err,
            width: Some(80),
            interactive: false,
            colour: true,
            progress: false,
            stop: Arc::new(AtomicBool::new(false)),
        };
        assert_eq!(run(&cli, &Fake::new(), &mut terminal), READER_GONE, "{line}");
        assert!(err.is_empty(), "{line}");
    }
}

#[test]
fn bad_values_are_refused_before_anything_runs() {
    for line in [
        "check --jobs 0",
        "check --budget 0",
        "check --budget soon",
        "check --bound -1",
        "check --format xml",
        "selftest --programs 0",
    ] {
        let error =
            Cli::try_parse_from(format!("doorbell {line}").split_whitespace()).expect_err(line);
        assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
    }
}

#[test]
fn what_is_exhausted_and_has_a_handler_that_never_ran_is_not_as_stated() {
    let said = doorbell(&Fake::idle("handler ack"), "check irqfd-resampler/shipped");
    assert_eq!(said.status, DIFFERS);
    let note = "\u{2717} irqfd-resampler/shipped must be exhausted, and is exhausted, but never ran: handler ack\n";
    assert!(said.out.contains(note), "{}", said.out);
    let said = doorbell(&Fake::idle("handler ack"), "check irqfd-resampler/shipped --format json");
    assert_eq!(json(&said)[0]["never_ran"][0], "handler ack");
    let said = doorbell(&Fake::idle("handler ack"), "explain irqfd-resampler/shipped");
    assert!(said.out.contains("none failed. Never ran: handler ack. Scope"), "{}", said.out);
}
