//! What the host does about interrupts under every interleaving. `faults.rs` shows that the same
//! exploration finds what is wrong with code that leaves a step out.

mod bypass;
mod consumer;
mod desc;
mod entries;
mod faults;
mod handling;
mod intx;
mod machine;
mod msi;
mod msix;
mod offline;
mod posted;
mod reuse;
