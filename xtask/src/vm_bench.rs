//! Counts what operations of a guest cost, bare and in a VM.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use crate::build;
use crate::bundle::{self, Vm};
use crate::qemu::{self, Machine, Threads};
use crate::trouble::Trouble;

/// What an operation costs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cost {
    pub name: String,
    pub instructions: u64,
    pub exits: u64,
}

/// An operation, by its first words, and what KVM of Linux 6.1 and 7.2 and the aim are. The guest
/// behind KVM's figures was another one.
const OPERATIONS: &[(&str, &str, &str, u64)] = &[
    ("HVC, unknown function", "1071", "1576", 150),
    ("read GICD_IIDR", "1916", "2583", 200),
    ("read ISPENDR", "5211", "7236", 350),
    ("write ISENABLER", "2104", "2840", 350),
    ("SGI to self", "3075", "3731", 900),
    ("SPI to self", "3051", "3869", 550),
    ("virtual timer fires", "2668", "3416", 550),
    ("burst of 4 SPIs", "5482", "7322", 1_500),
    ("burst of 32 SPIs", "95300", "159353", 14_000),
    ("EOImode 1, 32 active, then DIR all", "hangs", "656614", 22_000),
    ("nested preemption, depth 16", "loses one", "156772", 11_000),
];

/// What the operations cost when somebody has looked last: `cargo xtask vm-bench --pin` writes it.
const PINNED: &str = include_str!("pinned.txt");

#[derive(Args)]
pub struct Options {
    /// Takes what is measured for what it has to be, from the next build of xtask on.
    #[arg(long)]
    pin: bool,
}

/// Prints the table. Returns whether it is whole.
///
/// # Errors
/// Says what is missing.
pub fn run(options: &Options) -> Result<bool, Trouble> {
    qemu::is_there()?;
    let programs = build::build()?;
    let (bare, vm) = (measure(&programs, false)?, measure(&programs, true)?);
    println!(
        "| operation | guest alone | KVM 6.1 | KVM 7.2 | Doorbell | less the guest | at most | exits |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, old, new, most) in OPERATIONS {
        let of = |costs: &[Cost]| costs.iter().find(|cost| cost.name == *name).cloned();
        let Some((bare, vm)) = of(&bare).zip(of(&vm)) else {
            return Err(Trouble::Failed(format!("{name} was not measured")));
        };
        let (alone, total, exits) = (bare.instructions, vm.instructions, vm.exits);
        let less = total.saturating_sub(alone);
        println!("| {name} | {alone} | {old} | {new} | {total} | {less} | {most} | {exits} |");
    }
    if options.pin {
        let text: String = vm.iter().map(|cost| format!("{cost}\n")).collect();
        let file = build::project().join("xtask/src/pinned.txt");
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(true)
}

/// Compares what was measured in a VM with what is pinned: the exits are the same, and the
/// instructions within 5 %. Returns for each operation what is wrong, if anything is.
pub fn compare(measured: &[Cost]) -> Vec<(String, Result<(), String>)> {
    let pinned = PINNED.lines().filter_map(Cost::parse);
    let compared = pinned.map(|pinned| {
        let Some(now) = measured.iter().find(|cost| cost.name == pinned.name) else {
            return (pinned.name, Err("it was not measured".into()));
        };
        let is_near = now.instructions.abs_diff(pinned.instructions) * 20 <= pinned.instructions;
        let right = now.exits == pinned.exits && is_near;
        let verdict = if right { Ok(()) } else { Err(format!("it was {pinned}, and is {now}")) };
        (pinned.name, verdict)
    });
    compared.collect()
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { name, instructions, exits } = self;
        write!(f, "bench {name}: {instructions} instructions, {exits} exits")
    }
}

/// Measures on one CPU, in a VM or bare.
///
/// # Errors
/// Says what is missing.
pub fn measure(programs: &Path, in_vm: bool) -> Result<Vec<Cost>, Trouble> {
    let guest = build::image(&programs.join("guest"))?;
    let (image, bundle) = if in_vm {
        let arguments = "bench".into();
        let vm = Vm {
            name: "vm0".into(),
            vcpus: 1,
            memory: 16,
            kernel: guest,
            initramfs: Vec::new(),
            arguments,
        };
        (
            build::image(&programs.join("hv"))?,
            Some(bundle::write(&programs.join("bench"), &[vm], Default::default())?),
        )
    } else {
        (guest, None)
    };
    let machine =
        Machine { threads: Threads::Counted, el2: in_vm, arguments: "bench", ..Machine::DEFAULT };
    let mut costs = Vec::new();
    qemu::run(machine, &image, bundle.as_deref(), Duration::from_secs(120), |line| {
        costs.extend(Cost::parse(line));
        None
    })?;
    Ok(costs)
}

impl Cost {
    /// Returns what a line says: `bench NAME: N instructions, M exits`, in a VM after its name.
    fn parse(line: &str) -> Option<Cost> {
        let line = line.split_once("| ").map_or(line, |(_, line)| line);
        let (name, rest) = line.strip_prefix("bench ")?.rsplit_once(": ")?;
        let (instructions, exits) = rest.strip_suffix(" exits")?.split_once(" instructions, ")?;
        Some(Cost {
            name: name.into(),
            instructions: instructions.parse().ok()?,
            exits: exits.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_an_operation_costs() {
        let cost = |instructions, exits| Some(Cost { name: "a, b".into(), instructions, exits });
        assert_eq!(Cost::parse("vm0| bench a, b: 12 instructions, 1 exits"), cost(12, 1));
        assert_eq!(Cost::parse("bench a, b: 3 instructions, 0 exits"), cost(3, 0));
        assert_eq!(Cost::parse("bench a: x instructions, 0 exits"), None);
    }

    #[test]
    fn what_is_pinned_is_compared_exits_exactly_and_instructions_nearly() {
        let pinned: Vec<_> = PINNED.lines().filter_map(Cost::parse).collect();
        assert_eq!(pinned.len(), OPERATIONS.len());
        let wrong = |change: fn(&mut Cost)| {
            let mut costs = pinned.clone();
            costs.iter_mut().for_each(change);
            compare(&costs).iter().filter(|(_, verdict)| verdict.is_err()).count()
        };
        assert_eq!((wrong(|_| ()), wrong(|cost| cost.exits += 1)), (0, OPERATIONS.len()));
        assert_eq!(wrong(|cost| cost.instructions += cost.instructions / 25), 0);
        assert_eq!(wrong(|cost| cost.instructions -= cost.instructions / 15), OPERATIONS.len());
        assert_eq!(
            compare(&[]).iter().filter(|(_, verdict)| verdict.is_err()).count(),
            OPERATIONS.len()
        );
    }
}
