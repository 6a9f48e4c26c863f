//! What the hypervisor cannot run: it says so in one line, and no VM begins.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build;
use crate::bundle::{self, Vm};
use crate::qemu::{self, Machine};
use crate::trouble::Trouble;
use crate::vm_test::Count;

/// What is wrong, and what the line has in it.
struct Case {
    name: &'static str,
    says: &'static str,
    bundle: Option<PathBuf>,
    machine: Machine<'static>,
}

/// Runs all cases.
///
/// # Errors
/// If one cannot be made.
pub fn run(programs: &Path, silence: Duration) -> Result<Count, Trouble> {
    let image = build::image(&programs.join("hv"))?;
    let mut count = Count::default();
    for Case { name, says, bundle, machine } in cases(programs)? {
        let mut lines = Vec::new();
        let ended = qemu::run(machine, &image, bundle.as_deref(), silence, |line| {
            lines.push(line.to_owned());
            None
        });
        let right = matches!(&*lines, [line] if line.starts_with("no VM: ") && line.contains(says));
        match ended {
            Ok(()) if right => count.passed += 1,
            Ok(()) => count.failures.push(format!("{name}: {lines:?}")),
            Err(why) => count.failures.push(format!("{name}: {why}")),
        }
    }
    Ok(count)
}

fn cases(programs: &Path) -> Result<Vec<Case>, Trouble> {
    let kernel = build::image(&programs.join("guest"))?;
    let vm = Vm {
        name: "vm0".into(),
        vcpus: 1,
        memory: 16,
        kernel,
        initramfs: Vec::new(),
        arguments: String::new(),
    };
    let empty = programs.join("empty.img");
    write(&empty, &[])?;
    let good =
        bundle::write(&programs.join("refused"), std::slice::from_ref(&vm), Default::default())?;
    let bytes = fs::read(&good).map_err(|error| error.to_string())?;
    let file = |name: &str, bytes: &[u8]| -> Result<Option<PathBuf>, String> {
        let file = programs.join(name).with_extension("bundle");
        write(&file, bytes)?;
        Ok(Some(file))
    };
    let of = |name: &str, vms: &[Vm]| {
        bundle::write(&programs.join(name), vms, Default::default()).map(Some)
    };
    let machine = Machine::DEFAULT;
    let case = |name, says, bundle| Case { name, says, bundle, machine };
    Ok(vec![
        case("nothing to run", "-initrd", None),
        case("a file that is none", "no bundle", file("none", b"\x7fELF and more")?),
        case(
            "a file that is truncated",
            "truncated",
            file("truncated", &bytes[..bytes.len() - 1])?,
        ),
        case("a text that is truncated", "truncated", file("short", &bytes[..30])?),
        case("no kernel", "no kernel", of("no-kernel", &[Vm { kernel: empty, ..vm.clone() }])?),
        case("too many vCPUs", "vCPUs", of("vcpus", &[Vm { vcpus: 9, ..vm.clone() }])?),
        case(
            "too much memory",
            "vm0 is to have 4096 MiB",
            of("memory", &[Vm { memory: 4096, ..vm.clone() }])?,
        ),
        case(
            "too little memory",
            "too little RAM",
            of("little", &[Vm { memory: 0, ..vm.clone() }])?,
        ),
        case(
            "two VMs, of which the second has no room",
            "vm1 is to have 400 MiB",
            of("second", &[vm.clone(), Vm { name: "vm1".into(), memory: 400, ..vm }])?,
        ),
        Case {
            machine: Machine { el2: false, ..machine },
            ..case("no EL2", "virtualization=on", Some(good.clone()))
        },
        Case {
            machine: Machine { gic: 2, ..machine },
            ..case("no GICv3", "gic-version=3", Some(good.clone()))
        },
        Case {
            machine: Machine { cpus: 9, ..machine },
            ..case("too many CPUs", "-smp", Some(good))
        },
    ])
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))
}
