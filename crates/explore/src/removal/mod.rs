//! What each access of the explored code is there for: the code with one of them taken out must
//! fail somewhere.
//!
//! A site is a place where explored code uses an atomic word, takes a lock, or turns interrupts
//! off. Taken out are the indivisibility of a read-modify-write, the knowledge that a load gives,
//! or the interrupts-off region. [`table`] does that for every site that some programs reach, one
//! at a time, and says which program finds it.
//!
//! A lock that does not exclude would break the memory safety of what it protects, so it is not
//! taken out. Instead, it is found out what it is for: two contexts take the same lock, nothing but
//! that lock orders the two, and one of them changes what it protects. Without the lock, that is a
//! data race.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::Ordering::SeqCst;
//! use doorbell_explore::{Machine, Sim, removal};
//! use doorbell_platform::{AtomicInt, Atomic, Platform};
//!
//! let count = removal::Program::new("count", |m: &Machine| {
//!     let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
//!     for name in ["one", "two"] {
//!         let word = Arc::clone(&word);
//!         m.task(name, move || { word.fetch_add(1, SeqCst); });
//!     }
//!     m.at_quiescence("two", move || (word.load(SeqCst) == 2).then_some(()).ok_or("lost".into()));
//! });
//! let table = removal::table(&[count], file!());
//! // Of the `fetch_add` in two steps an increment is lost, and the program sees it.
//! let split = table.iter().find(|row| row.site.taken == removal::Taken::Indivisibility).unwrap();
//! assert_eq!(split.found_by.as_deref(), Some("count"));
//! ```

mod document;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex};

use doorbell_platform::{LockClass, LockUse};

use crate::search::removal::Removal;
use crate::{Explore, Machine, Verdict};

pub use crate::search::removal::{Site, Taken};
pub use document::Printed;

/// A program that finds what is missing.
pub struct Program {
    name: String,
    run: Box<dyn Fn(&Machine) + Send + Sync>,
}

doorbell_platform::opaque_debug!([] Program; name);

impl Program {
    /// Creates a program that is exhausted without a failure as long as nothing is missing.
    pub fn new(name: impl Into<String>, run: impl Fn(&Machine) + Send + Sync + 'static) -> Self {
        Program { name: name.into(), run: Box::new(run) }
    }

    fn explore(&self, removal: Removal) -> Explore {
        let mut explore = Explore::new(self.name.clone()).minimise(false).jobs(0);
        explore.settings.removal = Some(removal);
        explore
    }
}

/// A site, and which program fails without it, or would have a data race.
#[derive(Clone, Debug)]
pub struct Row {
    /// The site.
    pub site: Site,
    /// The first program that fails without it, or that takes the lock there with nothing else to
    /// order it; `None` if none does.
    pub found_by: Option<String>,
    /// Programs that reach the site, and whose search without it ended at its limit of executions.
    pub unfinished: Vec<String>,
}

impl Row {
    /// Returns the line of the source, which `root` is the directory of.
    ///
    /// # Panics
    /// If there is no such file or line.
    pub fn line(&self, root: impl AsRef<Path>) -> String {
        let path = root.as_ref().join(self.site.file);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let line = text
            .lines()
            .nth(self.site.line as usize - 1)
            .expect("the source has not changed since it was built");
        line.trim().to_owned()
    }
}

/// Returns the leaves among `locks` that no context of the programs takes, by name.
///
/// # Panics
/// If a program fails, or does not end.
#[track_caller]
pub fn leaves_not_taken(programs: &[Program], locks: &[LockUse]) -> Vec<&'static str> {
    let mut left: Vec<_> =
        locks.iter().map(|lock| lock.class).filter(|class| class.is_leaf()).collect();
    for program in programs {
        if left.is_empty() {
            break;
        }
        let report = Explore::new(program.name.clone()).minimise(false).jobs(0).run(&*program.run);
        report.assert_exhausted();
        let taken: Vec<_> = report.lock_classes().collect();
        left.retain(|class| !taken.contains(class));
    }
    left.into_iter().map(LockClass::name).collect()
}

/// Without a site, a program may take so many times the executions that it takes with it, and
const FACTOR: u64 = 20;
/// so many more, before it counts as unfinished.
const MORE: u64 = 50_000;

/// The sites in the files whose path contains `files`, and of each which programs reach it: in how
/// many executions, and whether something races there.
#[track_caller]
fn reached<'p>(
    programs: &'p [Program],
    files: &str,
) -> BTreeMap<Site, Vec<(&'p Program, u64, bool)>> {
    let mut sites: BTreeMap<Site, Vec<(&Program, u64, bool)>> = BTreeMap::new();
    for program in programs {
        let reached = Arc::new(Mutex::new(BTreeMap::new()));
        let report = program.explore(Removal::Collect(Arc::clone(&reached))).run(&*program.run);
        report.assert_exhausted();
        let reached = std::mem::take(&mut *reached.lock().expect("the search is over"));
        for (site, races) in reached.into_iter().filter(|(site, _)| site.file.contains(files)) {
            sites.entry(site).or_default().push((program, report.executions, races));
        }
    }
    sites.values_mut().for_each(|programs| programs.sort_by_key(|(_, executions, _)| *executions));
    sites
}

/// Returns the locks in the files whose path contains `files`, and which program needs each: the
/// rows of [`table`] that take no further exploration.
///
/// # Panics
/// If a program fails, or does not end.
#[track_caller]
pub fn locks(programs: &[Program], files: &str) -> Vec<Row> {
    let mut sites = reached(programs, files);
    sites.retain(|site, _| site.taken == Taken::Exclusion);
    sites.into_iter().map(|(site, programs)| row(site, programs)).collect()
}

/// Takes each site out of the files whose path contains `files`, one at a time, and runs the
/// programs that reach it until one fails. Of locks, says which program needs them.
///
/// # Panics
/// If a program fails, or does not end, with nothing taken out.
#[track_caller]
pub fn table(programs: &[Program], files: &str) -> Vec<Row> {
    reached(programs, files).into_iter().map(|(site, programs)| row(site, programs)).collect()
}

/// Adds rows of other programs: a site is found if one of them finds it.
#[must_use]
pub fn merged(rows: Vec<Row>, others: Vec<Row>) -> Vec<Row> {
    let mut all: BTreeMap<Site, Row> = rows.into_iter().map(|row| (row.site, row)).collect();
    for other in others {
        match all.entry(other.site) {
            Entry::Occupied(row) if row.get().found_by.is_some() => {}
            Entry::Occupied(mut row) => row.get_mut().found_by = other.found_by,
            Entry::Vacant(place) => _ = place.insert(other),
        }
    }
    all.into_values().collect()
}

fn row(site: Site, programs: Vec<(&Program, u64, bool)>) -> Row {
    let mut row = Row { site, found_by: None, unfinished: Vec::new() };
    if site.taken == Taken::Exclusion {
        row.found_by =
            programs.iter().find(|(_, _, races)| *races).map(|(program, ..)| program.name.clone());
        return row;
    }
    for (program, executions, _) in programs {
        let limit = executions * FACTOR + MORE;
        let explore = program.explore(Removal::Without(site)).max_executions(limit);
        match explore.run(&*program.run).verdict {
            Verdict::Found => {
                row.found_by = Some(program.name.clone());
                break;
            }
            Verdict::Exhausted => {}
            Verdict::BoundReached => row.unfinished.push(program.name.clone()),
        }
    }
    row
}
