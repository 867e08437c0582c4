//! The staging mount: where a container's tree is put together.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::mount::{Depth, INERT, Opt, attach, copy_mount, new_mount, restrict};
use super::root::{Root, open_in_root};
use crate::config::DeviceNode;

/// Where the host's tree is within the stage.
const HOST: &str = "host";
/// Where the new root is put together.
const ROOT: &str = "root";
/// An empty read-only directory to hide directories with.
const EMPTY: &str = "empty";
/// The null device, to hide files with.
const NULL: &str = "null";

/// A private tmpfs that is the root directory of the process while the
/// container's tree is put together. Nothing of the host is hidden by it, as
/// any other place for it would, and no copy of a host tree can contain it.
#[derive(Debug)]
pub(super) struct Stage {
    top: OwnedFd,
    host: OwnedFd,
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
    files: u32,
}

impl Stage {
    /// Makes the stage and moves the process into it.
    pub(super) fn enter() -> Result<Self> {
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let host = rustix::fs::open("/", dir, Mode::empty())?;
        let top = new_mount("tmpfs", &[Opt::Value("mode", "700")], INERT)?;
        for name in [HOST, ROOT, EMPTY] {
            rustix::fs::mkdirat(&top, name, Mode::RWXU)?;
        }
        // It covers the host's root only until the next call has swapped them.
        attach(&top, &host)?;
        rustix::process::fchdir(&top)?;
        rustix::process::pivot_root(".", HOST)?;
        Ok(Self {
            top,
            host,
            empty: None,
            null: None,
            files: 0,
        })
    }

    /// Opens a path of the host, as the host itself resolves it.
    pub(super) fn open_host(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        open_in_root(
            &self.host,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::empty(),
        )
    }

    /// Opens the host's device node `/dev/name`, if it is the character
    /// device that it should be.
    pub(super) fn open_host_device(&self, name: &str, major: u32, minor: u32) -> Result<OwnedFd> {
        let node = DeviceNode {
            block: false,
            major,
            minor,
        };
        self.open_device(&Path::new("/dev").join(name), node)
    }

    /// Opens a device node of the host, if it is what it should be. No part of its path
    /// may be a link.
    pub(super) fn open_device(&self, path: &Path, wanted: DeviceNode) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::NO_SYMLINKS;
        let node = open_in_root(&self.host, path, flags, Mode::empty(), resolve)?;
        let stat = rustix::fs::fstat(&node)?;
        let kind = if wanted.block {
            FileType::BlockDevice
        } else {
            FileType::CharacterDevice
        };
        let is_kind = FileType::from_raw_mode(stat.st_mode) == kind;
        if is_kind && stat.st_rdev == rustix::fs::makedev(wanted.major, wanted.minor) {
            Ok(node)
        } else {
            Err(Errno::NODEV)
        }
    }

    /// Opens the host's root directory itself.
    pub(super) fn host(&self) -> &OwnedFd {
        &self.host
    }

    /// Mounts `mount` as the new root of the container.
    pub(super) fn attach_root(&self, mount: &OwnedFd) -> Result<()> {
        attach(mount, self.open_own(ROOT)?)
    }

    /// A copy of an empty, read-only directory, mounted nowhere yet. All
    /// copies share one file system.
    pub(super) fn empty_dir(&mut self) -> Result<OwnedFd> {
        let empty = match self.empty.take() {
            Some(empty) => empty,
            None => {
                let options = [Opt::Flag("ro"), Opt::Value("mode", "755")];
                let attrs = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
                let empty = new_mount("tmpfs", &options, attrs)?;
                attach(&empty, self.open_own(EMPTY)?)?;
                empty
            }
        };
        let copy = copy_mount(&empty, Depth::Top);
        self.empty = Some(empty);
        copy
    }

    /// A copy of the host's null device, mounted nowhere yet.
    pub(super) fn null_file(&mut self) -> Result<OwnedFd> {
        let null = match self.null.take() {
            Some(null) => null,
            None => {
                let null = copy_mount(self.open_host_device("null", 1, 3)?, Depth::Top)?;
                let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                restrict(&null, attrs, Depth::Top)?;
                let place = self.create_own(OsStr::new(NULL))?;
                attach(&null, place)?;
                null
            }
        };
        let copy = copy_mount(&null, Depth::Top);
        self.null = Some(null);
        copy
    }

    /// A private file with this content, mounted nowhere yet.
    pub(super) fn file(&mut self, name: &OsStr, content: &[u8]) -> Result<OwnedFd> {
        let file = match self.create_own(name) {
            // The second of this name gets a directory of its own.
            Err(Errno::EXIST) => {
                self.files = self.files.wrapping_add(1);
                let dir = self.files.to_string();
                rustix::fs::mkdirat(&self.top, &dir, Mode::RWXU)?;
                self.create_own(Path::new(&dir).join(name).as_os_str())
            }
            result => result,
        }?;
        super::create::write_all(&file, content)?;
        copy_mount(file, Depth::Top)
    }

    /// Makes the new root the root directory of the process, and takes away
    /// the stage with all of the host's tree.
    pub(super) fn leave(self, root: &Root) -> Result<()> {
        rustix::process::fchdir(root.dir())?;
        // The stage ends up on top of the new root, whence it is removed; no
        // directory has to be made for it (pivot_root(2), NOTES).
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(&self.top)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    }

    fn open_own(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.top, name, flags, Mode::empty())
    }

    fn create_own(&self, name: &OsStr) -> Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.top, name, flags, Mode::from_raw_mode(0o644))
    }
}
