//! Runs the test images, and counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use crate::build;
use crate::bundle::{self, Vm};
use crate::linux;
use crate::qemu::{self, Machine, Threads};
use crate::trouble::Trouble;
use crate::{refused, vm_bench};

#[derive(Args)]
pub struct Options {
    /// Runs the tests whose names contain this: boot, platform, guest, linux, refused, costs.
    name: Option<String>,
    /// Runs each test once: on one machine, of one model.
    #[arg(long)]
    short: bool,
    /// Runs them on this model of CPU alone.
    #[arg(long)]
    cpu: Option<String>,
    /// How many seconds an image may write nothing, before it counts as one that stands still.
    #[arg(long, default_value_t = 120)]
    silence: u64,
    /// The seed from which vCPUs move at random, where they do: another one each time, if there is
    /// none.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seconds of its own time a VM may make no progress, before it counts as stalled; 0
    /// for ever. With instructions that are counted, a second is 1,000,000,000 of them.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    watchdog: u64,
    /// Boots Linux with 8 vCPUs on 2 CPUs so many times in a row, and runs nothing else.
    #[arg(long, value_name = "N", conflicts_with_all = ["name", "short"])]
    boots: Option<u32>,
    /// Whether the 2 CPUs of these boots take turns on one thread, or have one each.
    #[arg(long, value_enum, default_value = "single", requires = "boots")]
    thread: Thread,
    /// Prints what the images write.
    #[arg(long, short)]
    verbose: bool,
}

/// The threads of a machine, as QEMU's option has them.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Thread {
    Single,
    Multi,
}

/// An image, what it is given, and what it is run on.
struct Test {
    name: &'static str,
    image: &'static str,
    /// What the hypervisor runs; no hypervisor is run if there is nothing.
    vms: &'static [Guest],
    /// Whether vCPUs move at random.
    moves: bool,
    /// Whether no exit may take long: instructions are counted then.
    short_exits: bool,
    /// The limit of the watchdog, in milliseconds, if it is another than in the options.
    watchdog: Option<u64>,
    machines: &'static [(u32, Threads)],
}

/// A VM.
struct Guest {
    system: System,
    vcpus: u32,
    /// What is added to what its kernel is told.
    arguments: &'static str,
    /// Why it is to be stalled, if it is.
    stalls: Option<&'static str>,
}

/// What runs in a VM.
enum System {
    /// The bare-metal guest.
    Bare,
    /// Debian's kernel.
    Linux,
}

const fn bare(vcpus: u32) -> Guest {
    Guest { system: System::Bare, vcpus, arguments: "", stalls: None }
}

const fn linux(vcpus: u32) -> Guest {
    Guest { system: System::Linux, vcpus, arguments: "", stalls: None }
}

/// How many ticks of 16 instructions an exit may take: 20,000 instructions.
const LONGEST_EXIT: u64 = 20_000 / 16;

/// What Linux says when a CPU does not get on.
const STALLS: &[&str] =
    &["detected stall", "self-detected stall", "soft lockup", "blocked for more than"];

/// One without VHE and LSE, one with both, and what QEMU has.
const MODELS: &[&str] = &["cortex-a57", "neoverse-n1", "max,pauth-impdef=on"];

const NOTHING: Test = Test {
    name: "",
    image: "hv",
    vms: &[],
    moves: false,
    short_exits: false,
    watchdog: None,
    machines: &[],
};

/// The test that `--boots` repeats.
const LINUX_8: &str = "linux-8";

