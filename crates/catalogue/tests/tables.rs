//! What the modules of the five documents say covers each statement is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use doorbell_catalogue::cases;

/// Each case, and the module that has its table.
const TABLES: [(&str, &str); 5] = [
    ("avic-irte", "avic_irte/mod.rs"),
    ("pi-wakeup", "pi_wakeup/mod.rs"),
    ("irqfd-resampler", "irqfd_resampler/mod.rs"),
    ("vgic-fold", "vgic_fold/mod.rs"),
    ("vector-teardown", "vector_teardown/mod.rs"),
];

/// The rows of a module's table: the statement, and what covers it.
fn rows(module: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table = text.lines().skip_while(|line| *line != "//! | statement | variants |").skip(2);
    let rows =
        table.map_while(|line| line.strip_prefix("//! | ")?.strip_suffix(" |")?.split_once(" | "));
    rows.map(|(statement, covers)| (statement.to_owned(), covers.to_owned())).collect()
}

/// What stands between backticks and has only letters of variants' names: `case/name`, or `name`;
/// each `*` is anything.
fn patterns(covers: &str) -> impl Iterator<Item = &str> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*/".contains(c);
    covers.split('`').skip(1).step_by(2).filter(move |quoted| quoted.chars().all(letter))
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| fits(rest, &name[at..]))
        }),
    }
}

#[test]
fn a_pattern_fits_what_has_anything_where_it_has_a_star() {
    assert!(
        fits("a-*-c", "a-b-c")
            && fits("*", "")
            && fits("a*", "a")
            && fits("*-c*", "b-c-d")
            && fits("a", "a")
    );
    assert!(!fits("a-*-c", "a-b-d") && !fits("a", "ab") && !fits("*b", "abc") && !fits("a*", "ba"));
}

#[test]
fn every_variant_that_a_table_names_exists() {
    let paths: BTreeSet<String> = cases()
        .iter()
        .flat_map(|case| case.variants.iter().map(|variant| variant.path()))
        .collect();
    for (case, module) in TABLES {
        let rows = rows(module);
        assert!(rows.len() > 10, "{module} has {} rows", rows.len());
        for (statement, covers) in &rows {
            for pattern in patterns(covers) {
                let pattern = if pattern.contains('/') {
                    pattern.to_owned()
                } else {
                    format!("{case}/{pattern}")
                };
                assert!(
                    paths.iter().any(|path| fits(&pattern, path)),
                    "{module}, {statement:?}: no {pattern}"
                );
            }
        }
    }
}

#[test]
fn every_statement_has_a_variant_or_says_why_it_has_none() {
    for (_, module) in TABLES {
        for (statement, covers) in rows(module) {
            let says = covers.starts_with("none: ") || patterns(&covers).next().is_some();
            assert!(
                says || covers.contains("in all") || covers.starts_with("all"),
                "{module}, {statement:?}: {covers}"
            );
        }
    }
}
