//! Relative links lead somewhere.

use std::path::PathBuf;

use crate::{files, read, root};

/// The texts of the book, and those beside it that a reader meets first.
fn texts() -> Vec<PathBuf> {
    let root = root();
    let mut texts = files(&root.join("docs"), &["md"]);
    let beside =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "hv/README.md"];
    texts.extend(beside.map(|name| root.join(name)));
    texts
}

/// Where the links of a text lead, without those in blocks of code.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let mut links = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        // Every other piece stands between backquotes; a link's text may, its target does not.
        let plain: String = line.split('`').step_by(2).collect();
        if !code {
            let targets = plain.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            // A part of the table of contents may lead nowhere.
            links.extend(
                targets.map(|(target, _)| target.to_owned()).filter(|target| !target.is_empty()),
            );
        }
    }
    links
}

/// The anchors of a text's headings, as they are made of them on the web.
fn anchors(text: &str) -> Vec<String> {
    let mut code = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if !code && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_that_it_has() {
    let mut dead = Vec::new();
    for path in texts() {
        for link in links(&read(&path)) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
            let to =
                if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            let there = match anchor {
                _ if !to.exists() => false,
                Some(anchor) if to.is_file() => anchors(&read(&to)).iter().any(|has| has == anchor),
                _ => true,
            };
            if !there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_page_of_the_book_is_in_its_table_of_contents() {
    let docs = root().join("docs");
    let listed: Vec<PathBuf> =
        links(&read(&docs.join("SUMMARY.md"))).iter().map(|link| docs.join(link)).collect();
    let missing: Vec<_> = files(&docs, &["md"])
        .into_iter()
        .filter(|path| !path.ends_with("SUMMARY.md") && !listed.contains(path))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// `tools/book` knows a link that leaves the book by its first dots.
#[test]
fn a_link_that_leaves_the_book_goes_up_to_the_directory_of_the_workspace_first() {
    let docs = root().join("docs");
    let mut odd = Vec::new();
    for path in files(&docs, &["md"]) {
        let page = path.strip_prefix(&docs).expect("it lies there");
        let depth = page.components().count();
        for link in links(&read(&path)) {
            let rest = link.trim_start_matches("../");
            let ups = (link.len() - rest.len()) / "../".len();
            if !link.contains("://") && (ups > depth || rest.contains("..")) {
                odd.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    let text = "See [`a`](a.md#b) and [c](d.md).\n```\n[e](f.md)\n```\n`[g](h.md)`\n";
    assert_eq!(links(text), ["a.md#b", "d.md"]);
    assert_eq!(anchors("# The Way, *out*\n"), ["the-way-out"]);
}
