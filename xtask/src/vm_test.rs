//! Runs the test images, and counts.

use std::time::Duration;

use clap::Args;

use crate::build;
use crate::bundle;
use crate::linux;
use crate::qemu::{self, Machine, Threads};

#[derive(Args)]
pub struct Options {
    /// Runs the tests whose names contain this: boot, platform, guest, linux.
    name: Option<String>,
    /// Runs them on this model of CPU alone.
    #[arg(long)]
    cpu: Option<String>,
    /// How many seconds an image may write nothing, before it counts as one that stands still.
    #[arg(long, default_value_t = 120)]
    silence: u64,
    /// Prints what the images write.
    #[arg(long, short)]
    verbose: bool,
}

/// An image, the guest that it is given, and what it is run on.
struct Test {
    name: &'static str,
    image: &'static str,
    guest: Guest,
    machines: &'static [(u32, Threads)],
}

/// What the hypervisor runs.
enum Guest {
    None,
    /// The bare-metal guest.
    Bare,
    /// Debian's kernel.
    Linux,
}

/// Four CPUs take turns, because a lock that is taken in the order of arrival is slow on CPUs that
/// wait for a core of the host; two of them run at the same time.
const TESTS: &[Test] = &[
    Test { name: "boot", image: "boot-test", guest: Guest::None, machines: &[(1, Threads::One)] },
    Test {
        name: "platform",
        image: "platform-test",
        guest: Guest::None,
        machines: &[(4, Threads::One), (2, Threads::Each)],
    },
    Test { name: "guest", image: "hv", guest: Guest::Bare, machines: &[(1, Threads::One), (2, Threads::Each)] },
    Test { name: "linux", image: "hv", guest: Guest::Linux, machines: &[(1, Threads::One)] },
];

/// One without VHE and LSE, one with both, and what QEMU has.
const MODELS: &[&str] = &["cortex-a57", "neoverse-n1", "max,pauth-impdef=on"];

/// Runs the images on each model of CPU. Returns whether everything has passed.
///
/// # Errors
/// Says what is missing.
pub fn run(options: &Options) -> Result<bool, String> {
    qemu::is_there()?;
    let programs = build::build()?;
    let mut all = Count::default();
    for Test { name, image, guest, machines } in TESTS {
        if options.name.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let image = build::image(&programs.join(image))?;
        let guest = match guest {
            Guest::None => None,
            Guest::Bare => {
                let guest = programs.join("guest");
                Some(bundle::write(&guest, &build::image(&guest)?, &[])?)
            }
            Guest::Linux => Some(linux::bundle(&programs)?),
        };
        let models = MODELS.iter().filter(|&&model| options.cpu.as_ref().is_none_or(|cpu| cpu == model));
        let machines = models.flat_map(|cpu| machines.iter().map(move |&(cpus, threads)| (cpu, cpus, threads)));
        for (cpu, cpus, threads) in machines {
            let machine = Machine { cpu, cpus, threads };
            let mut seen = Count::default();
            let ended = qemu::run(machine, &image, guest.as_deref(), Duration::from_secs(options.silence), |line| {
                if options.verbose {
                    println!("{line}");
                }
                seen.line(line);
            });
            let why = ended.err().or_else(|| seen.is_wrong());
            println!("{name} on {machine}: {} passed, {} failed", seen.passed, seen.failures.len());
            for failure in seen.failures.iter().chain(&why) {
                println!("    {failure}");
            }
            all.passed += seen.passed;
            all.failures.append(&mut seen.failures);
            all.failures.extend(why);
        }
    }
    println!("vm-test: {} passed, {} failed", all.passed, all.failures.len());
    Ok(all.failures.is_empty() && all.passed > 0)
}

/// What an image has written: `check NAME: passed`, `check NAME: failed ...`, and at the end
/// `result: N passed, N failed`.
#[derive(Default)]
struct Count {
    passed: usize,
    failures: Vec<String>,
    result: Option<String>,
}

impl Count {
    fn line(&mut self, line: &str) {
        // What a VM writes begins with its name.
        let line = line.split_once("| ").map_or(line, |(_, line)| line);
        if let Some(check) = line.strip_prefix("check ") {
            if check.ends_with(": passed") {
                self.passed += 1;
            } else {
                self.failures.push(check.to_owned());
            }
        } else if line.starts_with("panic: ") {
            self.failures.push(line.to_owned());
        } else if let Some(result) = line.strip_prefix("result: ") {
            self.result = Some(result.to_owned());
        }
    }

    /// Says what is wrong with the end, if the image has not counted what was seen.
    fn is_wrong(&self) -> Option<String> {
        let seen = format!("{} passed, {} failed", self.passed, self.failures.len());
        match &self.result {
            Some(result) if *result == seen => None,
            Some(result) => Some(format!("the image has counted {result}")),
            None => Some("the image has ended without a result".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lines: &[&str]) -> Count {
        let mut count = Count::default();
        lines.iter().for_each(|line| count.line(line));
        count
    }

    #[test]
    fn passes_and_failures_are_counted_and_compared_with_the_result() {
        let seen = count(&["noise", "vm0| check one: passed", "check two: failed: 3", "result: 1 passed, 1 failed"]);
        assert_eq!((seen.passed, &*seen.failures), (1, &["two: failed: 3".to_owned()][..]));
        assert_eq!(seen.is_wrong(), None);
    }

    #[test]
    fn an_image_that_ends_early_or_counts_otherwise_is_wrong() {
        assert!(count(&["check one: passed"]).is_wrong().is_some());
        assert!(count(&["check one: passed", "result: 2 passed, 0 failed"]).is_wrong().is_some());
        assert!(count(&["panic: oh", "result: 0 passed, 0 failed"]).is_wrong().is_some());
    }
}
