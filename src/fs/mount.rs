//! The few mount operations that everything else is made of, all on fds.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::config::MountFlags;
use crate::sys::mount::{MountChange, mount_setattr};

/// What every mount that holds only data has.
pub(super) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// An option of a new file system.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opt<'a> {
    /// `key`
    Flag(&'a str),
    /// `key=value`
    Value(&'a str, &'a str),
}

/// Makes a new instance of file system `kind`, mounted nowhere yet.
pub(super) fn new_mount(kind: &str, options: &[Opt<'_>], attrs: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What the mount table shows in the first column.
    fsconfig_set_string(&context, "source", kind)?;
    for option in options {
        match *option {
            Opt::Flag(key) => fsconfig_set_flag(&context, key)?,
            Opt::Value(key, value) => fsconfig_set_string(&context, key, value)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// How much of a tree to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Just this mount.
    Top,
    /// And every mount below it.
    Tree,
}

/// Copies the mount(s) at `source` (a bind mount), mounted nowhere yet.
/// The copy has the attributes of the original, locked ones included.
pub(super) fn copy_mount(source: impl AsFd, depth: Depth) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(source, "", flags)
}

/// Adds attributes to a mount, or to every mount of a tree.
pub(super) fn restrict(mount: impl AsFd, attrs: MountAttrFlags, depth: Depth) -> Result<()> {
    if attrs.is_empty() {
        return Ok(());
    }
    let recursive = depth == Depth::Tree;
    mount_setattr(
        mount,
        &MountChange {
            set: attrs,
            recursive,
            ..MountChange::default()
        },
    )
}

/// Puts a mount that is mounted nowhere on what `target` refers to.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// The attributes that a plan asks for, as the kernel writes them.
pub(super) fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut attrs = MountAttrFlags::empty();
    attrs.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    attrs.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.nosuid);
    attrs.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.nodev);
    attrs.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, flags.noexec);
    attrs.set(MountAttrFlags::MOUNT_ATTR_NOATIME, flags.noatime);
    attrs
}
