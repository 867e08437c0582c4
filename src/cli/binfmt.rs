//! Interpreters that the host runs for programs of other kinds.
//!
//! binfmt_misc with the flag `F` has the kernel execute a file of the host's in any
//! container, such as an emulator for programs of another architecture. A Landlock
//! domain around the container's tree would forbid just that.

use std::fs;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

const DIR: &str = "/proc/sys/fs/binfmt_misc";
/// `BINFMTFS_MAGIC` (linux/magic.h)
const MAGIC: i64 = 0x4249_4e4d;

/// Whether the host has such an interpreter.
pub(super) fn has_fixed_interpreter() -> bool {
    // Without following: that would have it mounted where it is not yet.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let is_mounted = rustix::fs::open(DIR, flags, Mode::empty())
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|stat| stat.f_type == MAGIC);
    is_mounted && is_registered(Path::new(DIR))
}

fn is_registered(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| is_fixed(&text))
}

/// Whether a file of binfmt_misc says so (Documentation/admin-guide/binfmt-misc.rst).
fn is_fixed(entry: &str) -> bool {
    let mut lines = entry.lines();
    lines.next() == Some("enabled")
        && lines.any(|line| {
            line.strip_prefix("flags:")
                .is_some_and(|flags| flags.contains('F'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_ones_with_the_flag_count() {
        let entry = |state: &str, flags: &str| {
            format!("{state}\ninterpreter /usr/bin/qemu-aarch64\nflags: {flags}\noffset 0\n")
        };
        assert!(is_fixed(&entry("enabled", "OCF")));
        assert!(!is_fixed(&entry("enabled", "OC")));
        assert!(!is_fixed(&entry("disabled", "F")));
        assert!(!is_fixed("enabled\n"));
        assert!(!is_fixed(""));
    }
}
