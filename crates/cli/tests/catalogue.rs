//! The command on the real catalogue, from end to end.

use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use doorbell_catalogue::Expected;
use serde_json::Value;

fn doorbell(args: &[&str]) -> Output {
    Command::new(cargo_bin("doorbell")).args(args).output().expect("it runs")
}

fn stdout(args: &[&str], status: i32) -> String {
    let output = doorbell(args);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(args: &[&str], status: i32) -> Vec<Value> {
    stdout(args, status)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect()
}

const FOUND: &str = "apic-map-dirty/as-reported";
const FIXED: &str = "apic-map-dirty/fixed";

#[test]
fn check_gets_what_the_variants_of_a_case_state() {
    let said = stdout(&["check", "apic-map-dirty"], 0);
    assert!(said.contains("all as stated"), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("✓") && line.contains("found quiescence")),
        "{said}"
    );
    assert!(said.lines().any(|line| line.starts_with("✓") && line.contains("exhausted")), "{said}");
}

#[test]
fn check_in_json_has_everything_of_a_found_failure() {
    let rows = json(&["check", FOUND, "--format", "json", "--jobs", "1"], 0);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    for (field, value) in [
        ("case", "apic-map-dirty"),
        ("variant", "as-reported"),
        ("expected", "found"),
        ("verdict", "found"),
        ("kind", "quiescence"),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    assert!(row["scope"].as_str().is_some_and(|scope| scope.contains("2 vCPUs")), "{row}");
    assert!(row["executions"].as_u64().is_some_and(|executions| executions > 0), "{row}");
    assert!(row["millis"].is_u64() && row["bound"].is_null(), "{row}");
    assert!(row["token"].as_str().is_some_and(|token| token.len() <= 80), "{row}");
}

#[test]
fn check_in_json_has_no_token_where_nothing_fails() {
    let rows = json(&["check", FIXED, "--format", "json"], 0);
    assert_eq!((&rows[0]["verdict"], &rows[0]["kind"]), (&Value::from("exhausted"), &Value::Null));
    assert_eq!(rows[0]["token"], Value::Null);
}

#[test]
fn a_bound_that_keeps_the_search_from_an_end_is_status_1() {
    let rows = json(&["check", FIXED, "--bound", "0", "--format", "json"], 1);
    assert_eq!(
        (&rows[0]["verdict"], &rows[0]["bound"]),
        (&Value::from("bound-reached"), &Value::from(0))
    );
}

#[test]
fn several_jobs_count_the_same_executions_within_a_percent() {
    let executions = |jobs| {
        json(&["check", FIXED, "--jobs", jobs, "--format", "json"], 0)[0]["executions"].as_u64()
    };
    let (one, four) = (executions("1").expect("a number"), executions("4").expect("a number"));
    assert!(one.abs_diff(four) * 100 <= one.max(100), "{one} and {four}");
}

#[test]
fn an_invariant_that_a_case_states_has_a_kind_of_its_own() {
    let variant = "lazy-eoi-recursion/as-reported";
    assert_eq!(json(&["check", variant, "--format", "json"], 0)[0]["kind"], "invariant");
    let said = stdout(&["explain", variant], 0);
    assert!(said.contains("\nviolated invariant, "), "{said}");
    assert!(said.contains("device: set_irq is called 3 deep, and once more"), "{said}");
}

#[test]
fn explain_tells_the_failure_on_one_page() {
    let said = stdout(&["explain", FOUND], 0);
    assert!(said.lines().count() <= 30, "{said}");
    assert!(said.starts_with("apic-map-dirty/as-reported: the flag is cleared"), "{said}");
    assert!(said.contains("vCPU 0") && said.contains("vCPU 1"), "{said}");
    assert!(said.contains("apic_map_dirty.rs") && said.contains("map == recompute(ids)"), "{said}");
    assert!(said.contains("again: doorbell replay db1-"), "{said}");
}

#[test]
fn every_failure_of_the_catalogue_fits_on_a_page() {
    let found = doorbell_catalogue::cases().into_iter().flat_map(|case| {
        let found = case
            .variants
            .into_iter()
            .filter(|variant| matches!(variant.expected, Expected::Found(_)));
        found.map(move |variant| format!("{}/{}", case.name, variant.name))
    });
    for variant in found {
        let said = stdout(&["explain", &variant, "--width", "120"], 0);
        // What the validator has to say comes after the page.
        let end =
            said.lines().position(|line| line.starts_with("again: ")).expect("how to see it again");
        // The page may have 60 lines, where the program tells what its steps are; above it stands
        // which variant this is.
        assert!(end <= 62, "{variant}: {end} lines:\n{said}");
        let wide = said.lines().take(end).skip(1).map(|line| line.chars().count()).max();
        assert!(wide <= Some(120), "{variant}: {wide:?} wide:\n{said}");
    }
}

#[test]
fn explain_draws_a_picture() {
    let said = stdout(&["explain", FOUND, "--format", "svg"], 0);
    assert!(said.starts_with("<svg ") && said.trim_end().ends_with("</svg>"), "{said}");
    assert!(said.contains("vCPU 1"), "{said}");
}

#[test]
fn explain_in_json_has_the_trace() {
    let rows = json(&["explain", FOUND, "--format", "json"], 0);
    assert_eq!(rows[0]["trace"]["kind"], "quiescence");
    assert!(rows[0]["trace"]["lines"].as_array().is_some_and(|lines| lines.len() > 5));
}

#[test]
fn explain_says_so_where_nothing_fails() {
    let said = stdout(&["explain", FIXED], 0);
    assert!(said.contains("exhausted: ") && said.contains("none failed. Scope: 2 vCPUs"), "{said}");
}

#[test]
fn explain_says_why_a_lock_order_that_the_validator_questions_is_no_deadlock() {
    let said = stdout(&["explain", "pi-wakeup/without-annotations"], 0);
    assert!(said.contains("pi_lock → rq lock → wake-up lock → pi_lock"), "{said}");
    assert!(
        said.contains("UNREACHABLE within the scope. Both would have to be on CPU0 at once"),
        "{said}"
    );
    let rows = json(&["check", "pi-wakeup/without-annotations", "--format", "json"], 0);
    assert_eq!(rows[0]["inversions"], "unreachable (exclusive on one CPU)");
    assert_eq!(rows[0]["expected_inversions"], rows[0]["inversions"]);
}

#[test]
fn explain_says_which_lock_order_the_deadlock_that_was_found_is() {
    let said = stdout(&["explain", "pi-wakeup/sched-in-under-task-lock"], 0);
    let order = said.find("pi_lock → wake-up lock → pi_lock").expect("the order");
    assert!(said[order..].contains("REACHABLE: replay with db1-"), "{said}");
    let said = stdout(&["explain", "pi-wakeup/handler-walks-all-lists"], 0);
    assert!(said.contains("the lock validator questions no lock order"), "{said}");
}

#[test]
fn where_a_possible_deadlock_is_unreachable_check_says_so_and_explain_says_why() {
    const ASKED: &str = "avic-irte/plain-handler";
    let rows = json(&["check", ASKED, "--format", "json"], 0);
    assert_eq!(
        (&rows[0]["verdict"], &rows[0]["agrees"]),
        (&Value::from("exhausted"), &Value::from(true))
    );
    let said = stdout(&["check", ASKED], 0);
    assert!(
        said.lines().any(|line| line.starts_with("✓") && line.contains("exhausted, unreachable")),
        "{said}"
    );
    let said = stdout(&["explain", ASKED], 0);
    for part in [
        "none failed",
        "possible circular locking dependency: ir_list_lock → irq_desc → rq lock",
        "UNREACHABLE",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
}

#[test]
fn a_token_that_check_printed_is_replayed_to_the_same_trace() {
    let rows = json(&["check", FOUND, "--format", "json"], 0);
    let token = rows[0]["token"].as_str().expect("a token");
    let said = stdout(&["replay", token], 0);
    assert!(said.starts_with(FOUND), "{said}");
    assert_eq!(said, stdout(&["replay", token], 0));
    assert!(said.lines().count() <= 30, "{said}");
    let replayed = json(&["replay", token, "--format", "json"], 0);
    assert_eq!(
        (&replayed[0]["variant"], &replayed[0]["token"]),
        (&rows[0]["variant"], &rows[0]["token"])
    );
}

#[test]
fn a_token_that_nobody_here_made_is_status_2_and_says_why() {
    for (token, why) in
        [("db1-AAAAAAAA", "the sources have changed since"), ("hello", "not a replay token")]
    {
        let output = doorbell(&["replay", token]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(output.stdout.is_empty() && said.contains(why), "{said}");
    }
}

#[test]
fn list_names_the_documents() {
    let said = stdout(&["list"], 0);
    for document in ["known-races X12", "known-races F01", "known-races F09"] {
        assert!(said.contains(document), "{said}");
    }
}

#[test]
fn selftest_finds_the_search_in_agreement_with_brute_force() {
    let said = stdout(&["selftest", "--programs", "20"], 0);
    assert!(said.starts_with("20 of 20 random programs from seed 0"), "{said}");
    let one = stdout(&["selftest", "--programs", "1", "--seed", "7", "--first", "3"], 0);
    assert!(one.starts_with("1 of 1 random programs from seed 7"), "{one}");
}

/// What a page may name without asking the network for it: the namespace of its pictures, and the
/// links that name documents.
const NAMES: &[&str] = &["http://www.w3.org/2000/svg"];

#[test]
fn the_report_of_the_catalogue_is_whole_and_small_and_points_nowhere() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalogue-report");
    let _ = std::fs::remove_dir_all(&dir);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let said = stdout(&["report", dir.to_str().expect("UTF-8"), "--sources", root], 0);
    assert!(said.contains("all as stated"), "{said}");
    let page = std::fs::read_to_string(dir.join("index.html")).expect("the page");
    assert!(page.len() <= 5_000_000, "{} bytes", page.len());
    for (at, _) in page.match_indices("http") {
        let rest: String = page[at..].chars().take(60).collect();
        let is_url = rest.starts_with("http://") || rest.starts_with("https://");
        assert!(!is_url || NAMES.iter().any(|name| rest.starts_with(name)), "{rest}");
    }
    for element in ["src=", "<link", "@import", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(element), "{element}");
    }
    let (_, rest) = page.split_once("id=\"results\">").expect("the results");
    let (results, _) = rest.split_once("</script>").expect("their end");
    let results: Value = serde_json::from_str(results).expect("JSON");
    let (mut pictures, mut unread) = (0, Vec::new());
    for variant in results["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .flat_map(|case| case["variants"].as_array().expect("variants"))
    {
        let Some(svg) = variant["run"]["svg"].as_str() else { continue };
        let parsed = roxmltree::Document::parse(svg);
        let picture = parsed.unwrap_or_else(|error| panic!("{}: {error}", variant["name"]));
        let numbers: Vec<_> =
            picture.descendants().filter_map(|node| node.attribute("data-step")).collect();
        let steps = variant["run"]["steps"].as_array().expect("steps");
        assert!(!numbers.is_empty(), "{}: no step has its place", variant["name"]);
        assert!(numbers.iter().all(|n| n.parse::<usize>().is_ok_and(|n| n < steps.len())));
        for site in steps.iter().filter_map(|step| step["site"].as_str()) {
            let (file, line) = site.rsplit_once(':').expect("a site");
            if !results["sources"][file][line].is_string() {
                unread.push(site.to_owned());
            }
        }
        pictures += 1;
    }
    assert!(pictures > 100, "{pictures} pictures");
    assert!(unread.is_empty(), "no source for {unread:?}");
}
