//! Namespaces and id maps: what clone3(2) makes, and what it maps.

use crate::config::Namespaces;
use crate::error::Error;
use crate::sys::process::CloneFlags;

pub mod holder;
pub mod idmap;
mod lease;
pub mod modes;

pub use lease::Lease;

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
