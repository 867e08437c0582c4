//! Links the program without shared libraries where the C library allows it.
//!
//! Loading and relocating libc.so.6 and libgcc_s.so.1 takes a tenth of the time
//! of a short run, and a program that becomes PID 1 of a container had better
//! need nothing but itself. `-C target-feature=+crt-static` says the same to
//! rustc, but in one breath with the procedural macros, which cannot be static,
//! unless every build names its target. So the linker is told, and only for the
//! program: `-static-pie`, and for the two libraries that rustc names behind
//! `-Bdynamic` linker scripts that lead to the archives (as glibc's own libc.so
//! is a script). Without the archives the program is linked as usual.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|found| found == value);
    let native = env::var("HOST") == env::var("TARGET");
    let already = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    let glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !native || !glibc || already {
        return Ok(());
    }
    let (Some(libc), Some(libm), Some(libgcc_eh), Some(libgcc)) = (
        archive("libc.a"),
        archive("libm.a"),
        archive("libgcc_eh.a"),
        archive("libgcc.a"),
    ) else {
        return Ok(());
    };
    let all = format!(
        "GROUP ( \"{}\" \"{}\" \"{}\" \"{}\" )\n",
        libc.display(),
        libm.display(),
        libgcc_eh.display(),
        libgcc.display()
    );
    let scripts = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("static");
    fs::create_dir_all(&scripts)?;
    for name in ["libc.so", "libm.so", "libgcc_s.so"] {
        fs::write(scripts.join(name), &all)?;
    }
    println!("cargo::rustc-link-arg-bins=-static-pie");
    println!("cargo::rustc-link-arg-bins=-L{}", scripts.display());
    // A weak reference to what is in none of the archives is null, as in any
    // program without a dynamic linker.
    println!("cargo::rustc-link-arg-bins=-Wl,-Bstatic,-z,nodynamic-undefined-weak");
    Ok(())
}

/// Where the compiler driver finds the archive `name`, if it does.
fn archive(name: &str) -> Option<PathBuf> {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(linker)
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    (asked.status.success() && path.is_absolute()).then_some(path)
}