/// Four CPUs take turns, because a lock that is taken in the order of arrival is slow on CPUs that
/// wait for a core of the host; two of them run at the same time.
const TESTS: &[Test] = &[
    Test { name: "boot", image: "boot-test", machines: &[(1, Threads::One)], ..NOTHING },
    Test {
        name: "platform",
        image: "platform-test",
        machines: &[(4, Threads::One), (2, Threads::Each)],
        ..NOTHING
    },
    Test {
        name: "bare-guest",
        image: "guest",
        machines: &[(1, Threads::One), (4, Threads::Each)],
        ..NOTHING
    },
    Test {
        name: "guest",
        vms: &[bare(1)],
        machines: &[(1, Threads::One), (2, Threads::Each)],
        ..NOTHING
    },
    Test {
        name: "guest-4",
        vms: &[bare(4)],
        machines: &[(1, Threads::One), (4, Threads::One), (2, Threads::Each)],
        ..NOTHING
    },
    Test {
        name: "guest-moving",
        vms: &[bare(4)],
        moves: true,
        machines: &[(4, Threads::One), (2, Threads::Each)],
        ..NOTHING
    },
    // One that means harm with all its vCPUs, and one that wants to be in time, on one CPU.
    Test {
        name: "hostile",
        vms: &[Guest { arguments: "garbage", ..bare(4) }, Guest { arguments: "timely", ..bare(1) }],
        short_exits: true,
        machines: &[(1, Threads::Counted)],
        ..NOTHING
    },
    // Three that stand still, each in another way, and one that is slow.
    Test {
        name: "watchdog",
        vms: &[
            Guest { arguments: "all-spin", stalls: Some("vCPU 0 makes no progress"), ..bare(2) },
            Guest { arguments: "one-spins", stalls: Some("vCPU 1 makes no progress"), ..bare(2) },
            Guest {
                arguments: "all-wait",
                stalls: Some("all its vCPUs wait, and no interrupt comes"),
                ..bare(2)
            },
            Guest { arguments: "slow", ..bare(3) },
        ],
        watchdog: Some(200),
        machines: &[(2, Threads::Counted)],
        ..NOTHING
    },
    Test { name: "linux-1", vms: &[linux(1)], machines: &[(4, Threads::One)], ..NOTHING },
    Test { name: "linux-2", vms: &[linux(2)], machines: &[(4, Threads::One)], ..NOTHING },
    Test { name: "linux-4", vms: &[linux(4)], machines: &[(4, Threads::One)], ..NOTHING },
    Test {
        name: LINUX_8,
        vms: &[linux(8)],
        machines: &[(2, Threads::Each), (4, Threads::One)],
        ..NOTHING
    },
    Test {
        name: "linux-reboot",
        vms: &[Guest { arguments: "reboots", ..linux(2) }],
        machines: &[(2, Threads::One)],
        ..NOTHING
    },
    Test {
        name: "linux-moving",
        vms: &[linux(4)],
        moves: true,
        machines: &[(4, Threads::One), (2, Threads::Each)],
        ..NOTHING
    },
    Test {
        name: "two-linux",
        vms: &[linux(8), linux(8)],
        machines: &[(2, Threads::Each), (4, Threads::One)],
        ..NOTHING
    },
];

/// Runs the images on each model of CPU. Returns whether everything has passed.
///
/// # Errors
/// Says what is missing, if nothing has failed.
pub fn run(options: &Options) -> Result<bool, Trouble> {
    qemu::is_there()?;
    let programs = build::build()?;
    if let Some(boots) = options.boots {
        return boot(options, &programs, boots);
    }
    let mut all = Count::default();
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let seed = options.seed.unwrap_or(now);
    let wanted =
        |name: &str| options.name.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    let mut missing = Vec::new();
    for (number, test) in TESTS.iter().enumerate().filter(|(_, test)| wanted(test.name)) {
        let image = build::image(&programs.join(test.image))?;
        let bundle = match test.bundle(&programs, options, seed) {
            Ok(bundle) => bundle,
            Err(Trouble::Missing(what)) => {
                println!("{} is not run: there is no {what}", test.name);
                missing.push(test.name);
                continue;
            }
            Err(failed) => return Err(failed),
        };
        for machine in test.machines(options, number) {
            all.add(test.run(options, machine, &image, bundle.as_deref(), seed));
        }
    }
    if wanted("refused") {
        let count = refused::run(&programs, Duration::from_secs(options.silence))?;
        count.print("refused");
        all.add(count);
    }
    if wanted("costs") {
        let mut count = Count::default();
        for (name, verdict) in vm_bench::compare(&vm_bench::measure(&programs, true)?) {
            match verdict {
                Ok(()) => count.passed += 1,
                Err(why) => count.failures.push(format!("{name}: {why}")),
            }
        }
        count.print("costs");
        all.add(count);
    }
    println!("vm-test: {} passed, {} failed", all.passed, all.failures.len());
    if all.failures.is_empty() && !missing.is_empty() {
        return Err(Trouble::Missing(format!("{} of vm-test", missing.join(", "))));
    }
    Ok(all.failures.is_empty() && all.passed > 0)
}

