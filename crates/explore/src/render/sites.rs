//! Shortens `file:line`: as few path components as tell the files apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::Trace;

/// The short forms of the sites in one trace.
pub(super) struct Sites {
    short: BTreeMap<String, String>,
}

impl Sites {
    pub(super) fn of(trace: &Trace) -> Sites {
        let all = trace.lines.iter().map(|l| &l.site).chain(trace.waits.iter().map(|w| &w.site));
        let files: BTreeSet<String> = all.map(|site| split(site).0.replace('\\', "/")).collect();
        let short = files.iter().map(|file| (file.clone(), shortest(file, &files))).collect();
        Sites { short }
    }

    /// `crates/irqfd/src/resampler.rs:96` as `resampler.rs:96`, unless there are two of that name.
    pub(super) fn shorten(&self, site: &str) -> String {
        let (file, line) = split(site);
        let file = file.replace('\\', "/");
        let short = self.short.get(&file).unwrap_or(&file);
        format!("{short}{line}")
    }
}

#[cfg(test)]
thread_local! {
    /// How many sites have been looked at by this thread.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The file of a short site.
pub(super) fn file_of(site: &str) -> Option<&str> {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    site.rsplit_once(':').map(|(file, _)| file)
}

/// The file, and `:line` or `:line:column`.
fn split(site: &str) -> (&str, &str) {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    let digits = |c: char| c.is_ascii_digit() || c == ':';
    let file = site.trim_end_matches(digits);
    (file, &site[file.len()..])
}

fn shortest(file: &str, files: &BTreeSet<String>) -> String {
    let starts = file.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
    starts
        .map(|start| &file[start..])
        .find(|tail| files.iter().filter(|other| ends_with_path(other, tail)).count() == 1)
        .unwrap_or(file)
        .to_owned()
}

fn ends_with_path(file: &str, tail: &str) -> bool {
    file.strip_suffix(tail).is_some_and(|head| head.is_empty() || head.ends_with('/'))
}
