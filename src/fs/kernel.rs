//! The kernel's own file systems: procfs, sysfs, cgroup2, and sysctls.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use super::mount::{Depth, INERT, attach, copy_mount, new_mount, restrict};
use super::root::{Root, is_kernel_interface};
use super::stage::Stage;
use crate::config::SysctlOwner;

const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
const READ_ONLY: MountAttrFlags = INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// What is mounted below a host's sysfs and is of no use in a container.
/// Absent in a sysfs of our own.
const SYSFS_MOUNTS: [&str; 9] = [
    "firmware/efi/efivars",
    "fs/bpf",
    "fs/fuse/connections",
    "fs/pstore",
    "fs/resctrl",
    "kernel/config",
    "kernel/debug",
    "kernel/security",
    "kernel/tracing",
];

/// Where a kernel file system came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A new instance, which shows the container's own namespaces.
    New,
    /// The outer one, which shows the outer namespaces.
    Outer,
}

/// Mounts procfs. The kernel refuses a new one where the PID namespace is not
/// ours (`--pid=host`) and where parts of the outer one are hidden (in another
/// container), since ours would show them.
pub(super) fn mount_proc(root: &mut Root, stage: &Stage, target: &Path) -> Result<Origin> {
    let place = root.fixed_mount_point(target)?;
    let (proc, origin) = match new_mount("proc", &[], INERT) {
        Ok(proc) => (proc, Origin::New),
        Err(Errno::PERM) => (outer(stage, "/proc", INERT)?, Origin::Outer),
        Err(error) => return Err(error),
    };
    attach(&proc, place)?;
    root.add_anchor(target, proc);
    Ok(origin)
}

/// Mounts sysfs read-only. The kernel refuses a new one where the network
/// namespace is not ours.
pub(super) fn mount_sysfs(root: &mut Root, stage: &mut Stage, target: &Path) -> Result<Origin> {
    let place = root.fixed_mount_point(target)?;
    let (sysfs, origin) = match new_mount("sysfs", &[], READ_ONLY) {
        Ok(sysfs) => (sysfs, Origin::New),
        Err(Errno::PERM) => (outer(stage, "/sys", READ_ONLY)?, Origin::Outer),
        Err(error) => return Err(error),
    };
    attach(&sysfs, place)?;
    if origin == Origin::Outer {
        for path in SYSFS_MOUNTS {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&sysfs, path, flags, Mode::empty()) {
                Ok(dir) => attach(stage.empty_dir()?, dir)?,
                Err(Errno::NOENT | Errno::ACCESS) => {}
                Err(error) => return Err(error),
            }
        }
    }
    root.add_anchor(target, sysfs);
    Ok(origin)
}

/// Copies the host's file system at `path` with everything mounted below it:
/// an ordinary user may not take it without what hides parts of it.
fn outer(stage: &Stage, path: &str, attrs: MountAttrFlags) -> Result<OwnedFd> {
    let source = stage.open_host(Path::new(path), OFlags::PATH | OFlags::DIRECTORY)?;
    if !is_kernel_interface(&source)? {
        return Err(Errno::NODEV);
    }
    let copy = copy_mount(source, Depth::Tree)?;
    restrict(&copy, attrs, Depth::Tree)?;
    Ok(copy)
}

/// Shows the container's cgroup, read-only, where the host uses cgroup v2
/// alone; elsewhere, an empty directory, so that no other cgroup shows.
pub(super) fn mount_cgroup(root: &mut Root, stage: &mut Stage, target: &Path) -> Result<()> {
    let place = match root.open_covered(target) {
        // sysfs has no such directory: a kernel without cgroups.
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let cgroup = if has_cgroup2(stage)? {
        match new_mount("cgroup2", &[], READ_ONLY) {
            // The cgroup namespace is not ours, and would show the host's.
            Err(Errno::PERM) => stage.empty_dir()?,
            result => result?,
        }
    } else {
        stage.empty_dir()?
    };
    attach(cgroup, place)
}

fn has_cgroup2(stage: &Stage) -> Result<bool> {
    match stage.open_host(Path::new("/sys/fs/cgroup"), OFlags::PATH) {
        Ok(dir) => Ok(rustix::fs::fstatfs(dir)?.f_type == CGROUP2_SUPER_MAGIC),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a sysctl through the procfs at `proc`: nothing but a file of that
/// very mount is written to (CVE-2025-52881), and the key is that of a
/// namespace and can name no other file (CVE-2022-0811).
pub(super) fn write_sysctl(proc: &OwnedFd, key: &str, value: &str) -> Result<()> {
    if SysctlOwner::of(key).is_none() {
        return Err(Errno::INVAL);
    }
    let path = format!("sys/{}", key.replace('.', "/"));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)?;
    super::create::write_all(&file, value.as_bytes())
}
