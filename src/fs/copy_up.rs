//! `tmpcopyup`: what a directory has, copied to the tmpfs that will lie over it.
//!
//! The directory is the container's and may be hostile: everything in it is opened by
//! descriptor from its parent's, no link is followed and no mount entered, and how
//! deep that goes is bounded. What is no file, directory, link or FIFO is left out.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid};
use rustix::io::{Errno, Result};

use super::create::copy_all;

/// How many directories may lie in one another.
const DEPTH: u32 = 100;

/// Copies what is in `from` to `to`. With `dress`, `to` also gets its owner and mode.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd, dress: bool) -> Result<()> {
    let (from, to) = (open_directory(from, c".")?, open_directory(to, c".")?);
    copy_directory(&from, &to, DEPTH)?;
    if dress {
        set_attributes(&to, &rustix::fs::fstat(&from)?)?;
    }
    Ok(())
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    open(parent, name, flags)
}

fn open(parent: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Errno::NAMETOOLONG);
    };
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let copy = open_directory(to, name)?;
                match open_directory(from, name) {
                    Ok(dir) => copy_directory(&dir, &copy, depth)?,
                    // Another mount: its place is kept.
                    Err(Errno::XDEV) => {}
                    Err(error) => return Err(error),
                }
                set_attributes(&copy, &stat)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                match open(
                    from,
                    name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK,
                ) {
                    Ok(file) => {
                        let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                        // As it is now, whatever it was a moment ago.
                        let stat = rustix::fs::fstat(&file)?;
                        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                            return Err(Errno::AGAIN);
                        }
                        copy_all(&file, &copy)?;
                        set_attributes(&copy, &stat)?;
                    }
                    // A file mounted over it.
                    Err(Errno::XDEV) => {
                        rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&link, to, name)?;
                let (uid, gid) = owner(&stat);
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                accept_foreign(rustix::fs::chownat(to, name, uid, gid, flags))?;
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

/// Owner before mode, since a change of owner takes set-user-ID away.
fn set_attributes(copy: &OwnedFd, stat: &Stat) -> Result<()> {
    let (uid, gid) = owner(stat);
    accept_foreign(rustix::fs::fchown(copy, uid, gid))?;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(copy, &times)
}

/// An owner whom the container does not have (it shows as `nobody`) cannot be given
/// anything: what was theirs is the container's root's.
fn accept_foreign(changed: Result<()>) -> Result<()> {
    match changed {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        changed => changed,
    }
}