/// Boots Linux many times. Prints a line for each boot, and one that counts. Returns whether all
/// have passed.
fn boot(options: &Options, programs: &Path, boots: u32) -> Result<bool, Trouble> {
    let test = TESTS.iter().find(|test| test.name == LINUX_8);
    let test = test.ok_or_else(|| Trouble::Failed(format!("there is no test {LINUX_8}")))?;
    let image = build::image(&programs.join(test.image))?;
    let bundle = test.bundle(programs, options, 0)?;
    let threads = match options.thread {
        Thread::Single => Threads::One,
        Thread::Multi => Threads::Each,
    };
    let cpu = options.cpu.as_deref().unwrap_or(Machine::DEFAULT.cpu);
    let machine = Machine { cpu, cpus: 2, threads, ..Machine::DEFAULT };
    let (mut all, mut stalled, mut failed) = (Count::default(), 0, 0);
    for number in 1..=boots {
        print!("boot {number} of {boots}: ");
        let count = test.run(options, machine, &image, bundle.as_deref(), 0);
        failed += u32::from(!count.failures.is_empty());
        stalled += u32::from(count.failures.iter().any(|failure| failure.contains("stall")));
        all.add(count);
    }
    println!("{boots} boots: {failed} failed, of which {stalled} stalled");
    println!("vm-test: {} passed, {} failed", all.passed, all.failures.len());
    Ok(failed == 0 && all.passed > 0)
}

impl Test {
    /// Returns the machines to run it on.
    fn machines(&self, options: &Options, number: usize) -> Vec<Machine<'static>> {
        let models =
            MODELS.iter().filter(|&&model| options.cpu.as_ref().is_none_or(|cpu| cpu == model));
        let all = models
            .flat_map(|cpu| self.machines.iter().map(move |&(cpus, threads)| (cpu, cpus, threads)));
        let el2 = self.image != "guest";
        let all =
            all.map(|(cpu, cpus, threads)| Machine { cpu, cpus, threads, el2, ..Machine::DEFAULT });
        if options.short {
            // One model after the other, and for each test the last machine.
            let of_one: Vec<_> = all.collect();
            let models = of_one.len() / self.machines.len();
            let index = (number % models.max(1) + 1) * self.machines.len() - 1;
            return of_one.into_iter().skip(index).take(1).collect();
        }
        all.collect()
    }

    /// Runs it on a machine.
    fn run(
        &self,
        options: &Options,
        machine: Machine<'_>,
        image: &Path,
        bundle: Option<&Path>,
        seed: u64,
    ) -> Count {
        let began = Instant::now();
        let mut seen = Seen::default();
        let ended =
            qemu::run(machine, image, bundle, Duration::from_secs(options.silence), |line| {
                if options.verbose {
                    println!("{line}");
                }
                seen.line(line);
                // What is typed is for the first VM.
                line.ends_with("vm0| type a line").then_some("typed\n")
            });
        let (moves, longest) = (seen.moves, seen.longest);
        let mut count = seen.count(self.vms);
        // A few, however slow the machine is.
        if self.moves && machine.cpus > 1 && moves < 10 {
            count.failures.push(format!("vCPUs have moved {moves} times only"));
        }
        if self.short_exits {
            match longest {
                Some(ticks) if ticks <= LONGEST_EXIT => count.passed += 1,
                _ => count
                    .failures
                    .push(format!("the longest exit has taken {longest:?} times 16 instructions")),
            }
        }
        count.failures.extend(ended.err());
        let seed = if self.moves { format!(" --seed {seed}") } else { String::new() };
        count.print(&format!("{}{seed} on {machine}, {} s", self.name, began.elapsed().as_secs()));
        count
    }

    /// Writes the bundle of its VMs, if it has any.
    fn bundle(
        &self,
        programs: &Path,
        options: &Options,
        seed: u64,
    ) -> Result<Option<PathBuf>, Trouble> {
        if self.vms.is_empty() {
            return Ok(None);
        }
        let mut vms = Vec::new();
        for (number, Guest { system, vcpus, arguments, .. }) in self.vms.iter().enumerate() {
            let (kernel, initramfs, memory) = match system {
                System::Bare => (build::image(&programs.join("guest"))?, Vec::new(), 16),
                System::Linux => {
                    let (kernel, initramfs) = linux::images(linux::CHECKS)?;
                    (kernel, initramfs, 160)
                }
            };
            let typed = if number == 0 { "typed" } else { "" };
            let arguments = format!("console=ttyAMA0 vcpus={vcpus} {typed} {arguments}");
            vms.push(Vm {
                name: format!("vm{number}"),
                vcpus: *vcpus,
                memory,
                kernel,
                initramfs,
                arguments,
            });
        }
        let limit = self.watchdog.unwrap_or(options.watchdog * 1000);
        let told = bundle::Options {
            migrate: self.moves.then_some(seed),
            measure: self.short_exits,
            watchdog: (limit > 0).then_some(limit),
            ..Default::default()
        };
        Ok(Some(bundle::write(&programs.join(self.name), &vms, told)?))
    }
}

