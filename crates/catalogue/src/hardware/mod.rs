//! Hardware that several cases have in common, a small file for each piece: state whose uses are single steps, beside what
//! software shares with it.
//!
//! Each does in one visible step what the architecture says is atomic, and nothing more.

pub(crate) mod avic;
pub(crate) mod iommu_amd;
pub(crate) mod vmx;
pub(crate) mod vtd;
