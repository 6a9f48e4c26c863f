//! Numbers and times for people.

use std::time::Duration;

use serde::Serialize;

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 variant`, `2 variants`.
pub(crate) fn of(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `1 execution`, `12,870 executions`.
pub(crate) fn of_count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(n)) }
}

/// `850 µs`, `12 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn time(t: Duration) -> String {
    let seconds = t.as_secs_f64();
    if seconds < 0.001 {
        format!("{} µs", t.as_micros())
    } else if seconds < 1.0 {
        format!("{} ms", t.as_millis())
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {} s", t.as_secs() / 60, t.as_secs() % 60)
    } else {
        format!("{} h {} min", t.as_secs() / 3600, t.as_secs() / 60 % 60)
    }
}

/// `950/s`, `12.3 k/s`, `1.10 M/s`.
pub(crate) fn rate(n: u64, t: Duration) -> String {
    let rate = n as f64 / t.as_secs_f64().max(1e-9);
    if rate < 1e3 {
        format!("{rate:.0}/s")
    } else if rate < 1e6 {
        format!("{:.1} k/s", rate / 1e3)
    } else {
        format!("{:.2} M/s", rate / 1e6)
    }
}

/// The name under which a value without fields goes in JSON: `bound-reached`, `self-deadlock`.
pub(crate) fn name(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "?".to_owned(),
    }
}

/// At most `max` characters; what is too long ends in `…`.
pub(crate) fn elide(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let short: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", short.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(12_870), "12,870");
        assert_eq!(count(2_704_156), "2,704,156");
    }

    #[test]
    fn times_and_rates_use_the_unit_that_fits() {
        assert_eq!(time(Duration::from_micros(850)), "850 µs");
        assert_eq!(time(Duration::from_millis(12)), "12 ms");
        assert_eq!(time(Duration::from_millis(3_400)), "3.4 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(time(Duration::from_secs(7_260)), "2 h 1 min");
        assert_eq!(rate(950, Duration::from_secs(1)), "950/s");
        assert_eq!(rate(2_200_000, Duration::from_secs(2)), "1.10 M/s");
    }
}
