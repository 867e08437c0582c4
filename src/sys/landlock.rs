//! Landlock (landlock(7)): its version, and rulesets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `LANDLOCK_CREATE_RULESET_VERSION` (`linux/landlock.h`)
const VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH` (`linux/landlock.h`)
const PATH_BENEATH: libc::c_uint = 1;

/// `struct landlock_ruleset_attr`
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

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

/// What a domain that is to be forbids and allows.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Forbids all of `files` (`LANDLOCK_ACCESS_FS_*`) and of `network`
    /// (`LANDLOCK_ACCESS_NET_*`) but for what rules allow, and what `scoped` (`LANDLOCK_SCOPE_*`) names. Bits that the kernel's
    /// [`version`] does not have are refused.
    ///
    /// # Errors
    /// Those of landlock_create_ruleset(2).
    pub fn new(files: u64, network: u64, scoped: u64) -> io::Result<Self> {
        let attr = RulesetAttr {
            handled_access_fs: files,
            handled_access_net: network,
            scoped,
        };
        // SAFETY: pointer and size describe a live structure with the kernel's
        // layout; a kernel that knows less of it wants the rest to be zero.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attr,
                size_of::<RulesetAttr>(),
                0 as libc::c_uint,
            )
        };
        let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us (with
        // close-on-exec), and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Allows `access` to what `object` refers to and, where that is a directory,
    /// to everything beneath it.
    ///
    /// # Errors
    /// Those of landlock_add_rule(2).
    pub fn allow(&self, object: impl AsFd, access: u64) -> io::Result<()> {
        let attr = PathBeneathAttr {
            allowed_access: access,
            parent_fd: object.as_fd().as_raw_fd(),
        };
        // SAFETY: the pointer is to a live structure with the kernel's layout, and
        // both descriptors are open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                PATH_BENEATH,
                &raw const attr,
                0 as libc::c_uint,
            )
        };
        done(result)
    }

    /// Holds the calling thread, and what it becomes and starts, to the rules, for
    /// good. It needs `no_new_privs` or `CAP_SYS_ADMIN` in its user namespace.
    ///
    /// # Errors
    /// Those of landlock_restrict_self(2).
    pub fn restrict_self(&self) -> io::Result<()> {
        // SAFETY: a descriptor that is open, and no pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_restrict_self,
                self.0.as_raw_fd(),
                0 as libc::c_uint,
            )
        };
        done(result)
    }
}

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
