//! How a trace is laid out.

/// How a trace is laid out as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The columns of the terminal. Below 60 the output keeps to 60.
    pub width: usize,
    /// Whether to colour with ANSI sequences.
    pub colour: bool,
    /// How many lines there may be, all told. What does not fit is left out, the least telling
    /// steps first, and the gap is marked. Below 16 the output keeps to 16.
    pub max_lines: usize,
}

impl Default for Options {
    /// 120 columns, 30 lines, no colour.
    fn default() -> Options {
        Options { width: 120, colour: false, max_lines: 30 }
    }
}
