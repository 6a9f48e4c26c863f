#![doc = include_str!("../README.md")]
#![warn(missing_debug_implementations)]

pub mod avic;
pub mod copies;
pub mod cpu;
pub mod entry_cache;
pub mod ga_log;
pub mod gic;
pub mod intx;
pub mod ioapic;
pub mod iommu_amd;
pub mod lapic;
pub mod msix;
pub mod posts;
pub mod vcpu;
pub mod vmx;
pub mod vtd;
