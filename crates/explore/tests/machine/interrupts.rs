//! Interrupts, between processors and from timers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Timer, local_irq_enable};
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, CpuId, Platform};

use crate::{IPI, TIMER, word};

#[test]
fn an_interrupt_comes_between_any_two_steps_and_the_task_stands_still() {
    let report = Explore::new("interrupt").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let (task, handler) = (Arc::clone(&word), Arc::clone(&word));
        let handler = m.handler(CpuId(0), TIMER, "tick", move || {
            let value = handler.load(SeqCst);
            handler.store(value + 10, SeqCst);
        });
        m.task_on(CpuId(0), "task", move || {
            let value = task.load(SeqCst);
            task.store(value + 1, SeqCst);
        });
        m.hardware("timer", move || handler.raise());
        m.outcome(move || word.load(SeqCst).to_string());
    });
    // Before, after, or between (the handler's write is lost); never the other way round.
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "11"]);
}

#[test]
fn a_handler_that_enables_interrupts_can_be_interrupted_and_one_that_does_not_cannot() {
    for nests in [false, true] {
        let report = Explore::new("nested").collect_outcomes().run(move |m: &Machine| {
            let word = word(0);
            let (outer, inner) = (Arc::clone(&word), Arc::clone(&word));
            let outer = m.handler(CpuId(0), TIMER, "outer", move || {
                if nests {
                    local_irq_enable();
                }
                let value = outer.load(SeqCst);
                outer.store(value + 1, SeqCst);
            });
            let inner = m.handler(CpuId(0), IPI, "inner", move || {
                let value = inner.load(SeqCst);
                inner.store(value + 10, SeqCst);
            });
            m.hardware("timer", move || outer.raise());
            m.hardware("device", move || inner.raise());
            m.outcome(move || word.load(SeqCst).to_string());
        });
        let expected: &[&str] = if nests { &["1", "11"] } else { &["11"] };
        assert_eq!(
            report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(),
            expected,
            "nests: {nests}"
        );
    }
}

#[test]
fn two_interrupts_in_flight_are_handled_once_or_twice() {
    let report = Explore::new("coalesce").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let handler = Arc::clone(&word);
        m.ipi_handler(CpuId(0), IPI, "handler", move || {
            handler.fetch_add(1, SeqCst);
        });
        m.task_on(CpuId(1), "sender", || {
            Sim::send_ipi(CpuId(0), IPI);
            Sim::send_ipi(CpuId(0), IPI);
        });
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_timer_expires_as_often_as_the_scope_allows() {
    let report = Explore::new("timer").collect_outcomes().run(|m: &Machine| {
        let word = word(0);
        let handler = Arc::clone(&word);
        let handler = m.handler(CpuId(0), TIMER, "tick", move || {
            handler.fetch_add(1, SeqCst);
        });
        let timer = Timer::new(m, "timer", 1, move || handler.raise());
        m.task_on(CpuId(0), "task", move || {
            timer.arm();
            timer.arm();
        });
        m.outcome(move || word.load(SeqCst).to_string());
    });
    assert_eq!(report.outcomes.iter().map(String::as_str).collect::<Vec<_>>(), ["1"]);
}
