//! What both recipes have in common: the private folders.

use crate::Entry;

/// The directories of an empty system, in the order of their making, with the
/// modes that hier(7) systems give them. `/proc`, `/sys` and `/dev` are mount
/// points for the runtime.
const DIRECTORIES: &[(&str, u32)] = &[
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/spool", 0o755),
    ("/var/tmp", 0o1777),
];

/// The private folders and the links between them.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries: Vec<_> = DIRECTORIES
        .iter()
        .map(|&(path, mode)| Entry::directory(path, mode))
        .collect();
    entries.push(Entry::symlink("/var/run", "../run"));
    entries
}
