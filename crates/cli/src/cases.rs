//! The engine that is built in: `doorbell-catalogue` and `doorbell-explore` in the words of
//! [`engine`](crate::engine). Nothing else in this crate knows where cases come from.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use doorbell_catalogue as catalogue;
use doorbell_explore as explore;

use crate::engine::{
    BenchRow, Case, Engine, Failure, Inversions, Outcome, Programs, Progress, Replayed,
    SelftestSummary, Settings, Variant,
};

/// The catalogue and the explorer of this build.
pub fn built_in() -> impl Engine {
    let cases = catalogue::cases();
    BuiltIn { shown: cases.iter().map(shown).collect(), cases }
}

struct BuiltIn {
    cases: Vec<catalogue::Case>,
    shown: Vec<Case>,
}

impl Engine for BuiltIn {
    fn cases(&self) -> &[Case] {
        &self.shown
    }

    fn run(&self, case: &str, variant: &str, settings: &Settings<'_>) -> Outcome {
        let case = self.cases.iter().find(|c| c.name == case).expect("a case of this catalogue");
        let variant =
            case.variants.iter().find(|v| v.name == variant).expect("a variant of this case");
        let show = settings.progress.map(|show| {
            move |p: explore::Progress| {
                show(Progress { executions: p.executions, share: p.share, elapsed: p.elapsed });
            }
        });
        let report = variant.run(&catalogue::RunOptions {
            jobs: settings.jobs,
            bound: settings.bound,
            budget: settings.budget,
            progress: show.as_ref().map(|show| show as &dyn Fn(explore::Progress)),
            stop: Some(Arc::clone(&settings.stop)),
        });
        Outcome {
            verdict: report.verdict,
            inversions: told(&catalogue::Inversions::of(&report)),
            lock_report: report.lock_report(),
            failure: report.failure.map(|f| Failure {
                kind: f.kind,
                token: f.token,
                trace: f.trace,
            }),
            never_ran: report.never_ran,
            executions: report.executions,
            bound: report.bound,
            limit: report.limit,
            elapsed: report.elapsed,
        }
    }

    fn replay(&self, token: &str) -> Result<Replayed, String> {
        match catalogue::replay(token) {
            Ok(run) => Ok(Replayed { case: run.case.to_owned(), variant: run.variant.to_owned(), trace: run.trace }),
            Err(explore::ReplayError::OtherProgram) => {
                Err("no variant of this build made it, or the sources have changed since; check the variant again"
                    .to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn bench_explore(&self, stop: &Arc<AtomicBool>, row: &mut dyn FnMut(BenchRow)) {
        explore::bench::explore(stop, row);
    }

    fn selftest(
        &self,
        programs: Programs,
        stop: &AtomicBool,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<SelftestSummary, String> {
        let options = explore::selftest::Options {
            programs: programs.count,
            seed: programs.seed,
            first: programs.first,
            jobs: 0,
            fault: None,
            progress: done,
            stop,
        };
        match explore::selftest::run(&options) {
            Ok(summary) => Ok(SelftestSummary {
                programs: summary.programs,
                executions: summary.reduced_executions + summary.bounded_executions,
                brute_force: summary.brute_executions,
            }),
            Err(mismatch) => Err(mismatch.to_string()),
        }
    }
}

fn told(inversions: &catalogue::Inversions) -> Inversions {
    let reasons = inversions.reasons().iter().map(ToString::to_string).collect();
    Inversions { answer: inversions.answer().to_owned(), reasons }
}

fn shown(case: &catalogue::Case) -> Case {
    let variant = |v: &catalogue::Variant| Variant {
        name: v.name.to_owned(),
        summary: v.summary.to_owned(),
        expected: v.expected,
        inversions: v.inversions.as_ref().map(told),
        full_only: v.full_only,
        scope: v.scope.clone(),
    };
    Case {
        name: case.name.to_owned(),
        summary: case.summary.to_owned(),
        document: case.document.to_owned(),
        variants: case.variants.iter().map(variant).collect(),
    }
}
