//! Guests, devices and hosts that do what they like, compared with a plain model of the
//! architecture: 1 to 4 vCPUs, 1 to 16 list registers, every register that a guest can reach.
//!
//! A vCPU that is kicked leaves the guest at once and enters it again; how much later it may be is
//! explored (`tests/explored`). So what a vCPU acknowledges is exactly what the architecture lets
//! it.

#[path = "../architecture/mod.rs"]
mod architecture;
mod machine;
mod map;
#[path = "../random/mod.rs"]
mod random;
#[path = "../registers/mod.rs"]
mod registers;
mod sequences;

/// How many sequences run: `DOORBELL_SEQUENCES`, or ten thousand. One alone, by its number and with
/// what it does: `DOORBELL_SEQUENCE`.
#[test]
fn vcpus_get_and_end_what_the_architecture_says_and_registers_read_as_it_says() {
    let sequences = std::env::var("DOORBELL_SEQUENCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000);
    let only = std::env::var("DOORBELL_SEQUENCE").ok().and_then(|text| text.parse::<u64>().ok());
    let mut done = sequences::Done::default();
    for seed in only.map_or(0..sequences, |only| only..only + 1) {
        match std::panic::catch_unwind(|| sequences::run(seed, 64)) {
            Ok(some) => done += some,
            Err(panic) => {
                eprintln!("in sequence {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{sequences} sequences: {done:?}");
    if sequences >= 10_000 && only.is_none() {
        assert!(done.is_all(), "something was never done: {done:?}");
    }
}
