//! What the fuzz targets do with bytes. Each body decodes them into calls, whatever they are, and
//! checks what comes of the calls: most against a plain model.
//!
//! `tools/fuzz` has a fuzzer look for bytes, `tests/bodies.rs` runs the corpus and random ones.

mod bytes;

pub mod arguments;
pub mod avic_exits;
pub mod ga_log;
pub mod gic;
pub mod irqfd;
pub mod messages;
pub mod msi;
pub mod msix;
pub mod tokens;

/// The body of a target.
pub type Body = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Body); 9] = [
    ("arguments", arguments::run),
    ("avic_exits", avic_exits::run),
    ("ga_log", ga_log::run),
    ("gic", gic::run),
    ("irqfd", irqfd::run),
    ("messages", messages::run),
    ("msi", msi::run),
    ("msix", msix::run),
    ("tokens", tokens::run),
];
