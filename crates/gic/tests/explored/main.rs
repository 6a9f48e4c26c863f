//! vCPUs that enter and fold, while others change their interrupts: nothing is lost, nothing is
//! signalled twice, and each access of the words is there for a reason.

mod active;
mod at_once;
mod delivered;
mod lpis;
mod machine;
mod power;
mod routes;
mod single;
mod vcpu;

use std::sync::Arc;

use doorbell_explore::removal::{self, Printed, Program, Taken};
use doorbell_explore::{Explore, Machine, Verdict};

/// A program, by its name.
pub struct Case {
    name: String,
    run: Arc<dyn Fn(&Machine) + Send + Sync>,
}

impl Case {
    /// Returns the program of that name, which sets one execution up.
    pub fn new(name: &str, run: impl Fn(&Machine) + Send + Sync + 'static) -> Case {
        Case { name: name.to_owned(), run: Arc::new(run) }
    }
}

fn cases() -> Vec<Case> {
    [
        delivered::programs(),
        at_once::programs(),
        routes::programs(),
        active::programs(),
        power::programs(),
        single::programs(),
        lpis::programs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn programs() -> Vec<Program> {
    cases()
        .into_iter()
        .map(|case| Program::new(case.name, move |m: &Machine| (case.run)(m)))
        .collect()
}

/// Lines that no program needs, and why.
const KEPT: &[(&str, Taken, &str)] = &[
    (
        "self.written.fetch_add(1, SeqCst);",
        Taken::Indivisibility,
        "a lost count matters when three writes follow, which are too many",
    ),
    ("let mut seen = self.route.load(SeqCst);", Taken::Knowledge, GUESS),
    (
        "let _ = word.fetch_update(SeqCst, SeqCst, |was| Some(was & kept | written));",
        Taken::Knowledge,
        GUESS,
    ),
    (
        "let chunk = match cell.get() {",
        Taken::Knowledge,
        "a guess, of which the setting of the cell tells",
    ),
];
const GUESS: &str = "a guess, of which the exchange tells";

#[test]
fn nothing_that_is_injected_is_lost_and_no_access_can_be_taken_out() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let printed = Printed {
        root,
        document: "docs/removal/gic.md",
        name: "doorbell-gic explored",
        kept: KEPT,
    };
    let wrong = printed.check(&removal::table(&programs(), "crates/gic/src/"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_step_that_is_left_out_is_found_missing() {
    for case in lpis::incomplete() {
        let run = Arc::clone(&case.run);
        let report = Explore::new(case.name.clone()).minimise(false).jobs(0).run(move |m| run(m));
        assert_eq!(report.verdict, Verdict::Found, "{}", case.name);
    }
}
