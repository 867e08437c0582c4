//! Volumes whose files belong to the container's ids: idmapped mounts.
//!
//! # Theory of operation
//! Such a mount shows a file of the host's user N as one of the container's user N
//! (mount_setattr(2), `MOUNT_ATTR_IDMAP`), whatever the container's N is on the host.
//! The kernel lets only those make one who have `CAP_SYS_ADMIN` in the user namespace
//! that the *file system* was mounted in, which for a disk is the host's. So the
//! parent makes it, as the host's root and before there is a container; init inherits
//! the descriptor and attaches it. The map is that of a user namespace which is gone
//! by then, and had the same ids.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mount::{Depth, attributes, copy_mount};
use crate::config::MountFlags;
use crate::error::StepFailure;
use crate::sys::mount::{MountChange, PropagationType, mount_setattr};

/// A private copy of what is mounted at `source`, whose ids are mapped as those of
/// `user_namespace` are; mounted nowhere yet. For the parent.
///
/// # Errors
/// `EINVAL` where a file system does not know such mounts, or is mounted like that
/// already; `EPERM` without the privilege.
pub fn copy(
    source: &Path,
    flags: MountFlags,
    user_namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, StepFailure> {
    let make = || -> Result<OwnedFd, Errno> {
        let open = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_MAGICLINKS;
        let source = rustix::fs::openat2(CWD, source, open, Mode::empty(), resolve)?;
        let mount = copy_mount(source, Depth::Tree)?;
        mount_setattr(
            &mount,
            &MountChange {
                set: attributes(flags),
                propagation: Some(PropagationType::Private),
                idmap: Some(user_namespace),
                recursive: true,
                ..MountChange::default()
            },
        )?;
        Ok(mount)
    };
    make().map_err(|error| {
        StepFailure::new(
            "map the ids of",
            source.display().to_string(),
            &error.into(),
        )
    })
}
