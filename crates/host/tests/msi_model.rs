//! Ten thousand random sequences of what guests and devices do to a plain MSI capability, against a
//! plain model: what becomes of each interrupt, by which message, and what the guest reads.

#[path = "msi_model/world.rs"]
mod world;

use proptest::prelude::*;

/// `DOORBELL_CASES` has more of them.
fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Also the body of the fuzz target `msi`.
    #[test]
    fn any_accesses_do_what_a_plain_model_does(kind: u8, ops in prop::collection::vec(any::<world::Op>(), 1..60)) {
        world::run(kind, &ops);
    }
}
