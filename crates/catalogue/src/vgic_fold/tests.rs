//! Each failure is the one that its variant is about, since many are of the same kind; and what is
//! exhausted fails without what it is exhausted for.

use doorbell_explore::Explore;

use super::irq::{Insertion, Removal};
use super::scope::{Cursor, Locking, Notifies, Scope, Stops};
use super::{Expected, stated};

const POISON: &str = "follows a poisoned pointer";
const HEAD: &str = "takes the head of vCPU1's list for an interrupt";
const FREED: &str = "LPI 8192 is used after it was freed";
const LOST: &str = "SPI 33 stays active";
const TWICE: &str = "takes ap_list_lock, which it holds already";
const SLEEPS: &str = "eventfd.wqh (PREEMPT_RT)";

/// What is said of the failure that is found.
fn why(name: &str, scope: Scope) -> String {
    let report = Explore::new("vgic-fold").jobs(1).run(move |m| scope.program(m));
    report.failure.unwrap_or_else(|| panic!("{name} finds nothing")).trace.why
}

#[test]
fn each_failure_is_the_one_that_its_variant_is_about() {
    let said = [
        ("as-reported", POISON),
        ("as-reported-mid-walk", POISON),
        ("as-reported-no-overflow", FREED),
        ("as-reported-injects-unlocked", POISON),
        ("rcu-removal-proposed", FREED),
        ("rcu-removal-queued-elsewhere", HEAD),
        ("rcu-removal-queued-here", LOST),
        ("locked", POISON),
        ("locked-notifies", TWICE),
        ("locked-checks", FREED),
        ("proposed", LOST),
        ("proposed-queued-here", LOST),
        ("proposed-sleeping-locks", SLEEPS),
        ("pinned", POISON),
        ("stopped-early", POISON),
        ("stopped-taken-back", POISON),
    ];
    let found = stated().filter(|variant| matches!(variant.expected, Expected::Found(_)));
    assert_eq!(found.map(|variant| variant.name).collect::<Vec<_>>(), said.map(|(name, _)| name));
    for (name, words) in said {
        let why = why(name, scope_of(name));
        assert!(why.contains(words), "{name}: {why}");
    }
}

fn scope_of(name: &str) -> Scope {
    stated()
        .find(|variant| variant.name == name)
        .unwrap_or_else(|| panic!("there is no variant {name}"))
        .scope
}

#[test]
fn what_is_exhausted_fails_without_its_cure() {
    type Without = fn(&mut Scope);
    let inserted: Without = |scope| scope.insertion = Insertion::Unlocked;
    let without: [(&str, Without, &str); 17] = [
        ("as-reported-injects", inserted, POISON),
        ("as-reported-injects-reordered", inserted, POISON),
        ("as-reported-prunes", inserted, POISON),
        ("as-reported-notifies", |scope| scope.locking = Locking::Locked, TWICE),
        ("gicv2", inserted, POISON),
        ("rcu-removal-alone", |scope| scope.removal = Removal::Poisons, POISON),
        ("locked-mid-walk", |scope| scope.locking = Locking::Unlocked, POISON),
        ("proposed-discarded", |scope| scope.cursor = Cursor::Unpinned, FREED),
        ("proposed-discarded", |scope| scope.checks = false, POISON),
        ("proposed-discarded", |scope| scope.locking = Locking::Unlocked, POISON),
        ("proposed-queued-elsewhere", |scope| scope.checks = false, HEAD),
        ("proposed-queued-elsewhere", |scope| scope.locking = Locking::Unlocked, HEAD),
        ("proposed-notifies", |scope| scope.notifies = Notifies::Within, TWICE),
        ("pinned-no-overflow", |scope| scope.cursor = Cursor::Unpinned, FREED),
        ("stopped", |scope| scope.stops = Stops::Nobody, POISON),
        ("stopped", |scope| scope.stops = Stops::SaysOutsideEarly, POISON),
        ("stopped", |scope| scope.stops = Stops::TakenBack, POISON),
    ];
    for variant in stated().filter(|variant| variant.expected == Expected::Exhausted) {
        assert!(
            without.iter().any(|(name, ..)| *name == variant.name),
            "{}: what is its cure?",
            variant.name
        );
    }
    for (at, (name, takes, words)) in without.into_iter().enumerate() {
        let mut scope = scope_of(name);
        takes(&mut scope);
        assert_ne!(scope, scope_of(name), "{name}, {at}");
        let why = why(name, scope);
        assert!(why.contains(words), "{name}, {at}: {why}");
    }
}
