//! Whether a container's file systems could be mounted, found out by making them.
//!
//! To be called in a user, a mount, a PID and a network namespace that end with the
//! caller. Nothing is attached anywhere.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::kernel::Origin;
use super::mount::{Depth, INERT, copy_mount, new_mount};

/// Makes a tmpfs.
///
/// # Errors
/// The kernel's, as errno(3).
pub fn tmpfs() -> Result<(), i32> {
    new_mount("tmpfs", &[], INERT).map(drop).map_err(code)
}

/// Makes a procfs, or sees whether the outer one will do.
///
/// # Errors
/// The kernel's, as errno(3): it can be neither.
pub fn proc() -> Result<Origin, i32> {
    kernel("proc", "/proc")
}

/// The same for sysfs.
///
/// # Errors
/// The kernel's, as errno(3): it can be neither.
pub fn sysfs() -> Result<Origin, i32> {
    kernel("sysfs", "/sys")
}

fn kernel(kind: &str, outer: &str) -> Result<Origin, i32> {
    match new_mount(kind, &[], INERT) {
        Ok(_) => Ok(Origin::New),
        Err(Errno::PERM) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(outer, flags, Mode::empty())
                .and_then(|outer| copy_mount(outer, Depth::Tree))
                .map(|_| Origin::Outer)
                .map_err(code)
        }
        Err(error) => Err(code(error)),
    }
}

fn code(error: Errno) -> i32 {
    error.raw_os_error()
}
