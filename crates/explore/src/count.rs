//! Numbers of things, for what is told.

/// Returns `1 worker`, or `2 workers`.
pub(crate) fn count_of(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
