//! The new root: paths beneath it, resolved by fd.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// As many links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: u8 = 40;
/// Tries when a lookup of `..` races with renames (openat2(2), `EAGAIN`).
const MAX_RACES: u8 = 100;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// What the root is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootKind {
    /// A tmpfs of our own.
    Tmpfs,
    /// A directory of the host.
    Directory,
    /// The host's own root directory.
    HostRoot,
}

/// What to make where something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A directory.
    Directory,
    /// An empty file, to mount a file on.
    File,
}

/// A mount of ours whose content is looked up through this fd, whatever has
/// become of the path by which it was mounted.
#[derive(Debug)]
struct Anchor {
    path: PathBuf,
    mount: OwnedFd,
}

/// The root directory of the container, before it is `/`.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    kind: RootKind,
    anchors: Vec<Anchor>,
    /// The directory that the last object was created in: a root filesystem
    /// is hundreds of links in one directory.
    last_parent: Option<(PathBuf, OwnedFd)>,
}

impl Root {
    pub(super) fn new(dir: OwnedFd, kind: RootKind) -> Self {
        Self {
            dir,
            kind,
            anchors: Vec::new(),
            last_parent: None,
        }
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn kind(&self) -> RootKind {
        self.kind
    }

    /// Opens what `path` leads to inside the root (`O_PATH`).
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        self.open_as(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Opens `path` inside the root.
    pub(super) fn open_as(
        &self,
        path: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        open_in_root(&self.dir, path, flags, Mode::from_raw_mode(0o644), resolve)
    }

    /// Opens what `path` leads to; what is missing of it is created.
    /// With `ResolveFlags::NO_XDEV` only on the root mount itself.
    pub(super) fn ensure(
        &self,
        path: &Path,
        missing: Missing,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        self.ensure_following(path, missing, resolve, MAX_LINKS)
    }

    fn ensure_following(
        &self,
        path: &Path,
        missing: Missing,
        resolve: ResolveFlags,
        links: u8,
    ) -> Result<OwnedFd> {
        match self.open_as(path, OFlags::PATH, resolve) {
            Err(Errno::NOENT) => {}
            found_or_failed => return found_or_failed,
        }
        let (parent, name) = split(path)?;
        let dir = self.ensure_following(parent, Missing::Directory, resolve, links)?;
        match make(&dir, name, missing) {
            // Something is there, and yet the path leads nowhere: a dangling
            // link, or a name that another process has just made.
            Err(Errno::EXIST) => match rustix::fs::readlinkat(&dir, name, Vec::new()) {
                Ok(to) => {
                    let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                    let to = OsString::from_vec(to.into_bytes());
                    self.ensure_following(&parent.join(to), missing, resolve, links)
                }
                Err(Errno::INVAL) => self.open_as(path, OFlags::PATH, resolve),
                Err(error) => Err(error),
            },
            made_or_failed => made_or_failed,
        }
    }

    /// Opens what an ordinary mount goes on; created when missing.
    ///
    /// A path outside `/proc` and `/sys` must not lead into them: a link in
    /// the root filesystem could otherwise steer a mount over procfs files
    /// (CVE-2019-16884).
    pub(super) fn mount_point(&mut self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        self.last_parent = None;
        if !path
            .components()
            .any(|part| matches!(part, std::path::Component::Normal(_)))
        {
            return Err(Errno::INVAL);
        }
        let target = self.ensure(path, missing, ResolveFlags::empty())?;
        let kernel = is_kernel_interface(&target)?;
        if kernel && !path.starts_with("/proc") && !path.starts_with("/sys") {
            return Err(Errno::LOOP);
        }
        Ok(target)
    }

    /// Opens the directory that a kernel file system goes on. No part of its
    /// path may be a link (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579).
    pub(super) fn fixed_mount_point(&mut self, path: &Path) -> Result<OwnedFd> {
        self.last_parent = None;
        let target = self.ensure(path, Missing::Directory, ResolveFlags::NO_SYMLINKS)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) {
            FileType::Directory => Ok(target),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Remembers that `mount` is what is at `path`.
    pub(super) fn add_anchor(&mut self, path: &Path, mount: OwnedFd) {
        self.anchors.push(Anchor {
            path: path.to_owned(),
            mount,
        });
    }

    /// The mount that was put at `path`.
    pub(super) fn anchor(&self, path: &Path) -> Option<&OwnedFd> {
        self.anchors
            .iter()
            .rev()
            .find(|anchor| anchor.path == path)
            .map(|anchor| &anchor.mount)
    }

    /// Opens an existing path that is to be covered. Beneath a mount of ours
    /// it is looked up in that mount, so that nothing which happens to the
    /// root filesystem meanwhile can lead a mask astray (CVE-2025-31133).
    pub(super) fn open_covered(&mut self, path: &Path) -> Result<OwnedFd> {
        self.last_parent = None;
        for anchor in self.anchors.iter().rev() {
            match path.strip_prefix(&anchor.path) {
                Ok(rest) if !rest.as_os_str().is_empty() => {
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                    return open(&anchor.mount, rest, OFlags::PATH, Mode::empty(), resolve);
                }
                _ => {}
            }
        }
        self.open(path)
    }

    /// Opens the parent of `path`, which is created when missing.
    pub(super) fn parent_of<'a>(&mut self, path: &'a Path) -> Result<(&OwnedFd, &'a OsStr)> {
        let (parent, name) = split(path)?;
        let cached = self.last_parent.take_if(|(last, _)| last == parent);
        let entry = match cached {
            Some(entry) => entry,
            None => {
                let dir = self.ensure(parent, Missing::Directory, ResolveFlags::empty())?;
                (parent.to_owned(), dir)
            }
        };
        let (_, dir) = self.last_parent.insert(entry);
        Ok((dir, name))
    }
}

/// Whether this is a file of procfs or sysfs.
pub(super) fn is_kernel_interface(file: impl AsFd) -> Result<bool> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(kind == PROC_SUPER_MAGIC || kind == SYSFS_MAGIC)
}

/// Opens `path` as a process whose root directory is `dir` would.
pub(super) fn open_in_root(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open(dir, path, flags, mode, resolve)
}

fn open(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    // openat2(2) takes a mode only where it may create.
    let mode = if flags.contains(OFlags::CREATE) {
        mode
    } else {
        Mode::empty()
    };
    let mut races = 0;
    loop {
        match rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if races < MAX_RACES => races += 1,
            result => return result,
        }
    }
}

