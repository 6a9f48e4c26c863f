//! What the hypervisor is given for its VM: a kernel and an initramfs in one file, as
//! `hv/src/bundle.rs` says.

use std::fs;
use std::path::{Path, PathBuf};

/// Writes a bundle. Returns the file.
///
/// # Errors
/// Says which file is not to be read or written.
pub fn write(name: &Path, kernel: &Path, initramfs: &[u8]) -> Result<PathBuf, String> {
    let at = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    let kernel_bytes = fs::read(kernel).map_err(|error| at(kernel, error))?;
    let mut bundle = b"doorbell".to_vec();
    for part in [&*kernel_bytes, initramfs] {
        bundle.extend((part.len() as u64).to_le_bytes());
    }
    for part in [&*kernel_bytes, initramfs] {
        bundle.resize(bundle.len().next_multiple_of(4096), 0);
        bundle.extend(part);
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
        let fields = [self.files, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
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
