//! Each documented race has a page, each id that code and texts use is the id of one, and each case
//! and variant that a page names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use doorbell_catalogue::{Case, Expected, cases};

use crate::{files, read, root};

/// A letter that an id of two digits may begin with.
const LETTERS: &str = "EFGVWX";

fn directory() -> PathBuf {
    root().join("docs/races")
}

/// The pages, by the ids that their first lines begin with, in lower case.
fn pages() -> BTreeMap<String, PathBuf> {
    let pages =
        files(&directory(), &["md"]).into_iter().filter(|path| !path.ends_with("README.md"));
    pages
        .map(|path| {
            let text = read(&path);
            let id = text
                .strip_prefix("# ")
                .and_then(|text| text.split_once(':'))
                .map(|(id, _)| id.to_lowercase());
            let id = id.unwrap_or_else(|| panic!("{} begins with no id", path.display()));
            let stem = path.file_stem().expect("it has a name").to_string_lossy();
            assert_eq!(stem, id.replace(' ', "-"), "{}", path.display());
            (id, path)
        })
        .collect()
}

/// The ids that a text uses, in lower case: `x01`, and `document 000`, which has been called a
/// seed.
fn ids(text: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut former = "";
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let digits = |word: &str, count| {
            word.len() == count && word.bytes().all(|byte| byte.is_ascii_digit())
        };
        if word.starts_with(|first| LETTERS.contains(first)) && digits(&word[1..], 2) {
            ids.insert(word.to_lowercase());
        }
        let thread =
            ["document", "seed", "seeds"].iter().any(|name| former.eq_ignore_ascii_case(name));
        if thread && digits(word, 3) {
            ids.insert(format!("document {word}"));
        }
        former = word;
    }
    ids
}

fn verdict(expected: Expected) -> String {
    match expected {
        Expected::Found(kind) => format!("found: {}", in_words(&format!("{kind:?}"))),
        Expected::Exhausted => "exhausted".to_owned(),
        Expected::BoundReached => "bound reached".to_owned(),
    }
}

/// `use after free`, for `UseAfterFree`.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// The table of a case, as its page has it.
fn table(case: &Case) -> Vec<String> {
    let head = ["", "| variant | verdict | why |", "|---|---|---|"].map(str::to_owned);
    let rows = case.variants.iter().map(|variant| {
        let why = variant.summary.replace('|', "\\|");
        format!("| `{}` | {} | {why} |", variant.name, verdict(variant.expected))
    });
    head.into_iter().chain(rows).chain([String::new()]).collect()
}

/// The names of cases whose tables a page has.
fn tables(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("<!-- case: ")?.strip_suffix(" -->")).collect()
}

/// The page with its tables as the catalogue has them.
///
/// # Panics
/// If it names a case that there is not.
fn reprinted(text: &str, cases: &[Case]) -> String {
    let mut new = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside &= line != "<!-- end -->";
        if !inside {
            new += &format!("{line}\n");
        }
        if let [name] = tables(line)[..] {
            let case = cases
                .iter()
                .find(|case| case.name == name)
                .unwrap_or_else(|| panic!("there is no case {name}"));
            new.extend(table(case).iter().map(|row| format!("{row}\n")));
            inside = true;
        }
    }
    assert!(!inside, "a table has no end");
    new
}

#[test]
fn every_page_lists_the_variants_of_its_cases_with_their_verdicts() {
    let cases = cases();
    let mut stale = Vec::new();
    for (id, path) in pages() {
        let text = read(&path);
        let new = reprinted(&text, &cases);
        if std::env::var_os("DOORBELL_REPRINT").is_some() {
            // The other tests of this file read the page meanwhile.
            let whole = path.with_extension("new");
            let written = fs::write(&whole, &new).and_then(|()| fs::rename(&whole, &path));
            written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        } else if new != text {
            stale.push(id);
        }
    }
    assert!(
        stale.is_empty(),
        "the tables of {stale:?} are out of date; DOORBELL_REPRINT=1 has them printed anew"
    );
}

#[test]
fn every_case_is_on_the_page_of_the_race_that_it_documents() {
    let pages = pages();
    for case in cases() {
        let documented = ids(case.document);
        assert!(!documented.is_empty(), "{} names no race: {}", case.name, case.document);
        for id in documented {
            let page = pages
                .get(&id)
                .unwrap_or_else(|| panic!("{} is of {id}, which has no page", case.name));
            assert!(
                tables(&read(page)).contains(&case.name),
                "{} is not on the page of {id}",
                case.name
            );
        }
    }
}

#[test]
fn a_page_without_a_case_says_so() {
    for (id, path) in pages() {
        let text = read(&path);
        assert_eq!(tables(&text).is_empty(), text.contains("\nNot a case"), "{id}");
        let of_the_index = read(&directory().join("README.md"));
        let row =
            of_the_index.lines().find(|line| line.starts_with(&format!("| [{}]", named(&id))));
        let row = row.unwrap_or_else(|| panic!("{id} is not in the index"));
        let cases =
            tables(&text).iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let cases = if cases.is_empty() { "none yet" } else { &cases };
        assert!(row.ends_with(&format!("| {cases} |")), "the index says of {id}: {row}");
    }
}

/// An id as the index writes it.
fn named(id: &str) -> String {
    if id.starts_with("document") { id.to_owned() } else { id.to_uppercase() }
}

#[test]
fn every_id_that_code_and_texts_use_has_a_page() {
    let root = root();
    let mut texts = files(&root.join("crates"), &["rs", "md"]);
    texts.extend(files(&root.join("docs"), &["md"]));
    texts.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name)));
    // This one has ids that there are not.
    texts.retain(|path| !path.ends_with("tests/docs/races.rs"));
    let pages = pages();
    let mut unknown = Vec::new();
    for path in texts {
        let without = ids(&read(&path)).into_iter().filter(|id| !pages.contains_key(id));
        unknown.extend(without.map(|id| format!("{}: {id}", path.display())));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_variant_that_a_text_names_exists() {
    let cases = cases();
    let known = |name: &str, variant: &str| {
        let case = cases.iter().find(|case| case.name == name);
        case.is_some_and(|case| case.variants.iter().any(|has| has.name == variant))
    };
    let lower = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    let mut unknown = Vec::new();
    for path in files(&root().join("docs"), &["md"]) {
        let races = path.starts_with(directory());
        let text = read(&path);
        // What stands between backquotes: every other piece.
        for word in text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace) {
            let Some((name, variant)) =
                word.split_once('/').filter(|(name, variant)| lower(name) && lower(variant))
            else {
                continue;
            };
            // Elsewhere, a path of two parts may be one of files.
            let meant = races && !["crates", "tools"].contains(&name)
                || cases.iter().any(|case| case.name == name);
            if meant && !known(name, variant) {
                unknown.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn an_id_is_found_in_prose_and_in_no_number() {
    let found = ids(
        "known-races X01; (seed 002), Document 004 and seeds/000; 0xF01, X1, X012, document 12, W01's",
    );
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["document 000", "document 002", "document 004", "w01", "x01"]
    );
}
