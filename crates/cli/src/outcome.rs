//! What commands come to: where their output goes, the exit status, and why one could not be
//! carried out.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use doorbell_explore::render;
use thiserror::Error;

/// All is as it must be.
pub const OK: u8 = 0;
/// A verdict, or the search, is not what it must be.
pub const DIFFERS: u8 = 1;
/// The command line makes no sense, or input or output failed.
pub const USAGE: u8 = 2;
/// Interrupted: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// The reader of stdout is gone: 128 and the number of SIGPIPE, as shells have it.
pub const READER_GONE: u8 = 141;

/// Where output goes, and what is known about it.
pub struct Terminal<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Complaints.
    pub err: &'a mut dyn Write,
    /// The columns to fit into; `None` where there is no terminal, and nobody has said how many.
    pub width: Option<usize>,
    /// Whether `out` is a terminal, where people read: what goes elsewhere is one record a line.
    pub interactive: bool,
    /// Whether `out` may be coloured.
    pub colour: bool,
    /// Whether stderr is a terminal, on which progress is shown.
    pub progress: bool,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

impl Terminal<'_> {
    /// The text in red, green, …, where colour is wanted.
    pub(crate) fn ink(&self, text: &str, code: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The text in lines that fit into `out`, each with the same indentation as the line that it
    /// comes from.
    pub(crate) fn wrap(&self, text: &str) -> Vec<String> {
        let Some(width) = self.width else { return text.lines().map(str::to_owned).collect() };
        let mut lines = Vec::new();
        for line in text.lines() {
            let words = line.trim_start();
            let indent = &line[..line.len() - words.len()];
            let wrapped = render::wrap(words, width.saturating_sub(indent.len()).max(20));
            lines.extend(wrapped.into_iter().map(|line| format!("{indent}{line}")));
        }
        lines
    }
}

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Usage(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}