/// What an image and its VMs have written.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, Count>,
    /// How often vCPUs have gone to other CPUs.
    moves: u32,
    /// How long the longest exit has taken, in ticks.
    longest: Option<u64>,
    /// The VMs that are stalled, and why.
    stalls: Vec<(String, String)>,
    /// What is told of them.
    told: Vec<String>,
}

impl Seen {
    fn line(&mut self, line: &str) {
        if let Some((vm, why)) = line.split_once(" is stalled: ").filter(|_| !line.contains("| ")) {
            self.stalls.push((vm.to_owned(), why.to_owned()));
        } else if !self.stalls.is_empty() && (line.contains(": vCPU ") || line.starts_with("CPU "))
        {
            self.told.push(line.to_owned());
        }
        // What a VM writes begins with its name.
        let (vm, line) = line.split_once("| ").unwrap_or(("", line));
        if let Some(moves) = line.strip_suffix(" moves").and_then(|line| line.rsplit(' ').next()) {
            self.moves += moves.parse().unwrap_or(0);
        }
        if let Some((_, ticks)) = line.split_once(": the longest exit has taken ") {
            let ticks = ticks.trim_end_matches(" ticks").parse().ok();
            self.longest = self.longest.max(ticks);
        }
        // Linux has watchdogs, which count the time of the VM.
        if STALLS.iter().any(|stall| line.contains(stall)) {
            self.counts.entry(vm.to_owned()).or_default().stalls.push(line.to_owned());
        }
        if line.starts_with("check ") || line.starts_with("panic: ") || line.starts_with("result: ")
        {
            self.counts.entry(vm.to_owned()).or_default().line(line);
        }
    }

    /// Returns everything together. Each VM should have counted, or be stalled if it is to be; the
    /// image itself, where there are none.
    fn count(self, vms: &[Guest]) -> Count {
        let mut all = Count::default();
        let (found, mut expected) = (self.counts.len(), usize::from(vms.is_empty()));
        let mut unexpected = self.stalls;
        for (number, guest) in vms.iter().enumerate() {
            let Some(why) = guest.stalls else {
                expected += 1;
                continue;
            };
            let vm = format!("vm{number}");
            match unexpected.iter().position(|stall| stall.0 == vm && stall.1 == why) {
                Some(place) => {
                    unexpected.remove(place);
                    all.passed += 1;
                }
                None => all.failures.push(format!("{vm} is not stalled: {why}")),
            }
        }
        if !unexpected.is_empty() {
            all.failures.extend(unexpected.iter().map(|(vm, why)| format!("{vm} stalled: {why}")));
            all.failures.extend(self.told);
        }
        for (vm, mut count) in self.counts {
            all.failures.extend(count.is_wrong().map(|why| format!("{vm}: {why}")));
            all.passed += count.passed;
            all.failures.append(&mut count.failures);
            all.failures.append(&mut count.stalls);
        }
        if found < expected {
            all.failures.push(format!("{found} of {expected} have written a result"));
        }
        all
    }
}

