//! AVIC under every interleaving: vCPUs that run, sleep, move and are inhibited, while software,
//! other CPUs and devices post.

mod faults;
mod machine;
mod programs;
