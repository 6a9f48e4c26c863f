//! Hardware for the explorer, a small file for each piece: state whose uses are single steps, beside what software shares
//! with it. For the cases of the catalogue, and for the explored tests of the shipped crates.
//!
//! Each does in one visible step what the architecture says is atomic, and nothing more.

#![warn(missing_debug_implementations)]

pub mod avic;
pub mod cpu;
pub mod entry_cache;
pub mod ga_log;
pub mod gic;
pub mod ioapic;
pub mod iommu_amd;
pub mod lapic;
pub mod msix;
pub mod posts;
pub mod vcpu;
pub mod vmx;
pub mod vtd;