/// Makes `name` in `dir` and opens exactly what was made.
fn make(dir: &OwnedFd, name: &OsStr, missing: Missing) -> Result<OwnedFd> {
    match missing {
        Missing::Directory => {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::empty())
        }
        Missing::File => {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))
        }
    }
}

/// Splits a path into its directory and last component, as text: a `..` or a
/// link before it keeps the meaning that the kernel gives it.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(0, |last| last + 1);
    let (trimmed, _) = bytes.split_at(end);
    let start = trimmed
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (parent, name) = trimmed.split_at(start);
    if name.is_empty() {
        return Err(Errno::INVAL);
    }
    let parent = if parent.is_empty() {
        b"/".as_slice()
    } else {
        parent
    };
    Ok((
        Path::new(OsStr::from_bytes(parent)),
        OsStr::from_bytes(name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_keeps_the_text() {
        let halves = |path: &'static str| {
            let (parent, name) = split(Path::new(path)).unwrap();
            (
                parent.to_str().unwrap().to_owned(),
                name.to_str().unwrap().to_owned(),
            )
        };
        assert_eq!(halves("/a"), ("/".into(), "a".into()));
        assert_eq!(halves("/a/b//"), ("/a/".into(), "b".into()));
        assert_eq!(halves("a"), ("/".into(), "a".into()));
        assert_eq!(halves("/a/.."), ("/a/".into(), "..".into()));
        assert_eq!(split(Path::new("/")).unwrap_err(), Errno::INVAL);
        assert_eq!(split(Path::new("")).unwrap_err(), Errno::INVAL);
    }
}
