//! A variant that was asked for.

use crate::engine::{Case, Variant};

/// A variant with its case.
#[derive(Clone, Copy)]
pub(crate) struct Selected<'a> {
    pub case: &'a Case,
    pub variant: &'a Variant,
    /// Whether it was asked for by its own name, and not only by that of its case.
    pub by_name: bool,
}

impl Selected<'_> {
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.case.name, self.variant.name)
    }
}
