//! Hardware that several cases have in common, a small file for each piece.
//!
//! Each does in one visible step what the architecture says is atomic, and nothing more.

pub(crate) mod vmx;
pub(crate) mod vtd;
