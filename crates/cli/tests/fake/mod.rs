//! An engine that says what it was told to say. The integration tests use it in place of the
//! catalogue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doorbell_cli::engine::{
    BenchRow, Case, Engine, Expected, Failure, FailureKind, Inversions, Outcome, Programs,
    Progress, Replayed, SelftestSummary, Settings, Trace, Variant, Verdict, stopped,
};
use doorbell_explore::Limit;
use doorbell_explore::trace::{Column, Line, Wait};

/// Two cases. `irqfd-resampler/as-reported` finds its deadlock, `shipped` is exhausted, `large` is
/// only for `--full`.
pub struct Fake {
    cases: Vec<Case>,
    broken: Option<&'static str>,
    interrupt: Option<&'static str>,
    questioned: bool,
    idle: Option<&'static str>,
    unwilling: bool,
}

/// A summary that would be more than text if it were put into a page as it is.
#[allow(dead_code, reason = "not every user of this module makes pages")]
pub const HOSTILE: &str = "</script><script>alert(1)</script><b>bold</b> <!-- & {{results}}";

impl Fake {
    /// All verdicts are as stated.
    pub fn new() -> Fake {
        let variant = |name: &str, summary: &str, expected| Variant {
            name: name.to_owned(),
            summary: summary.to_owned(),
            expected,
            inversions: None,
            full_only: name == "large",
            scope: "plain pool, W = 2, N = 2".to_owned(),
        };
        let resampler = vec![
            variant(
                "as-reported",
                "both workers wait, so nobody runs the grace period",
                Expected::Found(FailureKind::Deadlock),
            ),
            variant("shipped", "no worker ever waits for a grace period", Expected::Exhausted),
            variant("large", "all five at once", Expected::BoundReached),
        ];
        let silent = Some(Inversions { answer: "silent".to_owned(), reasons: Vec::new() });
        let leaf = variant("shipped", "every lock is a leaf", Expected::Exhausted);
        let inversion = vec![Variant { inversions: silent, ..leaf }];
        let case = |name: &str, summary: &str, variants| Case {
            name: name.to_owned(),
            summary: summary.to_owned(),
            document: "seeds/002".to_owned(),
            variants,
        };
        let cases = vec![
            case(
                "irqfd-resampler",
                "a grace period under a mutex, on the pool that must run it",
                resampler,
            ),
            case("irq-inversion", "a wake-up under the lock of an interrupt descriptor", inversion),
        ];
        Fake {
            cases,
            broken: None,
            interrupt: None,
            questioned: false,
            idle: None,
            unwilling: false,
        }
    }

    /// One variant finds a lost interrupt, whatever it must get.
    #[allow(dead_code, reason = "not every user of this module breaks something")]
    pub fn broken_at(path: &'static str) -> Fake {
        Fake { broken: Some(path), ..Fake::new() }
    }

    /// The lock validator questions an order in each variant.
    #[allow(dead_code, reason = "not every user of this module has questions")]
    pub fn questioned() -> Fake {
        Fake { questioned: true, ..Fake::new() }
    }

    /// Something never runs in any variant.
    #[allow(dead_code, reason = "not every user of this module has something that never runs")]
    pub fn idle(what: &'static str) -> Fake {
        Fake { idle: Some(what), ..Fake::new() }
    }

    /// The first case is summed up by what looks like markup.
    #[allow(dead_code, reason = "not every user of this module makes pages")]
    pub fn hostile() -> Fake {
        let mut fake = Fake::new();
        fake.cases[0].summary = HOSTILE.to_owned();
        fake
    }

    /// Nothing must be run.
    #[allow(dead_code, reason = "not every user of this module has reason not to run")]
    pub fn unwilling() -> Fake {
        Fake { unwilling: true, ..Fake::new() }
    }

    /// Somebody presses Ctrl-C while a variant runs.
    #[allow(dead_code, reason = "not every user of this module interrupts something")]
    pub fn interrupted_at(path: &'static str) -> Fake {
        Fake { interrupt: Some(path), ..Fake::new() }
    }
}

const TOKEN: &str = "db1-irqfd-resampler-as-reported-7f3a";

