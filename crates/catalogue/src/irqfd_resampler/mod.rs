//! Seed 002: a grace period is awaited under the mutex that the workers who must run it queue for.

mod kvm;
mod scope;
mod shipped;

use doorbell_explore::sim::{Preempted, PreemptionOff};
use doorbell_explore::trace::FailureKind;

use crate::{Case, Expected, Variant};
use kvm::Wait;
use scope::{At, Kind, LINUX, REPORTED, Rules, Scope};

/// The case.
pub(crate) fn case() -> Case {
    let mut variants = vec![];
    let inside = REPORTED;
    let outside = Scope { wait: Wait::Outside, ..REPORTED };
    let mut add = |name, scope: Scope| {
        variants.push(Variant::new(name, Expected::Exhausted, "", scope.to_string(), move |m| scope.program(m)))
    };
    add("as-reported", inside);
    add("as-proposed", outside);
    add("as-reported-1", Scope { cleanups: 1, ..inside });
    add("as-proposed-1", Scope { cleanups: 1, ..outside });
    add("as-reported-rescuer", Scope { rescuer: true, ..inside });
    add("as-proposed-rescuer", Scope { rescuer: true, ..outside });
    add("as-reported-elsewhere", Scope { grace_period: At::OtherPool, ..inside });
    let managed = |scope: Scope, rules: Rules| Scope { pool: Kind::Managed(rules), ..scope };
    let na = Scope { assign: scope::Assign::Nothing, ..inside };
    let nao = Scope { assign: scope::Assign::Nothing, ..outside };
    add("m-as-reported", managed(na, LINUX));
    add("m-as-proposed", managed(nao, LINUX));
    let l0 = Rules { interrupts: 0, ..LINUX };
    add("m-as-reported-a-i0", managed(inside, l0));
    add("m-as-proposed-a-i0", managed(outside, l0));
    add("m-cf", managed(na, Rules { creatable: 0, ..l0 }));
    add("m-cf-n1", managed(Scope { cleanups: 1, ..nao }, Rules { creatable: 0, ..l0 }));
    add("m-cf-res", Scope { rescuer: true, ..managed(na, Rules { creatable: 0, ..l0 }) });
    add("m-cf-res-o", Scope { rescuer: true, ..managed(nao, Rules { creatable: 0, ..l0 }) });
    add("m-ma1", managed(na, Rules { max_active: 1, ..l0 }));
    add("m-sameq-2", Scope { grace_period: At::SameQueue, ..managed(na, Rules { max_active: 2, ..l0 }) });
    add("m-sameq-2-o", Scope { grace_period: At::SameQueue, ..managed(nao, Rules { max_active: 2, ..l0 }) });
    let hooks = Rules { preempted: Preempted::RunsHooks, preemption_off: PreemptionOff::OutsideHooks, ..LINUX };
    add("m-hooks", managed(na, hooks));
    add("m-hooks-o", managed(nao, hooks));
    let deq = Rules { preempted: Preempted::IsDequeued, ..LINUX };
    add("m-deq", managed(na, deq));
    add("m-deq-o", managed(nao, deq));
    let n1 = |s| Scope { cleanups: 1, ..s };
    add("m-hooks-n1-o", managed(n1(nao), hooks));
    add("m-deq-n1-o", managed(n1(nao), deq));
    add("m-hooks-inh", managed(n1(nao), Rules { preemption_off: PreemptionOff::InHooks, ..hooks }));
    add("m-deq-inh", managed(n1(nao), Rules { preemption_off: PreemptionOff::InHooks, ..deq }));
    add("m-hooks-ua", managed(na, Rules { preemption_off: PreemptionOff::UntilAsleep, ..hooks }));
    add("m-deq-ua", managed(na, Rules { preemption_off: PreemptionOff::UntilAsleep, ..deq }));
    add("unb-hooks", Scope { pool: Kind::Unbound(hooks), ..na });
    add("unb-deq", Scope { pool: Kind::Unbound(deq), ..na });
    add(
        "re-reported",
        Scope { assign: scope::Assign::AssignsAndInjects, cleanups: 1, grace_period: At::OtherPool, ..inside },
    );
    add(
        "re-proposed",
        Scope { assign: scope::Assign::AssignsAndInjects, cleanups: 1, grace_period: At::OtherPool, ..outside },
    );
    use shipped::Actor::*;
    let all = [Assign, Shutdown, Inject, Ack, Reroute];
    for a in 0..5 {
        for b in a + 1..5 {
            for c in b + 1..5 {
                let t = [all[a], all[b], all[c]];
                let name: &'static str = format!("s-{t:?}").leak();
                let scope = REPORTED;
                variants.push(Variant::new(name, Expected::Exhausted, "", "", move |m| shipped::program(m, scope, &t)));
                let name: &'static str = format!("sm-{t:?}").leak();
                let scope = Scope { pool: Kind::Managed(l0), ..REPORTED };
                variants.push(Variant::new(name, Expected::Exhausted, "", "", move |m| shipped::program(m, scope, &t)));
            }
        }
    }
    let t = [Deassign, Inject, Ack];
    variants.push(Variant::new("s-de", Expected::Exhausted, "", "", move |m| shipped::program(m, REPORTED, &t)));
    Case::new("irqfd-resampler", "", "", variants)
}

#[cfg(test)]
mod tests {
    #[test]
    fn measure() {
        for v in super::case().variants.iter().filter(|v| v.name.starts_with(&std::env::var("V").unwrap_or_default())) {
            let t = std::time::Instant::now();
            let r = v.run(&crate::RunOptions { budget: Some(std::time::Duration::from_secs(8)), ..Default::default() });
            println!(
                "{:24} {:?} {} cut {} steps {} {:?}",
                v.name,
                r.verdict,
                r.executions,
                r.cut,
                r.steps,
                t.elapsed()
            );
            if let Some(f) = &r.failure {
                let text = doorbell_explore::render::text(&f.trace, &Default::default());
                println!("{:?} {} lines\n{}", f.kind, text.lines().count(), text);
            }
        }
    }

    #[test]
    fn compare() {
        use super::*;
        use super::shipped::Actor::*;
        let t = [Assign, Inject, Ack];
        for t in [vec![Inject, Ack], vec![Assign, Ack], vec![Assign, Inject], vec![Assign, Inject, Ack]] {
            for w in [1, 2, 3, 5, 6] {
                let t2 = t.clone();
                let scope = Scope { workers: w, ..REPORTED };
                let r = doorbell_explore::Explore::new("x").run(move |m| shipped::program(m, scope, &t2));
                println!("{t:?} plain {w}: {} cut {} {:?}", r.executions, r.cut, r.verdict);
            }
            let t2 = t.clone();
            let scope = Scope { pool: Kind::Managed(Rules { interrupts: 0, ..LINUX }), ..REPORTED };
            let r = doorbell_explore::Explore::new("x").run(move |m| shipped::program(m, scope, &t2));
            println!("{t:?} managed: {} cut {} {:?}", r.executions, r.cut, r.verdict);
        }
    }
}
