//! What is put over existing paths: masks, read-only views, private files.

use std::path::Path;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;

use super::create::write_all;
use super::mount::{Depth, attach, copy_mount, restrict};
use super::root::{Missing, Root, RootKind, is_kernel_interface};
use super::stage::Stage;

/// Hides `target`, if it exists.
pub(super) fn mask(root: &mut Root, stage: &mut Stage, target: &Path) -> Result<()> {
    let place = match root.open_covered(target) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result?,
    };
    let cover = match FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) {
        FileType::Directory => stage.empty_dir()?,
        _ => stage.null_file()?,
    };
    attach(cover, place)
}

/// Makes `target` and everything mounted below it read-only, if it exists.
pub(super) fn read_only(root: &mut Root, target: &Path) -> Result<()> {
    let place = match root.open_covered(target) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result?,
    };
    let view = copy_mount(&place, Depth::Tree)?;
    restrict(&view, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Tree)?;
    attach(view, place)
}

/// Why a private file could not be put in place, in a form that follows
/// "TARGET: ".
pub(super) type Skipped = Option<String>;

/// Puts a file with `content` at `target`, without writing to anything of the
/// host: in a tmpfs root it is simply created, elsewhere it is mounted over.
pub(super) fn file(
    root: &mut Root,
    stage: &mut Stage,
    target: &Path,
    content: &[u8],
) -> Result<Skipped> {
    if root.kind() == RootKind::Tmpfs && write_in_tmpfs(root, target, content)? {
        return Ok(None);
    }
    let place = match root.open(target) {
        Err(Errno::NOENT) if root.kind() == RootKind::HostRoot => {
            return Ok(Some(
                "does not exist on the host, where nothing is created".to_owned(),
            ));
        }
        // Never in a volume: that is some directory of the host.
        Err(Errno::NOENT) => root.ensure(target, Missing::File, ResolveFlags::NO_XDEV),
        result => result,
    };
    let place = match place {
        Ok(place) => place,
        Err(
            error @ (Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::ROFS
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::EXIST
            | Errno::OVERFLOW),
        ) => return Ok(Some(std::io::Error::from(error).to_string())),
        Err(error) => return Err(error),
    };
    let is_file = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode)
        == FileType::RegularFile
        && !is_kernel_interface(&place)?;
    if !is_file {
        return Ok(Some("is not a regular file".to_owned()));
    }
    let name = target.file_name().ok_or(Errno::INVAL)?;
    attach(stage.file(name, content)?, place)?;
    Ok(None)
}

/// Writes `target` if it is, or can be, an ordinary file of the root mount
/// itself: not of a volume, and not by way of a link.
fn write_in_tmpfs(root: &Root, target: &Path, content: &[u8]) -> Result<bool> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = match root.open_as(target, flags, resolve) {
        Err(Errno::NOENT) => match root.ensure(target, Missing::File, resolve) {
            Ok(_) => root.open_as(target, flags, resolve),
            Err(error) => Err(error),
        },
        result => result,
    };
    match opened {
        Ok(file) => {
            write_all(&file, content)?;
            Ok(true)
        }
        Err(Errno::XDEV | Errno::LOOP | Errno::NOENT | Errno::ISDIR | Errno::NXIO) => Ok(false),
        Err(error) => Err(error),
    }
}