impl Engine for Fake {
    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn run(&self, case: &str, variant: &str, settings: &Settings<'_>) -> Outcome {
        assert!(!self.unwilling, "{case}/{variant} is run");
        let expected = self.cases.iter().find(|c| c.name == case).expect("known case");
        let expected =
            expected.variants.iter().find(|v| v.name == variant).expect("known variant").expected;
        if let Some(progress) = settings.progress {
            progress(Progress { executions: 1, share: 0.5, elapsed: Duration::from_millis(1) });
        }
        let path = format!("{case}/{variant}");
        let failing = |kind| Failure { kind, token: TOKEN.to_owned(), trace: trace(kind) };
        let (answer, reasons, lock_report) = match self.questioned {
            false => ("silent", Vec::new(), String::new()),
            true => (
                "unreachable",
                vec!["different instances".to_owned()],
                "a → b → a\n  UNREACHABLE".to_owned(),
            ),
        };
        let mut outcome = Outcome {
            inversions: Inversions { answer: answer.to_owned(), reasons },
            lock_report,
            verdict: expected.verdict(),
            failure: expected.kind().map(failing),
            never_ran: self.idle.map(str::to_owned).into_iter().collect(),
            executions: 12_870,
            bound: settings.bound,
            limit: None,
            elapsed: Duration::from_millis(7),
        };
        if self.broken == Some(path.as_str()) {
            outcome.verdict = Verdict::Found;
            outcome.failure = Some(failing(FailureKind::LostInterrupt));
        }
        if self.interrupt == Some(path.as_str()) {
            settings.stop.store(true, Ordering::Relaxed);
        }
        let cut = stopped(&settings.stop) || settings.bound.is_some() || settings.budget.is_some();
        if cut && outcome.verdict == Verdict::Exhausted {
            outcome.verdict = Verdict::BoundReached;
        }
        if outcome.verdict == Verdict::BoundReached {
            let budget = settings.budget.map(Limit::Budget);
            outcome.limit = budget.or(Some(Limit::Preemptions(settings.bound.unwrap_or(2))));
        }
        outcome
    }

    fn replay(&self, token: &str) -> Result<Replayed, String> {
        if token != TOKEN {
            return Err("no variant of this build made it".to_owned());
        }
        Ok(Replayed {
            case: "irqfd-resampler".to_owned(),
            variant: "as-reported".to_owned(),
            trace: trace(FailureKind::Deadlock),
        })
    }

    fn bench_explore(&self, _stop: &Arc<AtomicBool>, row: &mut dyn FnMut(BenchRow)) {
        row(BenchRow {
            program: "inc 2x8",
            jobs: 1,
            executions: 12_870,
            optimum: Some(12_870),
            steps: 205_920,
            seconds: 0.01,
            executions_per_second: 1_287_000.0,
            steps_per_second: 20_592_000.0,
            scaling: None,
            peak_kib: None,
        });
    }

    fn selftest(
        &self,
        Programs { count: programs, seed, .. }: Programs,
        _stop: &AtomicBool,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<SelftestSummary, String> {
        done(programs);
        if seed == 13 {
            return Err("program 0 of seed 13".to_owned());
        }
        Ok(SelftestSummary { programs, executions: 9 * programs, brute_force: 100 * programs })
    }
}

fn trace(kind: FailureKind) -> Trace {
    let line = |step, column: usize, text: &str, holds: &[&str], stuck| Line {
        step,
        column,
        context: format!("worker-{column}"),
        text: text.to_owned(),
        site: format!("crates/catalogue/src/irqfd_resampler.rs:{}", 80 + step),
        irqs_on: Some(true),
        holds: holds.iter().map(|h| (*h).to_owned()).collect(),
        preempts: false,
        stuck,
        matters: true,
        told: false,
    };
    let wait = |n: usize, what: &str| Wait {
        who: format!("worker-{n}"),
        place: format!("CPU{n}"),
        holds: if n == 0 { vec!["mutex resampler_lock".to_owned()] } else { Vec::new() },
        what: what.to_owned(),
        on: vec![1 - n],
        site: format!("crates/catalogue/src/irqfd_resampler.rs:{}", 81 + n),
    };
    Trace {
        kind,
        columns: vec![Column { title: "CPU0".to_owned() }, Column { title: "CPU1".to_owned() }],
        lines: vec![
            line(0, 0, "lock mutex resampler_lock", &["mutex resampler_lock"], false),
            line(1, 0, "waits for grace period 1", &["mutex resampler_lock"], true),
            line(2, 1, "waits for mutex resampler_lock", &[], true),
        ],
        waits: vec![
            wait(0, "grace period 1, which needs worker-1"),
            wait(1, "mutex resampler_lock, held by worker-0"),
        ],
        why: "worker-0 waits for grace period 1, which needs worker-1, which waits for mutex resampler_lock, held by worker-0."
            .to_owned(),
        preemptions: 0,
        minimal: true,
    }
}
