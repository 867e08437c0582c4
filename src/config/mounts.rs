//! What is mounted into a container.

use std::path::PathBuf;

use serde::Serialize;

/// What to mount where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountSpec {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// How.
    pub flags: MountFlags,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MountKind {
    /// A host path, with everything mounted below it.
    Bind {
        /// Absolute, existing host path.
        source: PathBuf,
        /// What reaches it of what is mounted below it, and from it.
        propagation: Propagation,
        /// Its files belong to the container's ids of the same number.
        idmap: bool,
    },
    /// A fresh tmpfs.
    Tmpfs(Tmpfs),
    /// A device of the host.
    Device {
        /// Absolute host path, without links.
        source: PathBuf,
        /// What is there.
        node: DeviceNode,
    },
}

impl MountSpec {
    /// Whether mounts made below it in the container are to reach the host.
    pub fn is_shared(&self) -> bool {
        matches!(
            self.kind,
            MountKind::Bind {
                propagation: Propagation::Shared,
                ..
            }
        )
    }
}

/// How mounts propagate (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// From the host to the container.
    Slave,
    /// Both ways, as far as the user namespace lets them.
    Shared,
}

/// A device, by what it is and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeviceNode {
    /// A block device, not a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Mount attributes (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MountFlags {
    /// `MOUNT_ATTR_RDONLY`
    pub read_only: bool,
    /// `MOUNT_ATTR_NOSUID`
    pub nosuid: bool,
    /// `MOUNT_ATTR_NODEV`
    pub nodev: bool,
    /// `MOUNT_ATTR_NOEXEC`
    pub noexec: bool,
    /// `MOUNT_ATTR_NOATIME`; only of a new file system.
    pub noatime: bool,
}

/// A tmpfs (tmpfs(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Mode of its root. `None`: with `copy_up` that of the directory below it, else
    /// [`Tmpfs::MODE`].
    pub mode: Option<u32>,
    /// Size limit in bytes.
    pub size: Option<u64>,
    /// Most files in it.
    pub inodes: Option<u64>,
    /// Owner of its root, a user of the container; 0 unless given.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
    /// It begins with a copy of what the directory has that it is mounted on.
    pub copy_up: bool,
}

impl Tmpfs {
    /// Sticky and writable by all, as `/tmp` is.
    pub const MODE: u32 = 0o1777;
}
