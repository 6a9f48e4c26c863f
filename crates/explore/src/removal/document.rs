//! The table of a document that says what each access is there for, compared with what was run.

use std::path::Path;

use super::Row;
use crate::search::removal::Taken;

/// A table of a document in Markdown that says what each access is there for: the lines that begin
/// with `|` below a line `<!-- removal: name -->`.
#[derive(Clone, Copy, Debug)]
pub struct Printed<'a> {
    /// The directory that the paths of sources begin in.
    pub root: &'a str,
    /// The document, below the root.
    pub document: &'a str,
    /// The name of the table.
    pub name: &'a str,
    /// What no program finds: a part of the line, what is taken out, and why it is there all the
    /// same.
    pub kept: &'a [(&'a str, Taken, &'a str)],
}

/// The two lines that each table begins with.
const TITLES: [&str; 2] =
    ["| file | site | taken out | a program that fails |", "|---|---|---|---|"];

/// The number of characters of a line that are printed.
const SITE: usize = 68;

impl Printed<'_> {
    /// Compares rows with the table of the document. Returns what is not as it should be: sites
    /// that no program finds and that are not [kept](Printed::kept), those that are kept though one
    /// does, and what the document says that is not so any more. With `DOORBELL_REPRINT` in the
    /// environment, prints the table into the document before that.
    ///
    /// # Panics
    /// If there is no such document, or no such table in it, or if the table has other titles; as
    /// [`Row::line`].
    #[must_use = "it is what is wrong"]
    pub fn check(&self, rows: &[Row]) -> Vec<String> {
        let (mut wrong, mut table) = (Vec::new(), Vec::new());
        for row in rows {
            let line = row.line(self.root);
            let is = |(part, taken, _): &&(&str, Taken, &str)| {
                line.contains(part) && row.site.taken == *taken
            };
            let found_by = match (&row.found_by, self.kept.iter().find(is)) {
                (Some(program), None) => program.clone(),
                (None, Some((.., why))) => format!("none: {why}"),
                (Some(program), Some(_)) => {
                    wrong.push(format!("{}: kept, and {program} finds it: {line}", row.site));
                    continue;
                }
                (None, None) => {
                    wrong.push(format!(
                        "{}: no program finds it ({:?}): {line}",
                        row.site, row.unfinished
                    ));
                    continue;
                }
            };
            let file = row.site.file.replace("crates/", "").replace("src/", "");
            let mut site: String = line.chars().take(SITE).collect();
            if site.len() < line.len() {
                site.push('…');
            }
            let site = site.replace('|', "\\|");
            table.push(format!("| `{file}` | `{site}` | {} | {found_by} |", row.site.taken));
        }
        let path = Path::new(self.root).join(self.document);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let head = format!("<!-- removal: {} -->", self.name);
        let begin = text.lines().position(|line| line == head);
        let begin = begin.unwrap_or_else(|| panic!("{} has no line {head}", self.document)) + 1;
        let titles: Vec<_> = text.lines().skip(begin).take(TITLES.len()).collect();
        assert!(titles == TITLES, "{}: the lines {TITLES:?} are not below {head}", self.document);
        let begin = begin + TITLES.len();
        let has: Vec<_> =
            text.lines().skip(begin).take_while(|line| line.starts_with('|')).collect();
        if std::env::var_os("DOORBELL_REPRINT").is_some() {
            let before = text.lines().take(begin);
            let after = text.lines().skip(begin + has.len());
            let lines = before.chain(table.iter().map(String::as_str)).chain(after);
            let new: String = lines.flat_map(|line| [line, "\n"]).collect();
            std::fs::write(&path, new)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            return wrong;
        }
        let differ = (0..has.len().max(table.len()))
            .find(|at| has.get(*at).copied() != table.get(*at).map(|line| &**line));
        if let Some(at) = differ {
            let line = |line: Option<&str>| line.unwrap_or("nothing").to_owned();
            let [is, says] = [line(table.get(at).map(|line| &**line)), line(has.get(at).copied())];
            wrong.push(format!(
                "{} is out of date ({head}, row {}); DOORBELL_REPRINT=1 has it printed anew\n  it says {says}\n  it is   {is}",
                self.document,
                at + 1
            ));
        }
        wrong
    }
}
