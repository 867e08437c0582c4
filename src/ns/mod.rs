//! Namespaces and id maps: what clone3(2) makes, and what it maps.

use std::io;

use crate::config::Namespaces;
use crate::error::Error;
use crate::sys::process::CloneFlags;

pub mod idmap;

/// The clone3(2) flags for `namespaces`.
pub fn clone_flags(namespaces: &Namespaces) -> CloneFlags {
    CloneFlags::NONE
        .with(CloneFlags::NEWUSER, namespaces.user)
        .with(CloneFlags::NEWNS, namespaces.mount)
        .with(CloneFlags::NEWPID, namespaces.pid)
        .with(CloneFlags::NEWUTS, namespaces.uts)
        .with(CloneFlags::NEWIPC, namespaces.ipc)
        .with(CloneFlags::NEWNET, namespaces.net)
        .with(CloneFlags::NEWCGROUP, namespaces.cgroup)
}

/// Refuses combinations that this user cannot have, before anything is changed.
///
/// # Errors
/// `--userns=host` as an ordinary user: no other namespace can be made then.
pub fn check(namespaces: &Namespaces) -> Result<(), Error> {
    if !namespaces.user && !rustix::process::geteuid().is_root() {
        return Err(Error::Usage("--userns=host needs root: an ordinary user's container always has a user namespace of its own".into()));
    }
    Ok(())
}

/// Says why the kernel made no namespaces, where the reason is known.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            "the limit in /proc/sys/user/max_*_namespaces or of nesting is reached"
        }
        Some(libc::EUSERS) => "user namespaces are nested too deeply",
        Some(libc::EPERM) if rustix::process::geteuid().is_root() => {
            "needs CAP_SYS_ADMIN or a user namespace"
        }
        Some(libc::EPERM) => {
            "unprivileged user namespaces are switched off here (sysctl kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns) or this is a chroot"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {hint}"))
}
