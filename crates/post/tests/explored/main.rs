//! The protocol under every interleaving, gate by gate: nothing that is posted is lost, whatever
//! the vCPU does meanwhile. `faults.rs` shows that the same exploration finds what is wrong with a
//! protocol that leaves a step out.

mod copies;
mod faults;
mod gates;
mod moves;
mod recall;
mod two_level;
