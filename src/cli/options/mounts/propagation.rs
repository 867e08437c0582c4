//! Whether anything propagates from and to the source of a volume
//! (mount_namespaces(7)).

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::config::Propagation;

/// Refuses a propagation that the mount of `source` cannot have: the kernel would make
/// the volume private without a word.
pub(super) fn check(source: &Path, wanted: Propagation) -> Result<(), String> {
    if wanted == Propagation::Private {
        return Ok(());
    }
    let statx = rustix::fs::statx(CWD, source, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|error| format!("look up its mount: {}", std::io::Error::from(error)))?;
    let table = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| format!("read /proc/self/mountinfo: {error}"))?;
    judge(&String::from_utf8_lossy(&table), statx.stx_mnt_id, wanted)
}

/// `table` is in the form of proc_pid_mountinfo(5).
fn judge(table: &str, id: u64, wanted: Propagation) -> Result<(), String> {
    let id = id.to_string();
    let mut line = table
        .lines()
        .map(|line| line.split(' '))
        .find(|fields| fields.clone().next() == Some(&id))
        .ok_or("its mount is not in /proc/self/mountinfo")?;
    let target = line.nth(4).unwrap_or_default();
    // Optional fields follow the mount's attributes, up to a lone dash.
    let optional: Vec<&str> = line.skip(1).take_while(|field| *field != "-").collect();
    let has = |name: &str| optional.iter().any(|field| field.starts_with(name));
    match wanted {
        Propagation::Slave if !has("shared:") && !has("master:") => Err(format!(
            "the mount that it is in, {target}, is private: nothing propagates from it \
             (as root, 'mount --make-shared {target}')"
        )),
        Propagation::Shared if !has("shared:") => Err(format!(
            "the mount that it is in, {target}, is not a shared one \
             (as root, 'mount --make-shared {target}')"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_propagates_nothing() {
        let table = "21 1 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                     22 21 0:5 / /mnt/a rw shared:7 - tmpfs x rw\n\
                     23 21 0:5 / /mnt/b rw master:7 - tmpfs shared:9 rw\n\
                     2 21 0:5 / /mnt/c rw shared:7 master:3 - tmpfs x rw\n";
        for (id, slave, shared) in [
            (21, false, false),
            (22, true, true),
            (23, true, false),
            (2, true, true),
            (9, false, false),
        ] {
            assert_eq!(judge(table, id, Propagation::Slave).is_ok(), slave, "{id}");
            assert_eq!(
                judge(table, id, Propagation::Shared).is_ok(),
                shared,
                "{id}"
            );
        }
        assert!(check(Path::new("/"), Propagation::Private).is_ok());
    }
}
