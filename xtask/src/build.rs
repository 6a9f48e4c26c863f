//! Builds what runs in QEMU.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSegment};

use crate::trouble::Trouble;

/// What the images are built for.
const TARGET: &str = "aarch64-unknown-none-softfloat";

/// Returns the directory of the project.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Returns the directory of what is built.
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| project().join("target"), PathBuf::from)
}

/// Builds the workspace of the hypervisor. Returns where its programs are.
///
/// # Errors
/// Says what is missing, or that it does not build.
pub fn build() -> Result<PathBuf, Trouble> {
    let library = library()?;
    let hv = project().join("hv");
    let target = target_directory().join("hv");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--workspace",
            "--bins",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(&hv);
    if let Library::Source(source) = library {
        // What the hypervisor uses is stable: every build where the library is installed says so.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", source);
        cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"]);
    }
    let status = cargo.status().map_err(|error| format!("cargo does not run: {error}"))?;
    if !status.success() {
        return Err(Trouble::Failed("the hypervisor does not build".into()));
    }
    Ok(target.join(TARGET).join("release"))
}

/// Writes what an ELF program has in memory to a file, from its lowest address on, as QEMU boots
/// it. Returns the file.
///
/// # Errors
/// Says which file is not what it should be.
pub fn image(program: &Path) -> Result<PathBuf, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", program.display());
    let data = fs::read(program).map_err(|error| at(&error))?;
    let elf = object::File::parse(&*data).map_err(|error| at(&error))?;
    let start = elf
        .segments()
        .map(|segment| segment.address())
        .min()
        .ok_or_else(|| at(&"it has no segments"))?;
    let mut image = Vec::new();
    for segment in elf.segments() {
        let (bytes, offset) =
            (segment.data().map_err(|error| at(&error))?, (segment.address() - start) as usize);
        if !bytes.is_empty() {
            image.resize(image.len().max(offset + bytes.len()), 0);
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
    let file = program.with_extension("img");
    fs::write(&file, image).map_err(|error| at(&error))?;
    Ok(file)
}

/// The standard library of the target.
enum Library {
    /// The compiler has it.
    Installed,
    /// The source of the standard library is there.
    Source(PathBuf),
}

/// Looks for the standard library of the target, which `tools/bare` gets.
fn library() -> Result<Library, Trouble> {
    let rustc = |arguments: &[&str]| {
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(arguments)
            .output();
        output.map_err(|error| format!("rustc does not run: {error}"))
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    let installed =
        Path::new(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib/rustlib").join(TARGET);
    if installed.is_dir() {
        return Ok(Library::Installed);
    }
    let version = rustc(&["--version"])?;
    let version = String::from_utf8_lossy(&version.stdout);
    let version = version.split_whitespace().nth(1).unwrap_or_default();
    let source = project().join(format!("target/rust-src/usr/src/rustc-{version}/library"));
    if source.is_dir() {
        return Ok(Library::Source(source));
    }
    let what =
        format!("the standard library of {TARGET}: tools/bare, or rustup target add {TARGET}");
    Err(Trouble::Missing(what))
}
