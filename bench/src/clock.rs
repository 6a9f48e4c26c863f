//! The time that the calling thread has had a CPU, so that what else runs on the machine does not
//! count.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How long the calling thread has run: from the scheduler's statistics where there are some
/// (Linux), else by the wall clock.
pub fn thread_time() -> Duration {
    let start = *START;
    let nanos = fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| start.elapsed(), Duration::from_nanos)
}
