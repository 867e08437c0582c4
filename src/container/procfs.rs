//! The kernel's own procfs, never the container's.
//!
//! # Theory of operation
//! What the container shows as `/proc` may be anything (CVE-2025-52881,
//! CVE-2019-19921), so init takes hold of one before anything of the container
//! is mounted: the host's, which its new mount namespace starts with, or where
//! that is covered (a container in a container) a detached mount of its own. It
//! is checked to be procfs, and paths are resolved beneath it by descriptor
//! without crossing a mount or a link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Pid;

/// A directory that is the root of a procfs.
#[derive(Debug)]
pub(super) struct Procfs {
    directory: OwnedFd,
    /// Children that are none of the container's.
    spared: Vec<Pid>,
}

impl Procfs {
    /// Takes hold of one. For the parent and for init before its first step.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let host = rustix::fs::open("/proc", flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(Self::check);
        match host {
            Ok(host) if host.open_beneath("sys/kernel", flags).is_ok() => Ok(host),
            // Not there or covered; where the kernel refuses one of our own,
            // what there is has to do.
            host => Self::detached().or(host),
        }
    }

    /// Another hold of the same.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            spared: self.spared.clone(),
        })
    }

    /// The children that this process has now are never killed: whoever called us may have
    /// had them before it became us.
    pub(super) fn spare_children(&mut self) -> io::Result<()> {
        self.spared = self.own_children()?;
        Ok(())
    }

    fn detached() -> io::Result<Self> {
        let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Self::check(mount)
    }

    fn check(directory: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fstatfs(&directory)?.f_type == PROC_SUPER_MAGIC {
            Ok(Self {
                directory,
                spared: Vec::new(),
            })
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOTSUP))
        }
    }

    /// Opens `path` beneath it: no mount is crossed and no magic link followed.
    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(
            &self.directory,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    fn read(&self, path: &str) -> io::Result<String> {
        io::read_to_string(std::fs::File::from(
            self.open_beneath(path, OFlags::RDONLY)?,
        ))
    }

    /// The children of this process (`/proc/thread-self/children`); for a
    /// program of one thread these are all that it has.
    fn own_children(&self) -> io::Result<Vec<Pid>> {
        Ok(pids(&self.read("thread-self/children")?))
    }

    /// The children of `pid`, as far as it still lives and may be looked at.
    fn children(&self, pid: Pid) -> Vec<Pid> {
        let tasks = self.open_beneath(&format!("{pid}/task"), OFlags::RDONLY | OFlags::DIRECTORY);
        let Ok(tasks) = tasks.and_then(rustix::fs::Dir::new) else {
            return Vec::new();
        };
        let threads = tasks
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        threads
            .filter(|thread| !thread.starts_with('.'))
            .filter_map(|thread| self.read(&format!("{pid}/task/{thread}/children")).ok())
            .flat_map(|text| pids(&text))
            .collect()
    }

    /// Kills and reaps every descendant of this process but the children in
    /// `keep`, until none is left. The process must be a child subreaper
    /// (PR_SET_CHILD_SUBREAPER(2const)), so that an orphan becomes its child.
    pub(super) fn kill_descendants(&self, keep: &[Pid]) -> io::Result<()> {
        loop {
            let children = self.of_container(self.own_children()?, keep);
            if children.is_empty() {
                return Ok(());
            }
            self.kill_all(&children);
            reap(&children);
        }
    }

    /// Kills the children of `parent`, of one thread, but those in `keep`, and all
    /// below them, once; returns the children.
    pub(super) fn kill_children_of(&self, parent: Pid, keep: &[Pid]) -> io::Result<Vec<Pid>> {
        let text = self.read(&format!("{parent}/task/{parent}/children"))?;
        let children = self.of_container(pids(&text), keep);
        self.kill_all(&children);
        Ok(children)
    }

    /// Those that are neither spared nor among `keep`.
    fn of_container(&self, mut pids: Vec<Pid>, keep: &[Pid]) -> Vec<Pid> {
        pids.retain(|pid| !keep.contains(pid) && !self.spared.contains(pid));
        pids
    }

    /// Kills these and all below them.
    pub(super) fn kill_all(&self, roots: &[Pid]) {
        let mut all = roots.to_vec();
        let mut seen = 0;
        while let Some(pid) = all.get(seen).copied() {
            all.extend(self.children(pid));
            seen += 1;
        }
        for pid in all {
            // Gone by itself is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Waits for the end of these children.
pub(super) fn reap(children: &[Pid]) {
    for child in children {
        // One that is none any more has been reaped.
        let _ = rustix::io::retry_on_intr(|| {
            let id = rustix::process::WaitId::Pid(*child);
            rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED)
        });
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn pids(text: &str) -> Vec<Pid> {
    text.split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_procfs_will_do() {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let sys = rustix::fs::open("/sys", flags, Mode::empty()).unwrap();
        assert!(Procfs::check(sys).is_err());
        let proc = Procfs::open().unwrap();
        assert!(proc.read("sys/kernel/ostype").unwrap().starts_with("Linux"));
        assert_eq!(
            proc.read("self/cwd/Cargo.toml").unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
    }
}
