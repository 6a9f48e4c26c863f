//! Sleeping vCPUs under every interleaving: nothing that is posted is lost, whatever the vCPU and
//! its scheduler do meanwhile, and nothing that is dropped is used. `faults.rs` shows that each
//! access of the code is needed for that.

mod faults;
mod hooks;
mod machine;
mod map;
