//! Tells the linker where the image is laid out, for the target that it is for.

fn main() {
    println!("cargo::rerun-if-changed=guest.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo::rustc-link-arg-bins=-T{here}/guest.ld");
    }
}
