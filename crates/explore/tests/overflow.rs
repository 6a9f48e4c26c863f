//! What a context that overflows its stack says. Each case runs in a process of its own, which dies
//! of it.

#![cfg(unix)]

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use doorbell_explore::{Explore, Machine};

/// Names the case to the process that is to be it.
const CASE: &str = "DOORBELL_OVERFLOW_CASE";

/// More than a stack has, unless something is said.
fn large() {
    black_box([1u8; 300 * 1024]);
}

fn deep(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX { 0 } else { 1 + deep(depth + 1) }
}

fn explore(explore: Explore, task: fn()) {
    explore
        .run(move |m: &Machine| {
            m.task("another", || ());
            m.task(format!("task of {} words", 4), task);
        })
        .assert_exhausted();
}

extern "C" fn leaves(_signal: libc::c_int) {
    // SAFETY: it ends the process, wherever that is.
    unsafe { libc::_exit(42) }
}

fn fault() {
    // SAFETY: the address is that of no object, which the caller wants the processor to find out.
    unsafe { std::ptr::with_exposed_provenance::<u8>(8).read_volatile() };
}

fn run(case: &str) {
    let small = || Explore::new(case);
    match case {
        "large" => explore(small(), large),
        "deep" => explore(small(), || assert_ne!(deep(0), 0)),
        "fault" => explore(small(), fault),
        "fault with a handler" => {
            // SAFETY: the handler only ends the process.
            unsafe {
                libc::signal(libc::SIGSEGV, leaves as extern "C" fn(_) as libc::sighandler_t)
            };
            explore(small(), fault);
        }
        "thread" => {
            explore(small(), || ());
            assert_ne!(deep(0), 0);
        }
        other => unreachable!("{other}"),
    }
}

#[test]
fn this_process_is_a_case() {
    if let Ok(case) = std::env::var(CASE) {
        run(&case);
    }
}

fn child(case: &str) -> (Output, String) {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "this_process_is_a_case", "--nocapture"])
        .env(CASE, case)
        .output()
        .expect("it can be run again");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

#[test]
fn a_large_array_and_a_recursion_without_end_are_told_by_the_name_of_their_context() {
    for case in ["large", "deep"] {
        let (output, said) = child(case);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{case}: {said}");
        for part in ["overflowed its stack of 256 KiB", "`Explore::stack_size`", "task of 4 words"]
        {
            assert!(said.contains(part), "{case}: {said}");
        }
    }
}

#[test]
fn what_does_not_fit_on_a_stack_fits_on_a_larger_one_and_not_on_the_next_smaller_one() {
    explore(Explore::new("large").stack_size(512 * 1024), large);
    // Stacks of the exploration before are idle, and too large.
    explore(Explore::new("small"), || ());
    explore(Explore::new("large").stack_size(1024 * 1024), large);
}

#[test]
fn other_faults_are_left_to_the_handler_that_was_there() {
    let (output, said) = child("fault");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{said}");
    assert!(!said.contains("overflowed"), "{said}");
    let (output, said) = child("fault with a handler");
    assert_eq!(output.status.code(), Some(42), "{said}");
    let (output, said) = child("thread");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(said.contains("this_process_is_a_case") && !said.contains("A context"), "{said}");
}
