//! Debian's kernel and a shell, to boot in a VM.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build;
use crate::bundle::{Archive, Kind};
use crate::trouble::Trouble;

/// A first program that checks what it finds.
pub const CHECKS: &str = include_str!("linux_init.sh");
/// A first program that is a shell.
pub const SHELL: &str = include_str!("linux_shell.sh");

/// Fetches a kernel. Returns it, and an initramfs with busybox and that first program.
///
/// # Errors
/// Says what is missing.
pub fn images(init: &str) -> Result<(PathBuf, Vec<u8>), Trouble> {
    let at = build::target_directory().join("linux");
    let fetched = Command::new(build::project().join("tools/aarch64-linux")).arg(&at).status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Err(Trouble::Missing(
            "Debian's kernel and busybox, which tools/aarch64-linux fetches".into(),
        ));
    }
    let busybox = at.join("busybox");
    let busybox = fs::read(&busybox).map_err(|error| format!("{}: {error}", busybox.display()))?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys"] {
        archive.add(directory, Kind::Directory, &[]);
    }
    archive.add("dev/console", Kind::Device(5, 1), &[]);
    archive.add("bin/busybox", Kind::Program, &busybox);
    archive.add("init", Kind::Program, init.as_bytes());
    Ok((at.join("Image"), archive.finish()))
}
