//! Shows a [`Trace`] to people: as [`text`] for a terminal, as [`svg`] for a page. (For programs, a
//! `Trace` serialises itself.)
//!
//! Both draw the same picture: a lane per CPU, time downwards, a bar while a lock is held, a
//! thicker edge while interrupts are off, the frames of interrupt handlers set in, and under it who
//! waits for whom and the one sentence that says why.

mod edges;
mod lanes;
mod pick;
mod sites;
mod svg;
mod svg_waits;
mod text;
mod words;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use crate::trace::Trace;

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

/// Renders the trace for a terminal: every line ends with a newline and is at most `options.width`
/// characters wide.
pub fn text(trace: &Trace, options: &Options) -> String {
    text::render(trace, *options)
}

/// Renders the trace as an SVG document that needs nothing but itself.
pub fn svg(trace: &Trace) -> String {
    svg::render(trace)
}
