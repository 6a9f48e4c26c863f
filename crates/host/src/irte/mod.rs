//! Interrupt remapping table entries: what their bits say.

pub mod amd;
pub mod intel;
