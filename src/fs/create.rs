//! Files, directories and links beneath the new root.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::root::Root;
use super::stage::Stage;
use crate::plan::FileKind;

/// Creates `kind` at `target`; an object of the same kind is left alone.
pub(super) fn create(root: &mut Root, stage: &Stage, target: &Path, kind: &FileKind) -> Result<()> {
    let (dir, name) = match root.parent_of(target) {
        // The root itself, which is there.
        Err(Errno::INVAL) if matches!(kind, FileKind::Directory { .. }) => return Ok(()),
        result => result?,
    };
    let made = match kind {
        FileKind::Directory { mode } => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(*mode)),
        FileKind::Regular { mode, content } => {
            new_file(dir, name, *mode).and_then(|file| write_all(&file, content))
        }
        FileKind::CopyOf { mode, source } => {
            let source = stage.open_host(source, OFlags::RDONLY | OFlags::NONBLOCK)?;
            if FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode) != FileType::RegularFile
            {
                return Err(Errno::INVAL);
            }
            new_file(dir, name, *mode).and_then(|file| copy_all(&source, &file))
        }
        FileKind::Symlink { to } => rustix::fs::symlinkat(to, dir, name),
    };
    match made {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let wanted = match kind {
                FileKind::Directory { .. } => FileType::Directory,
                FileKind::Regular { .. } | FileKind::CopyOf { .. } => FileType::RegularFile,
                FileKind::Symlink { .. } => FileType::Symlink,
            };
            if FileType::from_raw_mode(stat.st_mode) == wanted {
                Ok(())
            } else {
                Err(Errno::EXIST)
            }
        }
        made => made,
    }
}

fn new_file(dir: &OwnedFd, name: &std::ffi::OsStr, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))
}

/// Writes all of `content`.
pub(super) fn write_all(file: &OwnedFd, mut content: &[u8]) -> Result<()> {
    while !content.is_empty() {
        match rustix::io::write(file, content) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => content = content.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies all of `source` without its bytes passing through this process.
pub(super) fn copy_all(source: &OwnedFd, file: &OwnedFd) -> Result<()> {
    /// As much as sendfile(2) moves at once.
    const MOST: usize = 0x7fff_f000;
    loop {
        match rustix::fs::sendfile(file, source, None, MOST) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
