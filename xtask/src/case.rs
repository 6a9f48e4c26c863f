//! Makes the skeleton of a case: what "A case in an hour" of CONTRIBUTING.md tells to do by hand.
//!
//! All texts are decided upon before the first is written, so that nothing changes where something
//! is refused.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::build::project;
use crate::trouble::Trouble;

/// A module with two variants: one that is found, and one that is exhausted.
const SKELETON: &str = include_str!("case_skeleton.txt");

/// Letters that the id of a race begins with.
const LETTERS: &str = "EFGVWX";

const LIB: &str = "crates/catalogue/src/lib.rs";
const SUMMARY: &str = "docs/SUMMARY.md";
const INDEX: &str = "docs/races/README.md";
const README: &str = "README.md";

#[derive(Args)]
#[command(after_help = "\
Makes crates/catalogue/src/NAME.rs, a small program with a race that is found, and its cure; lists \
it in lib.rs and in README.md; and gives it a table on the page of its race, docs/races/ID.md. If \
there is no such page, a stub of one is made, and listed in docs/SUMMARY.md and in the index. What \
is made compiles, and `cargo run --release -- check NAME` runs it. \
CONTRIBUTING.md, \"A case in an hour\", says what to replace.

  cargo xtask case pending-attribute --race X18")]
pub struct Options {
    /// The case's name: lower case, digits and single hyphens, such as `pi-suppress`.
    name: String,
    /// The id of its race: one of the letters E, F, G, V, W, X and two digits.
    #[arg(long, value_name = "ID")]
    race: String,
}

/// Makes the skeleton, and says what to do next.
///
/// # Errors
/// Says in one line why the name or the id is refused; nothing is changed then.
pub fn run(options: &Options) -> Result<bool, Trouble> {
    let texts = plan(&project(), &options.name, &options.race)?;
    for (path, text) in &texts {
        fs::write(project().join(path), text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    println!("\nnext: cargo run --release -- check {}", options.name);
    println!("      cargo xtask bless races     prints the table of variants on the page");
    Ok(true)
}

/// The files that a new case makes or changes, and what is to be in them.
fn plan(root: &Path, name: &str, race: &str) -> Result<Vec<(PathBuf, String)>, String> {
    well_formed(name)?;
    let id = race.to_uppercase();
    let is_id = matches!(id.as_bytes(), [first, rest @ ..]
        if LETTERS.contains(*first as char) && rest.len() == 2 && rest.iter().all(u8::is_ascii_digit));
    if !is_id {
        return Err(format!("{race} is no id of a race: one of {LETTERS} and two digits"));
    }
    let module = name.replace('-', "_");
    let path = PathBuf::from(format!("crates/catalogue/src/{module}.rs"));
    if root.join(&path).exists() || root.join(path.with_extension("")).exists() {
        return Err(format!("there is a module {module} already"));
    }
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
    };
    let (lib, index, readme) = (read(LIB)?, read(INDEX)?, read(README)?);
    if index.contains(&format!("`{name}`")) {
        return Err(format!("there is a case {name} already"));
    }
    let mut texts = vec![
        (path, SKELETON.replace("NAME", name).replace("ID", &id)),
        (LIB.into(), declared(&lib, &module)?),
        (README.into(), in_readme(&readme, name, &id)?),
    ];
    let page = format!("docs/races/{}.md", id.to_lowercase());
    if root.join(&page).exists() {
        texts.push((page.clone().into(), on_page(&read(&page)?, name)));
        texts.push((INDEX.into(), in_row(&index, name, &id)?));
    } else {
        texts.push((page.into(), stub(name, &id)));
        texts.push((INDEX.into(), with_row(&index, name, &id)?));
        texts.push((SUMMARY.into(), in_summary(&read(SUMMARY)?, &id)?));
    }
    Ok(texts)
}

/// Names are written on command lines and in tables, and become those of modules.
fn well_formed(name: &str) -> Result<(), String> {
    let word = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && !word.is_empty()
    };
    if name.split('-').all(word) && name.starts_with(|first: char| first.is_ascii_lowercase()) {
        Ok(())
    } else {
        Err(format!("{name:?} is no name: lower case, digits and single hyphens, a letter first"))
    }
}

