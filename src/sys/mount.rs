//! mount_setattr(2), the one call of the fd-based mount API that `rustix` lacks.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;

/// What to change on a mount, or on a tree of mounts.
#[derive(Debug, Clone, Copy)]
pub struct MountChange {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
    /// Make the propagation private (`MS_PRIVATE`).
    pub private: bool,
    /// Change every mount of the tree and not only its top.
    pub recursive: bool,
}

impl Default for MountChange {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            private: false,
            recursive: false,
        }
    }
}

/// Changes the mount whose root `mount` refers to; all or nothing.
///
/// mount_setattr(2), Linux 5.12.
pub fn mount_setattr(mount: impl AsFd, change: &MountChange) -> Result<()> {
    fn call(mount: BorrowedFd<'_>, change: &MountChange) -> Result<()> {
        let attr = libc::mount_attr {
            attr_set: u64::from(change.set.bits()),
            attr_clr: u64::from(change.clear.bits()),
            propagation: if change.private { libc::MS_PRIVATE } else { 0 },
            userns_fd: 0,
        };
        let recursive = if change.recursive {
            libc::AT_RECURSIVE
        } else {
            0
        };
        // SAFETY: the path is a NUL-terminated constant, `attr` is a live
        // `struct mount_attr` that the kernel only reads, and its true size is
        // given; the fd is borrowed for the length of the call.
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
