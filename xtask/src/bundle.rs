//! What the hypervisor is given for its VMs: images and what they are for, in one file, as
//! `hv/src/bundle.rs` says.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A VM.
#[derive(Clone)]
pub struct Vm {
    pub name: String,
    pub vcpus: u32,
    /// In MiB.
    pub memory: u32,
    pub kernel: PathBuf,
    pub initramfs: Vec<u8>,
    pub arguments: String,
}

/// What the hypervisor is told beside the VMs.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// From which seed vCPUs move at random; they stay if there is none.
    pub migrate: Option<u64>,
    /// Whether exits are measured.
    pub measure: bool,
    /// Whether the console of the one VM is the machine's.
    pub raw: bool,
    /// How many milliseconds a VM may make no progress; for ever if there is none.
    pub watchdog: Option<u64>,
    /// Whether a VM that is stalled goes on.
    pub report: bool,
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.migrate {
            writeln!(f, "migrate={seed}")?;
        }
        if let Some(limit) = self.watchdog {
            writeln!(f, "watchdog={limit}{}", if self.report { ",report" } else { "" })?;
        }
        f.write_str(if self.measure { "measure=exits\n" } else { "" })?;
        f.write_str(if self.raw { "console=raw\n" } else { "" })
    }
}

/// Writes a bundle of VMs. Returns the file.
///
/// # Errors
/// Says which file is not to be read or written.
pub fn write(name: &Path, vms: &[Vm], options: Options) -> Result<PathBuf, String> {
    /// How much room there is for the text.
    const TEXT: usize = 4096;
    let at = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    let mut images: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut end = TEXT;
    // Where an image is. Two that are the same are there once.
    let mut place = |image: Vec<u8>| {
        let known = images.iter().find(|(bytes, _)| *bytes == image).map(|&(_, start)| start);
        let (start, length) = (known.unwrap_or(end), image.len());
        if known.is_none() {
            end = (end + length).next_multiple_of(4096);
            images.push((image, start));
        }
        format!("{start}+{length}")
    };
    let mut text = format!("doorbell\n{options}");
    for Vm { name, vcpus, memory, kernel, initramfs, arguments } in vms {
        let kernel = place(fs::read(kernel).map_err(|error| at(kernel, error))?);
        let initramfs = place(initramfs.clone());
        text += &format!(
            "vm={name} vcpus={vcpus} memory={memory} kernel={kernel} initramfs={initramfs} {arguments}\n"
        );
    }
    text.push('\n');
    if text.len() > TEXT {
        return Err("the VMs have names or arguments that are too long".into());
    }
    let mut bundle = text.into_bytes();
    for (image, start) in images {
        bundle.resize(start, 0);
        bundle.extend(image);
    }
    let file = name.with_extension("bundle");
    fs::write(&file, bundle).map_err(|error| at(&file, error))?;
    Ok(file)
}

/// An archive of files, as an initramfs is one: the format is newc (Linux,
/// Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

/// What a file is.
#[derive(Clone, Copy)]
pub enum Kind {
    Directory,
    Program,
    /// A character device, by its numbers.
    Device(u32, u32),
}

impl Archive {
    /// Adds a file.
    pub fn add(&mut self, name: &str, kind: Kind, data: &[u8]) {
        let (mode, device) = match kind {
            Kind::Directory => (0o040_755, (0, 0)),
            Kind::Program => (0o100_755, (0, 0)),
            Kind::Device(major, minor) => (0o020_600, (major, minor)),
        };
        self.files += 1;
        let length = data.len() as u32;
        // Inode, mode, owner, group, links, time, length, the device that it is on, the device that
        // it is, the length of the name, and a sum that is not used.
        let name_length = name.len() as u32 + 1;
        let fields =
            [self.files, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    /// Returns the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", Kind::Program, &[]);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