/// What an image has written: `check NAME: passed`, `check NAME: failed ...`, and at the end
/// `result: N passed, N failed`.
#[derive(Default)]
pub struct Count {
    pub passed: usize,
    pub failures: Vec<String>,
    /// What Linux says of CPUs that do not get on.
    stalls: Vec<String>,
    result: Option<String>,
}

impl Count {
    /// Adds another one.
    fn add(&mut self, mut other: Count) {
        self.passed += other.passed;
        self.failures.append(&mut other.failures);
    }

    /// Prints a line, and one for each failure.
    fn print(&self, name: &str) {
        println!("{name}: {} passed, {} failed", self.passed, self.failures.len());
        for failure in &self.failures {
            println!("    {failure}");
        }
    }

    fn line(&mut self, line: &str) {
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
        let mut seen = Seen::default();
        lines.iter().for_each(|line| seen.line(line));
        seen.count(&[])
    }

    #[test]
    fn passes_and_failures_are_counted_and_compared_with_the_result() {
        let one = count(&[
            "noise",
            "check one: passed",
            "check two: failed: 3",
            "result: 1 passed, 1 failed",
        ]);
        assert_eq!((one.passed, &*one.failures), (1, &["two: failed: 3".to_owned()][..]));
        let two = count(&[
            "vm0| check one: passed",
            "vm1| result: 0 passed, 0 failed",
            "vm0| result: 1 passed, 0 failed",
        ]);
        assert_eq!((two.passed, two.failures.len()), (1, 0));
    }

    #[test]
    fn a_vm_that_is_stalled_has_failed_unless_it_is_to_be() {
        let count = |stalls, lines: &[&str]| {
            let mut seen = Seen::default();
            lines.iter().for_each(|line| seen.line(line));
            seen.count(&[Guest { stalls, ..bare(1) }])
        };
        let stalled = ["vm0 is stalled: vCPU 3 makes no progress", "vm0: vCPU 0 is in the guest"];
        let spins = Some("vCPU 3 makes no progress");
        assert_eq!((count(spins, &stalled).passed, count(spins, &stalled).failures.len()), (1, 0));
        for (stalls, lines) in [
            (None, &stalled[..]),
            (Some("all wait"), &stalled),
            (spins, &["vm0| check one: passed", "vm0| result: 1 passed, 0 failed"]),
            (spins, &["vm0| vm0 is stalled: vCPU 3 makes no progress"]),
            (spins, &["vm1 is stalled: vCPU 3 makes no progress"]),
        ] {
            assert!(!count(stalls, lines).failures.is_empty(), "{lines:?}");
        }
        let told = count(None, &stalled).failures;
        assert!(told[0].contains("stalled") && told.contains(&stalled[1].to_owned()), "{told:?}");
    }

    #[test]
    fn an_image_that_ends_early_or_counts_otherwise_is_wrong() {
        for lines in [
            &[][..],
            &["check one: passed"],
            &["check one: passed", "result: 2 passed, 0 failed"],
            &["panic: oh", "result: 0 passed, 0 failed"],
            &["vm0| check one: passed", "vm1| result: 1 passed, 0 failed"],
            &[
                "vm0| [ 30.1] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
                "vm0| result: 0 passed, 0 failed",
            ],
        ] {
            assert!(!count(lines).failures.is_empty(), "{lines:?}");
        }
    }
}
