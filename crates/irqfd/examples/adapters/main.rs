//! The interfaces to interrupts that well-known monitors have, on `doorbell-irqfd`: one file each,
//! to be copied. The traits are restated in their shape; nothing of theirs is needed.
//!
//! `cargo run --example adapters` says how long each is; `cargo test --example adapters` runs them.

#[cfg(target_os = "linux")]
mod cloud_hypervisor;
#[cfg(target_os = "linux")]
mod crosvm;
#[cfg(target_os = "linux")]
mod openvmm;
#[cfg(target_os = "linux")]
mod vm_superio;

#[cfg(target_os = "linux")]
mod board;

/// Each adapter, its source, and what it replaces.
const ADAPTERS: [(&str, &str, &str); 4] = [
    (
        "cloud-hypervisor",
        include_str!("cloud_hypervisor.rs"),
        "the GSI allocator, the map of routes and its lock, and the registration of irqfds",
    ),
    (
        "crosvm",
        include_str!("crosvm.rs"),
        "the lists of events of a userspace irqchip, and its wait",
    ),
    ("OpenVMM", include_str!("openvmm.rs"), "irqfd routes, MSI targets, and counted line levels"),
    ("vm_superio", include_str!("vm_superio.rs"), "an eventfd for each device, and its irqfd"),
];

/// How many lines an adapter has without its tests.
fn lines(source: &str) -> usize {
    source.split("#[cfg(test)]").next().unwrap_or_default().trim_end().lines().count()
}

fn main() {
    println!("| monitor | lines | instead of |\n|---|---|---|");
    for (name, source, replaces) in ADAPTERS {
        println!("| {name} | {} | {replaces} |", lines(source));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_adapter_has_at_most_100_lines_and_the_table_of_the_readme_says_how_many() {
        let readme = include_str!("../../README.md");
        for (name, source, replaces) in super::ADAPTERS {
            let lines = super::lines(source);
            assert!(lines <= 100, "{name} has {lines}");
            let row = format!("| {name} | {lines} | {replaces} |");
            assert!(readme.lines().any(|line| line == row), "the README does not say {row}");
        }
    }
}