/// Inserts a line before the first of the lines of a block that comes after it in the alphabet, or
/// at the block's end. The block are the lines that begin with `like`.
fn insert(text: &str, like: &str, line: &str, sorted: bool, what: &str) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let is = |at: &usize| lines[*at].starts_with(like);
    let last = (0..lines.len()).rev().find(is).ok_or_else(|| format!("{what} has no {like:?}"))?;
    let later = |at: &usize| is(at) && sorted && lines[*at] > line;
    let at = (0..lines.len()).find(later).unwrap_or(last + 1);
    let all = lines[..at].iter().chain([&line]).chain(&lines[at..]);
    Ok(all.flat_map(|line| [*line, "\n"]).collect())
}

fn declared(lib: &str, module: &str) -> Result<String, String> {
    // `mod case;` stands apart, above.
    let (above, cases) =
        lib.split_once("pub use case::").ok_or_else(|| format!("{LIB} does not use `case`"))?;
    let cases = insert(cases, "mod ", &format!("mod {module};"), true, LIB)?;
    let cases = match cases.split_once("\n    ]\n") {
        Some((list, rest)) => format!("{list}\n        {module}::case(),\n    ]\n{rest}"),
        None => return Err(format!("{LIB} has no list of cases")),
    };
    Ok(format!("{above}pub use case::{cases}"))
}

fn in_readme(readme: &str, name: &str, id: &str) -> Result<String, String> {
    let (before, table) = readme
        .split_once("| case | document | found | excluded")
        .ok_or_else(|| format!("{README} has no table of cases"))?;
    let row = format!("| `{name}` | {id}: where it was found | what is found | what is excluded |");
    let table = insert(table, "| `", &row, false, README)?;
    Ok(format!("{before}| case | document | found | excluded{table}"))
}

/// Where the table of a case is printed.
fn markers(name: &str) -> String {
    format!("<!-- case: {name} -->\n<!-- end -->\n")
}

/// A page with room for the case's table: where "Not a case yet" stands, or at the end.
fn on_page(page: &str, name: &str) -> String {
    match page.split_once("\nNot a case") {
        Some((before, rest)) => {
            let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
            let gap = if after.is_empty() { "" } else { "\n" };
            format!("{before}\n{}{gap}{after}", markers(name))
        }
        None => format!("{}\n\n{}", page.trim_end(), markers(name)),
    }
}

fn stub(name: &str, id: &str) -> String {
    format!(
        "# {id}: {TITLE}\n\nWhere it was found, with a link.\n\n## What happens\n\nWhat happens.\n\n\
         ## What has to hold\n\nWhat has to hold.\n\n## The way out\n\nThe way out.\n\n\
         ## In the catalogue\n\n{}",
        markers(name)
    )
}

/// The title of a page that has none yet.
const TITLE: &str = "What goes wrong, in one line";

fn row_of(id: &str) -> String {
    format!("| [{id}]({}.md) | ", id.to_lowercase())
}

fn in_row(index: &str, name: &str, id: &str) -> Result<String, String> {
    let begin = row_of(id);
    let row = index.lines().find(|line| line.starts_with(&begin));
    let row = row.ok_or_else(|| format!("{INDEX} has no row of {id}"))?;
    let new = match row.strip_suffix("none yet |") {
        Some(row) => format!("{row}`{name}` |"),
        None => format!("{}, `{name}` |", row.trim_end_matches(" |")),
    };
    Ok(index.replacen(row, &new, 1))
}

fn with_row(index: &str, name: &str, id: &str) -> Result<String, String> {
    let row = format!("{}{TITLE} | `{name}` |", row_of(id));
    insert(index, &format!("| [{}", &id[..1]), &row, true, INDEX)
        .or_else(|_| insert(index, "| [", &row, false, INDEX))
}

