//! A test image: the platform of the hypervisor, on all of its CPUs.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod each;
#[cfg(target_os = "none")]
mod irqs;
#[cfg(target_os = "none")]
mod reclaim;
#[cfg(target_os = "none")]
mod tasks;
#[cfg(target_os = "none")]
mod work;

#[cfg(target_os = "none")]
doorbell_hv::image!(all);

#[cfg(target_os = "none")]
fn all() {
    use doorbell_hv::check::{check, result};

    type Check = fn() -> each::Checked;
    let checks: &[(&str, Check)] = &[
        ("each CPU runs its tasks", tasks::each_cpu_runs_its_tasks),
        ("tasks that have ended are used again", tasks::tasks_that_have_ended_are_used_again),
        ("a wake-up before a park is not lost", tasks::a_wake_up_before_a_park_is_not_lost),
        ("two tasks wake each other", tasks::two_tasks_wake_each_other),
        ("a busy task makes way", tasks::a_busy_task_makes_way),
        ("nobody makes way with preemption off", tasks::nobody_makes_way_with_preemption_off),
        ("a task moves to another CPU", tasks::a_task_moves_to_another_cpu),
        ("a mutex excludes", tasks::a_mutex_excludes),
        ("an interrupt reaches each CPU from each", irqs::an_interrupt_reaches_each_cpu_from_each),
        (
            "an interrupt waits for interrupts to be on",
            irqs::an_interrupt_waits_for_interrupts_to_be_on,
        ),
        ("a lock excludes handlers", irqs::a_lock_excludes_handlers),
        (
            "of two that write and look, one sees the other",
            irqs::of_two_that_write_and_look_one_sees_the_other,
        ),
        ("words of 128 bits are the machine's own", irqs::words_of_128_bits_are_the_machines_own),
        (
            "a reader of SRCU never sees a freed value",
            reclaim::a_reader_of_srcu_never_sees_a_freed_value,
        ),
        (
            "a reader of RCU never sees a freed value",
            reclaim::a_reader_of_rcu_never_sees_a_freed_value,
        ),
        ("callbacks run in order", reclaim::callbacks_run_in_order),
        ("work that is flushed has run", work::work_that_is_flushed_has_run),
        ("work that is queued by a handler runs", work::work_that_is_queued_by_a_handler_runs),
        (
            "work that is cancelled does not run any more",
            work::work_that_is_cancelled_does_not_run_any_more,
        ),
    ];
    for (name, test) in checks {
        check(name, test());
    }
    result();
}

#[cfg(not(target_os = "none"))]
fn main() {}
