//! Numbers of things, for the texts of scopes.

use std::fmt::Display;

/// Returns `1 device`, or `2 devices`.
pub(crate) fn count<N: Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let s = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural_and_all_others_have() {
        let counted = [0_usize, 1, 2].map(|number| count(number, "vCPU"));
        assert_eq!(counted, ["0 vCPUs", "1 vCPU", "2 vCPUs"]);
    }
}
