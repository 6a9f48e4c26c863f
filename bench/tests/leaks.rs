//! Executions leave nothing behind.

use doorbell_bench::heap::{Counting, live};
use doorbell_bench::program::arcs_and_vecs;
use doorbell_explore::Explore;

#[global_allocator]
static HEAP: Counting = Counting;

/// What is live more than before, after so many exhaustive searches of 14,896 executions each.
fn left_by(searches: u32) -> (i64, i64) {
    let before = live();
    for _ in 0..searches {
        let report = Explore::new("leaks").run(arcs_and_vecs);
        report.assert_exhausted();
        assert_eq!(report.executions, 14_896);
    }
    let after = live();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn executions_leave_nothing_behind() {
    // Whatever is allocated once, for good.
    left_by(1);
    assert_eq!(left_by(4), (0, 0));
    assert_eq!(left_by(16), (0, 0));
}
