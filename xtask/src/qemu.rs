//! Runs an image in QEMU.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::trouble::Trouble;

/// Makes a run the same each time.
const COUNTED: [&str; 4] =
    ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm"];

const QEMU: &str = "qemu-system-aarch64";

/// A machine to run an image on.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The model of its CPUs.
    pub cpu: &'a str,
    /// How many there are.
    pub cpus: u32,
    /// What they run on.
    pub threads: Threads,
    /// Whether they have EL2, where the image begins then.
    pub el2: bool,
    /// The version of the GIC.
    pub gic: u32,
    /// What the image is told, if they have not.
    pub arguments: &'static str,
}

/// What the CPUs of a machine run on.
#[derive(Clone, Copy)]
pub enum Threads {
    /// One thread, in turn.
    One,
    /// Each on its own, at the same time.
    Each,
    /// One thread, and the time is what their instructions take: each a nanosecond.
    Counted,
}

impl Machine<'_> {
    /// One that can run the hypervisor.
    pub const DEFAULT: Machine<'static> = Machine {
        cpu: "neoverse-n1",
        cpus: 1,
        threads: Threads::One,
        el2: true,
        gic: 3,
        arguments: "",
    };

    /// Returns a QEMU that has this machine, with so many MiB, and runs an image.
    fn command(&self, memory: u32, image: &Path, guest: Option<&Path>) -> Command {
        let accelerator = match self.threads {
            Threads::One | Threads::Counted => "tcg,thread=single",
            Threads::Each => "tcg,thread=multi",
        };
        let counted: &[&str] = match self.threads {
            Threads::Counted => &COUNTED,
            _ => &[],
        };
        let append: &[&str] = if self.el2 { &[] } else { &["-append", self.arguments] };
        let gic = self.gic;
        let el2 = if self.el2 { "on" } else { "off" };
        let mut qemu = Command::new(QEMU);
        qemu.args([
            "-machine",
            &format!("virt,virtualization={el2},gic-version={gic},dtb-randomness=off"),
        ])
        .args(["-m", &format!("{memory}M"), "-nic", "none", "-seed", "42"])
        .args(counted)
        .args(append)
        .args(["-accel", accelerator])
        .args(["-cpu", self.cpu, "-smp", &self.cpus.to_string()])
        .args(["-no-reboot", "-kernel"])
        .arg(image)
        .args(guest.iter().flat_map(|guest| [Path::new("-initrd"), guest]));
        qemu
    }
}

impl fmt::Display for Machine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.threads {
            Threads::One => "in turn",
            Threads::Each => "at once",
            Threads::Counted => "counted",
        };
        write!(f, "{} {}, {how}", self.cpus, self.cpu)
    }
}

/// Makes sure that QEMU is there and new enough.
///
/// # Errors
/// Says what is missing, and how to get it.
pub fn is_there() -> Result<(), Trouble> {
    let version = Command::new(QEMU).arg("--version").output();
    let Ok(version) = version else {
        let how = "apt-get install --no-install-recommends qemu-system-arm";
        return Err(Trouble::Missing(format!("{QEMU} is missing: {how}")));
    };
    let text = String::from_utf8_lossy(&version.stdout);
    let number = text.split_whitespace().nth(3).unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < (7, 2) {
        return Err(Trouble::Missing(format!("QEMU 7.2 or later is needed: this is {number}")));
    }
    Ok(())
}

/// Runs an image, with a guest's in `-initrd`, until the machine is off, or has written nothing for
/// so long, or has not ended after five times that. Calls `line` for each line on the console, and
/// types what that returns. Nothing that is tested depends on the time: an image that stands still
/// is to end, that is all.
///
/// # Errors
/// Says that QEMU does not run, or that the image stands still.
pub fn run(
    machine: Machine<'_>,
    image: &Path,
    guest: Option<&Path>,
    silence: Duration,
    mut line: impl FnMut(&str) -> Option<&'static str>,
) -> Result<(), String> {
    let mut qemu = machine
        .command(512, image, guest)
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{QEMU} does not run: {error}"))?;
    let lines = lines_of(&mut qemu);
    let began = Instant::now();
    let ended = loop {
        if began.elapsed() > silence * 5 {
            break Err(format!("it has not ended after {} s", began.elapsed().as_secs()));
        }
        match lines.recv_timeout(silence) {
            Ok(text) => {
                if let Some((typed, input)) = line(&text).zip(qemu.stdin.as_mut()) {
                    input
                        .write_all(typed.as_bytes())
                        .map_err(|error| format!("{QEMU} reads nothing: {error}"))?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                break Err(format!("nothing was written for {} s", silence.as_secs()));
            }
        }
    };
    let _ = qemu.kill();
    let _ = qemu.wait();
    ended
}

/// Runs an image with a VM's console on this terminal. Returns whether QEMU has ended well.
///
/// # Errors
/// Says that QEMU does not run.
pub fn interact(
    machine: Machine<'_>,
    memory: u32,
    image: &Path,
    guest: &Path,
) -> Result<bool, String> {
    let mut qemu = machine.command(memory, image, Some(guest));
    let status =
        qemu.arg("-nographic").status().map_err(|error| format!("{QEMU} does not run: {error}"))?;
    Ok(status.success())
}

fn lines_of(qemu: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(output) = qemu.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}
