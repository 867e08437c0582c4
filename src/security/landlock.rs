//! A second wall around the container's tree: Landlock (landlock(7)).
//!
//! # Theory of operation
//!
//! The first wall is the mount namespace: the host's tree is not in it. It has
//! doors that no mount closes, and each has been a way out of some runtime: a
//! descriptor of a host directory that stays open (CVE-2024-21626), and the magic
//! links of `/proc`, which lead to a file in whatever mount namespace it was
//! opened in, above all `/proc/self/exe` while the command is not executed yet
//! (CVE-2019-5736). Landlock looks at the file itself: from there it walks up,
//! over mount points, to the root of the mount tree that the path belongs to, and
//! wants a rule on the way. The rule here is on the container's own root directory,
//! opened after pivot_root(2): what is mounted in the container is beneath it,
//! everything else is not, whatever it was reached by. So nothing of the host can
//! be executed, opened, listed, made, removed or renamed, even where a mount or
//! a descriptor was forgotten.
//!
//! With a read-only root there is more: reading is allowed everywhere, writing
//! only beneath the places that the plan leaves writable, so that one mount
//! attribute that got lost opens nothing.
//!
//! What has to be allowed besides: the command's standard streams may be files of
//! the host, and `/dev/stdout` opens them again. Each gets a rule for what it was
//! opened for. Pipes, sockets and memory files are never forbidden.
//!
//! What it is not: it says nothing about stat(2), chmod(2) or chdir(2), nor about
//! what was opened before. With the host's own tree as the root (`--rootfs=/`)
//! host paths are beneath the rule, and only the read-only part has a meaning.
//!
//! The order: rules are made by init (descriptors, and errors that can be told),
//! the domain is entered by the command's process right before the system-call
//! filter, when nothing is left to be opened.
//!
//! Landlock forbids every change of mounts to those inside it, with whatever
//! privilege. So a command that may mount (`CAP_SYS_ADMIN`, another system-call
//! filter than ours) does without ([`wanted`]). Abstract Unix sockets are scoped
//! where the network namespace is the container's, as one wall more; signals are
//! not, for the only process outside the domain that can be seen is init, and
//! `kill 1` is a way to end a container.
//!
//! Best effort: kernels before 5.19 have no, or not enough of it (`REFER`, without
//! which no file can be moved to another directory).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{caps, failed};
use crate::config::SeccompProfile;
use crate::error::StepFailure;
use crate::plan::LandlockStep;
use crate::sys::landlock::{self, Ruleset};

// linux/landlock.h: LANDLOCK_ACCESS_FS_*, with the version that brought each.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// All of version 1.
const FIRST: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
const ABSTRACT_SOCKETS: u64 = 1 << 0;

/// The first version that can be lived with.
const OLDEST: u32 = 2;

/// What reading and executing take; ioctl(2) on a device that can be opened at all
/// is the device's matter.
const READ: u64 = EXECUTE | READ_FILE | READ_DIR | IOCTL_DEV;
/// What can be done with something that is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// Whether a command that keeps `capabilities` and has this filter is to be held
/// to a domain: not if it may mount, which Landlock forbids altogether.
pub fn wanted(capabilities: u64, filter: &SeccompProfile) -> bool {
    *filter == SeccompProfile::Default && capabilities & caps::SYS_ADMIN == 0
}

/// Whether the kernel has it, and enough of it.
pub fn is_available() -> bool {
    landlock::version().is_ok_and(|version| version >= OLDEST)
}

/// Everything that is forbidden without a rule, on a kernel of this version.
fn handled(version: u32) -> u64 {
    let mut access = FIRST | REFER;
    if version >= 3 {
        access |= TRUNCATE;
    }
    if version >= 5 {
        access |= IOCTL_DEV;
    }
    access
}

/// Makes the rules of `step`; `None` where the kernel has no such thing. `root` is
/// the container's root directory. Runs in init, whose standard streams are still
/// those that the command will have.
pub(super) fn prepare(
    step: &LandlockStep,
    root: impl AsFd,
) -> Result<Option<Ruleset>, StepFailure> {
    let Ok(version @ OLDEST..) = landlock::version() else {
        return Ok(None);
    };
    let handled = handled(version);
    let scoped = if version >= 6 && step.scope_sockets {
        ABSTRACT_SOCKETS
    } else {
        0
    };
    let fail = |object: &Path| {
        let object = object.display().to_string();
        move |error: std::io::Error| StepFailure::new("allow by Landlock", object, &error)
    };
    let slash = Path::new("/");
    let rules = Ruleset::new(handled, 0, scoped).map_err(fail(slash))?;
    rules.allow(&root, READ & handled).map_err(fail(slash))?;
    for path in &step.writable {
        let found = match open(&root, path) {
            // A later mount lies over it.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            found => found.map_err(|error| fail(path)(error.into()))?,
        };
        let is_directory = rustix::fs::fstat(&found)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            .map_err(|error| fail(path)(error.into()))?;
        let access = if is_directory {
            handled
        } else {
            handled & OF_FILES
        };
        rules.allow(&found, access).map_err(fail(path))?;
    }
    allow_stream(&rules, rustix::stdio::stdin(), handled)?;
    allow_stream(&rules, rustix::stdio::stdout(), handled)?;
    allow_stream(&rules, rustix::stdio::stderr(), handled)?;
    Ok(Some(rules))
}

fn open(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Lets a standard stream be opened again, for what it is open for.
fn allow_stream(rules: &Ruleset, stream: impl AsFd, handled: u64) -> Result<(), StepFailure> {
    let fail = |error| StepFailure::new("allow by Landlock", "a standard stream", &error);
    // Closed by whoever started us; or a directory, of which nothing may be opened.
    let (Ok(flags), Ok(stat)) = (rustix::fs::fcntl_getfl(&stream), rustix::fs::fstat(&stream))
    else {
        return Ok(());
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(());
    }
    let access = match flags & OFlags::RWMODE {
        OFlags::WRONLY => WRITE_FILE | TRUNCATE | IOCTL_DEV,
        OFlags::RDWR => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
        _ => READ_FILE | IOCTL_DEV,
    };
    match rules.allow(stream, access & handled) {
        // A pipe, a socket and the like: never forbidden.
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(()),
        result => result.map_err(fail),
    }
}

/// Enters the domain, for good.
pub(super) fn enter(rules: &Ruleset) -> Result<(), StepFailure> {
    rules.restrict_self().map_err(|error| {
        failed("enter the Landlock domain", "landlock_restrict_self")(
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
        )
    })
}
