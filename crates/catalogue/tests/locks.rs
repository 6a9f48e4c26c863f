//! The locks of the shipped crates: the tables of ARCHITECTURE.md are those that the crates state,
//! no class is left out of them, and `doorbell check` takes each leaf, or it is known where else
//! that is explored.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use doorbell_catalogue::cases;
use doorbell_explore::Explore;
use doorbell_platform::{LockUse, WaitType};

/// The crates, as in the tables.
fn locks() -> impl Iterator<Item = &'static LockUse> {
    [
        doorbell_irqfd::LOCKS,
        doorbell_post::LOCKS,
        doorbell_host::LOCKS,
        doorbell_apic::LOCKS,
        doorbell_platform::LOCKS,
    ]
    .into_iter()
    .flatten()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Locks that nest, and then all of them.
fn tables() -> [Vec<String>; 2] {
    let mut nests = vec!["| outer | inner | reason |".to_owned(), "|---|---|---|".to_owned()];
    let mut all = vec!["| lock | taken | what for |".to_owned(), "|---|---|---|".to_owned()];
    for lock in locks() {
        let name = lock.class.name();
        if let Some(under) = lock.nests {
            nests.push(format!("| `{name}` | {} | {} |", under.inner, under.reason));
        }
        let waits = match lock.class.wait_type() {
            WaitType::Spin => "spin",
            WaitType::Sleep => "sleeping",
        };
        all.push(format!("| `{name}` | {waits}, {} | {} |", lock.taken, lock.purpose));
    }
    [nests, all]
}

#[test]
fn the_tables_of_architecture_are_what_the_crates_say_of_their_locks() {
    let path = root().join("ARCHITECTURE.md");
    let mut text = fs::read_to_string(&path).expect("it is there");
    for table in tables() {
        let title = &table[0];
        let begin = text.lines().position(|line| line == title);
        let begin = begin.unwrap_or_else(|| panic!("ARCHITECTURE.md has no table {title}"));
        let rows = text.lines().skip(begin).take_while(|line| line.starts_with('|')).count();
        let lines: Vec<&str> = text.lines().collect();
        let (before, written, after) =
            (&lines[..begin], &lines[begin..][..rows], &lines[begin + rows..]);
        if std::env::var_os("DOORBELL_REPRINT").is_none() {
            assert_eq!(written, table, "DOORBELL_REPRINT=1 has it printed anew");
        }
        let table = table.iter().map(String::as_str);
        let all = before.iter().copied().chain(table).chain(after.iter().copied());
        text = all.flat_map(|line| [line, "\n"]).collect();
    }
    if std::env::var_os("DOORBELL_REPRINT").is_some() {
        fs::write(&path, text).expect("it can be written");
    }
}

/// The lines of code of all sources below `directory`, each up to its first comment.
fn code(directory: &Path, lines: &mut Vec<String>) {
    for entry in
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
    {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            code(&path, lines);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            lines.extend(
                text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned()),
            );
        }
    }
}

#[test]
fn every_class_of_the_crates_is_in_their_lists() {
    let mut lines = Vec::new();
    for name in ["irqfd", "post", "host", "apic", "platform"] {
        code(&root().join("crates").join(name).join("src"), &mut lines);
    }
    let text = lines.join("\n");
    let stated = text.split("LockClass::new(").skip(1).map(|rest| {
        let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
        name.map_or_else(|| panic!("what is the name? {:.60}", rest), |(name, _)| name)
    });
    let stated: BTreeSet<&str> = stated.collect();
    let listed: BTreeSet<&str> = locks().map(|lock| lock.class.name()).collect();
    assert_eq!(stated, listed);
    assert_eq!(listed.len(), locks().count(), "two classes have one name");
}

/// Leaves that no variant takes in the default scope, and what explores them instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("avic.ga-tags", "apic/tests/avic_explored"),
    ("host.irte_indices", "host/tests/explored"),
    ("irqfd.routes", "irqfd/tests/routes"),
    ("platform.park.waiters", "explore/tests/building_blocks"),
    ("platform.pool", "explore/tests/building_blocks"),
    ("platform.rcu.grace", "explore/tests/building_blocks"),
    ("platform.std.ipi", "nothing: it is a matter of real threads"),
];

#[test]
fn the_catalogue_takes_every_leaf_that_is_not_excused_by_name() {
    let mut taken = BTreeSet::new();
    let variants = cases().into_iter().flat_map(|case| case.variants);
    for variant in
        variants.filter(|variant| variant.name.starts_with("shipped") && !variant.full_only)
    {
        // What it ever takes, it takes soon.
        let report = Explore::new(variant.path())
            .max_executions(200)
            .minimise(false)
            .run(|m| variant.set_up(m));
        taken.extend(report.lock_classes().map(|class| class.name()));
    }
    let leaves = locks().filter(|lock| lock.class.is_leaf()).map(|lock| lock.class.name());
    let left: BTreeSet<&str> = leaves.filter(|name| !taken.contains(name)).collect();
    assert_eq!(left, ELSEWHERE.iter().map(|(name, _)| *name).collect());
}