fn in_summary(summary: &str, id: &str) -> Result<String, String> {
    let line = format!("  - [{id}: {TITLE}](races/{}.md)", id.to_lowercase());
    insert(summary, &format!("  - [{}", &id[..1]), &line, true, SUMMARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a plan says of a file.
    fn text<'a>(plan: &'a [(PathBuf, String)], path: &str) -> &'a str {
        let found = plan.iter().find(|(has, _)| has == Path::new(path));
        &found.unwrap_or_else(|| panic!("{path} is not touched")).1
    }

    #[test]
    fn a_name_that_is_ill_formed_or_taken_and_an_id_that_is_none_are_refused() {
        let refused = |name, race| plan(&project(), name, race).expect_err("it is refused");
        for name in ["", "Case", "a--b", "-a", "a-", "a_b", "1a", "a/b", "../a"] {
            assert!(refused(name, "X01").contains("is no name"), "{name}");
        }
        for race in ["X1", "A01", "X012", "", "Xab"] {
            assert!(refused("new-case", race).contains("is no id"), "{race}");
        }
        assert_eq!(refused("pi-suppress", "X01"), "there is a module pi_suppress already");
        // This one is in a module of another name.
        assert_eq!(refused("avic-stale-irte", "X08"), "there is a case avic-stale-irte already");
    }

    #[test]
    fn a_case_of_a_race_that_has_no_page_gets_one() {
        let plan = plan(&project(), "new-case", "x99").expect("it is free");
        assert_eq!(plan.len(), 6);
        let module = text(&plan, "crates/catalogue/src/new_case.rs");
        assert!(module.contains("\"new-case\"") && module.contains("known-races X99:"), "{module}");
        let lib = text(&plan, LIB);
        assert!(lib.contains("\nmod msi_torn_update;\nmod new_case;\n"), "{lib}");
        assert!(lib.contains("::case(),\n        new_case::case(),\n    ]\n"), "{lib}");
        assert!(text(&plan, README).contains(" |\n| `new-case` | X99"));
        assert!(text(&plan, "docs/races/x99.md").starts_with("# X99: "));
        let x99 = format!("| [X99](x99.md) | {TITLE} | `new-case` |\n| [F01]");
        assert!(text(&plan, INDEX).contains(&x99), "{}", text(&plan, INDEX));
        assert!(text(&plan, SUMMARY).contains("(races/x99.md)\n  - [F01"));
    }

    #[test]
    fn a_case_of_a_race_that_has_a_page_is_listed_there() {
        let plan = plan(&project(), "new-case", "X01").expect("it is free");
        assert!(plan.iter().all(|(path, _)| path != Path::new(SUMMARY)));
        let page = text(&plan, "docs/races/x01.md");
        assert!(
            page.ends_with("<!-- end -->\n\n<!-- case: new-case -->\n<!-- end -->\n"),
            "{page}"
        );
        assert!(text(&plan, INDEX).contains("`pi-suppress`, `new-case` |"));
    }

    #[test]
    fn the_place_of_a_table_takes_that_of_the_line_that_says_there_is_none() {
        let page = "# X98: a\n\n## In the catalogue\n\nNot a case yet. It needs\nmore.\n\nEnd.\n";
        let made = "# X98: a\n\n## In the catalogue\n\n<!-- case: b -->\n<!-- end -->\n\nEnd.\n";
        assert_eq!(on_page(page, "b"), made);
        assert_eq!(on_page("a\n\nNot a case yet.\n", "b"), "a\n\n<!-- case: b -->\n<!-- end -->\n");
        let index = "| [X98](x98.md) | a | none yet |\n";
        assert_eq!(in_row(index, "b", "X98").as_deref(), Ok("| [X98](x98.md) | a | `b` |\n"));
    }
}
