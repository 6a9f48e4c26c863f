//! A removal table in a document: one that is out of date, and a document that is not there or has
//! no such table, are told apart and named.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use doorbell_explore::removal::{self, Printed, Program, Row};
use doorbell_explore::{Machine, Sim, spawn};
use doorbell_platform::{Lock, LockClass, WaitType};

static DATA: LockClass = LockClass::new("data", WaitType::Spin);

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const TITLES: &str = "| file | site | taken out | a program that fails |\n|---|---|---|---|\n";

/// Two rows: the lock is taken at two places.
fn rows() -> Vec<Row> {
    let program = Program::new("counts twice", |m: &Machine| {
        m.task("counts", || {
            let data = std::sync::Arc::new(Lock::<Sim, u32>::new(&DATA, 0));
            let child = std::sync::Arc::clone(&data);
            let child = spawn("counts, too", move || *child.lock() += 1);
            *data.lock() += 1;
            child.join();
        });
    });
    removal::locks(&[program], "explore/tests/printed.rs")
}

/// A document of its own for each test.
fn document(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("there is room");
    path
}

fn check(document: &Path, name: &str) -> Vec<String> {
    let document = document.to_str().expect("a path of this workspace");
    Printed { root: ROOT, document, name, kept: &[] }.check(&rows())
}

fn panic_of(document: &Path, name: &str) -> String {
    let caught = catch_unwind(AssertUnwindSafe(|| check(document, name)));
    *caught.expect_err("it must panic").downcast::<String>().expect("a message")
}

#[test]
fn a_table_that_is_out_of_date_is_wrong_and_is_printed_anew() {
    let path =
        document("stale.md", &format!("<!-- removal: counts -->\n{TITLES}| no row |\n\nEnd\n"));
    let wrong = check(&path, "counts");
    let text = fs::read_to_string(&path).expect("it is there");
    if std::env::var_os("DOORBELL_REPRINT").is_some() {
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(!text.contains("no row") && text.ends_with("| counts twice |\n\nEnd\n"), "{text}");
    } else {
        assert!(wrong.len() == 1 && wrong[0].contains("stale.md is out of date"), "{wrong:#?}");
        assert!(wrong[0].contains("it says | no row |"), "{wrong:#?}");
        assert!(text.contains("no row"), "nothing is written: {text}");
    }
}

#[test]
fn a_document_that_is_not_there_is_named() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nowhere.md");
    assert!(panic_of(&path, "counts").contains("nowhere.md: "));
}

#[test]
fn a_table_that_a_document_has_not_is_named_with_the_document() {
    let path = document("other.md", &format!("<!-- removal: other -->\n{TITLES}"));
    let why = panic_of(&path, "counts");
    assert!(why.contains("other.md has no line <!-- removal: counts -->"), "{why}");
}

#[test]
fn a_table_without_its_titles_is_not_taken_for_one() {
    let path = document("untitled.md", "<!-- removal: counts -->\n| a row |\n");
    let why = panic_of(&path, "counts");
    assert!(why.contains("untitled.md: the lines [\"| file |"), "{why}");
}
