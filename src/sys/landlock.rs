//! Which Landlock the kernel has (landlock(7)).

use std::io;

/// `LANDLOCK_CREATE_RULESET_VERSION` (`linux/landlock.h`)
const VERSION: libc::c_uint = 1;

/// The version of its interface, from 1 up (landlock_create_ruleset(2)).
///
/// # Errors
/// ENOSYS: the kernel was built without it; EOPNOTSUPP: it was not switched on when
/// the machine was started.
pub fn version() -> io::Result<u32> {
    // SAFETY: with this flag the kernel takes no pointer and makes nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}
