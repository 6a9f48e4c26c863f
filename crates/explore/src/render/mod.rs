//! Shows a [`Trace`] to people: as [`text`] for a terminal, as [`svg`] for a page. (For programs, a
//! `Trace` serialises itself.)
//!
//! Both draw the same picture: a lane per CPU, time downwards, a bar while a lock is held, a
//! thicker edge while interrupts are off, the frames of interrupt handlers set in, and under it who
//! waits for whom and the one sentence that says why.

mod edges;
mod lanes;
mod options;
mod pick;
mod said;
mod sites;
mod svg;
mod svg_style;
mod svg_waits;
mod text;
mod words;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use crate::trace::Trace;

pub use options::Options;
pub use words::wrap;

/// Renders the trace for a terminal: every line ends with a newline and is at most `options.width`
/// characters wide.
pub fn text(trace: &Trace, options: &Options) -> String {
    text::render(&said::said(trace), *options)
}

/// Renders the trace as an SVG document that needs nothing but itself.
pub fn svg(trace: &Trace) -> String {
    svg::render(&said::said(trace), None)
}

/// Renders the trace as [`svg`] does, with a title over it: what failed, and where that is
/// documented.
pub fn svg_titled(trace: &Trace, title: &str) -> String {
    svg::render(&said::said(trace), Some(title))
}
