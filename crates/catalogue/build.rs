//! Hashes the sources that a run of a case depends on, so that a replay token of other sources is
//! refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Crates above this one: what they do does not change a run.
const ABOVE: [&str; 1] = ["cli"];

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let crates = here.parent().expect("this crate stands in a directory");
    let mut files = BTreeMap::new();
    // Built from a package, this crate may stand among strangers, or alone. Then its own sources,
    // and the version numbers of what it depends on, must do.
    if crates.join("explore/src").is_dir() && crates.join("platform/src").is_dir() {
        for entry in fs::read_dir(crates)? {
            let name = entry?.file_name();
            let source = crates.join(&name).join("src");
            if source.is_dir() && !ABOVE.iter().any(|above| name == *above) {
                read(crates, &source, &mut files)?;
            }
        }
    } else {
        read(&here, &here.join("src"), &mut files)?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=DOORBELL_SOURCES={}", hash(&files));
    Ok(())
}

/// Adds the Rust files below `directory`, each under its path relative to `root`: the same in every
/// checkout.
fn read(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            println!("cargo::rerun-if-changed={}", path.display());
            let relative = path.strip_prefix(root).expect("it is below the root");
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            files.insert(parts.join("/"), fs::read(&path)?);
        }
    }
    Ok(())
}

/// FNV-1a over names and contents, each with its length before it. Line ends that a checkout may
/// have changed do not count.
fn hash(files: &BTreeMap<String, Vec<u8>>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for (name, content) in files {
        let content: Vec<u8> = content.iter().copied().filter(|byte| *byte != b'\r').collect();
        for part in [name.as_bytes(), &content] {
            add(&(part.len() as u64).to_le_bytes());
            add(part);
        }
    }
    hash
}
