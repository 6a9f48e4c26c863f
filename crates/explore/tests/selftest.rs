//! The search against brute force, on random programs.

use std::sync::atomic::AtomicBool;

use doorbell_explore::Fault;
use doorbell_explore::selftest::{Mismatch, Options, Summary, run};

const SEED: u64 = 2;
const PROGRAMS: u64 = 10_000;

fn test(first: u64, programs: u64, fault: Option<Fault>) -> Result<Summary, Box<Mismatch>> {
    let stop = AtomicBool::new(false);
    run(&Options { programs, seed: SEED, first, jobs: 1, fault, progress: &|_| {}, stop: &stop })
}

fn agrees(first: u64, programs: u64) {
    match test(first, programs, None) {
        Ok(summary) => {
            println!("{summary}");
            assert_eq!(summary.programs, programs);
            for (what, count) in &summary.coverage {
                assert!(*count > 0, "none of the programs {what}");
            }
            let often = |what: &str| {
                let count = summary
                    .coverage
                    .iter()
                    .find(|(other, _)| *other == what)
                    .map_or(0, |(_, count)| *count);
                // One in 25: those that choose a value, too, are often too large for brute force.
                assert!(count * 25 >= programs, "only {count} of {programs} programs {what}");
            };
            often("failed to exchange a word");
            often("gave up waiting");
            often("spawned tasks of several tasks");
            often("caught a panic");
            often("took a lock that is a static");
        }
        Err(mismatch) => panic!("{mismatch}"),
    }
}

fn is_caught(fault: Fault) {
    let mismatch = test(0, PROGRAMS, Some(fault)).expect_err("the fault goes unnoticed");
    println!("{fault:?}: {mismatch}");
}

#[test]
fn outcomes_of_the_first_quarter_of_the_programs_equal_those_of_brute_force() {
    agrees(0, PROGRAMS / 4);
}

#[test]
fn outcomes_of_the_second_quarter_of_the_programs_equal_those_of_brute_force() {
    agrees(PROGRAMS / 4, PROGRAMS / 4);
}

#[test]
fn outcomes_of_the_third_quarter_of_the_programs_equal_those_of_brute_force() {
    agrees(PROGRAMS / 2, PROGRAMS / 4);
}

#[test]
fn outcomes_of_the_last_quarter_of_the_programs_equal_those_of_brute_force() {
    agrees(PROGRAMS / 4 * 3, PROGRAMS / 4);
}

#[test]
fn who_waits_for_what_does_not_depend_on_the_order_in_which_objects_appear() {
    // A task waits below a handler at a static that appears before or after the CPU of another
    // task's child.
    let stop = AtomicBool::new(false);
    let options = Options {
        programs: 1,
        seed: 0,
        first: 52_787,
        jobs: 1,
        fault: None,
        progress: &|_| {},
        stop: &stop,
    };
    run(&options).unwrap_or_else(|mismatch| panic!("{mismatch}"));
}

#[test]
fn a_search_without_the_interrupt_token_is_caught() {
    is_caught(Fault::NoToken);
}

#[test]
fn a_search_that_brings_a_handler_forward_without_what_raises_it_is_caught() {
    is_caught(Fault::EntryWithoutRaise);
}

#[test]
fn a_search_with_stale_sleep_sets_is_caught() {
    is_caught(Fault::StaleSleep);
}

#[test]
fn a_search_that_combines_a_bound_naively_is_caught() {
    is_caught(Fault::NaiveBound);
}

#[test]
fn a_search_that_takes_every_exchange_for_one_that_fails_is_caught() {
    is_caught(Fault::BlindExchange);
}

#[test]
fn a_search_in_which_loops_never_give_up_is_caught() {
    is_caught(Fault::NeverLapses);
}

#[test]
fn a_search_that_a_caught_panic_switches_off_is_caught() {
    is_caught(Fault::PanicStays);
}

#[test]
fn a_search_in_which_statics_do_not_race_is_caught() {
    is_caught(Fault::LateObjects);
}

#[test]
fn a_search_that_takes_the_first_value_of_each_choice_is_caught() {
    is_caught(Fault::FirstChoice);
}

#[test]
fn a_search_in_which_spawns_do_not_race_is_caught() {
    is_caught(Fault::UnorderedSpawns);
}
