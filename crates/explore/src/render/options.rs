//! How a trace is laid out.

/// How a trace is laid out as text. Nothing is cut: what does not fit into its column is wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The columns of the terminal. Below 60 the output keeps to 60. Where there is no terminal to
    /// fit into, [`Options::UNLIMITED`]: then columns are as wide as what stands in them, up to a
    /// width that can be read.
    pub width: usize,
    /// Whether to colour with ANSI sequences.
    pub colour: bool,
    /// How many lines there may be, all told. What does not fit is left out, the least telling
    /// steps first, and the gap is marked. Below 16 the output keeps to 16. What the program itself
    /// tells may take up to twice as many, and the words about who waits are all there.
    pub max_lines: usize,
    /// Whether to show every step, however many lines that takes.
    pub all_steps: bool,
}

impl Options {
    /// The width where there is no terminal.
    pub const UNLIMITED: usize = usize::MAX;
}

impl Default for Options {
    /// 120 columns, 30 lines, no colour.
    fn default() -> Options {
        Options { width: 120, colour: false, max_lines: 30, all_steps: false }
    }
}
