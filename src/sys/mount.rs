//! mount_setattr(2), the one call of the fd-based mount API that `rustix` lacks.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;

/// Which way mounts propagate (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationType {
    /// `MS_PRIVATE`
    Private,
    /// `MS_SLAVE`
    Slave,
    /// `MS_SHARED`
    Shared,
}

/// What to change on a mount, or on a tree of mounts.
#[derive(Debug, Clone, Copy)]
pub struct MountChange<'a> {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
    /// The propagation; `None` leaves it.
    pub propagation: Option<PropagationType>,
    /// A user namespace: its map becomes the mount's, which must not be mounted yet.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Change every mount of the tree and not only its top.
    pub recursive: bool,
}

impl Default for MountChange<'_> {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: None,
            idmap: None,
            recursive: false,
        }
    }
}

/// Changes the mount whose root `mount` refers to; all or nothing.
///
/// mount_setattr(2), Linux 5.12.
pub fn mount_setattr(mount: impl AsFd, change: &MountChange<'_>) -> Result<()> {
    fn call(mount: BorrowedFd<'_>, change: &MountChange<'_>) -> Result<()> {
        let idmap = change.idmap.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
        let attr = libc::mount_attr {
            attr_set: u64::from(change.set.bits()) | idmap,
            attr_clr: u64::from(change.clear.bits()),
            propagation: match change.propagation {
                None => 0,
                Some(PropagationType::Private) => libc::MS_PRIVATE,
                Some(PropagationType::Slave) => libc::MS_SLAVE,
                Some(PropagationType::Shared) => libc::MS_SHARED,
            },
            userns_fd: change
                .idmap
                .and_then(|fd| u64::try_from(fd.as_raw_fd()).ok())
                .unwrap_or_default(),
        };
        let recursive = if change.recursive {
            libc::AT_RECURSIVE
        } else {
            0
        };
        // SAFETY: the path is a NUL-terminated constant, `attr` is a live
        // `struct mount_attr` that the kernel only reads, and its true size is
        // given; both descriptors are borrowed for the length of the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | recursive,
                &raw const attr,
                size_of::<libc::mount_attr>(),
            )
        };
        if result < 0 {
            Err(last_errno())
        } else {
            Ok(())
        }
    }
    call(mount.as_fd(), change)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
